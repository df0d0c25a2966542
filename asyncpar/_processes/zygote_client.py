"""The parent's end of a zygote: starting it, asking it to fork and to kill, and hearing how its workers ended.

Forking a worker takes one record with three descriptors over the control socket. It needs no answer, because the worker answers
over its own channel. Reports stay in the control socket until a task waits for one, and that task reads for all. A worker has
ended when the zygote has reaped it, or when the zygote itself is gone, since its workers end with it.

Preloading may take long, and nothing waits for a zygote that still preloads. A worker that is killed before the zygote has
started is later forked and killed at once. A zygote that is to end before it has started is killed.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Sequence

import anyio

from asyncpar._child.control import PID, POSITION, SPAN, make_nameless_file, map_page, running_calls, unmap_page
from asyncpar._child.leftovers import end_group
from asyncpar._child.protocol import EXITED, FORK, KILL, KILLED, NOT_FORKED, STARTED, Record, attach, unpack_records
from asyncpar._memory.loans import RESULTS, Loans, Mappings, map_ledgers
from asyncpar._platform.own_imports import settled_modules
from asyncpar._processes.memory_watch import MemoryWatch
from asyncpar._processes.shortages import A_PROCESS, explained_shortage
from asyncpar._processes.verdicts import LastSeen
from asyncpar._processes.zygote_start import absolute_search_path, refuse_unless_supported, spawn_zygote
from asyncpar._wire.async_channel import AsyncChannel, close_copy

_ENDS = (EXITED, KILLED)
_EXIT_SECONDS = 5.0  # far longer than the zygote needs after its grace; reached only on a badly overloaded machine


class ForkedProcess:
    """A forked worker as its parent sees it: a channel, a control page, the loans to it, and in the end an exit report."""

    def __init__(self, worker_id: int, channel: AsyncChannel, file_fd: int, page: memoryview[float], loans: Loans) -> None:
        self.worker_id = worker_id
        self.channel = channel
        self.file_fd = file_fd
        self.page = page
        self.loans = loans
        self.far_end: socket.socket | None = None  # of the channel, until the zygote has it
        self.last_seen = LastSeen(0, 0)  # on the control page, when it was unmapped
        self.last_running: list[tuple[int, int]] | None = []  # coroutine calls, then; see `running_calls`
        self.ended = False
        self._closed = False
        self.report: Record | None = None  # stays None if the zygote was lost

    def close(self) -> None:
        """Releases the parent's resources for the worker, which must have ended."""
        if not self._closed:
            self._closed = True
            self.send_off()
            self.channel.close()
            self.loans.end()
            os.close(self.file_fd)
            self.last_seen = LastSeen(int(self.page[POSITION]), int(self.page[SPAN]))
            self.last_running = running_calls(self.page)
            unmap_page(self.page)

    def send_off(self) -> None:
        """Closes the far end, because the zygote has it, or will not need it."""
        if self.far_end is not None:
            self.far_end.close()
            self.far_end = None

    def let_go(self) -> None:
        """Releases this process's resources for the worker without telling the worker or the event loop: in a forked copy, or
        when that loop is closed.
        """
        if not self._closed:
            self._closed = self.ended = True
            self.send_off()
            self.channel.leave()
            os.close(self.file_fd)
            unmap_page(self.page)

    @property
    def group(self) -> int:
        """The process group that it leads, with everything that its calls have started; 0 if that is not known."""
        return 0 if self._closed else int(self.page[PID])

    def describe_end(self) -> str:
        """How it ended, for an error message."""
        if self.report is None:
            return "ended together with the process that forks workers"
        if self.was_cut_off:
            return "closed its connection to its parent, as os.execv or os.closerange in a call do, and was killed for that"
        if self.signal is not None:
            return f"was killed by {_name_of_signal(self.signal)}"
        return f"exited with code {self.exit_code}"

    @property
    def pid(self) -> int:
        return self.report.pid if self.report is not None else 0

    @property
    def start_error(self) -> int | None:
        """The errno with which starting it failed, if it was never started."""
        return self.report.code if self.report is not None and self.report.kind == NOT_FORKED else None

    @property
    def was_cut_off(self) -> bool:
        """Whether the parent had it killed while it was still alive."""
        return self.signal == signal.SIGKILL and self.report is not None and self.report.kind == KILLED

    @property
    def signal(self) -> int | None:
        """The signal that killed it, if there was one."""
        return os.WTERMSIG(self._status) if self._status is not None and os.WIFSIGNALED(self._status) else None

    @property
    def was_killed(self) -> bool:
        """Whether it was ended by a SIGKILL that was not ours, for example for lack of memory."""
        return self.signal == signal.SIGKILL and not self.was_cut_off

    @property
    def exit_code(self) -> int | None:
        """Its exit code, if it exited."""
        return os.WEXITSTATUS(self._status) if self._status is not None and os.WIFEXITED(self._status) else None

    @property
    def peak_memory(self) -> int | None:
        """The most memory that it held, in bytes, including the memory that it shares with the zygote."""
        return self.report.peak_memory if self.report is not None and self.report.kind in _ENDS else None

    @property
    def _status(self) -> int | None:
        return self.report.code if self.report is not None and self.report.kind in _ENDS else None


