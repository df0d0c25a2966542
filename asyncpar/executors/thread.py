"""The thread executor: batches in anyio's worker threads, or in threads of its own.

Each batch of calls runs in a copy of the caller's context, and each coroutine call has a copy of its own. A thread cannot be
killed: when a run is cancelled, the stop flag keeps further calls from starting, and the batch is abandoned to its current
call. The thread counts as lent until that call has ended, so that `max_workers` holds also for abandoned ones. When a call
outlives its timeout, the thread is abandoned to it in the same way, but a fresh thread gets its place at once, because a run
whose threads are all stuck would otherwise wait forever.

anyio's threads are shared by the whole program, and a batch may run in any of them. If there is an initializer, each place has
a thread of its own instead (`stateful_thread.py`), because what an initializer makes may be bound to its thread. A thread that
is left to a call leaves its state, and ends, when that call has ended.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from typing import Any, TypeAlias

import anyio
import anyio.to_thread

from asyncpar._basics.validation import check_inner_threads, to_count
from asyncpar._basics.wording import in_words
from asyncpar._child.call_forms import Initializer, refuse_as_initializer
from asyncpar._child.control import POSITION, RECEIVED, STOP, private_page, seconds_left
from asyncpar._child.run_batch import BatchReport, run_batch
from asyncpar._contract.admission import WhenFull
from asyncpar._contract.batches import BatchDone, complete_timeouts, timed_out
from asyncpar._contract.executor import FREE, Fate, Parcel, Place, Traits
from asyncpar._contract.indices import free_index
from asyncpar._contract.lending import PooledExecutor
from asyncpar._contract.life import LEFT_OPEN, Life
from asyncpar._platform.background import LoopHandle
from asyncpar._platform.cpus import resolve_max_workers
from asyncpar._platform.current_worker import CurrentWorker, enter_thread
from asyncpar._platform.inner_threads import InnerThreads
from asyncpar._platform.nesting import enter_worker_thread
from asyncpar.executors.stateful_thread import StatefulThread

_LEAVING_SECONDS = 5.0  # that closing an executor waits for the states of its threads to be left; a guess

RunsCoroutines: TypeAlias = Callable[[Coroutine[Any, Any, BatchReport]], BatchReport]


class ThreadPlace(Place):
    """A place for one batch at a time in some thread.

    Args:
        run_in_thread: calls a function in a thread; when cancelled, it returns at once, and leaves the thread to itself.
        freed: called in the event loop when a call that kept its place has ended.
        is_replaceable: another thread takes the place of one that is left to itself.
        worker: what the calls see as their worker; None: the thread belongs to a pool that is not ours.
        run_in_loop: runs a coroutine in the thread, in a new event loop or in the thread's own.
    """

    def __init__(
        self,
        run_in_thread: Callable[[Callable[[], None]], Awaitable[None]],
        freed: Callable[[], None],
        *,
        is_replaceable: bool,
        worker: CurrentWorker | None = None,
        run_in_loop: RunsCoroutines | None = None,
    ) -> None:
        self._run_in_thread = run_in_thread
        self._freed = freed
        self._is_replaceable = is_replaceable
        self.worker = worker
        self._run_in_loop = run_in_loop
        self._left_to: weakref.ref[_Job] | None = None  # which the thread keeps for as long as it runs

    @property
    def index(self) -> int:
        assert self.worker is not None, "only workers of ours have indices"
        return self.worker.index

    @property
    def is_over(self) -> bool:
        """Whether nothing runs in it, nor ever will."""
        job = None if self._left_to is None else self._left_to()
        return self.fate is not FREE and (job is None or not job.is_running)

    async def run(self, parcel: Parcel) -> BatchDone:
        job = _Job(parcel, LoopHandle(), self._freed, self.worker, self._run_in_loop)
        timeout = parcel.program.timeout
        try:
            # Calls that overlap cannot be told apart from here; they have their timeouts in their own event loop
            if timeout is None or parcel.program.concurrency:
                await self._run_in_thread(job.run)
            elif (overdue := await self._run_until_overdue(job, timeout)) is not None:
                if self._is_replaceable:
                    self._leave_to(job, Fate.LEFT)
                elif job.abandon():
                    self._leave_to(job, Fate.DETAINED)
                return job.done_before(overdue, timeout)
        except BaseException:
            if job.abandon():
                self._leave_to(job, Fate.DETAINED)
            raise
        return job.done()

    def _leave_to(self, job: _Job, fate: Fate) -> None:
        self._left_to = weakref.ref(job)
        self.fate = fate

    async def _run_until_overdue(self, job: _Job, timeout: float) -> int | None:
        """Returns the position of a call that has run for too long, or None when all is done."""
        failure: Exception | None = None
        overdue = None

        async def run() -> None:
            nonlocal failure
            try:
                await self._run_in_thread(job.run)
            except Exception as error:  # raised below: a task group would wrap it
                failure = error
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            while (overdue := job.claim_overdue(timeout)) is None:  # noqa: ASYNC110 - no polling
                await anyio.sleep(max(0.0, seconds_left(job.page, timeout)))  # until the first could be overdue
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return overdue


class StatefulPlace(ThreadPlace):
    """A place in a thread of its own, which has a state."""

    def __init__(
        self, thread: StatefulThread, freed: Callable[[], None], worker: CurrentWorker, inner: InnerThreads | None
    ) -> None:
        run_in_thread = thread.run if inner is None else lambda job: thread.run(partial(inner.run, job))
        super().__init__(run_in_thread, freed, is_replaceable=True, worker=worker, run_in_loop=thread.run_in_loop)
        self._thread = thread

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive

    @property
    def is_ending(self) -> bool:
        """Whether no call runs in it, nor ever will. But it may still have its state."""
        return super().is_over

    async def set_up(self) -> None:
        """Runs the initializer. If it fails, or this task is cancelled, the thread ends."""
        try:
            await self._thread.set_up()
        except BaseException:
            self.end()
            raise

    async def run(self, parcel: Parcel) -> BatchDone:
        try:
            return await super().run(parcel)
        finally:
            if self.fate is not FREE:
                self._thread.end()

    def end(self) -> None:
        """It makes no more calls: its thread leaves the state, and ends."""
        self.fate = Fate.GONE
        self._thread.end()

    async def wait_ended(self) -> None:
        await self._thread.wait_ended()


class ThreadExecutor(PooledExecutor[ThreadPlace]):
    """Runs calls in up to `max_workers` threads of this process (default: as many as processors).

    Nothing is copied or pickled. Cancelling a run starts no further call; a call that is running is abandoned.

    Args:
        max_workers: how many threads there may be at once.
        initializer: called with `initargs` in each new thread, before its first call, as in `ProcessExecutor`. Each thread is
            then the executor's own, and its calls run in that very thread. Its state is left when the executor closes, which
            waits up to 5 seconds for that.
        initargs: arguments of the initializer.
        inner_max_num_threads: how many threads numerical libraries (BLAS, OpenMP) may use for each call while calls run here.
            That holds for the whole program meanwhile, and what the libraries had is restored after the last call. Libraries
            that are limited by this program's own environment (`OMP_NUM_THREADS` and the like) are left alone. It needs
            threadpoolctl, from the `threads` extra. None: those libraries decide.
        max_pending, when_full: limit what waits for a thread, as in `ProcessExecutor`.

    Raises:
        ExecutorUnavailableError: `inner_max_num_threads` is given, and threadpoolctl is not installed.
        ValueError: an argument is out of range.

    >>> import anyio, asyncpar
    >>> async def main():
    ...     async with asyncpar.ThreadExecutor(2) as executor:
    ...         return await asyncpar.pmap(len, ["a", "bb"], executor=executor)
    >>> anyio.run(main)
    [1, 2]

    >>> import contextlib, sqlite3
    >>> def connect():
    ...     return contextlib.closing(sqlite3.connect(":memory:"))
    >>> def square(x):
    ...     return asyncpar.current_worker().state.execute("SELECT ? * ?", (x, x)).fetchone()[0]
    >>> async def main():
    ...     async with asyncpar.ThreadExecutor(2, initializer=connect) as executor:
    ...         return await asyncpar.pmap(square, range(3), executor=executor)
    >>> anyio.run(main)
    [0, 1, 4]
    """

    traits = Traits(stops="between_calls")

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        inner_max_num_threads: int | None = None,
        max_pending: int | None = None,
        when_full: WhenFull = "wait",
    ) -> None:
        refuse_as_initializer(initializer, initargs)
        check_inner_threads(inner_max_num_threads)
        super().__init__(resolve_max_workers(max_workers), max_pending=max_pending, when_full=when_full)
        self._inner = None if inner_max_num_threads is None else InnerThreads(to_count(inner_max_num_threads))
        self._limiter: anyio.CapacityLimiter | None = None
        self._initializer = None if initializer is None else Initializer(initializer, tuple(initargs))
        self._places: set[ThreadPlace] = set()  # in which calls are made, or may still be
        self._life = Life(
            self.pool, anyio.sleep_forever, self._end_everything, self._end_without_loop
        )  # of threads with a state

    async def start_place(self) -> ThreadPlace:
        if self._initializer is not None:
            return await self._start_with_state(self._initializer)
        if self._limiter is None:  # ours, not the loop's: lending sets the limit, and other users of threads keep their share
            self._limiter = anyio.CapacityLimiter(float("inf"))
        run_in_thread = partial(anyio.to_thread.run_sync, abandon_on_cancel=True, limiter=self._limiter)
        if self._inner is not None:
            run_in_thread = partial(run_in_thread, self._inner.run)
        place = ThreadPlace(run_in_thread, self.pool.forget_one, is_replaceable=True, worker=self._new_worker())
        self._places.add(place)
        return place

    async def _start_with_state(self, initializer: Initializer) -> StatefulPlace:
        await self._life.begin()
        worker = self._new_worker()
        place = StatefulPlace(StatefulThread(initializer, worker), self.pool.forget_one, worker, self._inner)
        self._places.add(place)
        await place.set_up()
        return place

    def _new_worker(self) -> CurrentWorker:
        self._places = {place for place in self._places if not place.is_over}
        return CurrentWorker("thread", free_index(self._places, self.places))

    def drop_place(self, place: ThreadPlace) -> None:
        if isinstance(place, StatefulPlace):
            place.end()
        else:
            self._places.discard(place)

    async def shut_down(self) -> None:
        await self._life.end()

    async def _end_everything(self) -> None:
        """Threads that make calls end when those have ended; nothing waits for them."""
        self.pool.close()
        with anyio.move_on_after(_LEAVING_SECONDS, shield=True):
            for place in self._places:
                if isinstance(place, StatefulPlace) and place.is_ending:
                    await place.wait_ended()

    def _end_without_loop(self) -> None:
        """Called when the event loop has been closed: nothing can be awaited in it any more."""
        self._life.forget(LEFT_OPEN)
        for place in self._places:
            if isinstance(place, StatefulPlace):
                place.end()


class _Job:
    """One batch in its thread, and the agreement on who frees its place when it is abandoned."""

    def __init__(
        self,
        parcel: Parcel,
        loop: LoopHandle,
        freed: Callable[[], None],
        worker: CurrentWorker | None,
        run_in_loop: RunsCoroutines | None,
    ) -> None:
        self._parcel = parcel
        self._loop = loop
        self._freed = freed
        self._worker = worker
        self._run_in_loop = run_in_loop
        self.page = private_page()
        self._first_column: list[Any] = []  # a copy, so that it can be emptied
        self._report = BatchReport([], {}, [])
        self._lock = threading.Lock()
        self.is_running = False
        self._abandoned = False
        self._keeps_place = False
        self._thread_name = ""

    def run(self) -> None:
        with self._lock:
            if self._abandoned:  # before it began
                return
            self.is_running = True
            if not self._parcel.program.concurrency:
                self._first_column = list(self._parcel.batch.columns[0])
        self._thread_name = threading.current_thread().name
        enter_worker_thread()
        enter_thread(self._worker)
        try:
            self._report = self._run_calls()
        finally:
            self.page[POSITION] = RECEIVED
            if self._end():
                self._loop.call_soon(self._freed)

    def done(self) -> BatchDone:
        """What became of the batch, once it has run."""
        batch, report = self._parcel.batch, self._report
        complete_timeouts(batch, report.errors)
        return BatchDone(batch, *report, self._thread_name, batch.rest(len(report.values)))

    def done_before(self, position: int, timeout: float) -> BatchDone:
        """The same, if the call at `position` was left to itself: calls before it have ended, calls after it have not begun."""
        batch, (values, errors, timings) = self._parcel.batch, self._report
        errors = {before: errors[before] for before in range(position) if before in errors}
        errors[position] = timed_out(batch, position, timeout)
        ended = [*values[:position], None], errors, [*timings[:position], (1, timeout)]
        return BatchDone(batch, *ended, self._thread_name, batch.rest(position + 1))

    def _end(self) -> bool:
        """No call is running any more; returns whether its place still has to be freed."""
        with self._lock:
            self.is_running = False
            return self._keeps_place

    def abandon(self) -> bool:
        """Starts no further call; returns whether one is still running. That keeps its place until it ends."""
        self.page[STOP] = 1
        with self._lock:
            self._first_column.clear()  # within a stride the page is not looked at
            self._abandoned = self._keeps_place = True
            return self.is_running

    def claim_overdue(self, timeout: float) -> int | None:
        """Abandons the batch if a call has run for too long, and returns its position."""
        with self._lock:
            if seconds_left(self.page, timeout) > 0:
                return None
            self._abandoned = True
            return int(self.page[POSITION])

    def _leave(self, calls: int) -> bool:
        """Called between two calls: none is overdue, and whether the next may begin is settled before it does."""
        with self._lock:
            self.page[POSITION] = RECEIVED
            return self._abandoned

    def _run_calls(self) -> BatchReport:
        program, columns, budget = self._parcel.program, self._parcel.batch.columns, self._parcel.budget
        if not program.concurrency:
            singly, leave = (False, None) if program.timeout is None else (True, self._leave)
            return run_batch(
                program.fn,
                (self._first_column, *columns[1:]),
                self.page,
                budget,
                program.stop_on_error,
                singly=singly,
                near_end=self._parcel.batch.near_end,
                leave=leave,
                report=self._report,
            )
        import asyncio

        from asyncpar._child.run_coroutines import run_coroutines

        calls = run_coroutines(
            program.fn,
            columns,
            self.page,
            budget,
            concurrency=program.concurrency,
            stop_on_error=program.stop_on_error,
            timeout=program.timeout,
        )
        try:
            return (self._run_in_loop or asyncio.run)(calls)
        except (SystemExit, KeyboardInterrupt) as error:  # from a task that a call has started: asyncio ends its loop so
            raise RuntimeError(
                f"a task that was started by {self._parcel.batch.describe(0)}, or one of the {len(columns[0]) - 1} after it, "
                f"raised {in_words(error)}"
            ) from error
