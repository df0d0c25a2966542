"""The process executor: workers forked by a zygote, each spoken to over its own socket.

There is no thread, no queue and no polling between a run and its worker. This file keeps the pool: it starts the zygote at
first need, asks it for workers, retires those that have had nothing to do, and closes everything when its `async with` or
its event loop ends. The mechanisms are in `_processes/worker.py` (a batch and its worker), `_processes/parcel.py` (what is
sent), `_processes/zygote_client.py` and `_child/zygote.py` (how workers start and end), and `_wire` (how it travels).

A worker with old code is not lent any more. When a run begins and modules have been reloaded since the last one began
(`_processes/reloading.py`), idle workers are dismissed at once, and busy ones when they come back. They hang up at once, and
the task that looks after idle workers waits for their end. A zygote that has preloaded modules gets a successor, and ends when
its last worker has.

A pool belongs to the process that made it. In a forked copy of that process, every executor is closed before the fork returns
there. It sends nothing to its zygote or workers and leaves the event loop's selector alone, because the original goes on using
all of them. Maps in the copy that name an executor run in executors of its own.
"""

from __future__ import annotations

import operator
import os
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Sequence
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.lowlevel

from asyncpar._basics.validation import check_inner_threads, is_int, is_positive_int, to_bytes, to_count, to_seconds
from asyncpar._child.call_forms import Initializer
from asyncpar._child.control import make_nameless_file
from asyncpar._contract.admission import WhenFull
from asyncpar._contract.executor import FREE, Traits
from asyncpar._contract.life import LEFT_OPEN, Life
from asyncpar._memory.blocks import Area
from asyncpar._memory.placer import Placer
from asyncpar._platform.cpus import resolve_max_workers
from asyncpar._platform.first_imports import first_imports
from asyncpar._platform.memory import available_memory
from asyncpar._processes.carrying import check_contextvars
from asyncpar._processes.event_loops import EventLoops
from asyncpar._processes.frame_worker import check_initializer
from asyncpar._processes.sessions import FrameExecutor
from asyncpar._processes.worker import Limits, ProcessWorker
from asyncpar._processes.zygote_client import Zygote, start_zygote
from asyncpar._processes.zygote_start import describe_lost_start, refuse_unless_supported
from asyncpar.errors import ExecutorUnavailableError

LEAST_MEMORY = 1 << 25  # bytes; about what an interpreter holds by itself
_REST_SECONDS = 1.0  # without work, until shared memory is given back; warm pages are written three times as fast
_MOST_GRACE = 86_400.0  # a day: long enough, and the system counts it in milliseconds of 32 bits
_MOST_STARTS = 3  # for a worker that is killed each time before it is ready


