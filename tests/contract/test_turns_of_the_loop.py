"""How often the event loop turns while coroutine calls run in it and a stream hands out their results."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import anyio
import anyio.lowlevel
import pytest

from asyncpar import pmap
from asyncpar._map import stream
from tests.functions import double_soon

pytestmark = pytest.mark.anyio


class Turns:
    """Counts the turns of the event loop, as a task beside the stream sees them."""

    def __init__(self) -> None:
        self.count = 0

    async def run(self) -> None:
        while True:
            await anyio.lowlevel.checkpoint()
            self.count += 1


@asynccontextmanager
async def counting_turns() -> AsyncIterator[Turns]:
    turns = Turns()
    async with anyio.create_task_group() as group:
        group.start_soon(turns.run)
        yield turns
        group.cancel_scope.cancel()


@pytest.mark.parametrize("ordered", [True, False])
async def test_what_has_come_is_handed_out_without_a_turn_for_each_item(monkeypatch: pytest.MonkeyPatch, ordered: bool) -> None:
    monkeypatch.setattr(stream, "_PORTION_SECONDS", 1e9)  # no consumer is too slow
    async with counting_turns() as turns, pmap(double_soon, range(1000), ordered=ordered) as results:
        got = [result async for result in results]
    assert sorted(got) == [2 * x for x in range(1000)]
    assert turns.count < 200


async def test_outcomes_come_in_portions_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_PORTION_SECONDS", 1e9)
    async with counting_turns() as turns:
        indices = [outcome.index async for outcome in pmap(double_soon, range(1000)).outcomes()]
    assert indices == list(range(1000))
    assert turns.count < 200


async def test_a_consumer_that_computes_for_long_lets_other_tasks_run_after_each_item() -> None:
    seen = []
    async with counting_turns() as turns, pmap(double_soon, range(30)) as results:
        async for _ in results:
            seen.append(turns.count)
            time.sleep(2 * stream._PORTION_SECONDS)  # noqa: ASYNC251 - it holds the event loop, and that is the point
    assert seen[-1] - seen[0] >= 28  # on trio, this task and the one that counts run in any order within a turn


async def test_what_is_in_the_portion_counts_as_pulled_until_it_is_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_PORTION_SECONDS", 1e9)
    pulled = 0

    def numbers() -> Iterator[int]:
        nonlocal pulled
        for number in range(200):
            pulled += 1
            yield number

    async with pmap(double_soon, numbers(), buffersize=20) as results:
        handed = 0
        async for _ in results:
            assert pulled - handed <= 20
            handed += 1
    assert handed == 200


async def test_calls_that_never_wait_do_not_hold_the_event_loop() -> None:
    async def never_wait(x: int) -> int:
        return x

    async def map_without_end() -> None:
        await pmap(never_wait, itertools.count())

    async with counting_turns() as turns, anyio.create_task_group() as group:
        group.start_soon(map_without_end)
        while turns.count < 20:
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()


async def test_the_event_loop_turns_before_each_call_that_computes_for_long() -> None:
    async def compute(_: int) -> int:
        time.sleep(2e-3)  # noqa: ASYNC251 - it holds the event loop, and that is the point
        return turns.count

    async with counting_turns() as turns:
        seen = await pmap(compute, range(30), concurrency=1)
    assert seen[-1] - seen[0] >= 28  # as above


async def test_a_consumer_that_becomes_slow_lets_other_tasks_run_after_each_item(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(stream, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr("asyncpar._map.pmap.monotonic", lambda: clock[0])
    async with counting_turns() as turns, pmap(double_soon, range(2000)) as results:
        seen = 0
        async for _ in results:
            seen += 1
            if seen > 1000:  # after a thousand that took no time at all
                clock[0] += 1.0
            if seen == 1001:
                before = turns.count
    assert turns.count - before >= 990
