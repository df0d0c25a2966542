"""A session of any executor for calls whose keys are known: workers are sent the keys, and what they kept is read here.

It stands between the scheduler and the executor's own session, and neither of them knows. On the way out, it adds the columns
that a `KeyedCall` needs (`_child/keyed_calls.py`). On the way back, it takes them off, and puts results in the place of `KEPT`:
reading them takes a thread, for which the contract has `is_large`.

An entry that a worker kept and that is not found here (it has been cleared, or is on the disk of another machine) costs one
more call: from there on the calls of the batch come back to be run again. They count as begun before, so they answer with their
values.

When a call takes too long and is left to its thread, its flight is given up: the next one who wants its key must not wait for a
call that perhaps never ends. (One that goes on because its run was cancelled is another matter. Its result will be kept, and
whoever wants it waits for it.)
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from itertools import repeat
from operator import is_
from typing import Any

from asyncpar._cache.flights import Place as FlightPlace
from asyncpar._cache.flights import give_up
from asyncpar._child.keyed_calls import KEPT, keyed, may_call_twins
from asyncpar._contract.batches import Batch, BatchDone
from asyncpar._contract.executor import Answer, Fate, Parcel, Place, Session
from asyncpar._run.looking_up import Looked
from asyncpar._run.outcomes import without
from asyncpar._run.session_around import Forms, LongerBatch, SessionAround

Asked = Mapping[int, Looked]  # {index: the key of a call that is under way, and where it is kept}


class KeyedBatch(LongerBatch):
    """A batch with two more columns: the keys of the calls, and whether each has been begun before."""

    __slots__ = ()
    added = 2


class KeyedSession(SessionAround):
    """Args:
    inner: the executor's session. Its program, or the functions of its batches, are `KeyedCall`s.
    """

    def __init__(self, inner: Session, asked: Asked) -> None:
        super().__init__(inner)
        self._asked = asked
        self._forms = Forms(keyed)

    def pack(self, batch: Batch, budget: float) -> Parcel:
        function = batch.function
        if function is not None:
            if not may_call_twins(function):
                return self.inner.pack(batch, budget)
            function = self._forms.of(function)
        keys = [self._asked[index].key if index in self._asked else None for index in batch.indices]
        is_again = bytes([batch.attempts > 1]) * len(batch)
        return self.inner.pack(batch.turned_into(KeyedBatch, (*batch.columns, keys, is_again), function), budget)

    def lease_nowait(self) -> Place | None:
        place = self.inner.lease_nowait()
        return None if place is None else _KeyedPlace(place, self._asked)

    async def lease(self) -> Place:
        return _KeyedPlace(await self.inner.lease(), self._asked)

    def release(self, place: _KeyedPlace) -> None:
        self.inner.release(place.inner)


class _KeyedPlace(Place):
    def __init__(self, inner: Place, asked: Asked) -> None:
        self.inner = inner
        self._asked = asked
        self._batch: Batch

    async def run(self, parcel: Parcel) -> Answer:
        self._batch = parcel.batch
        return await self._take(self.inner.run(parcel))

    async def go_on(self) -> Answer:
        return await self._take(self.inner.go_on())

    async def stop(self) -> None:
        await self.inner.stop()

    async def _take(self, next_answer: Awaitable[Answer]) -> Answer:
        try:
            answer = await next_answer
        finally:
            self.fate, self.goes_on = self.inner.fate, self.inner.goes_on
        if self.fate in (Fate.LEFT, Fate.DETAINED):
            for index in self._batch.indices:
                if index in self._asked:
                    give_up(_flight_of(self._asked[index]))
        return _KeyedAnswer(answer, self._asked) if isinstance(self._batch, KeyedBatch) else answer


def _flight_of(looked: Looked) -> FlightPlace:
    assert looked.shelf is not None, "what has been asked has a key"
    return looked.shelf.folder, looked.key


class _KeyedAnswer:
    """An answer without what has been added, and with the results that the worker has only kept."""

    def __init__(self, answer: Answer, asked: Asked) -> None:
        self._answer = answer
        self._asked = asked
        self._done: BatchDone | None = None
        self.is_large = answer.is_large

    @property
    def loop_share(self) -> float:
        return self._answer.loop_share

    def read(self) -> BatchDone | None:
        done = self._done = self._done or self._answer.read()
        if done is None or (not self.is_large and _has_kept(done.values)):
            self.is_large = True
            return None
        done = done._replace(batch=done.batch.plain, rest=tuple([batch.plain for batch in done.rest]))
        return self._with_kept(done) if self.is_large else done

    def _with_kept(self, done: BatchDone) -> BatchDone:
        """Reads what the worker has kept. Runs in a thread."""
        values = done.values
        for position, value in enumerate(values):
            if value is KEPT:
                looked = self._asked[done.batch.indices[position]]
                assert looked.shelf is not None, "a worker that keeps a result was sent its key"
                found = looked.shelf.store.read(looked.shelf.folder, looked.key, breathe=True)
                if found is None:
                    return _up_to(done, position)
                values[position] = found.value
        return done


def _has_kept(values: Sequence[Any]) -> bool:
    return any(map(is_, values, repeat(KEPT)))


def _up_to(done: BatchDone, position: int) -> BatchDone:
    """`done` as if it had ended before this call."""
    count = len(done.values)
    rest = done.batch.part(position, count, deaths=0, again=True), *done.rest
    kept = without(done, range(position, count))
    first = kept[0] if kept else BatchDone(done.batch.part(0, 0), [], {}, (), done.worker)
    return first._replace(rest=rest, inline_bytes=done.inline_bytes, shared_bytes=done.shared_bytes)
