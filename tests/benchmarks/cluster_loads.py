"""What is measured on every cluster, with our executor.

Ten thousand calls that do nothing; calls that sleep, beside the least that two workers can take; 100 MB that eight calls look
at; and a call that kills its worker, until all others have their results. `median` measures an action on an executor, so many
times.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from tests.benchmarks.frame import Reading, scaled
from tests.benchmarks.peers import WORKERS
from tests.benchmarks.workloads import increment

ITEMS = 10**4
LARGE_CALLS = 8
LARGE_NUMBERS = 100_000_000 // 8
NAP = 0.02
_NAPS = 400
_POISONED = 13
_POISONED_RUNS = 10

Median: TypeAlias = Callable[[Callable[[Any], Awaitable[object]], int], float]


def tiny_items(quick: bool, *, median: Median) -> float:
    from asyncpar import pmap

    items = range(scaled(ITEMS, quick))
    return median(lambda executor: pmap(increment, items, executor=executor), 5)


def all_naps(quick: bool) -> list[float]:
    return [NAP] * scaled(_NAPS, quick)


def beside_the_least(taken: float, items: list[float]) -> Reading:
    return Reading(taken, len(items) * NAP / WORKERS)


def naps(quick: bool, *, median: Median) -> Reading:
    from asyncpar import pmap

    items = all_naps(quick)
    return beside_the_least(median(lambda executor: pmap(time.sleep, items, executor=executor), 3), items)


def large(_: bool, *, median: Median) -> float:
    import numpy as np

    from asyncpar import pmap

    array = np.ones(LARGE_NUMBERS)
    return median(lambda executor: pmap(np.size, [array] * LARGE_CALLS, executor=executor, batch_size=1), 5)


def poison(quick: bool, *, median: Median) -> float:
    from asyncpar import WorkerDiedError, pmap

    async def find(executor: Any) -> None:
        results: list[Any] = await pmap(_die_when_poisoned, range(60), executor=executor, on_error="return")
        assert isinstance(results.pop(_POISONED), WorkerDiedError)
        assert results == [x for x in range(60) if x != _POISONED]

    return median(find, scaled(_POISONED_RUNS, quick))


def _die_when_poisoned(x: int) -> int:
    if x == _POISONED:
        os._exit(1)
    return x