class ProcessExecutor(FrameExecutor[ProcessWorker]):
    """Runs calls in up to `max_workers` processes (default: as many as processors).

    Workers are forked in about a millisecond from a small helper process, on demand, with the working directory,
    environment, `sys.path` and `sys.argv` of that moment. No `if __name__ == "__main__"` guard is needed: a worker never
    imports the main script. A function is sent to a worker once per run. Cancelling a run stops its workers at their next
    call, or kills them after `grace` seconds. Closing the executor leaves no process behind, and neither does the end of
    this program, SIGKILL included. Programs that a call has started, except those in a session of their own
    (`start_new_session=True`), are killed when its worker ends. Calls have no terminal.

    Args:
        max_workers: how many processes there may be at once.
        initializer: called with `initargs` in each new worker, before its first call. What it returns is the state of the
            worker, which `current_worker` gives. If that is a context manager or a generator, it is entered, and left when the
            worker ends. It may be asynchronous, and is then run in the worker's event loop. What it raises fails the run.
        initargs: arguments of the initializer.
        contextvars: context variables whose values go to workers. In each call, they have the values that they had where its
            run began, which are pickled with the function. Those that have none there have none in the call. What calls set
            reaches no other run. Each must be an attribute of a module, or of the script.
        preload: names of modules that are imported once and shared by all workers, which then start with them loaded. The
            modules must not start threads. Random generators in these modules draw the same numbers in all workers; the global
            ones of `random`, `numpy.random` and `torch` do not.
        inner_max_num_threads: how many threads numerical libraries may start in each worker. It is put into `OMP_NUM_THREADS`
            and the like in workers, unless this program's own environment has them. None: those libraries decide.
        max_calls_per_worker: how many calls a worker may make before it is replaced by a fresh one; None: any number.
        max_memory: bytes that a worker may hold, shared memory excluded; None: any number. A call that asks for
            more than is left gets a MemoryError, where the system can refuse (Linux); a worker that holds more after a call is
            replaced. Programs that calls start inherit the limit. No call is lost by either limit.
        max_shared_bytes: how much shared memory there may be for large arguments and results, half of it for each; the rest
            travels through sockets. None: a quarter of the memory that is available.
        idle_timeout: seconds after which a worker without work exits.
        grace: seconds that a worker has for stopping, or for leaving its state and exiting, by itself before it is killed.
        max_pending: how many calls and batches may wait for a worker; None: any number.
        when_full: what happens when as many are waiting. "wait": a call or a map that begins waits until there is room, with
            nothing pickled yet. "raise": it is refused with `ExecutorSaturatedError`.

    Raises:
        ExecutorUnavailableError: this platform cannot pass descriptors between processes (Windows), or this program does not
            run in a Python interpreter (`sys.executable`) of its own; frozen programs do not.
        ValueError: an argument is out of range.

    >>> import anyio, math, asyncpar
    >>> async def main():
    ...     async with asyncpar.ProcessExecutor(2) as executor:
    ...         return await asyncpar.pmap(math.factorial, range(5), executor=executor)
    >>> anyio.run(main)
    [1, 1, 2, 6, 24]

    >>> def compiled(pattern):
    ...     import re
    ...     yield re.compile(pattern)
    >>> def matches(text):
    ...     return bool(asyncpar.current_worker().state.match(text))
    >>> async def main():
    ...     async with asyncpar.ProcessExecutor(2, initializer=compiled, initargs=["a+$"]) as executor:
    ...         return await asyncpar.pmap(matches, ["aaa", "b"], executor=executor)
    >>> anyio.run(main)
    [True, False]
    """

    traits = Traits(stops="kill", interleaves=True)

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        contextvars: Collection[ContextVar[Any]] = (),
        preload: Sequence[str] = (),
        inner_max_num_threads: int | None = None,
        max_calls_per_worker: int | None = None,
        max_memory: int | None = None,
        max_shared_bytes: int | None = None,
        idle_timeout: float = 300,
        grace: float = 0.2,
        max_pending: int | None = None,
        when_full: WhenFull = "wait",
    ) -> None:
        refuse_unless_supported()
        check_process_arguments(
            initializer=initializer,
            preload=preload,
            inner_max_num_threads=inner_max_num_threads,
            max_calls_per_worker=max_calls_per_worker,
            max_memory=max_memory,
            max_shared_bytes=max_shared_bytes,
            idle_timeout=idle_timeout,
            grace=grace,
        )
        super().__init__(
            resolve_max_workers(max_workers), contextvars=contextvars, max_pending=max_pending, when_full=when_full
        )
        self.event_loops = self._loops = EventLoops(self.pool, self.release)
        self._initializer = None if initializer is None else Initializer(initializer, tuple(initargs))
        self._preload = tuple(preload)
        self._max_shared_bytes = available_memory() // 4 if max_shared_bytes is None else to_bytes(max_shared_bytes)
        self._limits = Limits(
            None if max_calls_per_worker is None else operator.index(max_calls_per_worker),
            None if max_memory is None else to_bytes(max_memory),
            None if inner_max_num_threads is None else to_count(inner_max_num_threads),
        )
        self._idle_timeout = to_seconds(idle_timeout)
        self._grace = min(to_seconds(grace), _MOST_GRACE)
        self._zygote: Zygote | None = None
        self._life = Life(self.pool, self._see_to_idle_workers, self._end_everything, self._end_without_loop)
        self._arguments: Area | None = None
        self._making_arguments = threading.Lock()
        self._rest_due: float | None = None
        self._something_due = anyio.Event()
        self._leaving: list[ProcessWorker] = []  # with old code; they have been told to end, and must be awaited
        self._old_zygotes: list[Zygote] = []  # which have preloaded old code, and wait for the end of their workers
        _executors.add(self)

    def make_placer(self, threshold: int) -> Placer:
        return Placer(self._get_arguments, threshold)

    def _get_arguments(self) -> Area:
        """Where large arguments are stored; made with the first worker or for the first of them, whichever comes first."""
        with self._making_arguments:
            if self._arguments is None:
                self._arguments = Area(make_nameless_file(0), 0, self._max_shared_bytes // 2, self._collect_loans)
            return self._arguments

    def _share_of_results(self) -> int:
        """How many bytes of results each worker may share now; the number of workers may have grown."""
        return self._max_shared_bytes // 2 // max(1, self.places)

    def grow(self, size: int) -> None:
        if size > self.places:
            super().grow(size)
            for worker in self._workers:
                worker.share_of_results = self._share_of_results()

    def _collect_loans(self) -> None:
        for worker in self._workers.copy():  # threads that pack collect, too
            worker.collect_loans()

    def release(self, worker: ProcessWorker) -> None:
        if worker.fate is not FREE:
            self._workers.discard(worker)
            if self._old_zygotes:
                self._something_due.set()
        elif worker.generation != self._generation:
            self._send_home(worker)
        elif not self.pool.has_waiters:
            self._note_idle(worker)
        self.pool.release(worker)

    def _note_idle(self, worker: ProcessWorker) -> None:
        worker.idle_since = time.monotonic()
        if worker.shares:
            if self._rest_due is None:
                self._something_due.set()
            self._rest_due = worker.idle_since + _REST_SECONDS

    def part_with_old_code(self) -> None:
        """Fresh workers are forked from now on; the run that wants them need not wait for the end of the others."""
        if self._preload and self._zygote is not None:
            self._old_zygotes.append(self._zygote)
            self._zygote = None
        for worker in self.pool.let_idle_go():
            self._send_home(worker)

    def _send_home(self, worker: ProcessWorker) -> None:
        worker.hang_up()
        self._leaving.append(worker)
        self._something_due.set()

    async def _see_off(self) -> None:
        """Waits for the end of the workers with old code, and ends the zygotes that are left without workers."""
        while self._leaving:
            worker = self._leaving[0]
            await worker.retire()
            self._leaving.remove(worker)
            self._workers.discard(worker)
        for zygote in [zygote for zygote in self._old_zygotes if not zygote.has_workers]:
            await zygote.aclose()
            self._old_zygotes.remove(zygote)

    async def start_place(self) -> ProcessWorker:
        await self._life.begin()
        attempts_left = _MOST_STARTS
        while True:
            worker = await self._fork()
            attempts_left -= 1
            try:
                await self._set_up(worker)
            except ExecutorUnavailableError:
                self.pool.refuse_if_closed()
                if not worker.was_killed or not attempts_left:
                    raise
            else:
                return worker

    async def _set_up(self, worker: ProcessWorker) -> None:
        self.enlist(worker)
        try:
            if self.pool.closed:  # meanwhile
                await worker.kill()
                self.pool.refuse_if_closed()
            await worker.set_up(self._initializer, self._limits)
        except BaseException:
            self._workers.discard(worker)
            if self._old_zygotes:
                self._something_due.set()
            raise

    async def _fork(self) -> ProcessWorker:
        zygote, born = self._zygote, self._generation  # before anything is awaited: modules may be reloaded meanwhile
        if zygote is not None and zygote.alive:
            try:
                return await self._make_worker(zygote, born)
            except ConnectionError:  # it has been killed, and that was not known before
                await zygote.aclose()
                self.pool.refuse_if_closed()  # or that was why
        if self._zygote is None or not self._zygote.alive:  # no other task has started one meanwhile
            self._zygote = start_zygote((*first_imports(), *self._preload) if self._preload else (), self._grace)
        zygote = self._zygote
        try:
            return await self._make_worker(zygote, born)
        except ConnectionError:
            await zygote.aclose()
            raise ExecutorUnavailableError(describe_lost_start()) from None

    async def _make_worker(self, zygote: Zygote, born: int) -> ProcessWorker:
        process = await zygote.fork(self._get_arguments().descriptor)
        return ProcessWorker(process, zygote, self._grace, born, self._share_of_results())

    async def shut_down(self) -> None:
        await self._life.end()
        await self._close_arguments()

    async def _end_everything(self) -> None:
        self.pool.close()
        workers = list(self._workers)  # also those that are given back meanwhile; they are of no use then
        with anyio.CancelScope(shield=True):
            for worker in workers:
                worker.hang_up()
            for zygote in self._all_zygotes():
                await zygote.aclose()
            for worker in workers:
                await worker.kill()
            await self._loops.wait_ended()
            await self._close_arguments()

    async def _close_arguments(self) -> None:
        await self._trim_arguments()
        if self._arguments is not None:
            self._arguments.close()

    async def _trim_arguments(self) -> None:
        while self._arguments is not None and self._arguments.trim():
            await anyio.lowlevel.checkpoint()

    async def _see_to_idle_workers(self) -> None:
        """Lets workers rest that have been idle for a moment, retires those that have been idle for long, and ends those with
        old code.
        """
        while True:
            self._something_due = anyio.Event()
            await self._see_off()
            oldest = self.pool.idle[0].idle_since if self.pool.idle else time.monotonic()
            retire_due = oldest + self._idle_timeout
            due = retire_due if self._rest_due is None else min(retire_due, self._rest_due)
            with anyio.move_on_after(max(due - time.monotonic(), 0)):
                await self._something_due.wait()
            if self._rest_due is not None and self._rest_due <= time.monotonic():
                await self._give_back_memory()
            if retire_due <= time.monotonic():
                await self._retire_idle_workers()

    async def _give_back_memory(self) -> None:
        """An idle executor holds next to nothing: results and arguments are kept only while something refers to them.

        Workers do not answer, and results may be released a little later, so workers are told twice.
        """
        self._rest_due = None
        for pause in (_REST_SECONDS / 10, _REST_SECONDS):
            for worker in self.pool.idle:
                worker.rest()
            await anyio.sleep(pause)
            self._collect_loans()
            await self._trim_arguments()
        if self._rest_due is None:  # no worker has worked meanwhile
            for worker in self.pool.idle:
                worker.shares = False

    async def _retire_idle_workers(self) -> None:
        expired = time.monotonic() - self._idle_timeout
        while self.pool.idle and self.pool.idle[0].idle_since <= expired:
            worker = self.pool.idle.pop(0)
            await worker.retire()
            self._workers.discard(worker)
            self.pool.forget_one()
        if not self.pool.started and self._zygote is not None:
            zygote = self._zygote
            await zygote.aclose()  # and forgotten only then: if this is cancelled, another task must do it
            if self._zygote is zygote:
                self._zygote = None

    def _leave_to_original(self) -> None:
        """Called in a forked copy of this process: the pool belongs to the original."""
        self._forget_all("belongs to the process from which this one was forked; make one in each process that needs one")
        for zygote in self._all_zygotes():
            zygote.leave_to_original()
        if self._arguments is not None:
            self._arguments.leave_to_original()

    def _end_without_loop(self) -> None:
        """Called when the event loop has been closed: nothing can be awaited in it any more."""
        for worker in self._workers:
            worker.let_go()
        self._forget_all(LEFT_OPEN)
        for zygote in self._all_zygotes():
            if zygote.alive:
                zygote.end_without_loop()
        self._zygote = None
        self._old_zygotes.clear()
        if self._arguments is not None:
            self._arguments.close()

    def _forget_all(self, why_closed: str) -> None:
        self._life.forget(why_closed)
        self._workers.clear()
        self._leaving.clear()
        self._something_due = anyio.Event()

    def _all_zygotes(self) -> list[Zygote]:
        return [*self._old_zygotes, *([] if self._zygote is None else [self._zygote])]


_executors: weakref.WeakSet[ProcessExecutor] = weakref.WeakSet()


def _leave_all_to_original() -> None:
    for executor in list(_executors):
        executor._leave_to_original()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all_to_original)


