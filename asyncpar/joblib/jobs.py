"""The jobs of one joblib backend, between `configure` and `terminate`. A job is what joblib submits: one batch of tasks.

    joblib's threads                         portal's thread
    start                    ── start ──►    opens a session in the executor
    submit(tasks, callback)  ── begin ──►    two jobs for each worker are begun: packed, sent in turn, read
    callback thread          ◄── job ──      a job is done
      callback(job): joblib pulls and submits more tasks
    wait(job)                                is woken by the callback thread, when the callback has returned
    end                      ── cancel ──►   cancels what is under way, and closes the session

# Guarantees

- **`submit` does not block.** joblib holds a lock meanwhile, which callbacks need.
- **Callbacks have a thread of their own**, because they pull the user's iterable. They are called one at a time, in the context
  of the code that called `start`.
- **A callback of a call that has been aborted comes to nothing.** It would count its tasks in the next call of the same
  `Parallel`. So the thread looks whether it may call back, and calls, while it holds the lock of the `Parallel`. The next call
  of that `Parallel` takes the lock before it begins. `end` does not wait for callbacks: they may be stuck in the iterable.
- **When `end` returns, no task is running any more** (`PortalRun`), and nobody waits for ever: each job is delivered once.
- **The first error wakes whoever waits**, and ends the pulling. joblib waits for one job after another, and would see an error
  only in its turn.

A flag says that a job is done or that one has failed, and messages only wake who waits, so an interrupt can lose none.

# begun <= 2 * n_jobs, turns held <= n_jobs
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from contextvars import copy_context
from functools import partial
from math import inf
from threading import TIMEOUT_MAX
from typing import Any

import anyio
import anyio.lowlevel

from asyncpar._contract.answers import read
from asyncpar._contract.batches import Batch, BatchDone, check_complete
from asyncpar._contract.errors_of_calls import annotate, keep_program_alive
from asyncpar._contract.executor import Answer, Executor, Hints, Parcel, Program, Session
from asyncpar._platform.background import is_own_cancellation
from asyncpar._platform.off_loop import run_off_loop
from asyncpar._sync.portal_run import PortalRun
from asyncpar._wire.unfinished import Hold, hold_unfinished_modules
from asyncpar.errors import ExecutorUnavailableError
from asyncpar.joblib.errors import as_joblib_raises, timed_out, unsendable
from asyncpar.joblib.tasks import Task, TaskBatch, call_task

_BEGUN_FOR_EACH = 2  # jobs for each worker: the second is packed while the first is running
_ENDED = "joblib.Parallel was ended before this result was there"


class Job:
    """One batch of tasks; what joblib calls a future. `first`: the number of its first task in the call."""

    def __init__(self, jobs: Jobs, first: int, tasks: Sequence[Task], callback: Callable[[Job], object]) -> None:
        self._jobs = jobs
        self.first = first
        self.tasks: Sequence[Task] = tasks
        self.callback: Callable[[Job], object] | None = callback
        self.values: list[Any] = []
        self.error: BaseException | None = None
        self.is_settled = False  # it is done, and its callback has returned
        self.woken: queue.SimpleQueue[None] = queue.SimpleQueue()

    def get(self, timeout: float | None = None) -> list[Any]:
        """Waits until it is done; see `Jobs.wait`. joblib 1.4 calls it by itself."""
        return self._jobs.wait(self, timeout)

    def result(self) -> list[Any]:
        """The values of the tasks, or raises the error of one. To be called once: neither is kept."""
        values, self.values = self.values, []
        error, self.error = self.error, None
        try:
            if error is not None:
                raise error
            return values
        finally:
            del error


class Jobs:
    """Runs jobs, up to `n_jobs` at a time.

    Args:
        open_executor: returns the executor; called in the portal's loop.
        hints: how large arrays are sent.
        lock: the lock of the `Parallel`.
        fail: makes the call fail with an error of a callback, where callbacks tell the results, and so are called for jobs that
            have failed, too. None: whoever waits for the job gets the error.
    """

    def __init__(
        self,
        open_executor: Callable[[], Executor],
        n_jobs: int,
        hints: Hints,
        lock: AbstractContextManager[Any],
        fail: Callable[[BaseException], object] | None,
    ) -> None:
        self._open_executor = open_executor
        self._n_jobs = n_jobs
        self._hints = hints
        self._lock = lock
        self._fail = fail
        self._submitted = 0  # tasks
        self._unsettled: set[Job] = set()
        self._failed: Job | None = None  # the first
        self._is_ending = False
        self._done: queue.SimpleQueue[Job | None] = queue.SimpleQueue()  # for the callback thread; None: there are no more
        self._waiting: deque[Job] = deque()
        self._begun = 0
        self._changed: anyio.Event | None = None  # a job waits, or another may begin
        self._session: Session | None = None  # from the first job on
        self._executor: Executor
        self._turns: anyio.Semaphore
        self._unfinished: Hold | None = None
        self._run = PortalRun("joblib.Parallel", self._serve, self._finish)

    # joblib's threads

    def start(self) -> None:
        """Raises RuntimeError in the portal's own thread, and ExecutorUnavailableError when the program is ending."""
        self._unfinished = hold_unfinished_modules(call_task)
        try:
            self._run.start()
            context = copy_context()
            threading.Thread(target=context.run, args=(self._call_back,), name="asyncpar callbacks", daemon=True).start()
        except BaseException:  # an interrupt, too: joblib does not end what has not begun
            self.end()
            raise

    def submit(self, tasks: Sequence[Task], callback: Callable[[Job], object]) -> Job:
        """Runs the tasks some time. Then calls `callback` with the job."""
        job = Job(self, self._submitted, tasks, callback)
        self._submitted += len(tasks)
        self._unsettled.add(job)
        self._run.portal.call_soon(partial(self._take, job))
        return job

    def wait(self, job: Job, timeout: float | None) -> list[Any]:
        """The result of the job. Raises the error of another one, if that has failed first."""
        deadline = inf if timeout is None or timeout > TIMEOUT_MAX else time.monotonic() + timeout
        while not job.is_settled and self._failed is None:
            if self._run.is_over or not self._run.portal.usable:
                raise ExecutorUnavailableError(f"{_ENDED}, or belongs to the process that this one was forked from")
            try:
                job.woken.get(timeout=None if deadline == inf else max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                assert timeout is not None, "without a timeout, it waits"
                raise timed_out(job.first, timeout) from None
        if not job.is_settled and self._failed is not None:
            job = self._failed
        return job.result()

    def end(self) -> None:
        """Ends all that is running, and returns when it has ended."""
        self._is_ending = True
        try:
            self._run.end()
        finally:
            self._release_modules()

    def _release_modules(self) -> None:
        if self._unfinished is not None:
            self._unfinished.release()

    # The callback thread

    def _call_back(self) -> None:
        while (job := self._done.get()) is not None:
            self._settle(job)
            del job  # not kept while the next is waited for

    def _settle(self, job: Job) -> None:
        callback, job.callback = job.callback, None
        with self._lock:
            wanted = self._fail is not None or (job.error is None and self._failed is None)
            if callback is not None and wanted and not self._is_ending:
                try:
                    callback(job)
                except BaseException as error:  # of the user's: `print_progress` may be overridden, and the iterable may exit
                    job.error = error
                    if self._fail is not None:
                        self._fail(error)
        if job.error is not None and self._failed is None:
            self._failed = job
        job.is_settled = True
        self._unsettled.discard(job)
        job.woken.put(None)
        if self._failed is job:
            for other in self._unsettled.copy():
                other.woken.put(None)

    # The portal's thread

    def _take(self, job: Job) -> None:
        if self._run.is_over:
            job.woken.put(None)  # it says so to who waits
        else:
            self._waiting.append(job)
            if self._changed is not None:
                self._changed.set()

    async def _serve(self) -> None:
        """Runs jobs until it is cancelled."""
        self._turns = anyio.Semaphore(self._n_jobs, fast_acquire=True)
        try:
            async with anyio.create_task_group() as group:
                while True:
                    self._changed = changed = anyio.Event()
                    while self._waiting and self._begun < _BEGUN_FOR_EACH * self._n_jobs:
                        self._begun += 1
                        group.start_soon(self._make, self._waiting.popleft())
                    await changed.wait()
        finally:
            if self._session is not None:
                self._session.close()

    async def _make(self, job: Job) -> None:
        job.error = ExecutorUnavailableError(_ENDED)
        try:
            job.values, job.error = await self._outcome_of(job)
        except BaseException as error:
            if is_own_cancellation(error):
                raise
            job.error = error
        finally:
            self._begun -= 1
            self._deliver(job)
            if self._changed is not None and self._waiting:
                self._changed.set()

    def _deliver(self, job: Job) -> None:
        job.tasks = ()
        self._done.put(job)

    def _finish(self) -> None:
        """The run is over."""
        for job in self._waiting:
            job.error = ExecutorUnavailableError(_ENDED)
            self._deliver(job)
        self._waiting.clear()
        self._done.put(None)

    async def _outcome_of(self, job: Job) -> tuple[list[Any], BaseException | None]:
        """The values of its tasks, or the error of the first that has failed."""
        values: list[Any] = [None] * len(job.tasks)
        batches: deque[Batch] = deque([TaskBatch(range(job.first, job.first + len(job.tasks)), (job.tasks,))])
        while batches:
            done = await self._run_batch(batches.popleft())
            if done.errors:
                keep_program_alive(done)
                annotate(done)
                return [], as_joblib_raises(done.errors[min(done.errors)])
            for index, value in zip(done.batch.indices, done.values, strict=False):  # it may have come back before its end
                values[index - job.first] = value
            batches.extendleft(reversed(done.rest))  # a worker died, and these are not to blame
        return values, None

    async def _run_batch(self, batch: Batch) -> BatchDone:
        session = self._session
        if session is None:
            self._executor = self._open_executor()
            session = self._session = self._executor.open(Program(call_task, stop_on_error=True), self._hints)
        parcel = session.pack(batch, inf)
        if parcel.unfinished:
            await run_off_loop(parcel.finish)
        if parcel.refusal is not None:
            raise unsendable(parcel.refusal)
        async with self._turns:
            answer = await self._send(session, parcel)
        await anyio.lowlevel.checkpoint()  # the next job goes to the worker first
        done = await read(answer)
        check_complete(len(batch), done, type(self._executor).__name__)
        return done

    async def _send(self, session: Session, parcel: Parcel) -> Answer:
        place = session.lease_nowait()
        if place is None:
            place = await session.lease()
        try:
            return await place.run(parcel)
        finally:
            session.release(place)
