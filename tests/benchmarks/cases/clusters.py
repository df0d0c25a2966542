"""Calls on a Dask cluster of two workers on this machine, beside Dask's own ways.

`cluster_loads.py` says what is measured.
"""

from __future__ import annotations

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
from tests.dask.cluster import Cluster


@contextmanager
def _address() -> Iterator[str]:
    """Of a cluster in other processes, as clusters are."""
    cluster = Cluster(WORKERS)
    try:
        yield cluster.address
    finally:
        cluster.close()


def _with_executor(action: Callable[[Any], Awaitable[object]], repetitions: int) -> float:
    with _address() as address:
        return _on(address, action, repetitions)


def _on(address: str | None, action: Callable[[Any], Awaitable[object]], repetitions: int) -> float:
    from asyncpar import DaskExecutor

    async def main() -> float:
        async with DaskExecutor(address) as executor:
            return await median_seconds_awaited(lambda: action(executor), repetitions)

    return run_in("asyncio", main)


def _in_own_cluster(action: Callable[[Any], Awaitable[object]], repetitions: int) -> float:
    """Which does not run a batch again whose worker has died."""
    return _on(None, action, repetitions)


def _with_client(action: Callable[[Any], object], repetitions: int) -> float:
    from distributed import Client

    with _address() as address, Client(address) as client:
        return median_seconds(lambda: action(client), repetitions)


def _tiny_items_of_dask(quick: bool) -> float:
    items = range(scaled(ITEMS, quick))
    return _with_client(lambda client: client.gather(client.map(increment, items, pure=False)), 1)


def _naps_of_dask(quick: bool) -> Reading:
    items = all_naps(quick)
    taken = _with_client(lambda client: client.gather(client.map(time.sleep, items, pure=False)), 3)
    return beside_the_least(taken, items)


def _large_of_dask(_: bool, *, broadcast: bool) -> float:
    import numpy as np

    array = np.ones(LARGE_NUMBERS)

    def look(client: Any) -> None:
        scattered = client.scatter(array, hash=False, broadcast=broadcast)
        client.gather([client.submit(np.size, scattered, pure=False) for _ in range(LARGE_CALLS)])

    return _with_client(look, 5)


CASES = (
    Case(
        "dask-tiny-items",
        "10⁴ times x + 1 on 2 Dask workers",
        (
            Contender("asyncpar", partial(tiny_items, median=_with_executor), "asyncpar", (Target(times=1 / 50),)),
            Contender("client.map", _tiny_items_of_dask),
        ),
        "client.map",
        unavailable=partial(missing, "distributed"),
    ),
    Case(
        "dask-naps",
        "400 calls of 20 ms on 2 Dask workers, and the least that they can take",
        (
            Contender("asyncpar", partial(naps, median=_with_executor), "asyncpar", (Target(times=1.05),)),
            Contender("client.map", _naps_of_dask),
        ),
        "the least",
        unavailable=partial(missing, "distributed"),
    ),
    Case(
        "dask-large",
        "100 MB that 8 calls on 2 Dask workers look at",
        (
            Contender("asyncpar", partial(large, median=_with_executor), "asyncpar", (Target(times=1.1),)),
            Contender("scatter, submit", partial(_large_of_dask, broadcast=False)),
            Contender("scatter(broadcast), submit", partial(_large_of_dask, broadcast=True)),
        ),
        "scatter, submit",
        unavailable=partial(missing, "distributed"),
    ),
    Case(
        "dask-poison",
        "60 calls on 2 Dask workers, one of which kills its worker",
        (Contender("asyncpar", partial(poison, median=_in_own_cluster), "asyncpar", (Target(plus=3.0),)),),
        unavailable=partial(missing, "distributed"),
    ),
)
