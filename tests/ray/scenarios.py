"""Programs that have a Ray to themselves, since a process has one connection: `python -m tests.ray.scenarios NAME`."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import psutil

import asyncpar
from asyncpar import ExecutorUnavailableError, Parallel, RayExecutor, delayed, parallel_config, pmap
from asyncpar.testing.functions import Marking, double
from tests.ray.cluster import MOST_BYTES, running
from tests.waiting import wait_until


def a_cluster_that_changes() -> None:
    """A run begins before there are processors, uses all that come, and loses nothing when a node goes."""
    with running(0) as cluster:
        add_node = partial(cluster.add_node, object_store_memory=MOST_BYTES)
        anyio.run(_work_while_it_changes, cluster, add_node, backend="trio")


async def _work_while_it_changes(cluster: Any, add_node: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        marking = Marking(Path(folder), waits=True)
        found: list[int] = []
        async with RayExecutor(cluster.address) as executor, anyio.create_task_group() as group:

            async def run() -> None:
                async for x in pmap(marking, range(100), executor=executor, batch_size=1):
                    found.append(x)

            group.start_soon(run)
            await anyio.sleep(0.1)
            assert not marking.begun
            assert executor.workers == 1  # is what is assumed as long as there is none
            add_node(num_cpus=1)
            await wait_until(lambda: len(marking.begun) == 1)
            node = add_node(num_cpus=2)
            await wait_until(lambda: len(marking.begun) == 3)
            assert executor.workers == 3
            cluster.remove_node(node, allow_graceful=False)
            await wait_until(lambda: executor.workers == 1)
            marking.let_go()
        assert found == list(range(100))
        often = [x for x, count in marking.begun.items() if count > 1]
        assert 2 <= len(often) <= 4, often  # what the node had is made again


def a_ray_of_its_own() -> None:
    """It listens on the loopback interface only, and is gone when the last executor that uses it is closed."""
    before = _surroundings()
    anyio.run(_use_a_ray_of_its_own)
    assert _surroundings() == before, (before, _surroundings())
    assert not psutil.Process().children(recursive=True)
    assert not list(Path("/tmp").glob(f"asyncpar-ray-*/*_{os.getpid()}"))


async def _use_a_ray_of_its_own() -> None:
    async with RayExecutor() as executor:
        assert executor.workers == asyncpar.cpu_count()
        assert await pmap(lambda x: x + 1, range(20), executor=executor) == list(range(1, 21))
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        open_to_all = [at for process in processes for at in _listens(process) if at not in ("127.0.0.1", "::ffff:127.0.0.1")]
        assert len(processes) > 3
        assert not open_to_all, open_to_all
        async with RayExecutor() as other:
            assert await pmap(double, range(20), executor=other) == [2 * x for x in range(20)]
        assert await pmap(double, range(20), executor=executor) == [2 * x for x in range(20)]
        try:
            async with RayExecutor("10.0.0.1:6379"):
                raise AssertionError("it is connected to two clusters")
        except ExecutorUnavailableError as error:
            assert "connected to another Ray than 10.0.0.1:6379" in str(error)  # noqa: PT017 - this is no test


def _listens(process: psutil.Process) -> list[str]:
    return [at.laddr.ip for at in process.net_connections() if at.status == psutil.CONN_LISTEN]


def _surroundings() -> list[object]:
    import ray  # whose import leaves a variable

    environment = {name: value for name, value in os.environ.items() if name.startswith(("RAY", "PYTHON"))}
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    levels = [logging.getLogger(name).level for name in (None, "ray")]
    return [ray.is_initialized(), environment, handlers, sys.excepthook, faulthandler.is_enabled(), levels]


def a_start_that_is_cancelled() -> None:
    """By asyncio itself, as Ctrl-C does: nothing is left of the Ray that was being started."""
    asyncio.run(_cancel_a_start())


async def _cancel_a_start() -> None:
    import ray

    async def start() -> None:
        async with RayExecutor():
            raise AssertionError("it has started")

    starting = asyncio.create_task(start())
    await wait_until(lambda: any(thread.name == "asyncpar-ray" for thread in threading.enumerate()))
    starting.cancel()
    await asyncio.wait([starting])
    assert starting.cancelled()
    assert not any(thread.name == "asyncpar-ray" for thread in threading.enumerate())
    assert not ray.is_initialized()
    assert not psutil.Process().children(recursive=True)
    assert not list(Path("/tmp").glob(f"asyncpar-ray-*/*_{os.getpid()}"))


def the_synchronous_doors() -> None:
    assert Parallel(backend="ray")(delayed(double)(x) for x in range(30)) == [2 * x for x in range(30)]
    with parallel_config(backend="ray"):
        assert list(Parallel(return_as="generator")(delayed(double)(x) for x in range(5))) == [0, 2, 4, 6, 8]
    assert list(asyncpar.map(double, range(30), executor="ray")) == [2 * x for x in range(30)]
    assert asyncpar.call(double, 4, executor="ray") == 8


def an_end_of_ray_on_this_machine() -> None:
    """A run ends, and says why, instead of waiting forever."""
    with running(2) as cluster:
        anyio.run(_work_until_ray_ends, cluster)


async def _work_until_ray_ends(cluster: Any) -> None:
    async with RayExecutor(cluster.address) as executor:
        results = pmap(_nap, range(1_000_000), executor=executor)
        await anext(results)
        (raylet,) = [process for process in psutil.Process().children() if process.name() == "raylet"]
        raylet.kill()
        try:
            async for _ in results:
                pass
        except ExecutorUnavailableError as error:
            assert "Ray has ended on this machine" in str(error)  # noqa: PT017 - this is no test
            return
        raise AssertionError("the run has not ended by that")


def an_executor_that_has_lost_its_ray() -> None:
    """It does not end the one of an executor that was made later."""
    anyio.run(_close_an_executor_that_has_lost_its_ray)


async def _close_an_executor_that_has_lost_its_ray() -> None:
    import ray

    lost = RayExecutor()
    async with lost:
        ray.shutdown()
        async with RayExecutor() as executor:
            await lost.aclose()
            with anyio.fail_after(20):
                assert await pmap(double, range(3), executor=executor) == [0, 2, 4]


def a_program_that_disconnects() -> None:
    """The run that is on ends, and says why; so does one that begins when the program has connected anew."""
    import ray

    with running(2) as cluster:
        ray.init(cluster.address, log_to_driver=False)
        anyio.run(_work_until_disconnected, cluster.address)
        ray.shutdown()


async def _work_until_disconnected(address: str) -> None:
    import ray

    async with RayExecutor() as executor:
        results = pmap(_nap, range(1_000_000), executor=executor)
        await anext(results)
        ray.shutdown()
        await _refused_as_disconnected(results)
    ray.init(address, log_to_driver=False)
    async with RayExecutor() as executor:
        assert await pmap(double, range(3), executor=executor) == [0, 2, 4]
        ray.shutdown()
        ray.init(address, log_to_driver=False)
        await _refused_as_disconnected(pmap(double, range(3), executor=executor))


async def _refused_as_disconnected(results: Any) -> None:
    try:
        with anyio.fail_after(20):
            async for _ in results:
                pass
    except ExecutorUnavailableError as error:
        assert "this process has disconnected from Ray" in str(error), error  # noqa: PT017 - this is no test
        return
    raise AssertionError("the run has not ended by that")


def _nap(x: int) -> int:
    time.sleep(0.001)
    return x


if __name__ == "__main__":
    os.environ["RAY_AUTH_MODE"] = "disabled"
    globals()[sys.argv[1]]()
    print("well")
