"""Where a number of batches may be ahead: never more are under way, and never more calls are pulled than they have."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import anyio
import anyio.lowlevel
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncpar._contract.batches import BatchDone
from asyncpar._contract.executor import Hints, Parcel, Place
from asyncpar._contract.lending import PooledExecutor
from asyncpar._map.options import RunOptions
from asyncpar._map.plan import Plan
from asyncpar._run.sinks import ListSink
from asyncpar._run.sources import open_source

LONG = (2e-3, 0.1)  # seconds for one call
SHORT = (3e-6, 7e-5, 3e-4, 7e-4)


class Observer:
    """A source, and what its run does with it."""

    def __init__(self, length: int) -> None:
        self._length = length
        self.pulled = self.finished = 0
        self.under_way = self.most_under_way = 0
        self.most_ahead = 0  # calls that have been pulled and are not finished

    def items(self) -> Iterator[int]:
        for number in range(self._length):
            self.pulled += 1
            self.most_ahead = max(self.most_ahead, self.pulled - self.finished)
            yield number


class Timed(Place):
    """Gives calls back as if they had taken a number of seconds each, after a number of turns of the event loop."""

    def __init__(self, observer: Observer, moods: Iterator[tuple[float, int]]) -> None:
        self._observer = observer
        self._moods = moods

    async def run(self, parcel: Parcel) -> BatchDone:
        observer, batch = self._observer, parcel.batch
        seconds, turns = next(self._moods)
        observer.under_way += 1
        observer.most_under_way = max(observer.most_under_way, observer.under_way)
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        observer.under_way -= 1
        observer.finished += len(batch)
        return BatchDone(batch, list(batch.columns[0]), {}, ((len(batch), seconds * len(batch)),), "timed")


class TimedExecutor(PooledExecutor[Timed]):
    def __init__(self, size: int, observer: Observer, moods: Iterator[tuple[float, int]]) -> None:
        super().__init__(size)
        self._observer = observer
        self._moods = moods

    async def start_place(self) -> Timed:
        return Timed(self._observer, self._moods)


def run_all(length: int, batches: int, workers: int, moods: list[tuple[float, int]]) -> Observer:
    observer = Observer(length)
    sink = ListSink(ordered=True, on_error="raise")

    async def main() -> None:
        executor = TimedExecutor(workers, observer, itertools.cycle(moods))
        source = open_source([observer.items()])
        run = Plan(int, 0, source, executor, RunOptions(), Hints(), batches_ahead=batches).make_run(sink)
        await run.drive()
        assert run.error is None

    anyio.run(main)
    assert sink.values == list(range(length))
    return observer


def moods_with(seconds: tuple[float, ...]) -> st.SearchStrategy[list[tuple[float, int]]]:
    return st.lists(st.tuples(st.sampled_from(seconds), st.integers(0, 4)), min_size=1, max_size=10)


@given(st.integers(0, 3000), st.integers(1, 12), st.integers(1, 4), moods_with(LONG + SHORT))
@settings(max_examples=100)
def test_no_more_is_ahead_than_that_many_batches(
    length: int, batches: int, workers: int, moods: list[tuple[float, int]]
) -> None:
    observer = run_all(length, batches, workers, moods)
    calls_of_one = max(1, int(1e-3 / min(seconds for seconds, _ in moods)))
    assert observer.most_ahead <= batches * calls_of_one
    assert observer.most_under_way <= batches


@given(st.integers(0, 200), st.integers(1, 12), st.integers(1, 4), moods_with(LONG))
def test_long_calls_are_counted_one_by_one(length: int, batches: int, workers: int, moods: list[tuple[float, int]]) -> None:
    assert run_all(length, batches, workers, moods).most_ahead <= batches
