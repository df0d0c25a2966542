"""What calls, errors and data look like on their way to a Ray cluster and back."""

from __future__ import annotations

import operator
import os
import threading
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncpar import (
    CallTimeoutError,
    ExecutorUnavailableError,
    Memory,
    PicklingError,
    RayExecutor,
    current_call,
    current_worker,
    pmap,
    run,
)
from asyncpar._child.ray_worker import RayWorker
from asyncpar.testing.functions import Marking, Refused, double
from tests.calls.pools import Large, map_inside, sleep_soon

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})], ids=["uvloop"])]

tenant: ContextVar[str] = ContextVar("tenant")


async def test_closures_travel_and_outcomes_name_their_workers(executor: RayExecutor) -> None:
    step = 3
    outcomes = [outcome async for outcome in pmap(lambda x: x + step, range(100), executor=executor).outcomes()]
    assert [outcome.value for outcome in outcomes] == list(range(3, 103))
    assert all(outcome.worker.startswith("worker ") for outcome in outcomes)
    assert {outcome.attempts for outcome in outcomes} == {1}


async def test_a_single_call_is_made(executor: RayExecutor) -> None:
    assert await run(pow, 2, 10, executor=executor) == 1024
    with pytest.raises(ZeroDivisionError):
        await executor.run(operator.truediv, 1, 0)


async def test_an_error_has_the_traceback_of_its_worker_and_names_its_call(executor: RayExecutor, tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        await pmap(Marking(tmp_path, refuses=(5,)), range(10), executor=executor)
    assert "raise Refused" in str(caught.value.__cause__)
    assert any("call 5, item 5" in note for note in caught.value.__notes__)


def writes(array: Any) -> str:
    try:
        array[0] = 7
    except ValueError as error:
        return str(error)
    return "written"


async def test_a_large_array_is_put_once_and_arrives_read_only_unless_a_copy_is_wanted(executor: RayExecutor) -> None:
    array = np.ones(1_000_000)
    results = pmap(writes, [array] * 6, executor=executor, batch_size=1)
    assert set(await results) == {"assignment destination is read-only"}
    statistics = results.statistics()
    assert statistics.shared_bytes == array.nbytes
    assert statistics.inline_bytes < 100_000
    assert statistics.zero_copy_hits == 5
    assert set(await pmap(writes, [array] * 4, executor=executor, batch_size=1, mmap_mode=None)) == {"written"}
    assert (array == 1).all()


async def test_arrays_within_a_function_are_put_once_too_and_results_can_be_written(executor: RayExecutor) -> None:
    array = np.arange(1_000_000)
    results = pmap(partial(np.add, array), range(8), executor=executor, batch_size=1)
    for number, values in enumerate(await results):
        assert values[5] == 5 + number
        values += 1
    assert results.statistics().shared_bytes <= 1.1 * array.nbytes


async def test_much_data_below_the_threshold_travels_with_its_batch(executor: RayExecutor) -> None:
    arrays = [np.full(100_000, number, dtype=np.uint8) for number in range(60)]
    assert await pmap(np.max, arrays, executor=executor, batch_size=30) == list(range(60))


async def test_a_large_function_is_put_once(executor: RayExecutor, tmp_path: Path) -> None:
    results = pmap(Large(tmp_path), range(60), executor=executor, batch_size=1)
    assert [x for x, _ in await results] == list(range(60))
    assert results.statistics().inline_bytes < 200_000
    assert len(list(tmp_path.iterdir())) <= 2


async def test_what_cannot_be_sent_fails_alone(executor: RayExecutor) -> None:
    with pytest.raises(PicklingError, match="lock"):
        await pmap(double, [1, threading.Lock()], executor=executor)


async def test_coroutine_calls_run_beside_each_other_and_time_out_alone(executor: RayExecutor) -> None:
    results = await pmap(sleep_soon, [0, 1000, 0.01], executor=executor, timeout=3, on_error="return")
    assert results[::2] == [0, 0.01]
    assert isinstance(results[1], CallTimeoutError)


def draw(x: int) -> tuple[int, float]:
    return x, current_call().rng.random()


async def test_random_streams_do_not_depend_on_the_executor(executor: RayExecutor) -> None:
    assert await pmap(draw, range(20), executor=executor, seed=5) == await pmap(draw, range(20), executor="inline", seed=5)


async def test_results_are_found_in_a_cache_and_stored_there(executor: RayExecutor, tmp_path: Path) -> None:
    memory, marking = Memory(tmp_path / "cache", verbose=0), Marking(tmp_path)
    for _ in range(2):
        assert await pmap(marking, range(10), executor=executor, cache=memory) == list(range(10))
    assert set(marking.begun.values()) == {1}


def see_tenant(_: int) -> str | None:
    return tenant.get(None)


async def test_context_variables_have_their_callers_values(cluster: str) -> None:
    async with RayExecutor(contextvars=[tenant]) as executor:
        token = tenant.set("ours")
        assert await pmap(see_tenant, range(4), executor=executor) == ["ours"] * 4
        tenant.reset(token)
        assert await pmap(see_tenant, range(4), executor=executor) == [None] * 4


async def test_maps_in_calls_do_not_multiply_processes(executor: RayExecutor) -> None:
    assert await pmap(map_inside, range(3), executor=executor) == [[0, 0], [0, 1], [0, 2]]


def own_actor(_: int) -> bool:
    import ray

    return bool(ray.get_runtime_context().get_actor_id())


def ours(_: int) -> int:
    return current_worker().index


async def test_a_call_runs_in_an_actor_and_finds_no_worker_of_ours(executor: RayExecutor) -> None:
    assert await pmap(own_actor, [0], executor=executor) == [True]
    with pytest.raises(RuntimeError, match="current_worker"):
        await pmap(ours, [0], executor=executor)


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