class Zygote:
    """A running zygote; made by `start_zygote`."""

    def __init__(self, control: socket.socket, pid: int, grace: float) -> None:
        self._control = control
        self._pid = pid
        self._grace = grace
        self._workers: dict[int, ForkedProcess] = {}  # {worker id: worker} for those that have not ended
        self._last_id = 0
        self._reading = anyio.Lock()
        self._sending = anyio.Lock()
        self._unsent: list[Record] = []
        self._partial = b""  # of a record
        self._started = False
        self.memory_watch = MemoryWatch()
        self.alive = True

    @property
    def has_served(self) -> bool:
        """Whether it has ever been ready."""
        return self._started

    @property
    def has_workers(self) -> bool:
        """Whether there are workers that have not been seen to end."""
        return bool(self._workers)

    async def fork(self, arguments_fd: int) -> ForkedProcess:
        """Asks for a worker, which gets the file of arguments. It will answer on its channel, or a report will say why not.

        Raises:
            ConnectionError: the zygote is gone.
            ExecutorUnavailableError: the system has no resources left for the worker's channel or its file.
        """
        with explained_shortage(A_PROCESS):
            worker = self._make_worker()
            await self._send_off(worker, arguments_fd)
        return worker

    def _make_worker(self) -> ForkedProcess:
        with contextlib.ExitStack() as undo:
            file_fd = make_nameless_file(RESULTS)
            undo.callback(os.close, file_fd)
            page = map_page(file_fd)
            undo.callback(unmap_page, page)
            near_end, far_end = socket.socketpair()
            undo.callback(near_end.close)
            undo.callback(far_end.close)
            arguments, results = map_ledgers(file_fd)
            undo.pop_all()
        self._last_id += 1
        channel = AsyncChannel(near_end, Mappings(file_fd, results))
        worker = ForkedProcess(self._last_id, channel, file_fd, page, Loans(arguments))
        worker.far_end = far_end
        return worker

    async def _send_off(self, worker: ForkedProcess, arguments_fd: int) -> None:
        """Sends the worker's descriptors to the zygote."""
        assert worker.far_end is not None, "it has just been made"
        self._workers[worker.worker_id] = worker  # now: a copy that is forked while this waits must also let go of it
        try:
            await self._send(Record(FORK, worker.worker_id), worker.far_end.fileno(), worker.file_fd, arguments_fd)
        except BaseException:
            self._workers.pop(worker.worker_id, None)
            worker.close()
            raise
        worker.send_off()

    def kill(self, worker: ForkedProcess) -> None:
        """Sends SIGKILL through the zygote, which knows whether the process is still that worker."""
        if not self._has_started():
            worker.ended = True  # before it begins
        request = Record(KILL, worker.worker_id)
        try:
            self._control.send(request.pack())
        except BlockingIOError:  # hundreds of requests are under way; `wait_ended` sends this one first
            self._unsent.append(request)
        except OSError:  # the zygote is gone, and so are its workers
            return

    async def wait_ended(self, worker: ForkedProcess) -> None:
        """Returns when the worker has ended."""
        while self._unsent:
            request = self._unsent[0]
            with contextlib.suppress(OSError):  # as above
                await self._send(request)
            if request in self._unsent:  # only now, in case this task is cancelled before; sending it twice does no harm
                self._unsent.remove(request)
        await self._read_until(lambda: worker.ended)

    async def aclose(self) -> None:
        """Ends the zygote, which ends its workers, and waits until it is reaped."""
        with contextlib.suppress(OSError):  # it went first
            self._control.shutdown(socket.SHUT_WR)
        with anyio.move_on_after(self._grace):
            await self._read_until(lambda: self._started or not self.alive)
        if self._started:
            with anyio.move_on_after(self._grace + _EXIT_SECONDS):
                await self._read_until(lambda: not self.alive)
        if self.alive:  # and will not end by itself
            self._see_end()

    def end_without_loop(self) -> None:
        """Does the same if nothing can be awaited because the event loop is closed. Blocks for as long as workers may take."""
        for worker in self._workers.values():
            worker.let_go()
        with contextlib.suppress(OSError):  # it went first
            self._control.shutdown(socket.SHUT_WR)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        began = time.monotonic()
        while self.alive:
            patience = self._grace + (_EXIT_SECONDS if self._started else 0.0)
            left = began + patience - time.monotonic()
            if left <= 0:
                self._see_end()
            elif poll.poll(left * 1000):
                self._take_reports()

    def leave_to_original(self) -> None:
        """In a forked copy of this process: releases the zygote and its workers without any of them noticing.

        Copies of sockets are closed but not shut down, since a shutdown would end the original's connections. The event loop is
        not told, because the copy shares its selector with the original.
        """
        self.alive = False
        close_copy(self._control)
        self._unsent.clear()
        for worker in self._workers.values():
            worker.let_go()

    async def _send(self, record: Record, *descriptors: int) -> None:
        async with self._sending:
            while self.alive:
                try:
                    self._control.sendmsg([record.pack()], attach(descriptors))
                    return
                except BlockingIOError:
                    await anyio.wait_writable(self._control)
        raise ConnectionResetError("the process that forks workers has ended")

    async def _read_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            async with self._reading:
                if not condition():
                    await self._read_reports()

    def _has_started(self) -> bool:
        if self.alive and not self._started and not self._reading.locked():  # else a task is already waiting for that
            self._take_reports()
        return self._started

    async def _read_reports(self) -> None:
        with contextlib.suppress(anyio.ClosedResourceError):  # another task has seen the end
            await anyio.wait_readable(self._control)
            self._take_reports()

    def _take_reports(self) -> None:
        """Reads the zygote's reports that have arrived. The end of the socket is the end of the zygote."""
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
            self._started |= record.kind == STARTED
            worker = self._workers.pop(record.worker_id, None)
            if worker is not None:
                worker.report = record
                worker.ended = True

    def _see_end(self) -> None:
        """The control socket has ended, and with it the zygote."""
        if not self.alive:
            return
        self.alive = False
        with contextlib.suppress(RuntimeError):  # there is no event loop, and so no waiting task
            anyio.notify_closing(self._control)
        close_copy(self._control)
        _see_off(self._pid, [worker.group for worker in self._workers.values()])
        for worker in self._workers.values():
            worker.ended = True
        self._workers.clear()


