"""Calls on a Dask cluster of two workers on this machine, beside Dask's own ways.

Ten thousand calls that do nothing; calls that sleep, beside the least that two workers can take; 100 MB that eight calls look
at; and a call that kills its worker, until all others have their results.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from tests.benchmarks.frame import Case, Contender, Reading, Target, missing, scaled
from tests.benchmarks.peers import WORKERS
from tests.benchmarks.timing import median_seconds, median_seconds_awaited, run_in
from tests.benchmarks.workloads import increment
from tests.dask.cluster import Cluster

_ITEMS = 10**4
_NAPS = 400
_NAP = 0.02
_LARGE_CALLS = 8
_LARGE_NUMBERS = 100_000_000 // 8
_POISONED = 13
_POISONED_RUNS = 10


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


def _with_client(action: Callable[[Any], object], repetitions: int) -> float:
    from distributed import Client

    with _address() as address, Client(address) as client:
        return median_seconds(lambda: action(client), repetitions)


def _tiny_items(quick: bool) -> float:
    from asyncpar import pmap

    items = range(scaled(_ITEMS, quick))
    return _with_executor(lambda executor: pmap(increment, items, executor=executor), 5)


def _tiny_items_of_dask(quick: bool) -> float:
    items = range(scaled(_ITEMS, quick))
    return _with_client(lambda client: client.gather(client.map(increment, items, pure=False)), 1)


def _naps(quick: bool) -> Reading:
    from asyncpar import pmap

    items = [_NAP] * scaled(_NAPS, quick)
    return Reading(_with_executor(lambda executor: pmap(time.sleep, items, executor=executor), 3), len(items) * _NAP / WORKERS)


def _naps_of_dask(quick: bool) -> Reading:
    items = [_NAP] * scaled(_NAPS, quick)
    taken = _with_client(lambda client: client.gather(client.map(time.sleep, items, pure=False)), 3)
    return Reading(taken, len(items) * _NAP / WORKERS)


def _large(_: bool) -> float:
    import numpy as np

    from asyncpar import pmap

    array = np.ones(_LARGE_NUMBERS)
    return _with_executor(lambda executor: pmap(np.size, [array] * _LARGE_CALLS, executor=executor, batch_size=1), 5)


def _large_of_dask(_: bool, *, broadcast: bool) -> float:
    import numpy as np

    array = np.ones(_LARGE_NUMBERS)

    def look(client: Any) -> None:
        scattered = client.scatter(array, hash=False, broadcast=broadcast)
        client.gather([client.submit(np.size, scattered, pure=False) for _ in range(_LARGE_CALLS)])

    return _with_client(look, 5)


def _poison(quick: bool) -> float:
    from asyncpar import WorkerDiedError, pmap

    async def find(executor: Any) -> None:
        results: list[Any] = await pmap(_die_when_poisoned, range(60), executor=executor, on_error="return")
        assert isinstance(results.pop(_POISONED), WorkerDiedError)
        assert results == [x for x in range(60) if x != _POISONED]

    return _on(None, find, scaled(_POISONED_RUNS, quick))  # a cluster of its own, which does not run such a batch again


def _die_when_poisoned(x: int) -> int:
    if x == _POISONED:
        os._exit(1)
    return x


CASES = (
    Case(
        "dask-tiny-items",
        "10⁴ times x + 1 on 2 Dask workers",
        (
            Contender("asyncpar", _tiny_items, "asyncpar", (Target(times=1 / 50),)),
            Contender("client.map", _tiny_items_of_dask),
        ),
        "client.map",
        unavailable=partial(missing, "distributed"),
    ),
    Case(
        "dask-naps",
        "400 calls of 20 ms on 2 Dask workers, and the least that they can take",
        (
            Contender("asyncpar", _naps, "asyncpar", (Target(times=1.05),)),
            Contender("client.map", _naps_of_dask),
        ),
        "the least",
        unavailable=partial(missing, "distributed"),
    ),
    Case(
        "dask-large",
        "100 MB that 8 calls on 2 Dask workers look at",
        (
            Contender("asyncpar", _large, "asyncpar", (Target(times=1.1),)),
            Contender("scatter, submit", partial(_large_of_dask, broadcast=False)),
            Contender("scatter(broadcast), submit", partial(_large_of_dask, broadcast=True)),
        ),
        "scatter, submit",
        unavailable=partial(missing, "distributed"),
    ),
    Case(
        "dask-poison",
        "60 calls on 2 Dask workers, one of which kills its worker",
        (Contender("asyncpar", _poison, "asyncpar", (Target(plus=3.0),)),),
        unavailable=partial(missing, "distributed"),
    ),
)
