"""`pmap` and the object it returns: the async face of asyncpar.

Validation and defaults are in `_map/plan.py`, and the scheduler does the rest. There are three ways to consume
and one scheduler behind them: `await` drives the run in the caller's own task; iterating (with or without `async with`)
drives it in a background task that the event loop owns (`_map/stream.py`), because a task group must not stay open across a
`yield` (PEP 789).
"""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar, Unpack, overload

import anyio

from asyncpar._basics.notes import add_note
from asyncpar._basics.wording import short_repr
from asyncpar._map.one_item import OneItem, is_one_item
from asyncpar._map.options import Options, ReturnOptions, RunOptions, signature_of_map
from asyncpar._map.plan import Plan, make_plan
from asyncpar._map.stream import Stream
from asyncpar._run.outcomes import Outcome
from asyncpar._run.scheduler import Run
from asyncpar._run.sinks import ListSink
from asyncpar._run.sources import Items
from asyncpar._run.statistics import Statistics
from asyncpar.errors import ConsumedError

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")


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
    fn: Callable[..., Awaitable[T]],
    first: Items[Any],
    second: Items[Any],
    third: Items[Any],
    /,
    *more: Items[Any],
    **options: Unpack[ReturnOptions],
) -> ParallelMap[T | BaseException]: ...
@overload
def pmap(
    fn: Callable[..., Awaitable[T]],
    first: Items[Any],
    second: Items[Any],
    third: Items[Any],
    /,
    *more: Items[Any],
    **options: Unpack[Options],
) -> ParallelMap[T]: ...
@overload
def pmap(
    fn: Callable[..., T],
    first: Items[Any],
    second: Items[Any],
    third: Items[Any],
    /,
    *more: Items[Any],
    **options: Unpack[ReturnOptions],
) -> ParallelMap[T | BaseException]: ...
@overload
def pmap(
    fn: Callable[..., T],
    first: Items[Any],
    second: Items[Any],
    third: Items[Any],
    /,
    *more: Items[Any],
    **options: Unpack[Options],
) -> ParallelMap[T]: ...


