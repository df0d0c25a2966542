"""A run that feeds an iterator, driven by a background task that the event loop owns.

The consumer gets what has come since it last looked, as one *portion*: as many finished batches as it will work off in about
`_PORTION_SECONDS`. Before each portion the event loop turns once. So where batches are single calls, as those of coroutine
functions are, a turn is not paid for each of them. The loop also turns whenever that time has passed since it last did. So a
consumer that computes for long on each item lets other tasks run after each. Items of a portion leave the window one by one, as
they are handed out.
"""

from __future__ import annotations

import functools
import time
from typing import Any, NoReturn

import anyio.lowlevel

from asyncpar._map.plan import Plan
from asyncpar._platform.background import BackgroundTask, LoopHandle, start_background, wait_through
from asyncpar._run.outcomes import OnError, to_outcomes, values_by_policy
from asyncpar._run.scheduler import Run
from asyncpar._run.sinks import StreamSink
from asyncpar.errors import ExecutorUnavailableError

_PORTION_SECONDS = 1e-3  # a turn of the event loop takes tens of µs; a guess


class Stream:
    """A run that feeds an iterator. The background task that drives it has no reference to the `ParallelMap`. So a
    `ParallelMap` can be garbage-collected, and then abandons the run.
    """

    def __init__(self, plan: Plan, *, outcomes: bool) -> None:
        self.outcomes = outcomes
        self.ended = False  # the consumer has seen the end
        self._on_error: OnError = plan.options.on_error
        self._source = plan.source
        self._sink = StreamSink(ordered=plan.options.ordered, ends_at_error=plan.options.on_error == "raise" and not outcomes)
        self.run = plan.make_run(self._sink, errors_are_values=outcomes)
        self._awaited = False  # a task waits in `next`
        self._task: BackgroundTask | None = None
        self._loop: LoopHandle | None = None
        self.ready: list[Any] = []  # the rest of the portion that is being handed out, last first
        self._portion = 0  # items that it had
        self._portion_began = 0.0
        self.turn_due = 0.0  # when the event loop is to turn before the next item

    async def next(self) -> Any:
        """The next result, once it is there."""
        if self._awaited:
            raise RuntimeError("two tasks cannot iterate over one ParallelMap at the same time; give each its own pmap()")
        self._awaited = True
        try:
            if self.ready and time.monotonic() >= self.turn_due:
                await anyio.lowlevel.checkpoint()
                self.turn_due = time.monotonic() + _PORTION_SECONDS
            if not self.ready:  # as is usual, or since it was closed meanwhile
                await self._refill()
        finally:
            self._awaited = False
        return self.take()

    def take(self) -> Any:
        """The next result that is `ready`, if no turn of the event loop is due."""
        self.run.hand(1)
        return self.ready.pop()

    async def aclose(self) -> None:
        self.ended = True
        self.ready.clear()
        self._sink.end(None)
        if self._task is None:
            await self._source.aclose()
        else:
            self._task.cancel()
            await wait_through(self._task.wait)
            if self.run.closing_error is not None:
                raise self.run.closing_error

    def abandon(self) -> None:
        """Called by the garbage collector, in any thread."""
        if self._task is not None and self._loop is not None and not self._sink.ended:
            self._loop.call_soon(self._task.cancel)

    async def _refill(self) -> None:
        if self._task is None and not self.ended:
            await self._start()
        enough = self._next_portion()
        while not self.ready:
            await anyio.lowlevel.checkpoint()  # once a portion, so that a fast consumer lets other tasks run
            await self._sink.wait()
            taken = [] if self.ended else self._sink.take(enough)
            for done in taken:
                values = to_outcomes(done) if self.outcomes else values_by_policy(done, self._on_error)
                self.run.hand(len(done.values) - len(values))  # skipped ones leave the window at once
                self.ready += values
            if not taken and self._sink.ended:
                self._raise_end()
        self.ready.reverse()
        self._portion, self._portion_began = len(self.ready), time.monotonic()
        self.turn_due = self._portion_began + _PORTION_SECONDS

    def _next_portion(self) -> int:
        """How many items the consumer will work off in time, if they take it as long as the last ones did.

        At most twice as many as those, because one that was short says little about the next.
        """
        spent = time.monotonic() - self._portion_began
        return max(1, min(2 * self._portion, int(self._portion * _PORTION_SECONDS / max(spent, 1e-9))))

    async def _start(self) -> None:
        self._loop = LoopHandle()
        self._task = task = await start_background(functools.partial(_drive_stream, self.run, self._sink))
        if self.ended:  # it was closed before this task began
            task.cancel()

    def _raise_end(self) -> NoReturn:
        self.ended = True
        error, self._sink.error = self._sink.error, None
        if error is None:
            raise StopAsyncIteration
        raise error


async def _drive_stream(run: Run, sink: StreamSink) -> None:
    """The background task of a stream. It delivers even its failure as a value."""
    try:
        await run.drive()
    finally:
        error = run.error
        if error is None and not run.completed:
            error = ExecutorUnavailableError("the event loop has ended this map before all results were there")
        sink.end(error)
