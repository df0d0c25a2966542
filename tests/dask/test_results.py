"""What calls, errors and data look like on their way to a Dask cluster and back."""

from __future__ import annotations

import asyncio
import gc
import operator
import os
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from distributed import Client

from asyncpar import (
    CallTimeoutError,
    DaskExecutor,
    ExecutorUnavailableError,
    pmap,
)
from asyncpar.testing.functions import Marking, double
from tests.calls.pools import sleep_at_two, sleep_soon
from tests.clusters import OnAnyCluster
from tests.dask.cluster import Cluster
from tests.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

tenant: ContextVar[str] = ContextVar("tenant")


class TestDaskExecutor(OnAnyCluster):
    """See there."""


class Counted:
    """A function that is so large that the cluster keeps it."""

    def __init__(self) -> None:
        self.data = bytes(2_000_000)

    def __call__(self, x: int) -> int:
        return x


def count_functions() -> int:
    gc.collect()
    return sum([type(thing) is Counted for thing in gc.get_objects()])


async def test_workers_keep_no_large_function_of_an_ended_run(cluster: Cluster, executor: DaskExecutor) -> None:
    for _ in range(3):
        assert await pmap(Counted(), range(4), executor=executor, batch_size=1) == [0, 1, 2, 3]
    async with Client(cluster.address, asynchronous=True, set_as_default=False) as client, asyncio.timeout(30):
        while sum((await client.run(count_functions)).values()):
            await anyio.sleep(0.01)


async def test_large_results_come_back_whole(executor: DaskExecutor) -> None:
    for number, text in enumerate(await pmap(partial(operator.mul, b"ab"), [1_000_000, 2, 3_000_000], executor=executor)):
        assert text == b"ab" * [1_000_000, 2, 3_000_000][number]


async def test_coroutine_calls_run_beside_each_other_and_time_out_alone(executor: DaskExecutor) -> None:
    results = await pmap(sleep_soon, [0, 1000, 0.01], executor=executor, timeout=0.3, on_error="return")
    assert results[::2] == [0, 0.01]
    assert isinstance(results[1], CallTimeoutError)


async def test_a_call_that_takes_too_long_fails_when_it_returns(executor: DaskExecutor) -> None:
    results = await pmap(sleep_at_two, range(5), executor=executor, timeout=0.2, on_error="return", batch_size=5)
    assert isinstance(results.pop(2), CallTimeoutError)
    assert results == [0, 1, 3, 4]


async def test_context_variables_have_their_callers_values(cluster: Cluster) -> None:
    async with DaskExecutor(cluster.address, contextvars=[tenant]) as executor:
        token = tenant.set("ours")
        assert await pmap(see_tenant, range(4), executor=executor) == ["ours"] * 4
        tenant.reset(token)
        assert await pmap(see_tenant, range(4), executor=executor) == [None] * 4


def see_tenant(_: int) -> str | None:
    return tenant.get(None)


async def test_a_call_finds_dasks_own_worker(executor: DaskExecutor) -> None:
    assert await pmap(own_address, [0], executor=executor) == [True]


def own_address(_: int) -> bool:
    from distributed import get_worker

    return str(get_worker().address).startswith("tcp://")


async def test_cancelling_takes_back_what_no_worker_has_begun(cluster: Cluster, executor: DaskExecutor, tmp_path: Path) -> None:
    marking = Marking(tmp_path, waits=True)
    results = pmap(marking, range(100), executor=executor, batch_size=1)

    async def consume() -> None:
        await results

    async with anyio.create_task_group() as group:
        group.start_soon(consume)
        await wait_until(lambda: len(marking.begun) == 2)
        group.cancel_scope.cancel()
    async with Client(cluster.address, asynchronous=True, set_as_default=False) as client:
        while sum((await client.run(tasks_that_wait)).values()):
            await anyio.sleep(0.01)
    marking.let_go()
    assert results.statistics().abandoned == executor.places
    assert await pmap(double, range(20), executor=executor) == [2 * x for x in range(20)]
    assert len(marking.begun) == 2


def tasks_that_wait(dask_worker: Any) -> int:
    return sum(task.state == "ready" for task in dask_worker.state.tasks.values())


async def test_batches_of_a_size_that_was_asked_for_come_back_in_time_too(executor: DaskExecutor) -> None:
    """Otherwise the rest of such a batch would be run after a cancellation, however long that takes."""
    outcomes = pmap(sleep_a_little, range(8), executor=executor, batch_size=8)
    assert await outcomes == list(range(8))
    assert outcomes.statistics().batches > 1


def sleep_a_little(x: int) -> int:
    import time

    time.sleep(0.2)
    return x


async def test_workers_without_asyncpar_are_named_as_the_reason(
    executor: DaskExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asyncpar.executors import dask

    monkeypatch.setattr(dask, "run_in_cluster", _Unknown())
    with pytest.raises(ExecutorUnavailableError, match=r"did not run a batch.* its workers need asyncpar in the same version"):
        await pmap(double, [1], executor=executor)
    monkeypatch.setattr(dask, "Box", lambda *_, **__: _Unknown())
    with pytest.raises(ExecutorUnavailableError, match=r"did not take data.* its workers need asyncpar in the same version"):
        await pmap(len, [bytes(2_000_000)], executor=executor)


class _Unknown:
    def __call__(self, *_: Any) -> None: ...

    def __reduce__(self) -> Any:
        return _fail_in, (os.getpid(),)


def _fail_in(pid: int) -> Any:
    if os.getpid() != pid:
        raise ModuleNotFoundError("No module named 'asyncpar'")
    return _Unknown()
