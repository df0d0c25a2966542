"""Executors of others: places that come and go, and executors that lose calls."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from asyncpar import ExecutorUnavailableError, pmap
from asyncpar._contract.batches import BatchDone
from asyncpar._contract.executor import Parcel, Place, Traits
from asyncpar._contract.lending import PooledExecutor
from tests.loops import on_one_loop
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio


class Here(Place):
    """Makes the calls of a batch where it stands, with a turn of the event loop before each."""

    def __init__(self, executor: Calls) -> None:
        self._executor = executor

    async def run(self, parcel: Parcel) -> BatchDone:
        values = []
        self._executor.under_way += 1
        self._executor.most_under_way = max(self._executor.most_under_way, self._executor.under_way)
        try:
            for row in zip(*parcel.batch.columns, strict=True):
                await anyio.lowlevel.checkpoint()
                values.append(parcel.program.fn(*row))
        finally:
            self._executor.under_way -= 1
        return self._executor.spoil(BatchDone(parcel.batch, values, {}, [(len(values), 1e-6)], "here"))


class Calls(PooledExecutor[Here]):
    def __init__(self, size: int, traits: Traits, spoil: Callable[[BatchDone], BatchDone] = lambda done: done) -> None:
        super().__init__(size)
        self.traits = traits
        self.spoil = spoil
        self.under_way = self.most_under_way = 0
        self.dropped: list[Here] = []

    async def start_place(self) -> Here:
        return Here(self)

    def drop_place(self, place: Here) -> None:
        self.dropped.append(place)


@pytest.mark.parametrize("prepares", [True, False])
@pytest.mark.parametrize("first", [0, 1])
async def test_a_run_follows_places_that_come_while_it_goes_on(prepares: bool, first: int) -> None:
    executor = Calls(first, Traits(prepares=prepares))
    results = pmap(abs, range(-500, 0), executor=executor, batch_size=1)
    async with anyio.create_task_group() as group:

        async def more() -> None:
            await wait_until(lambda: results.statistics().batches >= first)
            executor.pool.resize(4)

        group.start_soon(more)
        assert await results == list(range(500, 0, -1))
    assert executor.most_under_way == 4
    assert results.statistics().workers == 4
    await executor.aclose()
    assert len(executor.dropped) == 4


@on_one_loop
async def test_places_may_be_changed_from_a_callback_of_the_event_loop() -> None:
    loop = asyncio.get_running_loop()
    batches = itertools.count(1)

    def change(done: BatchDone) -> BatchDone:
        if next(batches) == 20:
            loop.call_soon(executor.pool.resize, 0)
            loop.call_later(0.01, executor.pool.resize, 2)
        return done

    executor = Calls(0, Traits(), change)
    loop.call_soon(executor.pool.resize, 3)
    assert await pmap(abs, range(1000), executor=executor, batch_size=7) == list(range(1000))
    assert executor.most_under_way == 3
    assert len(executor.dropped) >= 3
    assert executor.pool.started <= 2


def losing_one(done: BatchDone) -> BatchDone:
    return done._replace(values=done.values[:-1], timings=[(len(done.values) - 1, 1e-6)])


def adding_one(done: BatchDone) -> BatchDone:
    return done._replace(values=[*done.values, 1], timings=[(len(done.values) + 1, 1e-6)])


def timing_nothing(done: BatchDone) -> BatchDone:
    return done._replace(timings=())


@on_one_loop
@pytest.mark.parametrize("spoil", [losing_one, adding_one, timing_nothing])
@pytest.mark.parametrize("length", [1, 100])
async def test_an_executor_that_loses_calls_fails_the_run(spoil: Any, length: int) -> None:
    with pytest.raises(ExecutorUnavailableError, match="the Calls is defective: of a batch of"):
        await pmap(abs, range(length), executor=Calls(2, Traits(), spoil))


@on_one_loop
async def test_statistics_count_workers_and_not_their_places() -> None:
    results = pmap(abs, range(1000), executor=Calls(8, Traits(depth=2)))
    await results
    assert results.statistics().workers == 4
