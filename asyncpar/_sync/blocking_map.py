"""`map`: `pmap` for code that is not async, as an iterator that blocks. It has the options of `pmap`, and its scheduler.

The run is one of the portal (`portal_run.py`), and its results come through a mailbox. The thread that iterates does everything
that touches the user's objects: it pulls the iterables when the run asks for items, and calls `progress`.

    consumer's thread                                portal's thread
    at the first `next`             ── start ──►     opens the executor, drives the run
    waits at the mailbox            ◄── count ──     the run asks for that many items
    pulls them                      ── deliver ──►   the source has them
    hands them out                  ◄── values ──    a batch has come back, and is next in order
    has handed out the batch        ── hand ──►      the window opens
    raises, or ends                 ◄── None ──      the run is over

It is a generator, so nothing begins before the first `next`, and closing it, leaving it to the garbage collector, an error or
Ctrl-C all end in its `finally`, which ends the run and waits for that.
"""

from __future__ import annotations

import queue
from collections.abc import Awaitable, Callable, Generator, Iterable
from functools import partial
from typing import Any, TypeVar, Unpack, overload

from asyncpar._map.options import Options, ReturnOptions, RunOptions, signature_of_map
from asyncpar._map.plan import Plan, make_plan
from asyncpar._run.progress import Meter, open_meter
from asyncpar._run.scheduler import Run
from asyncpar._run.segments import Segment
from asyncpar._run.sinks import HandOverSink
from asyncpar._run.sources import AsyncSource, IteratorSource
from asyncpar._run.statistics import Statistics
from asyncpar._sync.asked_source import AskedSource, Pulled
from asyncpar._sync.doors import find_in_portal, is_inline, name_here
from asyncpar._sync.inline_map import map_inline
from asyncpar._sync.portal_run import PortalRun
from asyncpar._wire.unfinished import hold_unfinished_modules
from asyncpar.errors import ExecutorUnavailableError

T = TypeVar("T")
A = TypeVar("A")


@overload
def map(  # noqa: A001 - it is `asyncpar.map`, as the built-in one is `builtins.map`
    fn: Callable[[A], Awaitable[T]], items: Iterable[A], /, **options: Unpack[ReturnOptions]
) -> Generator[T | BaseException, None, None]: ...
@overload
def map(  # noqa: A001
    fn: Callable[[A], Awaitable[T]], items: Iterable[A], /, **options: Unpack[Options]
) -> Generator[T, None, None]: ...
@overload
def map(  # noqa: A001
    fn: Callable[[A], T], items: Iterable[A], /, **options: Unpack[ReturnOptions]
) -> Generator[T | BaseException, None, None]: ...
@overload
def map(  # noqa: A001
    fn: Callable[[A], T], items: Iterable[A], /, **options: Unpack[Options]
) -> Generator[T, None, None]: ...
@overload
def map(  # noqa: A001
    fn: Callable[..., Awaitable[T]],
    first: Iterable[Any],
    second: Iterable[Any],
    /,
    *more: Iterable[Any],
    **options: Unpack[ReturnOptions],
) -> Generator[T | BaseException, None, None]: ...
@overload
def map(  # noqa: A001
    fn: Callable[..., Awaitable[T]],
    first: Iterable[Any],
    second: Iterable[Any],
    /,
    *more: Iterable[Any],
    **options: Unpack[Options],
) -> Generator[T, None, None]: ...
@overload
def map(  # noqa: A001
    fn: Callable[..., T], first: Iterable[Any], second: Iterable[Any], /, *more: Iterable[Any], **options: Unpack[ReturnOptions]
) -> Generator[T | BaseException, None, None]: ...
@overload
def map(  # noqa: A001
    fn: Callable[..., T], first: Iterable[Any], second: Iterable[Any], /, *more: Iterable[Any], **options: Unpack[Options]
) -> Generator[T, None, None]: ...
def map(fn: Callable[..., Any], /, *iterables: Iterable[Any], **options: Any) -> Generator[Any, None, None]:  # noqa: A001
    """The results of `fn` on every item, computed in parallel: `pmap` for code that is not async. Iterate over them.

    It is an iterator like that of the built-in `map`. Nothing runs before the first result is asked for. Then items are pulled
    lazily, in this thread, never further ahead than the window (`buffersize`), so the memory that is needed is bounded. Results
    come in input order unless `ordered=False`. The run goes on between two results. It ends with the iterator: when that is
    exhausted, closed (`.close()`, or `contextlib.closing`) or garbage-collected, and when a call, an iterable or Ctrl-C raises.
    No call is running any more then (threads: none will start any more).

    The calls run in executors of an event loop of asyncpar's own, in another thread. Coroutine functions run in that loop,
    unless an executor is named. "inline" makes the calls here, in this thread, one after another.

    It fits where other libraries take a function like `map`, such as `workers=asyncpar.map` in scipy.optimize.

    Args:
        fn: a function, or a coroutine function.
        iterables: several are zipped, and `fn` gets one argument from each. Async iterables are for `pmap`.
        options: those of `pmap`, with the same meaning; `cache` is one of them. `progress` is called in this thread.

    Raises:
        TypeError: `fn` cannot be called, an iterable cannot be iterated over, or there is no such option.
        ValueError: an option is out of range.

    >>> import asyncpar
    >>> list(asyncpar.map(pow, [2, 3, 4], [5, 2, 1]))
    [32, 9, 4]
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     list(asyncpar.map(pow, [2, 3, 2], [5, 2, 5], cache=asyncpar.Memory(folder, verbose=0)))
    [32, 9, 32]
    """
    plan = make_plan(fn, iterables, RunOptions(**options))
    if isinstance(plan.source, AsyncSource):
        raise TypeError(
            "asyncpar.map takes plain iterables, and one of these is async; iterate over pmap(...) in a coroutine function"
        )
    if not plan.concurrency:
        plan.executor = name_here(plan.executor)
        if is_inline(plan.executor):
            return map_inline(plan)
    return _generate(plan)


