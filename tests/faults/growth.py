"""What many runs in a row leave behind in their parent: nothing, whether they end, are cancelled, or lose their workers."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import anyio
import psutil

from asyncpar import ProcessExecutor, pmap
from asyncpar.testing.leftovers import belongings
from tests.functions import Beacon, double, process_id

_WARM_UP_SHARE = 0.2  # caches fill, the allocator takes what it will need


class Growth(NamedTuple):
    """So much more than before, of each; negative: less."""

    processes: int
    threads: int
    descriptors: int
    memory: int  # bytes that are resident in the parent


async def growth_of_runs(times: int, directory: Path) -> Growth:
    """A number of runs, awaited and streamed, of functions that workers know already and of others."""
    async with ProcessExecutor(2) as executor:

        async def run(number: int) -> None:
            fn = double if number % 2 else lambda x: x * 2
            results = pmap(fn, range(20), executor=executor)
            assert (await results if number % 3 else [value async for value in results]) == list(range(0, 40, 2))

        return await _growth(run, times, executor, directory)


async def growth_of_cancelled_runs(times: int, directory: Path) -> Growth:
    """A number of runs that are cancelled while their workers are in calls."""
    beacon = Beacon(directory / "beacon")
    async with ProcessExecutor(2) as executor:

        async def cancel(number: int) -> None:
            seen = beacon.count
            async with anyio.create_task_group() as group:
                group.start_soon(_await_all, executor, beacon)
                while beacon.count == seen:
                    await anyio.sleep(0.001)
                group.cancel_scope.cancel()

        return await _growth(cancel, times, executor, directory)


async def growth_of_killed_workers(times: int, directory: Path) -> Growth:
    """A number of workers that are killed between two runs or at the beginning of one."""
    async with ProcessExecutor(1) as executor:

        async def kill(number: int) -> None:
            (pid,) = await pmap(process_id, [0], executor=executor)
            os.kill(pid, signal.SIGKILL)
            assert await pmap(double, range(20), executor=executor) == list(range(0, 40, 2))

        return await _growth(kill, times, executor, directory)


async def _await_all(executor: ProcessExecutor, beacon: Beacon) -> None:
    await pmap(beacon.nap, itertools.count(), executor=executor)


async def _growth(action: Callable[[int], Awaitable[None]], times: int, executor: ProcessExecutor, directory: Path) -> Growth:
    for number in range(int(_WARM_UP_SHARE * times)):
        await action(number)
    before = await _count(executor, directory)
    for number in range(times):
        await action(number)
    after = await _count(executor, directory)
    return Growth(*[count - first for count, first in zip(after, before, strict=True)])


async def _count(executor: ProcessExecutor, directory: Path) -> Growth:
    """What there is while the executor has all of its workers, and none has anything to do."""
    await _start_all_workers(executor, directory)
    gc.collect()
    held = belongings(directory)
    return Growth(
        processes=len(held["processes"]),
        threads=len(held["threads"]),
        descriptors=len(held["descriptors"]),
        memory=psutil.Process().memory_info().rss,
    )


async def _start_all_workers(executor: ProcessExecutor, directory: Path) -> None:
    """By calls that wait for each other, one in each worker."""
    with tempfile.TemporaryDirectory(dir=directory) as name:
        met, capacity = Path(name), executor.workers

        def meet(number: int) -> None:
            (met / str(number)).touch()
            while len(list(met.iterdir())) < capacity:
                time.sleep(0.001)

        await pmap(meet, range(capacity), executor=executor, batch_size=1)