def pmap(fn: Callable[..., Any], /, *iterables: Items[Any], **options: Any) -> ParallelMap[Any]:
    """The results of `fn` on every item, computed in parallel: `await` it for a list, or iterate over it.

    Nothing runs before the first `await` or iteration. Items are pulled lazily, never further ahead than the window
    (`buffersize`), so an endless source or a slow consumer needs a bounded amount of memory. Results come in input order
    unless `ordered=False`. The `await` or the `async with` block ends only when none of the run's calls is running any more
    (threads: when none will start any more), and generators that were given as sources are closed. That holds for every way
    out: an error, a cancellation, leaving early.

    A call that fails raises its own exception here, with the worker's traceback as `__cause__` and a note that names the
    item. When a worker process dies, the call that it was running fails with `WorkerDiedError`. The other calls of its batch
    run again elsewhere, and so do coroutine calls that were running in that worker. So after a death a call may have run more
    than once.

    Args:
        fn: a function, or a coroutine function. A plain function runs in the executor. A coroutine function runs in the
            caller's event loop, unless an executor is named: then each worker has an event loop of its own. In processes, it
            has calls of many runs under way, and results come as they finish.
        iterables: sync or async, finite or endless. Several are zipped, and `fn` gets one argument from each.
        executor: "process" (the default; "thread" where Python runs without a GIL), "thread", "interpreter" (CPython 3.14),
            "dask" or "ray" (a cluster), "inline" (the run's own task, for debugging), an `Executor`, or any
            `concurrent.futures.Executor` (see `FuturesExecutor`). A name stands for the event loop's own executor of that kind,
            which is made at first use, kept warm, and gone with the loop.
        n_jobs: how many workers this run may hold at once. For coroutine functions in the caller's event loop, how many calls
            may be under way. None: as many as the executor has. Negative numbers count back from the processors: -1 is all,
            -2 all but one. If `executor` is a name, the event loop's own executor grows to that size.
        ordered: True: results in input order. False: as they finish.
        batch_size: how many calls are sent to a worker together. "auto" finds a good number while the run goes on. Coroutine
            functions in the caller's event loop are called one by one.
        buffersize: the window: how many items may be pulled and not yet handed out. None: a few batches for each worker.
        timeout: seconds that one call may take, counted from its own beginning, also inside a batch. None: no limit. A call
            that takes longer fails with `CallTimeoutError`, and the rest of its batch is unharmed. Its process is killed and
            replaced (calls of the batch that had finished run again). Its thread is left alone, and is not lent again before
            the call has ended. A coroutine call is cancelled. A plain function in the inline executor, or in a foreign pool
            of processes, fails when it returns.
        retries: how often a failed call is tried again, at most. A call that loses its worker or takes too long has failed
            too, if `retry_on` says so.
        retry_on: an exception class, or a tuple of them: which failures are tried again.
        retry_wait: seconds that a call waits before its first retry. The wait doubles with each further retry, and a random
            half of it is left out. Other calls run meanwhile.
        rate: for coroutine functions: how many calls may begin in a second, in the whole run, wherever they run. More than 0,
            and it need not be a whole number: 0.5 is one call in two seconds. No stretch of t seconds sees more than
            `burst + rate * t` calls begin (in workers, give or take the time that a call takes to get there, which is longest
            for the first call of a worker). Retries count, and results from the cache do not. Batches are no larger than that
            allows. A map over one item waits for nothing. None: no limit.
        burst: with `rate`: how many calls may begin at once, at the start or after a pause. 1: they are `1 / rate` seconds
            apart, or more, because timers are late. None: those of 20 ms and one more, so that late timers do not lower the
            rate. Up to a rate of 49, that is one at a time.
        on_error: "raise": the first error stops the run and is raised. "return": exceptions stand among the results. "skip":
            failed calls are left out.
        concurrency: for coroutine functions: how many calls of this run are under way at once, in the caller's event loop or
            in each worker. None: 100. The inline executor awaits them one by one.
        max_nbytes: buffers of at least this size (of arrays, tables, long byte strings) go to worker processes and back
            through shared memory. A number of bytes, or a text such as "1M". None: no shared memory. An object that many
            calls share is copied once per run, also inside a `functools.partial` or a closure. It must not be written to
            meanwhile.
        mmap_mode: how workers see such arguments. "r": read-only. "c": each call gets a copy as soon as it writes. "r+":
            writes are seen by all calls that share the object, but not by the original. None: a copy. Results are always
            writable, and live as long as somebody holds them. `numpy.memmap` arrays are mapped from their files.
        progress: True for a progress bar (needs tqdm, from the `progress` extra), or a function that is called in the event
            loop with a `Statistics` whenever calls have finished.
        cache: a `Memory`, in which results are kept: `fn` is mapped as `cache.cache(fn)`. What was computed before, in a map or
            not, is found without a worker. Workers compute what is missing, and keep each result at once. Equal items of one
            run are computed once. Errors are not kept. Large results are read from where they are kept, and mapped, if the
            memory has an `mmap_mode`. None: `fn` is cached only if `Memory.cache` has made it.
        seed: an integer, 0 or more: each call gets a random stream of its own, which `fn` finds in `current_call()`. The stream
            depends on the seed and the index of the item, and neither on the executor, the batch or the order, nor on earlier
            attempts. None: there are no such streams. Cached functions have none.

    Raises:
        TypeError: `fn` cannot be called, an iterable cannot be iterated over, or there is no such option; or `cache` is no
            `Memory`, or cannot cache `fn` (a generator function).
        ValueError: an option is out of range; the message names the valid values. Or `fn` is cached, and there is a seed.

    >>> import anyio, asyncpar, tempfile
    >>> async def main():
    ...     return await asyncpar.pmap(pow, [2, 3, 4], [5, 2, 1])
    >>> anyio.run(main)
    [32, 9, 4]
    >>> async def again(memory):
    ...     run = asyncpar.pmap(pow, [2, 3, 2], [5, 2, 5], cache=memory)
    ...     return await run, run.statistics().cache_hits
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     memory = asyncpar.Memory(folder, verbose=0)
    ...     anyio.run(again, memory), anyio.run(again, memory)
    (([32, 9, 32], 1), ([32, 9, 32], 3))
    """
    return ParallelMap(make_plan(fn, iterables, RunOptions(**options)))


pmap.__signature__ = signature_of_map()  # type: ignore[attr-defined]  # it is what `help` looks for


