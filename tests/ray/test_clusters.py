"""Clusters that grow, shrink and end, a Ray of its own, and the synchronous doors: each in a program of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from asyncpar import ExecutorUnavailableError, Parallel, RayExecutor, delayed, pmap
from asyncpar.testing.functions import double
from tests.waiting import wait_until


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "scenario",
    [
        "a_cluster_that_changes",
        "a_ray_of_its_own",
        "a_start_that_is_cancelled",
        "the_synchronous_doors",
        "an_end_of_ray_on_this_machine",
        "a_program_that_disconnects",
        "an_executor_that_has_lost_its_ray",
    ],
)
def test_all_is_well_with(scenario: str) -> None:
    command = [sys.executable, "-m", "tests.ray.scenarios", scenario]
    environment = {name: value for name, value in os.environ.items() if name != "TMPDIR"}  # which is too long for sockets
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, env=environment, check=False)
    assert done.stdout.endswith("well\n"), done.stdout[-2000:] + done.stderr[-4000:]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_address_of_another_cluster_is_refused(cluster: str) -> None:
    with pytest.raises(ExecutorUnavailableError, match=r"connected to another Ray than 10\.0\.0\.1:6379"):
        async with RayExecutor("10.0.0.1:6379"):
            pass
    async with RayExecutor(cluster) as executor:
        assert await executor.run(double, 4) == 8


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_processors_are_given_back_after_a_while_without_work(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr("asyncpar.executors.ray._IDLE_SECONDS", 0.1)
    async with RayExecutor() as executor:
        for _ in range(2):
            assert await pmap(double, range(30), executor=executor) == [2 * x for x in range(30)]
            await wait_until(lambda: ray.available_resources().get("CPU") == 2)


@pytest.mark.parametrize("params", [{"num_gpus": 3}, {"inner_max_num_threads": 2}])
def test_what_a_cluster_does_not_take_is_refused(params: dict[str, Any]) -> None:
    with pytest.raises((TypeError, AssertionError), match=r"backend 'ray' (has no|does not accept)"):
        Parallel(backend="ray", **params)([delayed(double)(3)])


def test_what_is_no_address_is_refused() -> None:
    wrong: Any = 3
    with pytest.raises(TypeError, match="RayExecutor takes the address of a cluster"):
        RayExecutor(wrong)
