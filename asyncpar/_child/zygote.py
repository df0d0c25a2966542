"""The zygote: a small process that forks workers on request, reaps them, and never outlives its parent.

It is started once for each process executor, as a program of its own. It is single-threaded, so that forking it is safe and
cheap: a worker is ready in a millisecond, with cloudpickle and the user's `preload` modules already imported.

Guarantees:
- It forks exactly the workers it is asked for, and reports the end of each: wait status and peak memory.
- It kills a worker only while that worker has not been reaped, so no signal ever goes to a reused process id.
- A worker leads a process group. The group contains everything that a call has started or forked and that has not left it. When
  the worker ends, in whatever way, the group is killed before the worker is reaped (if there is `waitid`; otherwise only
  together with a worker that is killed). The zygote adopts processes that have left the group (on Linux), and kills them at its
  own end (`_child/leftovers.py`).
- If its parent dies while it still preloads, the kernel kills it (on Linux), since it would not notice that itself.
- When the control socket ends, or the parent is gone (even by SIGKILL, even if a forked copy of the parent still holds
  the socket), it gives the workers `grace` seconds to exit, kills those that have not exited, and exits.
- When the zygote itself is killed, the kernel kills its workers (on Linux). PR_SET_PDEATHSIG is tied to the *thread* that
  forked. That is reliable here, and only here, because the zygote has just one thread. The parent kills the groups of the
  workers as soon as it notices. If both are killed at once, programs that calls have started are left.

It sleeps in one `poll` on the control socket, the wake-up pipe of SIGCHLD, and a pidfd of the parent. If the system has no
pidfds, it checks its parent's id twice a second instead.

Refused: forking from the parent itself (deadlocks as soon as it has threads), `multiprocessing`'s fork server (7 ms a
worker, does not report how one died), and spawning a fresh interpreter for each worker (130 ms).
"""

from __future__ import annotations

import errno
import fcntl
import gc
import importlib
import os
import pickle
import resource
import select
import signal
import socket
import struct
import sys
import termios
import time
from contextlib import suppress
from typing import Any

import asyncpar._wire.pickler
import asyncpar._wire.tracebacks  # noqa: F401 - this, too
from asyncpar._child.leftovers import end_adopted
from asyncpar._child.multiprocessing_ties import watch_imports
from asyncpar._child.process_main import run_worker
from asyncpar._child.protocol import (
    EXITED,
    FORK,
    KILL,
    KILLED,
    NOT_FORKED,
    RECORD_SIZE,
    STARTED,
    ZYGOTE_MARK,
    Record,
    receive_with_descriptors,
    unpack_records,
)
from asyncpar._platform.own_imports import take_on_path

_PARENT_CHECK_SECONDS = 0.5  # only where there are no pidfds
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_DESCRIPTORS_EACH = 3  # of a worker: its channel, its own file, and the executor's with arguments


def main(control_fd: int) -> None:
    """The main program of the zygote and of each of its workers. Returns when this process has nothing more to do."""
    os.environ.pop(ZYGOTE_MARK, None)
    control = socket.socket(fileno=control_fd)
    config = _receive_config(control)
    _leave_terminal()
    os.chdir("/")
    _load_prctl()
    _die_with_parent(config["parent_pid"])
    take_on_path(config["path"], config["settled"])
    watch_imports()
    for module in config["preload"]:
        importlib.import_module(module)
    _outlive_parent()
    gc.freeze()  # so that collections in workers do not copy the pages they share
    descriptors = _Zygote(control, config).serve()
    if descriptors is not None:  # this is a worker, which has left the zygote's frame
        run_worker(*descriptors)


