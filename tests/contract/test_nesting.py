"""A map inside a call neither deadlocks nor multiplies processes."""

from __future__ import annotations

import os

import pytest

from asyncpar import pmap
from tests.calls.nesting import (
    sum_of_doubles,
    sum_of_doubles_soon,
    three_levels,
    two_levels,
)

pytestmark = pytest.mark.anyio


async def test_a_map_in_a_worker_process_uses_threads() -> None:
    for outside, inside, children in await pmap(two_levels, range(4), executor="process"):
        assert outside[0] != os.getpid()
        assert {process for process, _ in inside} == {outside[0]}
        assert outside[1] not in {thread for _, thread in inside}
        assert children == 0


async def test_a_map_in_a_worker_thread_uses_threads() -> None:
    for outside, inside, _ in await pmap(two_levels, range(4), executor="thread"):
        assert {process for process, _ in inside} == {os.getpid()}
        assert outside[1] not in {thread for _, thread in inside}


@pytest.mark.parametrize("kind", ["process", "thread"])
async def test_a_map_in_a_map_in_a_worker_runs_inline(kind: str) -> None:
    for level in await pmap(three_levels, range(2), executor=kind):
        for outside, inside in level:
            assert set(inside) == {outside}


@pytest.mark.parametrize("kind", ["process", "thread"])
async def test_more_nested_maps_than_workers_do_not_deadlock(kind: str) -> None:
    assert await pmap(sum_of_doubles, range(12), executor=kind, n_jobs=2) == [x * (x - 1) for x in range(12)]


async def test_coroutine_calls_may_share_the_pool_that_runs_their_own_maps() -> None:
    assert await pmap(sum_of_doubles_soon, range(20), concurrency=20) == [x * (x - 1) for x in range(20)]
