"""Workers, data and schedulers that are lost: nothing of a run is, and nobody is blamed who is innocent."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import dask
import numpy as np
import pytest

from asyncpar import DaskExecutor, ExecutorUnavailableError, WorkerDiedError, pmap
from asyncpar.testing.functions import Marking, double
from tests.calls.pools import die_on_odd_tens
from tests.dask.cluster import Cluster
from tests.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


@pytest.fixture
def own_cluster(nothing_is_left_behind: None) -> Iterator[Cluster]:
    cluster = Cluster(2)
    yield cluster
    cluster.close()


def number_after_a_while(array: Any, x: int) -> int:
    time.sleep(0.01)
    return x + int(array[0])


def die_late_at(poison: int, x: int) -> int:
    """Not so early that the cluster has just started this worker in the place of another: it would give up then."""
    if x == poison:
        time.sleep(0.5)
        os._exit(7)
    return x


async def test_a_call_that_kills_its_worker_fails_alone(executor: DaskExecutor) -> None:
    """In a cluster that runs each task twice before it gives up."""
    neighbours: list[int] = []

    async def run_beside() -> None:
        neighbours.extend(await pmap(partial(die_late_at, -1), range(300), executor=executor))

    async with anyio.create_task_group() as group:
        group.start_soon(run_beside)
        results = await pmap(partial(die_late_at, 23), range(60), executor=executor, on_error="return")
    assert neighbours == list(range(300))
    died = results.pop(23)
    assert results == [x for x in range(60) if x != 23]
    assert isinstance(died, WorkerDiedError)
    assert (died.index, died.item) == (23, 23)
    assert "call 23, item 23" in str(died)
    assert await pmap(double, [1], executor=executor) == [2]


async def test_several_calls_that_kill_fail_each_alone() -> None:
    async with DaskExecutor() as executor:
        outcomes = [outcome async for outcome in pmap(die_on_odd_tens, range(40), executor=executor).outcomes()]
    assert [outcome.index for outcome in outcomes if isinstance(outcome.error, WorkerDiedError)] == [10, 30]
    assert [outcome.value for outcome in outcomes if outcome.error is None] == [x for x in range(40) if x not in (10, 30)]


class Poison:
    """Kills the worker that calls it with 7, and is so large that the cluster keeps it, in that worker."""

    def __init__(self) -> None:
        self.data = bytes(2_000_000)

    def __call__(self, x: int) -> int:
        if x == 7:
            time.sleep(0.5)  # as above
            os.kill(os.getpid(), signal.SIGKILL)
        return x


async def test_a_call_that_kills_the_holder_of_its_function_fails_alone(own_cluster: Cluster) -> None:
    own_cluster.tell("scale 1")
    async with DaskExecutor(own_cluster.address) as executor:
        results = await pmap(Poison(), range(20), executor=executor, on_error="return", batch_size=5)
    assert isinstance(results.pop(7), WorkerDiedError)
    assert results == [x for x in range(20) if x != 7]


@pytest.mark.parametrize("killed", [1, 2])
async def test_no_call_is_lost_or_blamed_when_workers_are_killed(killed: int, own_cluster: Cluster) -> None:
    """If it is all of them, the data that they hold is lost, too."""
    array = np.zeros(500_000)
    async with DaskExecutor(own_cluster.address) as executor:
        async with pmap(partial(number_after_a_while, array), range(200), executor=executor) as results:
            found = [await anext(results)]
            for pid in own_cluster.pids()[:killed]:
                os.kill(pid, signal.SIGKILL)
            found += [result async for result in results]
        assert found == list(range(200))
        assert results.statistics().failed == 0


async def test_the_end_of_the_scheduler_ends_a_run_and_says_so(own_cluster: Cluster, tmp_path: Path) -> None:
    marking = Marking(tmp_path, waits=True)
    with dask.config.set({"distributed.comm.timeouts.connect": "500ms"}):
        async with DaskExecutor(own_cluster.address) as executor, asyncio.timeout(20):

            async def kill_when_it_runs() -> None:
                await wait_until(lambda: marking.begun)
                own_cluster.kill_scheduler()
                marking.let_go()

            async with anyio.create_task_group() as group:
                group.start_soon(kill_when_it_runs)
                with pytest.raises(
                    ExecutorUnavailableError, match="the connection to the scheduler of the Dask cluster was lost"
                ):
                    await pmap(marking, range(100), executor=executor, batch_size=1)
            with pytest.raises(ExecutorUnavailableError, match="the connection"):
                await pmap(double, range(5), executor=executor)
