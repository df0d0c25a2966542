"""The thread executor: batches in anyio's worker threads.

Each call sees a copy of the caller's context variables. A thread cannot be killed: when a run is cancelled, the stop flag
keeps further calls from starting, and the batch is abandoned to its current call. The thread counts as lent until that
call has ended, so that `max_workers` holds also for abandoned ones.
"""

from __future__ import annotations

import threading
from functools import partial

import anyio
import anyio.to_thread

from asyncpar.background import LoopHandle
from asyncpar.cpus import resolve_max_workers
from asyncpar.executors.base import Executor, Parcel, Worker
from asyncpar.outcomes import BatchDone
from asyncpar.workers.control import STOP, private_page
from asyncpar.workers.run_batch import BatchReport, run_batch


class ThreadWorker(Worker):
    """A place for one batch at a time in some thread."""

    def __init__(self, executor: ThreadExecutor) -> None:
        self._executor = executor

    async def run(self, parcel: Parcel) -> BatchDone:
        job = _Job(parcel, LoopHandle(), self._executor)
        try:
            report = await anyio.to_thread.run_sync(job.run, abandon_on_cancel=True, limiter=self._executor.thread_limiter)
        except BaseException:
            self.detained = job.abandon()
            raise
        return BatchDone(parcel.batch, *report, job.thread_name, parcel.batch.rest(len(report.values)))


class ThreadExecutor(Executor[ThreadWorker]):
    """Runs calls in up to `max_workers` threads of this process (default: as many as processors).

    Nothing is copied or pickled. Cancelling a run starts no further call; a call that is running is abandoned.

    >>> import anyio, asyncpar
    >>> async def main():
    ...     async with asyncpar.ThreadExecutor(2) as executor:
    ...         return await asyncpar.pmap(len, ["a", "bb"], executor=executor)
    >>> anyio.run(main)
    [1, 2]
    """

    def __init__(self, max_workers: int | None = None) -> None:
        super().__init__(resolve_max_workers(max_workers))
        self._limiter: anyio.CapacityLimiter | None = None

    @property
    def thread_limiter(self) -> anyio.CapacityLimiter:
        """Ours, not the loop's default one: our lending is the limit, and other users of threads keep their share."""
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(float("inf"))
        return self._limiter

    async def _start_worker(self) -> ThreadWorker:
        return ThreadWorker(self)

    def forget_abandoned(self) -> None:
        """An abandoned call has ended, so its place is free again."""
        self._forget_worker()


class _Job:
    """One batch in its thread, and the agreement on who frees its place when it is abandoned."""

    def __init__(self, parcel: Parcel, loop: LoopHandle, executor: ThreadExecutor) -> None:
        self._parcel = parcel
        self._loop = loop
        self._executor = executor
        self._page = private_page()
        self._lock = threading.Lock()
        self._running = False
        self._abandoned = False
        self.thread_name = ""

    def run(self) -> BatchReport:
        with self._lock:
            if self._abandoned:  # before it began
                return BatchReport([], {}, [])
            self._running = True
        self.thread_name = threading.current_thread().name
        try:
            return self._run_calls()
        finally:
            if self._end():
                self._loop.call_soon(self._executor.forget_abandoned)

    def _end(self) -> bool:
        """No call is running any more; returns whether the batch has been abandoned meanwhile."""
        with self._lock:
            self._running = False
            return self._abandoned

    def abandon(self) -> bool:
        """Starts no further call; returns whether one is still running."""
        self._page[STOP] = 1
        with self._lock:
            self._abandoned = True
            return self._running

    def _run_calls(self) -> BatchReport:
        program, columns, budget = self._parcel.program, self._parcel.batch.columns, self._parcel.budget
        if not program.concurrency:
            return run_batch(program.fn, columns, self._page, budget, program.stop_on_error)
        import asyncio

        from asyncpar.workers.run_coroutines import run_coroutines

        run = partial(run_coroutines, concurrency=program.concurrency, stop_on_error=program.stop_on_error)
        return asyncio.run(run(program.fn, columns, self._page, budget))