class ParallelMap(Coroutine[Any, Any, list[T]], Generic[T]):
    """The results of one `pmap`, not yet computed. One object serves one run.

    - `await results`: a list. What takes a coroutine gives one, too: `asyncio.create_task(pmap(...))`, a `TaskGroup`, `gather`.
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

    _run: Run | OneItem | None = None
    _stream: Stream | None = None
    _awaiting: Generator[Any, Any, list[T]] | None = None  # the run, where an event loop has this for a coroutine
    _used = False  # or it was tried, which fails where there is no executor, or outside async code
    _entered = False
    _closed = False

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def __await__(self) -> Generator[Any, Any, list[T]]:
        self._refuse_second_use()
        if is_one_item(self._plan):
            self._run = one = OneItem(self._plan)
            return one.collect().__await__()
        options = self._plan.options
        sink = ListSink(ordered=options.ordered, on_error=options.on_error)
        self._run = run = self._plan.make_run(sink)
        return _collect(run, sink).__await__()

    # As a coroutine

    def send(self, value: Any, /) -> Any:
        """Goes on with `await`; for event loops."""
        if self._awaiting is None:
            self._awaiting = self.__await__()
        return self._awaiting.send(value)

    def throw(self, *error: Any) -> Any:
        """Raises an error where `await` stands; for event loops."""
        if self._awaiting is None:  # a task that was cancelled before it began
            self._closed = True
            self._awaiting = _not_begun().__await__()
        return self._awaiting.throw(*error)

    def close(self) -> None:
        """Stops the run without waiting for its end; nothing happens if it has not begun. `aclose` waits."""
        self._closed = True
        if self._awaiting is not None:
            self._awaiting.close()
        elif self._stream is not None:
            self._stream.abandon()

    # Iterating

    def __aiter__(self) -> Self:
        self._open_stream(outcomes=False)
        return self

    async def __anext__(self) -> T:
        if self._stream is None:
            self._open_stream(outcomes=False)
        stream = self._stream
        if stream is not None and stream.ready and monotonic() < stream.turn_due:  # 0.2 µs for an item that is here already
            result: T = stream.take()
        else:
            result = await self._next()
        return result

    async def __aenter__(self) -> Self:
        self._refuse_second_use()
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.aclose()
        except Exception as closing_error:
            if error is None:
                raise
            add_note(error, f"closing the source of the map then raised {short_repr(closing_error)}")

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
        """Stops the run if it goes on; returns when none of its calls is running any more. Raises what its source does."""
        self._closed = True
        if self._stream is not None:
            await self._stream.aclose()
        elif self._run is None:
            await self._plan.source.aclose()

    def __del__(self) -> None:
        stream = getattr(self, "_stream", None)
        if stream is not None:
            stream.abandon()
        elif not getattr(self, "_used", True) and not self._closed:
            warnings.warn("a pmap(...) was neither awaited nor iterated over", RuntimeWarning, stacklevel=2)

    if not TYPE_CHECKING:  # a type checker refuses these by itself

        def __iter__(self) -> NoReturn:
            self._refuse_outside_async("`results = await pmap(...)` for a list, or `async for result in pmap(...)`")

        def __enter__(self) -> NoReturn:
            self._refuse_outside_async("`async with pmap(...) as results`")

        def __exit__(self, *error: object) -> None:
            """Without it `with` would not even look for `__enter__`."""

        def _refuse_outside_async(self, remedy: str) -> NoReturn:
            self._used = True
            raise TypeError(
                f"pmap computes in an event loop: write {remedy}, in a coroutine function; "
                "code that is not async has Parallel(n_jobs=-1)(delayed(f)(x) for x in xs)"
            )

    def _open_stream(self, *, outcomes: bool) -> None:
        if self._stream is not None and self._stream.outcomes == outcomes and not self._stream.ended:
            return  # the same consumption goes on: `anext` first and a loop later, say
        self._refuse_second_use()
        self._stream = Stream(self._plan, outcomes=outcomes)
        self._run = self._stream.run

    async def _next(self) -> Any:
        stream = self._stream
        assert stream is not None
        try:
            return await stream.next()
        except anyio.get_cancelled_exc_class():
            if not self._entered:  # nothing will close this stream later
                await stream.aclose()
            raise

    def _refuse_second_use(self) -> None:
        if self._run is not None or self._closed:
            raise ConsumedError("this ParallelMap has been used already; call pmap() again for another run")
        self._used = True


class _Outcomes(AsyncIterator[Outcome[T]]):
    """Keeps its `ParallelMap` alive, so that the run stops when the last of the two is gone."""

    def __init__(self, owner: ParallelMap[T]) -> None:
        self._owner = owner

    async def __anext__(self) -> Outcome[T]:
        outcome: Outcome[T] = await self._owner._next()
        return outcome


async def _not_begun() -> list[Any]:
    raise AssertionError("an error is thrown into it before it begins")


async def _collect(run: Run, sink: ListSink) -> list[Any]:
    await run.drive()
    if run.error is not None:
        raise run.error
    return sink.values
