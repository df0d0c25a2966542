"""Hits of a map are answered here, between the source and the scheduler, before a batch is cut or a worker is asked.

    iterables ─► pump: pulls, makes keys, looks up ─┬─► answered: outcomes, straight to the sink
                                                    ├─► misses: segments, from which batches are cut
                                                    └─► doubles: wait for the call that has their key
    outcomes of the misses ─► settle ─► doubles are answered, or the next of them becomes a miss

The scheduler sees a source whose items must be awaited. It does not see hits as calls: they are in no batch, so the control law
does not learn from them, and a map in which everything is found leases no place and starts no worker.

# What is looked up ahead

The window of a run is a few batches for each worker, at first single calls. That is too few to look up together. So as long as
looking up is quick, the window has at least as many items as can be looked up in `_AHEAD_SECONDS`. Large arguments and large
results take longer, so the bound is one of memory, too. A window that the user has chosen is kept to.

# Equal calls

Of the calls that are under way, no two have the same key. A double waits, and when the first one has succeeded it is read from
the cache, so that no two items have one mutable object as their result. When the first one has failed for good, or its result
is not there (it could not be kept, or was removed), the next one is made, and the others go on waiting. So the outcomes are
those of a loop that makes the calls one after another, and what succeeds and is kept is computed once. Copying a result that is
not there would save calls, but whoever has it may be changing it by then, and an iterator has no copy.

# Invariants

    every item pulled is in exactly one of: a look-up, misses, doubles, settled, answered, or the scheduler's hands
    exhausted only when all are in the scheduler's hands
    keys of `_doubles` == keys of the calls in `_asked`: each double waits for a call that will be settled
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import anyio.lowlevel

from asyncpar._cache.forms import SCALARS
from asyncpar._child.keyed_calls import keyed, may_call_twins
from asyncpar._contract.batches import Batch, BatchDone
from asyncpar._contract.executor import Executor, Hints, Program, Session
from asyncpar._run.keyed_session import KeyedSession
from asyncpar._run.looking_up import FEW, Looked, Row, Wanted, look_again, look_up
from asyncpar._run.scheduler import OpenSession
from asyncpar._run.segments import Segment, Segments
from asyncpar._run.sources import AnsweringSource, Columns, PumpedSource, Source

_AHEAD_SECONDS = 2e-3  # a thread takes 0.1 ms to begin and to report; a guess
_MOST_AHEAD = 1024  # calls; a guess
_GROWTH = 4
_TURN_SECONDS = 1e-3  # after which the event loop turns
_WORKER = "the cache"

Key: TypeAlias = tuple[str, bytes]  # the function's folder, and the key


class _Double(NamedTuple):
    """A call that waits for another one with the same key."""

    function: Callable[..., Any] | None
    call: int  # its index
    row: Row


class CacheSource(AnsweringSource):
    """Looks up the calls of a source.

    Args:
        inner: the source.
        function: what it is mapped over; the calls of a source may have functions of their own.
    """

    most_at_once = sys.maxsize

    def __init__(self, inner: Source, function: Callable[..., Any]) -> None:
        self._inner = inner
        self._function = function
        self.needs_closing = inner.needs_closing
        self._began = time.time()
        self._turned = time.monotonic()
        self._pulled = 0  # items
        self._left = 0  # that have been taken, to be made or with their outcomes
        self._is_pumped_out = inner.exhausted
        self._answered: list[BatchDone] = []
        self._misses = Segments()
        self._asked: dict[int, Looked] = {}  # {index: what is known of a call that has a key and no outcome yet}
        self._doubles: dict[Key, list[_Double]] = {}  # {key of such a call: those that wait for it}
        self._settled: list[tuple[Looked, list[_Double]]] = []  # calls that have waited, and whose results are to be read
        self._lately: dict[Key, Any] | None = None  # while calls are looked up: what other calls have come to meanwhile
        self._update()

    def opening(self, open_inner: OpenSession | None) -> OpenSession:
        """How sessions are opened for what it does not answer."""

        def open_session(executor: Executor, program: Program, hints: Hints) -> Session:
            if open_inner is not None:  # one for batches with functions of their own
                return KeyedSession(open_inner(executor, program, hints), self._asked)
            return KeyedSession(executor.open(program._replace(fn=keyed(program.fn)), hints), self._asked)

        return open_session

    @property
    def stored(self) -> int:
        return self._misses.calls

    @property
    def remaining(self) -> int | None:
        remaining = self._inner.remaining
        return None if remaining is None else remaining + self._pulled - self._left

    async def aclose(self) -> None:
        await self._inner.aclose()

    # Items come in

    async def pump(self, count: int) -> int:
        columns = await self._pull(min(count, max(self.ahead, FEW)))
        if columns:
            function = self._inner.function
            begin, self._pulled = self._pulled, self._pulled + len(columns[0])
            if may_call_twins(function or self._function):
                await self._look_up(function, begin, columns)
            else:
                self._misses.add(Segment(function, columns, range(begin, self._pulled)))
        self._is_pumped_out = self._inner.exhausted  # not before: until this returns, nobody counts what it has pulled
        self._update()
        return len(columns[0]) if columns else 0

    async def _pull(self, count: int) -> Columns:
        inner = self._inner
        if isinstance(inner, PumpedSource) and not inner.stored:
            await inner.pump(min(count, inner.most_at_once))
        return inner.take(count)

    async def _look_up(self, function: Callable[..., Any] | None, begin: int, columns: Columns) -> None:
        rows = list(zip(*columns, strict=True))
        self._lately = {}
        began = time.monotonic()
        looked = await look_up(function or self._function, rows)
        now = time.monotonic()
        self.ahead = max(1, min(int(_AHEAD_SECONDS / max(now - began, 1e-9) * len(rows)), _GROWTH * len(rows), _MOST_AHEAD))
        self._sort(function, begin, columns, rows, looked)
        self._lately = None
        await self.answer_doubles()
        if now > self._turned + _TURN_SECONDS:
            await anyio.lowlevel.checkpoint()
            self._turned = time.monotonic()

    def _sort(
        self, function: Callable[..., Any] | None, begin: int, columns: Columns, rows: list[Row], looked: list[Looked]
    ) -> None:
        """What has been found is answered, and the rest is to be made, or waits."""
        values: list[Any] = []  # of the last calls, which follow each other
        misses: list[int] = []
        for position, one in enumerate(looked):
            if one.found is not None:
                values.append(one.found.value)
                continue
            if values:
                self._answer(begin + position - len(values), values)
                values = []
            if not self._is_double(function, begin + position, rows[position], one):
                misses.append(position)
        if values:
            self._answer(begin + len(rows) - len(values), values)
        if misses:
            segment = Segment(function, columns, range(begin, begin + len(rows)))
            self._misses.add(segment if len(misses) == len(rows) else segment.selected(misses))

    def _is_double(self, function: Callable[..., Any] | None, index: int, row: Row, looked: Looked) -> bool:
        """Whether a call waits for another one. If not, others with its key will wait for it."""
        if looked.shelf is None:
            return False
        key = _key_of(looked)
        call = _Double(function, index, row)
        if self._lately and key in self._lately:  # its look-up came just before the result
            self._want(looked, self._lately[key], [call])
            return True
        return self._is_waiting(looked, [call])

    def _is_waiting(self, looked: Looked, calls: list[_Double]) -> bool:
        """Whether calls with one key wait for one that is under way. If not, the first one is, and the rest wait for it."""
        key = _key_of(looked)
        if key in self._doubles:
            self._doubles[key] += calls
            return True
        self._asked[calls[0].call] = looked
        self._doubles[key] = calls[1:]
        return False

    def _answer(self, begin: int, values: list[Any]) -> None:
        batch = Batch(range(begin, begin + len(values)), (), attempts=0)
        self._answered.append(BatchDone(batch, values, {}, [(len(values), 0.0)], _WORKER))

    def _update(self) -> None:
        self.exhausted = self._is_pumped_out and self._pulled == self._left
        self.error = self._inner.error
        self.seconds_per_item = self._inner.seconds_per_item

    # Calls go out

    def take_answers(self) -> list[BatchDone]:
        answered, self._answered = self._answered, []
        self._left += sum([len(done.values) for done in answered])
        self._update()
        return answered

    def take(self, count: int) -> Columns:
        taken = self._misses.take(count)
        if taken is None:
            return ()
        assert taken.indices is not None, "what is looked up has been numbered"
        self.function, self.indices = taken.function, _as_range(taken.indices)
        self._left += taken.calls
        self._update()
        return taken.columns

    # Outcomes come back

    def settle(self, done: BatchDone) -> None:
        if not self._asked:
            return
        for position, index in enumerate(done.batch.indices[: len(done.values)]):
            looked = self._asked.pop(index, None)
            if looked is None:
                continue
            waiting = self._doubles.pop(_key_of(looked))
            if position not in done.errors:
                if self._lately is not None:
                    self._lately[_key_of(looked)] = done.values[position]
                self._want(looked, done.values[position], waiting)
            else:
                self._make_or_wait(looked, waiting)

    def _make_or_wait(self, looked: Looked, calls: list[_Double]) -> None:
        """Calls for whose key there is no result after all."""
        if not calls:
            return
        function, index, row = calls[0]
        if not self._is_waiting(looked, calls):
            self._misses.add_first(Segment(function, tuple([[argument] for argument in row]), [index]))

    def _want(self, looked: Looked, value: Any, calls: list[_Double]) -> None:
        """Calls whose key has a result now, although it was not found before."""
        if type(value) in SCALARS:
            for call in calls:
                self._answer(call.call, [value])
        elif calls:
            self._settled.append((looked, calls))

    async def answer_doubles(self) -> None:
        settled, self._settled = self._settled, []
        if not settled:
            return
        wanted = [self._wanted(looked, len(calls)) for looked, calls in settled]
        for (looked, calls), found in zip(settled, await look_again(wanted), strict=True):
            for call, one in zip(calls, found, strict=False):
                self._answer(call.call, [one.value])
            self._make_or_wait(looked, calls[len(found) :])

    def _wanted(self, looked: Looked, calls: int) -> Wanted:
        assert looked.shelf is not None, "only calls with a key wait for others"
        return Wanted(looked.shelf, looked.key, self._began, calls)


def _key_of(looked: Looked) -> Key:
    assert looked.shelf is not None, "it has a key"
    return looked.shelf.folder, looked.key


def _as_range(indices: Sequence[int]) -> Sequence[int]:
    """The same as a range, if they follow each other."""
    return range(indices[0], indices[-1] + 1) if indices[-1] - indices[0] == len(indices) - 1 else indices
