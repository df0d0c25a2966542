"""What calls, errors and data look like on their way to a Ray cluster and back."""

from __future__ import annotations

import os
from contextvars import ContextVar
from typing import Any

import numpy as np
import pytest

from asyncpar import (
    CallTimeoutError,
    ExecutorUnavailableError,
    RayExecutor,
    pmap,
)
from asyncpar._child.ray_worker import RayWorker
from asyncpar.testing.functions import double
from tests.calls.pools import sleep_soon
from tests.clusters import OnAnyCluster

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})], ids=["uvloop"])]

tenant: ContextVar[str] = ContextVar("tenant")


class TestRayExecutor(OnAnyCluster):
    """See there."""


async def test_much_data_below_the_threshold_travels_with_its_batch(executor: RayExecutor) -> None:
    arrays = [np.full(100_000, number, dtype=np.uint8) for number in range(60)]
    assert await pmap(np.max, arrays, executor=executor, batch_size=30) == list(range(60))


async def test_coroutine_calls_run_beside_each_other_and_time_out_alone(executor: RayExecutor) -> None:
    results = await pmap(sleep_soon, [0, 1000, 0.01], executor=executor, timeout=3, on_error="return")
    assert results[::2] == [0, 0.01]
    assert isinstance(results[1], CallTimeoutError)


def see_tenant(_: int) -> str | None:
    return tenant.get(None)


async def test_context_variables_have_their_callers_values(cluster: str) -> None:
    async with RayExecutor(contextvars=[tenant]) as executor:
        token = tenant.set("ours")
        assert await pmap(see_tenant, range(4), executor=executor) == ["ours"] * 4
        tenant.reset(token)
        assert await pmap(see_tenant, range(4), executor=executor) == [None] * 4


def own_actor(_: int) -> bool:
    import ray

    return bool(ray.get_runtime_context().get_actor_id())


async def test_a_call_runs_in_an_actor(executor: RayExecutor) -> None:
    assert await pmap(own_actor, [0], executor=executor) == [True]


class _Unknown:
    """A module that workers do not have."""

    def __reduce__(self) -> Any:
        return _fail_in, (os.getpid(),)


def _fail_in(pid: int) -> Any:
    if os.getpid() != pid:
        raise ModuleNotFoundError("No module named 'asyncpar'")
    return _Unknown()


async def test_workers_without_asyncpar_are_named_as_the_reason(monkeypatch: pytest.MonkeyPatch, executor: RayExecutor) -> None:
    class Worker(RayWorker):
        unknown = _Unknown()

    monkeypatch.setattr("asyncpar._engines.ray_crew.RayWorker", Worker)
    async with RayExecutor() as broken:
        with pytest.raises(ExecutorUnavailableError, match=r"cannot start, or do not have asyncpar.*No module named"):
            await pmap(double, [1], executor=broken)


async def test_workers_with_another_version_are_refused(monkeypatch: pytest.MonkeyPatch, executor: RayExecutor) -> None:
    monkeypatch.setattr("asyncpar._engines.ray_crew.own_version", lambda: "7.0")
    with pytest.raises(ExecutorUnavailableError, match=r"its workers have asyncpar .*, and this is asyncpar 7\.0"):
        await pmap(double, [1], executor=executor)