map.__signature__ = signature_of_map()  # type: ignore[attr-defined]  # it is what `help` looks for


def _generate(plan: Plan) -> Generator[Any, None, None]:
    feed = _Feed(plan)
    unfinished = hold_unfinished_modules(plan.fn)
    try:
        feed.start()
        while (values := feed.next_values()) is not None:
            count = len(values)
            yield from values
            del values  # not kept while the next are waited for
            feed.hand(count)
        feed.raise_error()
    finally:
        try:
            feed.end()
        finally:
            if unfinished is not None:
                unfinished.release()


class _Feed:
    """One map: the run, and what its consumer's thread does for it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._mailbox: queue.SimpleQueue[int | list[Any] | Statistics | None] = queue.SimpleQueue()
        self._pulled = plan.source  # in this thread
        self._asked = plan.source = AskedSource(self._mailbox.put, plan.source.remaining)
        self._meter: Meter | None = open_meter(plan.options.progress)
        self._run: Run | None = None
        plan.options = plan.options.but(progress=None)
        self._portal_run = PortalRun("asyncpar.map", self._drive, partial(self._mailbox.put, None))

    # The consumer's thread

    def start(self) -> None:
        self._portal_run.start()

    def next_values(self) -> list[Any] | None:
        """The next values, or None at the end. Does meanwhile what the run asks for."""
        while True:
            if self._portal_run.portal.is_foreign:
                raise RuntimeError("this map belongs to the process that this one was forked from")
            message = self._mailbox.get()
            if isinstance(message, int):
                self._pull(message)
            elif isinstance(message, Statistics):
                if self._meter is not None:
                    self._meter.update(message, None)
            else:
                return message

    def hand(self, count: int) -> None:
        if self._run is not None:
            self._portal_run.portal.call_soon(partial(self._run.hand, count))

    def raise_error(self) -> None:
        self._portal_run.result()

    def end(self) -> None:
        """Ends the run, if it goes on, and closes what was pulled."""
        try:
            self._portal_run.end()
        finally:
            if self._meter is not None:
                self._meter.close()
            if isinstance(self._pulled, IteratorSource):
                self._pulled.close()

    def _pull(self, count: int) -> None:
        source = self._pulled
        columns = source.take(count)
        segments = [Segment(None, columns)] if columns else []
        pulled = Pulled(segments, len(columns[0]) if columns else 0, source.exhausted, source.error)
        self._portal_run.portal.call_soon(partial(self._asked.deliver, pulled))

    # The portal's thread

    async def _drive(self) -> None:
        plan = self._plan
        if plan.executor is not None:
            plan.executor = find_in_portal(plan.executor, plan.options.n_jobs)
        options = plan.options
        sink = HandOverSink(ordered=options.ordered, on_error=options.on_error, hand_over=self._mailbox.put)
        self._run = run = plan.make_run(sink, meter=None if self._meter is None else self)
        await run.drive()
        if run.error is not None:
            raise run.error
        if not run.completed:
            raise ExecutorUnavailableError("asyncpar.map was ended before all results were there")

    def update(self, statistics: Statistics, total: int | None) -> None:
        """Part of the run's meter: the consumer's thread will tell the user."""
        self._mailbox.put(statistics)

    def close(self) -> None:
        """Part of the run's meter: the consumer's thread closes the user's."""
