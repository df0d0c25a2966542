"""One `Parallel` call as a run in the portal: the two threads, and what passes between them.

    caller's thread                                   portal's thread
    pulls the first calls           ── start ──►      opens the executor, drives the run
    waits at its mailbox            ◄── count ──      the run asks for that many more calls
    pulls them, forms segments      ── deliver ──►    the source has them
    tells the user                  ◄── statistics ── some calls have finished (if the user wants to know)
    returns or raises               ◄── None ──       the run is over

For a list, the caller's own thread does the left side. For a generator a thread of the call does it, because the caller is
elsewhere between two results. The generator's values come through a second queue. Values that have been taken open the window
again, so that a slow consumer stops the pulling.

However the call ends, it ends only when the run has. Ctrl-C is held back meanwhile, because that takes no longer than the
executor's grace. A flag says that the run is over, and messages only wake the thread that waits for it: an interrupt may come
just after a message has been taken out of its queue, and lose it. (It may also come in the middle of a `threading.Event`'s
`wait`, and leave its lock held; a `SimpleQueue` is safe.)
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Generator, Iterable
from contextvars import copy_context
from functools import partial
from typing import Any, NamedTuple, Protocol

from asyncpar._contract.executor import Executor, Hints
from asyncpar._map.options import RunOptions
from asyncpar._map.plan import Plan
from asyncpar._platform.off_loop import is_off_loop
from asyncpar._run.scheduler import Run
from asyncpar._run.sinks import HandOverSink, ListSink
from asyncpar._run.statistics import Statistics
from asyncpar._sync.asked_source import AskedSource
from asyncpar._sync.backends import Backend, shares_no_memory
from asyncpar._sync.calls import CallPuller, CallsSession, each_its_own
from asyncpar._sync.kept_executor import KeptExecutor, give_back, open_executor
from asyncpar._sync.portal import Portal, Task, current_portal
from asyncpar._wire.unfinished import Hold, hold_unfinished_modules
from asyncpar.errors import CallTimeoutError, ExecutorUnavailableError, PicklingError

_FIRST_BATCHES = 4  # for each worker, pulled before anything runs: as many as the window will allow at first
_MOST_FIRST_WORKERS = 64  # and a cluster may have any number; a guess


class Listener(Protocol):
    """Receives how far the call is: statistics if they are `wanted`, otherwise counts."""

    @property
    def wanted(self) -> bool: ...

    def report(self, statistics: Statistics, dispatched: int, total: int | None) -> None:
        """Called in the thread that pulls. `dispatched`: tasks that have been pulled; `total`: all of them, if known."""
        ...

    def count(self, completed: int, dispatched: int) -> None:
        """Called in the thread that consumes a generator."""
        ...


class Request(NamedTuple):
    """The checked request of a call.

    Attributes:
        batches_ahead: how many batches may be pulled and not yet be done, where the options do not limit the tasks.
    """

    backend: Backend
    n_jobs: int
    options: RunOptions
    hints: Hints
    batches_ahead: int | None = None


def may_count_batches(backend: Backend, pre_dispatch: int | None) -> bool:
    """Whether that number may come to mean batches once tasks have proved short.

    In processes and interpreters only: in threads, the iterable can see what tasks have done, and may wait for that before it
    goes on. Then tasks that it has given already must not wait for it. One at a time stays one at a time.
    """
    return pre_dispatch is not None and pre_dispatch > 1 and shares_no_memory(backend)


class ParallelCall:
    """Pulls calls out of `iterable`, runs them, and collects or streams their values.

    Args:
        listener: called whenever some calls have finished.
        kept: keeps an unshared executor for the next call.
    """

    def __init__(
        self, request: Request, iterable: Iterable[Any], listener: Listener, *, kept: KeptExecutor | None = None
    ) -> None:
        self._request = request
        self._puller = CallPuller(iterable)
        self._listener = listener
        self._kept = kept
        self._mailbox: queue.SimpleQueue[int | Statistics | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[list[Any] | None] = queue.SimpleQueue()  # for a generator; None: there are no more
        self._is_over = False  # the run; set before any message says so
        self._over: queue.SimpleQueue[None] = queue.SimpleQueue()  # wakes a thread that waits only for that
        self._error: BaseException | None = None
        self._pulling_error: BaseException | None = None  # what the user's code raised in the thread that pulls
        self._closing_error: BaseException | None = None  # what the user's code raised when its generator was closed
        self._run: Run | None = None
        self._unfinished_modules: Hold | None = None
        self._task: Task | None = None  # until the first calls have been pulled
        self._portal: Portal
        self._source: AskedSource

    def collect(self) -> list[Any]:
        """All values, in order."""
        sink = ListSink(ordered=True, on_error=self._request.options.on_error)
        try:
            self._start(sink)
            self._attend()
        except BaseException as error:
            self._pulling_error = error
            self._abort()
        finally:
            self._close_puller()
        self._raise_error()
        return sink.values

    @property
    def pulled(self) -> int:
        """How many tasks have been pulled."""
        return self._puller.count

    def stream(self) -> Generator[Any, None, None]:
        """The values as they come; the run has begun when this returns. It ends when the generator is closed."""
        generator = self._stream()
        next(generator)  # from now on its `finally` runs even if it is garbage-collected
        return generator

    def _stream(self) -> Generator[Any, None, None]:
        options = self._request.options
        sink = HandOverSink(ordered=options.ordered, on_error=options.on_error, hand_over=self._results.put)
        try:
            self._start(sink)
            threading.Thread(target=copy_context().run, args=(self._attend_aside,), name="asyncpar feeder", daemon=True).start()
            yield None
            taken = 0
            while (values := self._next_values()) is not None:
                count = len(values)
                taken += count
                if not self._listener.wanted:
                    self._listener.count(taken, self._puller.count)
                yield from values
                del values  # not kept while the next are waited for
                self._portal.call_soon(partial(self._hand, count))
        finally:
            if self._task is None:
                self._close_puller()
            self._abort()
        self._raise_error()

    def _next_values(self) -> list[Any] | None:
        if self._portal.is_foreign:
            raise RuntimeError("this generator belongs to the process that this one was forked from")
        return self._results.get()

    # The thread that pulls

    def _start(self, sink: ListSink | HandOverSink) -> None:
        self._source = AskedSource(self._mailbox.put, self._puller.length)
        self._source.deliver(self._puller.pull(self._first_tasks()))
        self._portal = current_portal()
        if self._portal.is_here:
            raise RuntimeError(
                "Parallel(...) was called by a task that runs in asyncpar's own event loop, which cannot wait for itself; "
                "have the backend of the outer call return an executor that runs its calls in threads or processes"
            )
        self._unfinished_modules = hold_unfinished_modules()
        self._task = Task(self._portal, partial(self._serve, sink))
        try:
            self._task.start()
        except RuntimeError:  # the portal has been closed
            self._task = None
            self._release_modules()
            raise

    def _first_tasks(self) -> int:
        """How many tasks are pulled before the run begins."""
        options = self._request.options
        size = 1 if options.batch_size == "auto" else options.batch_size
        most = options.buffersize or self._request.batches_ahead or sys.maxsize
        return min(_FIRST_BATCHES * min(self._request.n_jobs, _MOST_FIRST_WORKERS) * size, most)

    def _attend(self) -> None:
        """Does what the run asks for until it is over."""
        while (message := self._mailbox.get()) is not None:
            if isinstance(message, Statistics):
                self._tell(message)
            else:
                self._portal.call_soon(partial(self._source.deliver, self._puller.pull(message)))

    def _tell(self, statistics: Statistics) -> None:
        total = self._puller.count if self._puller.exhausted else self._puller.length
        self._listener.report(statistics, self._puller.count, total)

    def _attend_aside(self) -> None:
        try:
            self._attend()
        except BaseException as error:  # of the user's: it is raised where the results are consumed
            self._pulling_error = error
            assert self._task is not None, "it has been started"
            self._task.cancel()
        finally:
            self._close_puller()
            self._results.put(None)

    def _close_puller(self) -> None:
        try:
            self._puller.close()
        except BaseException as error:  # a generator whose `finally` raises
            self._closing_error = error

    # The end

    def _raise_error(self) -> None:
        """Raises the error that ended the call, as joblib's users expect it, and does not keep it. The earliest goes first."""
        errors = (self._pulling_error, self._error, self._closing_error)
        error = next((error for error in errors if error is not None), None)
        self._pulling_error = self._error = self._closing_error = None
        del errors
        if type(error) is CallTimeoutError:  # one that a task raises itself may be of another class, and stays unchanged
            from asyncpar._sync.timeouts import as_parallel_timeout

            error = as_parallel_timeout(error)
        if type(error) is PicklingError:
            say_in_joblibs_words(error)
        if error is not None:
            raise error

    def _abort(self) -> None:
        """The consumer is gone: closed, interrupted, or garbage-collected, which may happen in any thread.

        The thread may be the portal's own, or one that the run waits for: these must not wait for the run.
        """
        if self._task is None or self._is_over:
            return
        if self._portal.usable and not self._portal.is_here and not is_off_loop():
            self._cancel_and_wait(self._task)
        else:
            self._task.cancel()

    def _cancel_and_wait(self, task: Task) -> None:
        """Returns when the run is over; an interrupt meanwhile is raised only then."""
        interrupt: KeyboardInterrupt | None = None
        while not self._is_over:
            try:
                task.cancel()
                self._over.get()
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt

    # In the portal's loop

    async def _serve(self, sink: ListSink | HandOverSink) -> None:
        """Runs to the end, and reports the end whatever happens, because another thread waits for it."""
        self._error = _ended_early()
        try:
            self._error = await self._run_and_close(sink)
        finally:
            self._release_modules()
            self._is_over = True
            self._mailbox.put(None)
            self._over.put(None)
            if self._error is not None:  # otherwise the thread that pulls says so, after its last report
                self._results.put(None)

    def _release_modules(self) -> None:
        if self._unfinished_modules is not None:
            self._unfinished_modules.release()

    async def _run_and_close(self, sink: ListSink | HandOverSink) -> BaseException | None:
        """The first error, if there was one."""
        owned: Executor | None = None
        error: BaseException | None = None
        backend, n_jobs = self._request.backend, self._request.n_jobs
        try:
            executor, is_owned = open_executor(backend, n_jobs, self._portal, self._kept)
            owned = executor if is_owned else None
            error = await self._drive(executor, sink)
        except Exception as failure:  # the executor is not available
            error = failure
        finally:
            failed = error is not None or self._run is None or not self._run.completed
            closing_error = None if owned is None else await give_back(self._portal, backend, owned, failed=failed)
        return closing_error if error is None else error

    async def _drive(self, executor: Executor, sink: ListSink | HandOverSink) -> BaseException | None:
        _, _, options, hints, batches_ahead = self._request
        is_cached = _may_be_cached(self._source)
        plan = Plan(each_its_own, 0, self._source, executor, options, hints, CallsSession, batches_ahead, is_cached)
        self._run = run = plan.make_run(sink, meter=self if self._listener.wanted else None)
        await run.drive()
        if run.error is None and not run.completed:
            return _ended_early()
        return run.error

    def update(self, statistics: Statistics, total: int | None) -> None:
        """Part of the run's meter: the thread that pulls will tell the user."""
        self._mailbox.put(statistics)

    def close(self) -> None:
        """Part of the run's meter: there is nothing to close in the portal's thread."""

    def _hand(self, count: int) -> None:
        if self._run is not None:
            self._run.hand(count)


def say_in_joblibs_words(error: PicklingError) -> None:
    """What cannot be sent is a task, or it is a result."""
    what = "result of a task" if error.path.startswith("result") else "task"
    error.args = (f"Could not pickle the {what} to send to the other process: {error}", *error.args[1:])


def _may_be_cached(source: AskedSource) -> bool:
    """Whether some of the calls may be of cached functions. Calls that are not there yet may be."""
    if "asyncpar._cache.cached" not in sys.modules:
        return False
    from asyncpar._child.keyed_calls import may_call_twins

    functions = source.all_functions
    return functions is None or any(map(may_call_twins, functions))


def _ended_early() -> ExecutorUnavailableError:
    return ExecutorUnavailableError("the call was ended before all results were there")
