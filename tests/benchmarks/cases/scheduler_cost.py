"""What the scheduler costs per item, and that neither this nor its memory grows with the length of the input.

A stream with next to nothing around the scheduler: a generator as the source, trivial calls in the caller's own task, and a
consumer that throws the results away. Memory is the peak of what Python allocated (tracemalloc, in another process than the
one that is timed); the input is never there as a whole, so a run a hundred times as long may take 5 MiB more at the most.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from functools import partial

from tests.benchmarks.frame import Case, Contender, Target
from tests.benchmarks.timing import median_seconds_awaited, run_in
from tests.benchmarks.workloads import increment

_LENGTHS = (10**4, 10**5, 10**6)
_BATCH_SIZE = 1000
_ITEMS_TIMED = 3 * 10**6  # of each length, in as many runs as that takes
_MOST_RUNS = 50


async def _stream(length: int) -> None:
    from asyncpar import pmap

    source = (number for number in range(length))
    handed = 0
    async with pmap(increment, source, executor="inline", batch_size=_BATCH_SIZE) as results:
        async for _ in results:
            handed += 1
    assert handed == length


def _seconds_per_item(length: int, quick: bool) -> float:
    runs = 1 if quick else min(_MOST_RUNS, _ITEMS_TIMED // length)
    return run_in("asyncio", lambda: median_seconds_awaited(lambda: _stream(length), runs)) / length


def _peak_bytes(length: int, quick: bool) -> float:
    async def main() -> float:
        await _stream(_BATCH_SIZE)  # what is imported and cached at first use is not the run's
        tracemalloc.start()
        await _stream(length)
        return float(tracemalloc.get_traced_memory()[1])

    return run_in("asyncio", main)


def _name(length: int) -> str:
    return f"asyncpar, {length:_} items"


def _contenders(measure: Callable[[int, bool], float], target: Target) -> tuple[Contender, ...]:
    return tuple(
        Contender(_name(length), partial(measure, length), "asyncpar", (target,) if length > _LENGTHS[0] else ())
        for length in _LENGTHS
    )


CASES = (
    Case(
        "scheduler-time",
        "seconds per item of a stream of trivial inline calls",
        _contenders(_seconds_per_item, Target(times=1.25)),
        reference=_name(_LENGTHS[0]),
    ),
    Case(
        "scheduler-memory",
        "peak memory of that stream",
        _contenders(_peak_bytes, Target(times=1.0, plus=5 * 2**20)),
        reference=_name(_LENGTHS[0]),
        unit="bytes",
    ),
)
