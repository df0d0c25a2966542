"""How late the caller's event loop wakes a task while a million tiny items are mapped: what everybody else in it pays.

A probe sleeps for a millisecond, again and again, and notes how much longer it took. Maps follow one another until enough
has been noted; the probe rests between two maps, because there the results of the first are thrown away, and freeing a
million objects blocks the loop too, whichever library computed them. The yardsticks are a loop in which nothing else happens,
and the same next to two busy processes that are not ours: the effect of timers and the operating system's scheduler alone.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from statistics import quantiles
from time import perf_counter
from typing import TypeAlias

from tests.benchmarks.frame import Case, Contender, Target
from tests.benchmarks.timing import Loop, run_in
from tests.benchmarks.workloads import increment, increment_all

Work: TypeAlias = Callable[[], Awaitable[object]]
Situation: TypeAlias = Callable[[], AbstractAsyncContextManager[Work]]
Statistic: TypeAlias = Callable[[list[float]], float]

_ITEMS = 10**6
_CHUNKS = [range(first, first + 10**4) for first in range(0, _ITEMS, 10**4)]
_WORKERS = 2
_NAP_SECONDS = 1e-3
_PROBED_SECONDS = 5.0


@asynccontextmanager
async def _asyncpar() -> AsyncIterator[Work]:
    from asyncpar import ProcessExecutor, pmap

    async with ProcessExecutor(_WORKERS) as executor:
        yield lambda: pmap(increment, range(_ITEMS), executor=executor)


@asynccontextmanager
async def _process_pool() -> AsyncIterator[Work]:
    from concurrent.futures import ProcessPoolExecutor

    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(_WORKERS) as pool:

        async def work() -> list[int]:
            results: list[int] = []
            for future in [loop.run_in_executor(pool, increment_all, chunk) for chunk in _CHUNKS]:
                results += await future
            return results

        yield work


@asynccontextmanager
async def _to_process() -> AsyncIterator[Work]:
    from anyio import create_task_group, to_process

    async def work() -> list[int]:
        results: list[int] = []
        chunks = iter(_CHUNKS)

        async def take_chunks() -> None:
            for chunk in chunks:
                results.extend(await to_process.run_sync(increment_all, chunk))

        async with create_task_group() as group:
            for _ in range(_WORKERS):
                group.start_soon(take_chunks)
        return results

    yield work


@asynccontextmanager
async def _beside(busy_processes: int) -> AsyncIterator[Work]:
    with _spinning(busy_processes):
        yield lambda: asyncio.sleep(100 * _NAP_SECONDS)


@contextmanager
def _spinning(busy_processes: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy_processes)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _lag(situation: Situation, loop: Loop, statistic: Statistic, quick: bool) -> float:
    async def main() -> float:
        lags: list[float] = []
        async with situation() as work:
            await work()
            until = perf_counter() + (_PROBED_SECONDS / 10 if quick else _PROBED_SECONDS)
            while perf_counter() < until:
                await probed(work, lags)
        return statistic(lags)

    return run_in(loop, main)


async def probed(work: Work, lags: list[float]) -> object:
    """Adds what a probe notes during the work. Results live until the probe has ended."""
    finished = asyncio.Event()
    probe = asyncio.create_task(_probe(finished, lags))
    results = await work()
    finished.set()
    await probe
    return results


async def _probe(finished: asyncio.Event, lags: list[float]) -> None:
    while not finished.is_set():
        began = perf_counter()
        await asyncio.sleep(_NAP_SECONDS)
        lags.append(perf_counter() - began - _NAP_SECONDS)


def p999(lags: Sequence[float]) -> float:
    return quantiles(lags, n=1000, method="inclusive")[-1]


def _case(name: str, title: str, statistic: Statistic, *targets: Target) -> Case:
    def measure(situation: Situation, loop: Loop = "asyncio") -> Callable[[bool], float]:
        return partial(_lag, situation, loop, statistic)

    return Case(
        name,
        f"{title} lateness of a task beside a map of 10⁶ tiny items",
        (
            Contender("asyncpar", measure(_asyncpar), "asyncpar", targets),
            Contender("asyncpar, uvloop", measure(_asyncpar, "uvloop"), "asyncpar", targets),
            Contender("anyio.to_process, in chunks", measure(_to_process)),
            Contender("ProcessPoolExecutor, in chunks", measure(_process_pool)),
            Contender("beside two busy processes", measure(partial(_beside, 2)), "yardstick"),
            Contender("beside two busy processes, uvloop", measure(partial(_beside, 2), "uvloop"), "yardstick"),
            Contender("idle", measure(partial(_beside, 0)), "yardstick"),
            Contender("idle, uvloop", measure(partial(_beside, 0), "uvloop"), "yardstick"),
        ),
        reference="idle",
    )


CASES = (
    _case("loop-lag-p999", "p99.9 of the", p999),
    _case("loop-lag-max", "greatest", max, Target(plus=5e-3)),
)
