"""Calls on a Ray cluster of two processors on this machine, beside Ray's own ways.

`cluster_loads.py` says what is measured.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from tests.benchmarks.cluster_loads import (
    ITEMS,
    LARGE_CALLS,
    LARGE_NUMBERS,
    all_naps,
    beside_the_least,
    large,
    naps,
    poison,
    tiny_items,
)
from tests.benchmarks.frame import Case, Contender, Reading, Target, missing, scaled
from tests.benchmarks.peers import WORKERS
from tests.benchmarks.timing import median_seconds, median_seconds_awaited, run_in
from tests.benchmarks.workloads import increment
from tests.ray.cluster import Cluster


@contextmanager
def _connected() -> Iterator[Any]:
    """The module, connected to a cluster in other processes, as clusters are."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    import ray

    cluster = Cluster(WORKERS)
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        yield ray
    finally:
        ray.shutdown()
        cluster.close()


def _with_executor(action: Callable[[Any], Awaitable[object]], repetitions: int) -> float:
    from asyncpar import RayExecutor, pmap

    async def main() -> float:
        async with RayExecutor() as executor:
            await pmap(time.sleep, [0.5] * WORKERS, executor=executor, batch_size=1)  # all workers have started
            return await median_seconds_awaited(lambda: action(executor), repetitions)

    with _connected():
        return run_in("asyncio", main)


def _with_tasks(fn: Any, items: Any, repetitions: int) -> float:
    with _connected() as ray:
        task = ray.remote(fn)
        ray.get([ray.remote(_nap).remote(0.5) for _ in range(WORKERS)])
        return median_seconds(lambda: ray.get([task.remote(item) for item in items]), repetitions)


class _Calling:
    """An actor."""

    def call(self, fn: Any, item: Any) -> Any:
        return fn(item)


def _with_actors(fn: Any, items: Any, repetitions: int) -> float:
    with _connected() as ray:
        from ray.util import ActorPool

        pool = ActorPool([ray.remote(_Calling).remote() for _ in range(WORKERS)])
        list(pool.map(lambda actor, item: actor.call.remote(time.sleep, item), [0.5] * WORKERS))
        return median_seconds(lambda: list(pool.map(lambda actor, item: actor.call.remote(fn, item), items)), repetitions)


def _with_pool(fn: Any, items: Any, repetitions: int) -> float:
    with _connected():
        from ray.util.multiprocessing import Pool

        with Pool(WORKERS) as pool:
            pool.map(time.sleep, [0.5] * WORKERS, chunksize=1)
            return median_seconds(lambda: pool.map(fn, items), repetitions)


def _tiny_items_of_ray(quick: bool, *, way: Callable[[Any, Any, int], float]) -> float:
    return way(increment, range(scaled(ITEMS, quick)), 1 if way is not _with_pool else 5)


def _naps_of_ray(quick: bool, *, way: Callable[[Any, Any, int], float]) -> Reading:
    items = all_naps(quick)
    return beside_the_least(way(_nap, items, 3), items)


def _nap(seconds: float) -> None:
    """Ray takes no built-in functions."""
    time.sleep(seconds)


def _large_of_ray(_: bool) -> float:
    import numpy as np

    array = np.ones(LARGE_NUMBERS)

    def look(ray: Any, task: Any) -> None:
        kept = ray.put(array)
        ray.get([task.remote(kept) for _ in range(LARGE_CALLS)])

    with _connected() as ray:
        task = ray.remote(_size)
        ray.get([ray.remote(_nap).remote(0.5) for _ in range(WORKERS)])
        return median_seconds(lambda: look(ray, task), 5)


def _size(array: Any) -> int:
    size: int = array.size
    return size


_WAYS = (("tasks", _with_tasks), ("ActorPool", _with_actors), ("multiprocessing.Pool of Ray", _with_pool))

CASES = (
    Case(
        "ray-tiny-items",
        "10⁴ times x + 1 on 2 Ray workers",
        (
            Contender("asyncpar", partial(tiny_items, median=_with_executor), "asyncpar", (Target(times=1 / 50),)),
            *[Contender(name, partial(_tiny_items_of_ray, way=way)) for name, way in _WAYS],
        ),
        "tasks",
        unavailable=partial(missing, "ray"),
    ),
    Case(
        "ray-naps",
        "400 calls of 20 ms on 2 Ray workers, and the least that they can take",
        (
            Contender("asyncpar", partial(naps, median=_with_executor), "asyncpar", (Target(times=1.05),)),
            *[Contender(name, partial(_naps_of_ray, way=way)) for name, way in _WAYS],
        ),
        "the least",
        unavailable=partial(missing, "ray"),
    ),
    Case(
        "ray-large",
        "100 MB that 8 calls on 2 Ray workers look at",
        (
            Contender("asyncpar", partial(large, median=_with_executor), "asyncpar", (Target(times=1.1),)),
            Contender("put, tasks", _large_of_ray),
        ),
        "put, tasks",
        unavailable=partial(missing, "ray"),
    ),
    Case(
        "ray-poison",
        "60 calls on 2 Ray workers, one of which kills its worker",
        (Contender("asyncpar", partial(poison, median=_with_executor), "asyncpar", (Target(plus=3.0),)),),
        unavailable=partial(missing, "ray"),
    ),
)
