"""A map inside a call neither deadlocks nor multiplies processes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import anyio
import psutil
import pytest

from asyncpar import pmap
from tests.functions import double

pytestmark = pytest.mark.anyio

Place = tuple[int, int]


def here(_: object = None) -> Place:
    """Which process and which thread this is."""
    return os.getpid(), threading.get_ident()


def map_inside(fn: Callable[[int], Any], count: int) -> list[Any]:
    """A map in an event loop of its own, as a sync function may run it."""

    async def main() -> list[Any]:
        return await pmap(fn, range(count))

    return anyio.run(main)


def two_levels(_: object) -> tuple[Place, list[Place], int]:
    return here(), map_inside(here, 4), len(psutil.Process().children())


def two_levels_below(_: object) -> tuple[Place, list[Place]]:
    return here(), map_inside(here, 4)


def three_levels(_: object) -> list[tuple[Place, list[Place]]]:
    return map_inside(two_levels_below, 2)


def sum_of_doubles(x: int) -> int:
    return sum(map_inside(double, x))


async def sum_of_doubles_soon(x: int) -> int:
    return sum(await pmap(double, range(x), executor="process"))


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
    with anyio.fail_after(60):
        assert await pmap(sum_of_doubles, range(12), executor=kind, n_jobs=2) == [x * (x - 1) for x in range(12)]


async def test_coroutine_calls_may_share_the_pool_that_runs_their_own_maps() -> None:
    with anyio.fail_after(60):
        assert await pmap(sum_of_doubles_soon, range(20), concurrency=20) == [x * (x - 1) for x in range(20)]