def _name_of_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _see_off(pid: int, groups: Sequence[int]) -> None:
    """Reaps a zygote, and ends its group and those of its workers. A zygote that was killed has not done so itself.

    A zygote ends by `_exit`. If it is still there, its control socket was closed from within, or it is not a zygote.
    """
    with contextlib.suppress(ChildProcessError):  # other code in this program waits for every child
        if not hasattr(os, "waitid"):
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            return
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            os.kill(pid, signal.SIGKILL)
        end = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        if end is None or end.si_code != os.CLD_EXITED or end.si_status:
            for group in (pid, *groups):
                end_group(group)
        os.waitpid(pid, 0)


def start_zygote(preload: Sequence[str], grace: float) -> Zygote:
    """Starts a zygote. Workers can be requested at once.

    Raises:
        ExecutorUnavailableError: there can be no zygote on this platform, or no interpreter could be started.
    """
    refuse_unless_supported()
    config = {
        "parent_pid": os.getpid(),
        "path": absolute_search_path(),
        "settled": settled_modules(),
        "preload": tuple(preload),
        "grace": grace,
    }
    data = pickle.dumps(config)
    with explained_shortage(A_PROCESS):
        ours, theirs = socket.socketpair()
        try:
            pid = spawn_zygote(theirs)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it is gone: the next request for a worker will fail
        ours.sendall(struct.pack("<Q", len(data)) + data)
    ours.setblocking(False)
    return Zygote(ours, pid, grace)