def check_process_arguments(
    *,
    initializer: object = None,
    initargs: object = (),
    contextvars: object = (),
    preload: object = (),
    inner_max_num_threads: object = None,
    max_calls_per_worker: object = None,
    max_memory: Any = None,
    max_shared_bytes: Any = None,
    idle_timeout: object = 1,
    grace: object = 1,
) -> None:
    """Refuses what a `ProcessExecutor` would refuse."""
    check_initializer(initializer, initargs, idle_timeout)
    check_contextvars(contextvars)
    if isinstance(preload, str):
        raise TypeError(f"preload must be a sequence of module names, such as [{preload!r}], not one string")
    if not isinstance(preload, Iterable) or not all(isinstance(name, str) for name in preload):
        raise TypeError(f"preload must be a sequence of module names, not {preload!r}")
    if not to_seconds(grace) >= 0:
        raise ValueError(f"grace must be a number of seconds, 0 or more, not {grace!r}")
    check_inner_threads(inner_max_num_threads)
    if max_shared_bytes is not None and not (is_int(max_shared_bytes) and to_bytes(max_shared_bytes) >= 0):
        raise ValueError(f"max_shared_bytes must be a number of bytes, 0 or more, or None, not {max_shared_bytes!r}")
    if max_calls_per_worker is not None and not is_positive_int(max_calls_per_worker):
        raise ValueError(f"max_calls_per_worker must be a number of calls, 1 or more, or None, not {max_calls_per_worker!r}")
    if max_memory is not None and not (is_int(max_memory) and to_bytes(max_memory) >= LEAST_MEMORY):
        raise ValueError(
            f"max_memory must be a number of bytes, or None, not {max_memory!r}; a worker alone holds up to {LEAST_MEMORY:_}"
        )
