"""The parent's end of a zygote: starting it, asking it to fork and to kill, and hearing how its workers ended.

Forking a worker is one record and two descriptors over the control socket and needs no answer: the worker speaks for itself
over its own channel. Reports lie in the control socket until somebody waits for one; whoever does reads for all. A worker
has ended when the zygote has reaped it, or when the zygote itself is gone, which takes its workers with it.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio

from asyncpar.errors import ExecutorUnavailableError
from asyncpar.wire.async_channel import AsyncChannel
from asyncpar.workers.control import POSITION, SPAN, make_page_file, map_page, unmap_page
from asyncpar.workers.protocol import EXITED, FORK, KILL, NOT_FORKED, Record, unpack_records

_CONTROL_FD = 3  # the first after stdin, stdout and stderr
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])
_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from asyncpar.workers.zygote import main; main(int(sys.argv[2]))"
_EXIT_SECONDS = 5.0  # far beyond what the zygote needs after its grace; only a machine in distress gets here


class WorkerProcess:
    """A forked worker as its parent sees it: a channel, a control page, and in the end an exit report."""

    def __init__(self, worker_id: int, channel: AsyncChannel, page: memoryview[float]) -> None:
        self.worker_id = worker_id
        self.channel = channel
        self.page = page
        self.last_position = self.last_span = 0  # on the control page, when it was given back
        self.ended = False
        self._closed = False
        self.report: Record | None = None  # stays None when the zygote was lost

    def close(self) -> None:
        """Gives back what the parent holds for the worker, which must have ended."""
        if not self._closed:
            self._closed = True
            self.channel.close()
            self.last_position = int(self.page[POSITION])
            self.last_span = int(self.page[SPAN])
            unmap_page(self.page)

    def describe_end(self) -> str:
        """How it ended, for an error message."""
        if self.report is None:
            return "ended together with the process that forks workers"
        if self.report.kind == NOT_FORKED:
            return f"could not be started: {os.strerror(self.report.code)}"
        if self.signal is not None:
            return f"was killed by {signal.Signals(self.signal).name}"
        return f"exited with code {self.exit_code}"

    @property
    def pid(self) -> int:
        return self.report.pid if self.report is not None else 0

    @property
    def signal(self) -> int | None:
        ended = self.report is not None and self.report.kind == EXITED and os.WIFSIGNALED(self.report.code)
        return os.WTERMSIG(self.report.code) if ended and self.report is not None else None

    @property
    def exit_code(self) -> int | None:
        ended = self.report is not None and self.report.kind == EXITED and os.WIFEXITED(self.report.code)
        return os.WEXITSTATUS(self.report.code) if ended and self.report is not None else None


class Zygote:
    """A running zygote; made by `start_zygote`."""

    def __init__(self, control: socket.socket, pid: int, grace: float) -> None:
        self._control = control
        self._pid = pid
        self._grace = grace
        self._workers: dict[int, WorkerProcess] = {}  # {worker id: worker}, of those that have not ended
        self._last_id = 0
        self._reading = anyio.Lock()
        self._partial = b""  # of a record
        self.alive = True

    def fork(self) -> WorkerProcess:
        """Asks for a worker; it will be heard on its channel, or of in its report."""
        ours, theirs = socket.socketpair()
        page_fd = make_page_file()
        try:
            self._last_id += 1
            worker = WorkerProcess(self._last_id, AsyncChannel(ours), map_page(page_fd))
            self._workers[worker.worker_id] = worker
            request = Record(FORK, worker.worker_id).pack()
            socket.send_fds(self._control, [request], [theirs.fileno(), page_fd])
        except OSError as error:
            ours.close()
            self._workers.pop(self._last_id, None)
            raise ExecutorUnavailableError(
                f"a worker process could not be requested: {error}; the process that forks workers may have been killed"
            ) from error
        finally:
            theirs.close()
            os.close(page_fd)
        return worker

    def kill(self, worker: WorkerProcess) -> None:
        """Sends SIGKILL through the zygote, which knows whether the process still is that worker."""
        with contextlib.suppress(OSError):  # the zygote is gone, and its workers with it
            self._control.send(Record(KILL, worker.worker_id).pack())

    async def wait_ended(self, worker: WorkerProcess) -> None:
        """Returns when the worker is no more."""
        while not worker.ended:
            async with self._reading:
                if not worker.ended:
                    await self._read_reports()

    async def aclose(self) -> None:
        """Ends the zygote, which ends its workers, and waits until it is reaped."""
        if not self.alive:
            return
        with contextlib.suppress(OSError):  # it went first
            self._control.shutdown(socket.SHUT_WR)
        with anyio.move_on_after(self._grace + _EXIT_SECONDS):
            while self.alive:
                async with self._reading:
                    if self.alive:
                        await self._read_reports()
        if self.alive:
            os.kill(self._pid, signal.SIGKILL)
            self._see_end()

    async def _read_reports(self) -> None:
        """Takes in what the zygote says next; its silence for ever is its end."""
        await anyio.wait_readable(self._control)
        try:
            data = self._control.recv(1 << 16)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self._see_end()
            return
        records, self._partial = unpack_records(self._partial + data)
        for record in records:
            worker = self._workers.pop(record.worker_id, None)
            if worker is not None:
                worker.report = record
                worker.ended = True

    def _see_end(self) -> None:
        """The control socket has ended, and with it the zygote: it leaves by `_exit` or is killed."""
        self.alive = False
        self._control.close()
        with contextlib.suppress(ChildProcessError):  # somebody else in this program waits for every child
            os.waitpid(self._pid, 0)
        for worker in self._workers.values():
            worker.ended = True
        self._workers.clear()


def start_zygote(preload: Sequence[str], grace: float) -> Zygote:
    """Starts a zygote; its workers can be asked for at once.

    Raises:
        ExecutorUnavailableError: this platform cannot have one, or no interpreter could be started.
    """
    refuse_unless_supported()
    ours, theirs = socket.socketpair()
    try:
        pid = _spawn(theirs.fileno())
        config = {"parent_pid": os.getpid(), "path": list(sys.path), "preload": tuple(preload), "grace": grace}
        data = pickle.dumps(config)
        ours.sendall(struct.pack("<Q", len(data)) + data)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    ours.setblocking(False)
    return Zygote(ours, pid, grace)


def refuse_unless_supported() -> None:
    """Raises `ExecutorUnavailableError` where processes cannot hand descriptors to each other."""
    if not hasattr(socket, "send_fds") or not hasattr(os, "posix_spawn"):
        raise ExecutorUnavailableError(
            f"process workers need Unix domain sockets that pass descriptors, which {sys.platform} does not have; "
            'use executor="thread", or executor="interpreter" in a release that has it'
        )
    if not sys.executable:
        raise ExecutorUnavailableError(
            "process workers are started with sys.executable, which is empty in this embedded Python; set it to the "
            'path of a Python interpreter, or use executor="thread"'
        )


def _spawn(control_fd: int) -> int:
    """An interpreter running the zygote, in a process group of its own, with the control socket as descriptor 3."""
    command = [sys.executable, "-P", *_interpreter_flags(), "-c", _PROGRAM, _PACKAGE_ROOT, str(_CONTROL_FD)]
    # An inheritable duplicate far above 3, so that dup2 in the child never meets its own source
    source = os.dup(control_fd) if control_fd != _CONTROL_FD else os.dup(os.dup(control_fd))
    try:
        os.set_inheritable(source, True)
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, source, _CONTROL_FD),
        ]
        return os.posix_spawn(sys.executable, command, os.environ, file_actions=actions, setpgroup=0)
    except OSError as error:
        raise ExecutorUnavailableError(f"{sys.executable} could not be started: {error}") from error
    finally:
        os.close(source)


def _interpreter_flags() -> list[str]:
    """The command-line options of this interpreter that change how code runs."""
    flags = ["-" + "O" * sys.flags.optimize] if sys.flags.optimize else []
    for letter, on in (("E", sys.flags.ignore_environment), ("s", sys.flags.no_user_site), ("S", sys.flags.no_site)):
        if on:
            flags.append(f"-{letter}")
    flags += [f"-W{option}" for option in sys.warnoptions]
    flags += [f"-X{name}" if value is True else f"-X{name}={value}" for name, value in sys._xoptions.items()]
    return flags
