"""`pmap` and the object it returns: the async face of asyncpar.

Validation and defaults are here; what happens then is the scheduler's affair. There are three ways to consume and one
scheduler behind them: `await` drives the run in the caller's own task; iterating (with or without `async with`) drives it in
a background task that the event loop owns, because a task group must not stay open across a `yield` (PEP 789).
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from types import BuiltinFunctionType, FunctionType, TracebackType
from typing import Any, Generic, Literal, NoReturn, Self, TypedDict, TypeVar, Unpack, overload

import anyio
import anyio.lowlevel

from asyncpar.background import BackgroundTask, LoopHandle, start_background
from asyncpar.batching import BatchSize, make_sizer
from asyncpar.cpus import resolve_n_jobs
from asyncpar.errors import ConsumedError
from asyncpar.executors import check_executor, default_executor, default_name
from asyncpar.executors.base import Executor, Program
from asyncpar.outcomes import ON_ERROR, OnError, Outcome, to_outcomes, values_by_policy
from asyncpar.scheduler import Run
from asyncpar.sinks import ListSink, StreamSink
from asyncpar.sources import Items, Source, open_source
from asyncpar.statistics import Statistics

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")

DEFAULT_CONCURRENCY = 100  # as many as an HTTP client's pool has connections, by habit; a guess


class _CommonOptions(TypedDict, total=False):
    executor: str | Executor[Any] | None
    n_jobs: int | None
    ordered: bool
    batch_size: BatchSize
    buffersize: int | None
    concurrency: int | None


class Options(_CommonOptions, total=False):
    """The keyword arguments of `pmap` where errors are raised or skipped."""

    on_error: Literal["raise", "skip"]


class ReturnOptions(_CommonOptions):
    """The keyword arguments of `pmap` where errors stand in the results."""

    on_error: Literal["return"]


@overload
def pmap(
    fn: Callable[[A], Awaitable[T]], items: Items[A], /, **options: Unpack[ReturnOptions]
) -> ParallelMap[T | BaseException]: ...
@overload
def pmap(fn: Callable[[A], Awaitable[T]], items: Items[A], /, **options: Unpack[Options]) -> ParallelMap[T]: ...
@overload
def pmap(fn: Callable[[A], T], items: Items[A], /, **options: Unpack[ReturnOptions]) -> ParallelMap[T | BaseException]: ...
@overload
def pmap(fn: Callable[[A], T], items: Items[A], /, **options: Unpack[Options]) -> ParallelMap[T]: ...
@overload
def pmap(
    fn: Callable[[A, B], Awaitable[T]], items: Items[A], more: Items[B], /, **options: Unpack[ReturnOptions]
) -> ParallelMap[T | BaseException]: ...
@overload
def pmap(
    fn: Callable[[A, B], Awaitable[T]], items: Items[A], more: Items[B], /, **options: Unpack[Options]
) -> ParallelMap[T]: ...
@overload
def pmap(
    fn: Callable[[A, B], T], items: Items[A], more: Items[B], /, **options: Unpack[ReturnOptions]
) -> ParallelMap[T | BaseException]: ...
@overload
def pmap(fn: Callable[[A, B], T], items: Items[A], more: Items[B], /, **options: Unpack[Options]) -> ParallelMap[T]: ...
@overload
def pmap(
    fn: Callable[..., Awaitable[T]], /, *iterables: Items[Any], **options: Unpack[ReturnOptions]
) -> ParallelMap[T | BaseException]: ...
@overload
def pmap(fn: Callable[..., Awaitable[T]], /, *iterables: Items[Any], **options: Unpack[Options]) -> ParallelMap[T]: ...
@overload
def pmap(
    fn: Callable[..., T], /, *iterables: Items[Any], **options: Unpack[ReturnOptions]
) -> ParallelMap[T | BaseException]: ...
@overload
def pmap(fn: Callable[..., T], /, *iterables: Items[Any], **options: Unpack[Options]) -> ParallelMap[T]: ...


def pmap(
    fn: Callable[..., Any],
    /,
    *iterables: Items[Any],
    executor: str | Executor[Any] | None = None,
    n_jobs: int | None = None,
    ordered: bool = True,
    batch_size: BatchSize = "auto",
    buffersize: int | None = None,
    on_error: OnError = "raise",
    concurrency: int | None = None,
) -> ParallelMap[Any]:
    """The results of `fn` on every item, computed in parallel: `await` it for a list, or iterate over it.

    Nothing runs before the first `await` or iteration. Items are pulled lazily and never further ahead than the window
    (`buffersize`), so an endless source and a slow consumer need bounded memory. Results come in input order unless
    `ordered=False`. However the `await` or the `async with` block ends, by an error, a cancellation or leaving early, it ends
    only when no call of this run is running any more (threads: when none will be started any more), and generators that were
    given as sources are closed.

    A call that fails raises its own exception here, with the worker's traceback as `__cause__` and a note that names the
    item. A worker process that dies costs the call that it was running a `WorkerDiedError`; the other calls of its batch run
    again elsewhere, so that after a death a call may have run twice.

    Args:
        fn: a function, or a coroutine function. A plain function runs in the executor. A coroutine function runs in the
            caller's event loop, unless an executor is named: then each of its workers has an event loop of its own.
        iterables: sync or async, finite or endless; several are zipped, and `fn` gets one argument from each.
        executor: "process" (the default; "thread" where Python runs without a GIL), "thread", "inline" (the caller's own
            task, for debugging), or an `Executor`. With a name, the event loop's own executor of that name is used: made at
            first use, kept warm, gone with the loop.
        n_jobs: how many workers this run may hold at once; None: as many as the executor has. Negative numbers count back
            from the processors: -1 is all, -2 all but one.
        ordered: results in input order; False: as they finish.
        batch_size: calls sent to a worker together; "auto" finds a good number while the run goes on.
        buffersize: the window: how many items may be pulled and not yet handed out; None: a few batches for each worker.
        on_error: "raise": the first error stops the run and is raised; "return": the exception stands among the results;
            "skip": failed calls are left out.
        concurrency: for coroutine functions: how many calls are under way at once, in the caller's event loop or in each
            worker; None: 100.

    Raises:
        TypeError: `fn` cannot be called, or an iterable cannot be iterated over.
        ValueError: an option is out of range; the message names the valid values.

    >>> import anyio
    >>> async def main():
    ...     return await pmap(pow, [2, 3, 4], [5, 2, 1])
    >>> anyio.run(main)
    [32, 9, 4]
    """
    if not callable(fn):
        raise TypeError(f"pmap maps a function or another callable, not {fn!r}")
    if not iterables:
        raise TypeError("pmap needs at least one iterable to map over")
    _check_options(executor, n_jobs, batch_size, buffersize, on_error, concurrency)
    is_coroutine = _is_coroutine_function(fn)
    if concurrency is not None and not is_coroutine:
        raise ValueError(f"concurrency is for coroutine functions, and {fn!r} is not one; n_jobs limits the workers")
    plan = _Plan(
        program=Program(fn, (concurrency or DEFAULT_CONCURRENCY) if is_coroutine else 0, on_error == "raise"),
        source=open_source(iterables),
        executor=executor,
        n_jobs=None if n_jobs is None else resolve_n_jobs(n_jobs),
        ordered=ordered,
        batch_size=batch_size,
        window=buffersize,
        on_error=on_error,
    )
    return ParallelMap(plan)


class ParallelMap(Generic[T]):
    """The results of one `pmap`, not yet computed. One object serves one run.

    - `await results`: a list.
    - `async for result in results`: one by one. If you may leave the loop early, use the next form.
    - `async with pmap(...) as results`: the same, and when the block ends, however it ends, the run has ended.

    `async for` without `async with` also stops the run when the loop is left, but cannot wait for that.

    >>> import anyio, asyncpar
    >>> async def main():
    ...     async with asyncpar.pmap(abs, range(-3, 3)) as results:
    ...         async for result in results:
    ...             if result == 1:
    ...                 return result
    >>> anyio.run(main)
    1
    """

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan
        self._run: Run | None = None
        self._stream: _Stream | None = None
        self._entered = False
        self._closed = False

    def __await__(self) -> Generator[Any, Any, list[T]]:
        self._refuse_second_use()
        sink = ListSink(ordered=self._plan.ordered, on_error=self._plan.on_error)
        self._run = self._plan.make_run(sink)
        return _collect(self._run, sink).__await__()

    def __aiter__(self) -> Self:
        self._open_stream(outcomes=False)
        return self

    async def __anext__(self) -> T:
        if self._stream is None:
            self._open_stream(outcomes=False)
        result: T = await self._next()
        return result

    async def __aenter__(self) -> Self:
        self._refuse_second_use()
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def outcomes(self) -> AsyncIterator[Outcome[T]]:
        """Iterates over outcomes instead of values, in the same order.

        An outcome has the call's index, value or error, duration and worker. Errors are values here, whatever `on_error`
        says: none stops the run.
        """
        self._open_stream(outcomes=True)
        return _Outcomes(self)

    def statistics(self) -> Statistics:
        """A snapshot of the run: items pulled, finished, failed and handed out, the batch size, how busy its workers are."""
        if self._run is None:
            return Statistics(0, 0, 0, 0, 0, 0, 0, 0, 0.0, 0.0)
        return self._run.statistics()

    async def aclose(self) -> None:
        """Stops the run if it goes on; returns when none of its calls is running any more."""
        self._closed = True
        if self._stream is not None:
            await self._stream.aclose()
        elif self._run is None:
            await self._plan.source.aclose()

    def __del__(self) -> None:
        stream = getattr(self, "_stream", None)
        if stream is not None:
            stream.abandon()
        elif getattr(self, "_run", self) is None and not self._closed and not self._entered:
            warnings.warn("a pmap(...) was neither awaited nor iterated over", RuntimeWarning, stacklevel=2)

    def _open_stream(self, *, outcomes: bool) -> None:
        if self._stream is not None and self._stream.outcomes == outcomes and not self._stream.ended:
            return  # the same consumption goes on: `anext` first and a loop later, say
        self._refuse_second_use()
        self._stream = _Stream(self._plan, outcomes=outcomes)
        self._run = self._stream.run

    async def _next(self) -> Any:
        stream = self._stream
        assert stream is not None
        try:
            return await stream.next()
        except anyio.get_cancelled_exc_class():
            if not self._entered:  # nobody will close this stream later
                await stream.aclose()
            raise

    def _refuse_second_use(self) -> None:
        if self._run is not None or self._closed:
            raise ConsumedError("this ParallelMap has been used already; call pmap() again for another run")


class _Outcomes(AsyncIterator[Outcome[T]]):
    """Keeps its `ParallelMap` alive, so that the run stops when the last of the two is gone."""

    def __init__(self, owner: ParallelMap[T]) -> None:
        self._owner = owner

    async def __anext__(self) -> Outcome[T]:
        outcome: Outcome[T] = await self._owner._next()
        return outcome


class _Stream:
    """A run that feeds an iterator. The background task that drives it does not know the `ParallelMap`, which may thus be
    garbage-collected, and then abandons the run.
    """

    def __init__(self, plan: _Plan, *, outcomes: bool) -> None:
        self.outcomes = outcomes
        self.ended = False  # the consumer has seen the end
        self._on_error: OnError = plan.on_error
        self._source = plan.source
        self._sink = StreamSink(ordered=plan.ordered)
        self.run = plan.make_run(self._sink, errors_are_values=outcomes)
        self._task: BackgroundTask | None = None
        self._loop: LoopHandle | None = None
        self._current: list[Any] = []  # what is left of the batch that is being handed out, last first

    async def next(self) -> Any:
        if not self._current:
            await self._refill()
        self.run.hand(1)
        return self._current.pop()

    async def aclose(self) -> None:
        self.ended = True
        self._current.clear()
        if self._task is None:
            await self._source.aclose()
            self._sink.end(None)
        else:
            self._task.cancel()
            with anyio.CancelScope(shield=True):
                await self._task.wait()

    def abandon(self) -> None:
        """Called by the garbage collector, in whatever thread."""
        if self._task is not None and self._loop is not None and not self._sink.ended:
            self._loop.call_soon(self._task.cancel)

    async def _refill(self) -> None:
        if self._task is None and not self._sink.ended:
            self._loop = LoopHandle()
            self._task = await start_background(functools.partial(_drive_stream, self.run, self._sink))
        while not self._current:
            await anyio.lowlevel.checkpoint()  # once a batch: a fast consumer lets others live
            await self._sink.wait()
            done = self._sink.take()
            if done is not None:
                values = to_outcomes(done) if self.outcomes else values_by_policy(done, self._on_error)
                self.run.hand(len(done.values) - len(values))  # skipped ones leave the window at once
                self._current = values[::-1]
            elif self._sink.ended:
                self._raise_end()

    def _raise_end(self) -> NoReturn:
        self.ended = True
        error, self._sink.error = self._sink.error, None
        if error is None:
            raise StopAsyncIteration
        raise _raisable(error)


async def _drive_stream(run: Run, sink: StreamSink) -> None:
    """The background task of a stream: delivers even its failure as a value."""
    error: BaseException | None = None
    try:
        await run.drive()
    except anyio.get_cancelled_exc_class():
        raise
    except BaseException as failure:
        error = failure
    finally:
        sink.end(error)


async def _collect(run: Run, sink: ListSink) -> list[Any]:
    try:
        await run.drive()
    except (StopIteration, StopAsyncIteration) as error:
        raise _raisable(error) from error
    return sink.values()


def _raisable(error: BaseException) -> BaseException:
    """`error`, or what Python allows a coroutine to raise in its place (PEP 479): the others would end a loop silently."""
    if not isinstance(error, StopIteration | StopAsyncIteration):
        return error
    replacement = RuntimeError(f"a call raised {type(error).__name__}")
    replacement.__cause__ = error
    return replacement


class _Plan:
    """What `pmap` was asked for, checked; it becomes a run in the event loop where it is consumed."""

    def __init__(
        self,
        program: Program,
        source: Source,
        executor: str | Executor[Any] | None,
        n_jobs: int | None,
        ordered: bool,
        batch_size: BatchSize,
        window: int | None,
        on_error: OnError,
    ) -> None:
        self.program = program
        self.source = source
        self.ordered = ordered
        self.on_error: OnError = on_error
        self._executor = executor
        self._n_jobs = n_jobs
        self._batch_size: BatchSize = batch_size
        self._window = window

    def make_run(self, sink: ListSink | StreamSink, *, errors_are_values: bool = False) -> Run:
        program = self.program
        if errors_are_values:
            program = Program(program.fn, program.concurrency, stop_on_error=False)
        in_loop = program.concurrency > 0 and self._executor is None
        executor = self._resolve_executor(in_loop)
        limit = executor.capacity if self._n_jobs is None else min(self._n_jobs, executor.capacity)
        sizer = make_sizer(1 if in_loop else self._batch_size, program.concurrency or 1)
        return Run(program, self.source, executor, sizer, sink, limit=limit, window=self._window)

    def _resolve_executor(self, in_loop: bool) -> Executor[Any]:
        if in_loop:
            from asyncpar.executors.coroutine import CoroutineExecutor

            return CoroutineExecutor(self.program.concurrency)
        if isinstance(self._executor, Executor):
            return self._executor
        return default_executor(self._executor or default_name(), self._n_jobs)


def _is_coroutine_function(fn: Callable[..., Any]) -> bool:
    if isinstance(fn, BuiltinFunctionType):  # a microsecond, not ten
        return False
    return inspect.iscoroutinefunction(fn) or (
        not isinstance(fn, FunctionType) and inspect.iscoroutinefunction(type(fn).__call__)
    )


def _check_options(
    executor: object, n_jobs: object, batch_size: object, buffersize: object, on_error: object, concurrency: object
) -> None:
    check_executor(executor)
    if n_jobs is not None and (not _is_int(n_jobs) or n_jobs == 0):
        raise ValueError(f"n_jobs must be a positive number of workers, a negative one (-1 is all) or None, not {n_jobs!r}")
    if batch_size != "auto" and not _is_positive_int(batch_size):
        raise ValueError(f'batch_size must be "auto" or a number of calls, 1 or more, not {batch_size!r}')
    if buffersize is not None and not _is_positive_int(buffersize):
        raise ValueError(f"buffersize must be a number of items, 1 or more, or None, not {buffersize!r}")
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error must be one of {', '.join(map(repr, ON_ERROR))}, not {on_error!r}")
    if concurrency is not None and not _is_positive_int(concurrency):
        raise ValueError(f"concurrency must be a number of calls, 1 or more, or None, not {concurrency!r}")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_positive_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
