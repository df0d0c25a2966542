"""Workers are replaced when they have grown or have made enough calls, a call that asks for too much gets a MemoryError; none
of that costs another call.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from asyncpar import ProcessExecutor, pmap
from tests.calls.memory_caps import MIB, Hoard, Logged, allocate
from tests.functions import double, process_id
from tests.loops import on_one_loop

pytestmark = pytest.mark.anyio


@on_one_loop
@pytest.mark.parametrize("batch_size", ["auto", 1, 3])
async def test_a_call_that_asks_for_too_much_gets_a_memory_error_and_its_worker_goes_on(batch_size: Any) -> None:
    async with ProcessExecutor(1, max_memory=256 * MIB) as executor:
        sizes = [MIB, 1024 * MIB, 2 * MIB]
        results: list[Any] = await pmap(allocate, sizes, executor=executor, on_error="return", batch_size=batch_size)
        first, refused, last = results
        assert isinstance(refused, MemoryError)
        assert (first[0], last[0]) == (MIB, 2 * MIB)
        assert first[1] == last[1]


async def test_a_worker_that_has_grown_is_replaced_and_no_call_is_lost(tmp_path: Path) -> None:
    hoard = Hoard(Logged(tmp_path / "log"))
    async with ProcessExecutor(2, max_memory=64 * MIB) as executor:
        results = await pmap(hoard, range(160), executor=executor)
    assert [x for x, _ in results] == list(range(160))
    hoard.log.assert_each_was_called_once(range(160))
    assert max(Counter(pid for _, pid in results).values()) < 64


@pytest.mark.parametrize("batch_size", ["auto", 1, 10])
@pytest.mark.parametrize("kind", ["plain", "coroutine"])
async def test_a_worker_makes_no_more_calls_than_it_may(tmp_path: Path, batch_size: Any, kind: str) -> None:
    log = Logged(tmp_path / "log")
    function: Any = log if kind == "plain" else log.soon
    async with ProcessExecutor(2, max_calls_per_worker=7, preload=["asyncio"]) as executor:  # for the many that come
        results = await pmap(function, range(40), executor=executor, batch_size=batch_size)
        more = await pmap(process_id, range(10), executor=executor, batch_size=batch_size)
    assert [x for x, _ in results] == list(range(40))
    log.assert_each_was_called_once(range(40))
    calls = Counter([pid for _, pid in results] + more)
    assert max(calls.values()) <= 7
    assert len(calls) >= 50 / 7


async def test_a_worker_whose_calls_are_used_up_is_gone_before_the_next_run() -> None:
    async with ProcessExecutor(1, max_calls_per_worker=1) as executor:
        pids = [(await pmap(process_id, [0], executor=executor))[0] for _ in range(5)]
        assert len(set(pids)) == 5
        assert await pmap(double, range(3), executor=executor) == [0, 2, 4]
