"""The ways in which a cluster is named: by an address, a client, or not at all; for pmap and for the synchronous doors."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import dask
import psutil
import pytest
from distributed import Client

import asyncpar
from asyncpar import DaskExecutor, ExecutorUnavailableError, Parallel, delayed, parallel_config, pmap
from asyncpar.testing.functions import double
from tests.dask.cluster import Cluster
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio
on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])


async def test_without_an_address_there_is_a_cluster_of_its_own_which_ends_with_the_executor() -> None:
    async with DaskExecutor() as executor:
        assert executor.workers == asyncpar.cpu_count()
        results = await pmap(lambda _: os.getpid(), range(20), executor=executor)
        assert os.getpid() not in results


async def test_a_cluster_of_its_own_ends_even_if_the_client_cannot_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    close = Client.close

    async def fail(client: Client, *arguments: object) -> None:
        await close(client, *arguments)
        raise RuntimeError("not closed")

    executor = DaskExecutor()
    (pid,) = await pmap(own_pid, [1], executor=executor)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="not closed"):
        patch.setattr(Client, "close", fail)
        await executor.aclose()
    assert not psutil.pid_exists(pid)


def test_an_executor_with_a_name_ends_with_its_event_loop(anyio_backend: Any) -> None:
    async def main() -> list[int]:
        return await pmap(double, range(10), executor="dask")

    name, options = anyio_backend
    assert anyio.run(main, backend=name, backend_options=options) == [2 * x for x in range(10)]


@on_asyncio
async def test_without_an_address_the_cluster_of_dasks_configuration_is_used(cluster: Cluster) -> None:
    with dask.config.set({"scheduler-address": cluster.address}):
        pids = set(await pmap(own_pid, range(20), executor="dask", batch_size=1))
    assert pids <= set(cluster.pids())


def own_pid(_: int) -> int:
    return os.getpid()


@on_asyncio
async def test_an_asynchronous_client_of_this_loop_is_used_and_left_open(cluster: Cluster) -> None:
    async with Client(cluster.address, asynchronous=True, set_as_default=False) as client:
        for _ in range(2):
            async with DaskExecutor(client) as executor:
                assert await pmap(double, range(10), executor=executor) == [2 * x for x in range(10)]
        assert await client.submit(abs, -1, pure=False) == 1


@on_asyncio
async def test_of_a_synchronous_client_the_scheduler_is_used(cluster: Cluster) -> None:
    client = await anyio.to_thread.run_sync(lambda: Client(cluster.address, set_as_default=False))
    try:
        async with DaskExecutor(client) as executor:
            assert await pmap(double, range(10), executor=executor) == [2 * x for x in range(10)]
        assert await anyio.to_thread.run_sync(lambda: client.submit(abs, -1, pure=False).result()) == 1
    finally:
        await anyio.to_thread.run_sync(client.close)


@on_asyncio
async def test_nothing_of_ours_stays_in_a_scheduler(cluster: Cluster) -> None:
    async with DaskExecutor(cluster.address) as executor:
        await pmap(double, range(10), executor=executor)
    async with Client(cluster.address, asynchronous=True, set_as_default=False) as client:
        plugins, tasks = await client.run_on_scheduler(look_around)
    assert not [name for name in plugins if name.startswith("asyncpar")]
    assert not tasks


def look_around(dask_scheduler: Any) -> tuple[list[str], list[str]]:
    return list(dask_scheduler.plugins), [str(key) for key in dask_scheduler.tasks]


def test_the_synchronous_doors_run_in_the_portals_loop(cluster: Cluster) -> None:
    with parallel_config(backend="dask", client=cluster.address):
        assert Parallel()(delayed(double)(x) for x in range(30)) == [2 * x for x in range(30)]
        assert list(Parallel(return_as="generator")(delayed(double)(x) for x in range(5))) == [0, 2, 4, 6, 8]
    executor = DaskExecutor(cluster.address)
    assert list(asyncpar.map(double, range(30), executor=executor)) == [2 * x for x in range(30)]
    assert asyncpar.call(double, 4, executor=executor) == 8
    assert Parallel(backend=executor)([delayed(double)(3)]) == [6]


def test_a_backend_of_joblibs_name_needs_no_address(capsys: pytest.CaptureFixture[str]) -> None:
    assert Parallel(backend="dask", verbose=1)(delayed(double)(x) for x in range(30)) == [2 * x for x in range(30)]
    assert "Using backend dask with all of its workers." in capsys.readouterr().err


@pytest.mark.parametrize("pre_dispatch", ["2 * n_jobs", "n_jobs"])
def test_a_generator_of_a_clusters_results_pulls_only_what_is_needed(pre_dispatch: str, cluster: Cluster) -> None:
    pulled = count()
    tasks = (delayed(double)(next(pulled)) for _ in range(10_000))
    with parallel_config(backend="dask", client=cluster.address):
        results = Parallel(return_as="generator", pre_dispatch=pre_dispatch, batch_size=1)(tasks)
    assert next(results) == 0
    results.close()
    assert next(pulled) < 1000


@pytest.mark.parametrize("params", [{"scatter": 3}, {"inner_max_num_threads": 2}])
def test_what_a_cluster_does_not_take_is_refused(params: dict[str, Any]) -> None:
    with pytest.raises((TypeError, AssertionError), match=r"backend 'dask' (has no|does not accept)"):
        Parallel(backend="dask", **params)([delayed(double)(3)])


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_trio_is_refused_and_told_how_to_go_on(cluster: Cluster) -> None:
    executor = DaskExecutor(cluster.address)
    with pytest.raises(ExecutorUnavailableError, match=r"needs asyncio, and this event loop is trio's; asyncpar\.map"):
        await pmap(double, [1], executor=executor)
    with pytest.raises(ExecutorUnavailableError, match="needs asyncio"):
        async with executor:
            pass


@on_asyncio
async def test_an_address_without_a_scheduler_is_named() -> None:
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "300ms"}),
        pytest.raises(ExecutorUnavailableError, match=r"there is no Dask scheduler at tcp://127\.0\.0\.1:1"),
    ):
        async with DaskExecutor("tcp://127.0.0.1:1"):
            pass


@on_asyncio
async def test_after_a_failure_to_connect_the_executor_tries_again(cluster: Cluster) -> None:
    executor = DaskExecutor("tcp://127.0.0.1:1")
    with dask.config.set({"distributed.comm.timeouts.connect": "300ms"}):
        for _ in range(2):
            with pytest.raises(ExecutorUnavailableError, match="there is no Dask scheduler"):
                await pmap(double, [1], executor=executor)
    await executor.aclose()


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "2"])
@on_asyncio
async def test_a_number_of_workers_that_cannot_be_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="scale_to must be"):
        DaskExecutor(scale_to=wrong)


@pytest.mark.parametrize("wrong", [3, ["tcp://x"], object()])
@on_asyncio
async def test_what_is_no_cluster_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="DaskExecutor takes the address"):
        DaskExecutor(wrong)


SCRIPT = """
import asyncpar

