"""Workers come and go while runs are on."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from distributed import Client

from asyncpar import DaskExecutor, pmap
from asyncpar.testing.functions import Marking, double
from tests.dask.cluster import Cluster
from tests.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


@pytest.fixture
def empty_cluster(nothing_is_left_behind: None) -> Iterator[Cluster]:
    cluster = Cluster(0)
    yield cluster
    cluster.close()


async def test_a_run_begins_before_there_are_workers_and_uses_all_that_come(empty_cluster: Cluster, tmp_path: Path) -> None:
    marking = Marking(tmp_path, waits=True)
    seen: list[int] = []
    async with DaskExecutor(empty_cluster.address) as executor, anyio.create_task_group() as group:
        executor.watch(lambda: seen.append(executor.workers))
        found: list[int] = []

        async def run() -> None:
            found.extend(await pmap(marking, range(200), executor=executor, batch_size=1))

        group.start_soon(run)
        empty_cluster.tell("scale 1")
        await wait_until(lambda: len(marking.begun) == 1)
        empty_cluster.tell("scale 3")
        await wait_until(lambda: len(marking.begun) == 3)
        assert executor.workers == 3
        marking.let_go()
    assert found == list(range(200))
    assert seen in ([2, 3], [3])  # one worker is what is assumed as long as there is none


def number_slowly(x: int) -> int:
    time.sleep(0.3)
    return x


async def test_an_adaptive_cluster_without_workers_starts_some(empty_cluster: Cluster) -> None:
    empty_cluster.tell("adapt 0 2")
    async with DaskExecutor(empty_cluster.address) as executor:
        assert await pmap(number_slowly, range(12), executor=executor) == list(range(12))


async def test_an_adaptive_cluster_grows_for_a_run_that_says_how_far(empty_cluster: Cluster) -> None:
    empty_cluster.tell("adapt 0 3")
    async with DaskExecutor(empty_cluster.address, scale_to=8) as executor:
        assert executor.workers == 8
        async with pmap(own_worker, itertools.count(), executor=executor) as results, asyncio.timeout(30):
            seen = {await anext(results)}
            while len(seen) < 3:
                seen.add(await anext(results))


def own_worker(_: int) -> int:
    time.sleep(0.3)
    return os.getpid()


async def test_data_is_sent_once_there_is_a_worker(empty_cluster: Cluster) -> None:
    empty_cluster.tell("adapt 0 1")
    array = np.ones(500_000)
    async with DaskExecutor(empty_cluster.address) as executor:
        results = pmap(np.sum, [array] * 3, executor=executor, batch_size=1)
        assert await results == [500_000] * 3
        assert results.statistics().shared_bytes == array.nbytes


async def test_a_worker_that_leaves_takes_no_call_with_it(cluster: Cluster) -> None:
    async with DaskExecutor(cluster.address) as executor:
        async with pmap(double, range(200), executor=executor, batch_size=2) as results:
            found = [await anext(results)]
            cluster.tell("scale 1")
            await wait_until(lambda: executor.workers == 1)
            found += [result async for result in results]
        assert found == [2 * x for x in range(200)]
        cluster.tell("scale 2")
        await wait_until(lambda: executor.workers == 2)


async def test_after_a_new_connection_the_executor_follows_the_workers_again(cluster: Cluster) -> None:
    async with Client(cluster.address, asynchronous=True, set_as_default=False) as client, DaskExecutor(client) as executor:
        connection = client.scheduler_comm
        async with Client(cluster.address, asynchronous=True, set_as_default=False) as other:
            await other.run_on_scheduler(disconnect, client.id)
        await wait_until(lambda: client.status == "running" and client.scheduler_comm is not connection)
        assert await pmap(double, range(10), executor=executor) == [2 * x for x in range(10)]
        cluster.tell("scale 3")
        await wait_until(lambda: executor.workers == 3)
        cluster.tell("scale 2")
        await wait_until(lambda: executor.workers == 2)


def disconnect(client: str, dask_scheduler: Any) -> None:
    dask_scheduler.client_comms[client].comm.abort()
