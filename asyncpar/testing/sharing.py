"""Runs that use an executor at the same time share its places, which may come and go."""

from __future__ import annotations

import itertools
from typing import Any

import anyio

from asyncpar._map.pmap import pmap
from asyncpar.testing.functions import double, nap
from asyncpar.testing.kit import Kit, compare, wait_until


class Sharing(Kit):
    async def test_runs_at_once_do_not_get_in_each_others_way(self) -> None:
        got: dict[int, list[Any]] = {}
        async with self.executor() as executor:

            async def run(number: int) -> None:
                items = range(number * 1000, number * 1000 + 150)
                got[number] = await pmap(double, items, executor=executor, batch_size=4)

            async with anyio.create_task_group() as group:
                for number in range(4):
                    group.start_soon(run, number)
        for number, results in got.items():
            compare(results, [2 * x for x in range(number * 1000, number * 1000 + 150)], f"run {number} of 4 at once")

    async def test_a_short_run_gets_its_turn_beside_a_long_one(self) -> None:
        async with self.executor() as executor:
            async with pmap(nap, itertools.count(), executor=executor, buffersize=10_000, batch_size=2) as results:
                await anext(results)
                compare(await pmap(double, [21], executor=executor), [42], "a run of one item beside an endless one")
                assert await anext(results) == 1
            await self.check_usable(executor, "two at once")

    async def test_calls_run_side_by_side_on_all_places(self) -> None:
        """A run holds no more places than there are, and each place works."""
        async with self.executor() as executor:
            results = pmap(nap, range(60), executor=executor, batch_size=1)
            outcomes = [outcome async for outcome in results.outcomes()]
            assert executor.workers >= 1, f"executor.workers is {executor.workers}, with {executor.places} places"
        seen = {outcome.worker for outcome in outcomes}
        assert len(seen) <= executor.places, f"{len(seen)} workers have made calls, and there are {executor.places} places"

    async def test_places_may_come_and_go(self) -> None:
        async with self.executor() as executor:
            seen: list[int] = []
            stop_watching = executor.watch(lambda: seen.append(executor.places))
            self.change_places(executor, 0)
            results: list[Any] = []

            async def run() -> None:
                results.extend(await pmap(nap, range(100), executor=executor, batch_size=1))

            async with anyio.create_task_group() as group:
                group.start_soon(run)
                await anyio.sleep(0.05)
                assert not results, "a run came to an end though there were no places"
                for places in (1, 4, 2):
                    self.change_places(executor, places)
                    await anyio.sleep(0.01)
            compare(results, list(range(100)), "a run whose places came late, and changed")
            await wait_until(lambda: seen == [0, 1, 4, 2], f"`watch` reports all changes of the places, not only {seen}")
            stop_watching()
            self.change_places(executor, 3)
            assert seen == [0, 1, 4, 2], "`watch` still reports changes after it was ended"
            await self.check_usable(executor, "changes of the places")