def double(x):
    return 2 * x

def main():
    print(list(asyncpar.map(double, range(5), executor="dask")))

"""


def run_script(tmp_path: Path, end: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + end)
    return subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=50, check=False)


def test_a_script_that_leaves_a_cluster_to_its_end_ends_quietly(tmp_path: Path) -> None:
    done = run_script(tmp_path, 'if __name__ == "__main__":\n    main()\n')
    assert (done.stdout, done.stderr, done.returncode) == ("[0, 2, 4, 6, 8]\n", "", 0)


def test_a_script_that_workers_cannot_import_is_told_why(tmp_path: Path) -> None:
    done = run_script(tmp_path, "main()\n")
    assert done.returncode == 1
    assert 'must stand under `if __name__ == "__main__":`' in done.stderr


@on_asyncio
@pytest.mark.parametrize("address", ["", "nowhere", "http://127.0.0.1", "tls://127.0.0.1:1"])
async def test_an_address_that_cannot_be_one_is_refused(address: str) -> None:
    with pytest.raises(ExecutorUnavailableError, match="there is no Dask scheduler at"):
        async with DaskExecutor(address):
            pass


@on_asyncio
async def test_a_client_that_is_closed_is_refused(cluster: Cluster) -> None:
    async with Client(cluster.address, asynchronous=True, set_as_default=False) as client:
        pass
    with pytest.raises(ExecutorUnavailableError, match="was given is closed"):
        await pmap(double, [1], executor=DaskExecutor(client))


@on_asyncio
async def test_an_executor_whose_block_does_not_begin_is_closed() -> None:
    executor = DaskExecutor("nowhere")
    with pytest.raises(ExecutorUnavailableError):
        async with executor:
            pass
    assert executor.closed


async def enter_and_leave(executor: DaskExecutor) -> None:
    async with executor:
        pass


@on_asyncio
async def test_a_cluster_that_is_being_started_when_its_task_is_cancelled_ends() -> None:
    """asyncio's own cancellation does not wait for the thread that starts it."""
    task = asyncio.create_task(enter_and_leave(DaskExecutor()))
    before = set(psutil.Process().children())
    await wait_until(lambda: set(psutil.Process().children()) - before)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@on_asyncio
async def test_clusters_that_are_started_together_leave_dasks_configuration_alone() -> None:
    before = dask.config.get("temporary-directory")
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(enter_and_leave, DaskExecutor())
    assert dask.config.get("temporary-directory") == before


PROGRAM_THAT_DIES = """
import asyncio, os, sys
from asyncpar import DaskExecutor, pmap

async def main():
    await pmap(abs, [1], executor=DaskExecutor(sys.argv[1]))
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""


@on_asyncio
async def test_nothing_of_a_program_that_died_stays_in_a_scheduler(cluster: Cluster) -> None:
    command = [sys.executable, "-c", PROGRAM_THAT_DIES, cluster.address]
    died = await anyio.to_thread.run_sync(lambda: subprocess.run(command, check=False))
    assert died.returncode == -9
    async with Client(cluster.address, asynchronous=True, set_as_default=False) as client, asyncio.timeout(30):
        while [name for name in (await client.run_on_scheduler(look_around))[0] if name.startswith("asyncpar")]:
            await anyio.sleep(0.01)