class _Zygote:
    def __init__(self, control: socket.socket, config: dict[str, Any]) -> None:
        self._control = control
        self._parent_pid: int = config["parent_pid"]
        self._grace: float = config["grace"]
        self._workers: dict[int, int] = {}  # {pid: worker id}, of those that are not reaped
        self._killed: set[int] = set()  # pids of those that the parent wanted killed
        self._partial = b""  # of a record
        self._descriptors: list[int] = []  # received, and not yet handed to a worker
        self._wakeup_reader, self._wakeup_writer = os.pipe()
        self._poll = select.poll()
        self._parent_fd = self._open_parent()

    def serve(self) -> list[int] | None:
        """Serves until the parent is gone, and returns None. Also returns in each new worker, with its descriptors."""
        os.set_blocking(self._wakeup_writer, False)
        signal.set_wakeup_fd(self._wakeup_writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for descriptor in (self._control.fileno(), self._wakeup_reader):
            self._poll.register(descriptor, select.POLLIN)
        self._report(STARTED)
        while not self._parent_is_gone():
            ready = {descriptor for descriptor, _ in self._poll.poll(self._patience())}
            if self._wakeup_reader in ready:
                os.read(self._wakeup_reader, 4096)
                self._reap()
            if self._control.fileno() in ready:
                records = self._receive_records()
                if records is None:
                    break
                for record in records:
                    if (worker := self._obey(record)) is not None:
                        return worker
        self._end_workers()
        return None

    def _open_parent(self) -> int | None:
        try:
            descriptor: int = os.pidfd_open(self._parent_pid)
        except (AttributeError, OSError):
            return None
        self._poll.register(descriptor, select.POLLIN)
        return descriptor

    def _patience(self) -> float | None:
        return None if self._parent_fd is not None else _PARENT_CHECK_SECONDS * 1000

    def _parent_is_gone(self) -> bool:
        return os.getppid() != self._parent_pid

    def _receive_records(self) -> list[Record] | None:
        try:
            data, descriptors, truncated = receive_with_descriptors(self._control, 64 * RECORD_SIZE, 64 * _DESCRIPTORS_EACH)
        except ConnectionResetError:
            return None
        if not data:
            return None
        if truncated:  # there was no room for all descriptors, and some without the others are of no use
            for descriptor in descriptors:
                os.close(descriptor)
            descriptors = []
        self._descriptors += descriptors
        records, self._partial = unpack_records(self._partial + data)
        return records

    def _obey(self, record: Record) -> list[int] | None:
        if record.kind == FORK:
            return self._fork(record.worker_id)
        if record.kind == KILL:
            self._reap()  # first: workers that have ended by themselves are reported as such
            for pid, worker_id in self._workers.items():
                if worker_id == record.worker_id:
                    self._killed.add(pid)
                    _kill_group(pid)
        return None

    def _fork(self, worker_id: int) -> list[int] | None:
        if len(self._descriptors) < _DESCRIPTORS_EACH:  # they were lost on the way, since this process has no room for more
            self._report(NOT_FORKED, worker_id, 0, errno.EMFILE)
            return None
        handed = self._descriptors[:_DESCRIPTORS_EACH]
        del self._descriptors[:_DESCRIPTORS_EACH]
        zygote_pid = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._report(NOT_FORKED, worker_id, 0, error.errno or 0)
            pid = -1
        if pid == 0:
            self._become_worker(zygote_pid)
            return handed
        if pid > 0:
            self._workers[pid] = worker_id
            _lead_group(pid)  # both processes do this, since either may come first
        for descriptor in handed:
            os.close(descriptor)
        return None

    def _become_worker(self, zygote_pid: int) -> None:
        """In the child: drops what belongs to the zygote, and arranges to die with it."""
        _die_with_parent(zygote_pid)
        _lead_group(0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._control.close()
        leftovers = [self._wakeup_reader, self._wakeup_writer, *self._descriptors]
        if self._parent_fd is not None:
            leftovers.append(self._parent_fd)
        for descriptor in leftovers:
            os.close(descriptor)

    def _reap(self, options: int = os.WNOHANG) -> None:
        while self._workers or options:  # processes that the zygote has adopted are reaped as well, but not waited for
            try:
                pid, status, usage = self._wait(options)
            except ChildProcessError:
                return
            if not pid:
                return
            worker_id = self._workers.pop(pid, None)
            if worker_id is not None:
                kind = KILLED if pid in self._killed else EXITED
                self._killed.discard(pid)
                scale = 1 if sys.platform == "darwin" else 1024
                self._report(kind, worker_id, pid, status, usage.ru_maxrss * scale)

    def _wait(self, options: int) -> tuple[int, int, Any]:
        """Does what `os.wait4` does for any child, but kills the group of a worker before it is reaped."""
        if not hasattr(os, "waitid"):
            return _wait4(-1, options)
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | options)
        if ended is None:
            return 0, 0, None
        if ended.si_pid in self._workers:
            _kill_group(ended.si_pid)
        return _wait4(ended.si_pid, 0)

    def _report(self, kind: int, worker_id: int = 0, *fields: int) -> None:
        try:
            self._control.sendall(Record(kind, worker_id, *fields).pack())
        except OSError:  # the parent is gone
            return

    def _end_workers(self) -> None:
        deadline = time.monotonic() + self._grace
        self._poll.unregister(self._control.fileno())
        if self._parent_fd is not None:
            self._poll.unregister(self._parent_fd)
        self._reap()
        while self._workers and (left := deadline - time.monotonic()) > 0:
            if self._poll.poll(left * 1000 + 1):
                os.read(self._wakeup_reader, 4096)
            self._reap()
        for pid in self._workers:
            _kill_group(pid)
        self._reap(options=0)
        end_adopted()
        os._exit(0)  # at once: the parent is waiting for the end of the control socket


def _lead_group(pid: int) -> None:
    with suppress(OSError):  # it already leads one, and may have done something else since
        os.setpgid(pid, pid)


def _kill_group(pid: int) -> None:
    """Kills a worker that has not been reaped, and its group."""
    for kill in (os.kill, os.killpg):  # the worker too, since a call may have moved it to another group
        with suppress(OSError):  # no process is left, or only those of another user
            kill(pid, signal.SIGKILL)


def _wait4(pid: int, options: int) -> tuple[int, int, Any]:
    """Does what `os.wait4` does, without importing `resource` each time: a preloaded module may need the user's `resource`."""
    theirs = sys.modules.get("resource")
    sys.modules["resource"] = resource
    try:
        return os.wait4(pid, options)
    finally:
        if theirs is None:
            del sys.modules["resource"]
        else:
            sys.modules["resource"] = theirs


def _receive_config(control: socket.socket) -> dict[str, Any]:
    (length,) = struct.unpack("<Q", _receive_exactly(control, 8))
    config: dict[str, Any] = pickle.loads(_receive_exactly(control, length))
    return config


def _receive_exactly(control: socket.socket, length: int) -> bytes:
    data = control.recv(length, socket.MSG_WAITALL)
    if len(data) < length:
        os._exit(0)  # the parent has changed its mind
    return data


def _leave_terminal() -> None:
    """Ignores the terminal's signals, and gives up the controlling terminal, for this process and those that it forks.

    In a background group, the terminal would stop a process that reads from it (SIGTTIN) or prints (`stty tostop`). Without a
    controlling terminal, a process that wants to read finds none, and one that prints is not stopped. A new session has the
    same effect, but Linux divides the processors among sessions: on a busy machine, each answer came 15 µs later.
    """
    for name in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:  # there is none
        return
    with suppress(OSError):
        fcntl.ioctl(terminal, termios.TIOCNOTTY)
    os.close(terminal)


_prctl: Any = None


def _load_prctl() -> None:
    global _prctl
    if sys.platform == "linux":
        import ctypes

        _prctl = ctypes.CDLL(None).prctl


def _outlive_parent() -> None:
    """From now on the zygote detects its parent's end itself. (The kernel's signal would come at the end of the thread that
    started it.) It also adopts processes that its workers leave behind.
    """
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _die_with_parent(parent_pid: int) -> None:
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:  # it died before that took effect
        os._exit(1)
