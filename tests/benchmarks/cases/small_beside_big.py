"""How long a map of one item takes while a big map runs on the same two workers: p95 of a hundred, one after the other.

A service shares one pool among its requests, so this is what a small request pays for somebody else's large one. The large
one is a million tiny items, again and again until the small ones are through. For `ProcessPoolExecutor` it is chunks, as its
`map` makes them: all in its queue at once, in front of everybody who comes later.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from statistics import quantiles
from time import perf_counter
from typing import TypeAlias

from tests.benchmarks.frame import Case, Contender, scaled
from tests.benchmarks.timing import run_in
from tests.benchmarks.workloads import increment, increment_all

Map: TypeAlias = Callable[[], Awaitable[object]]

_SMALL_MAPS = 100
_BIG_ITEMS = 10**6
_CHUNK = 10**4
_WORKERS = 2
_HEAD_START_SECONDS = 0.5  # until the big map has found its pace


def _asyncpar(beside_big: bool, quick: bool) -> float:
    from asyncpar import ProcessExecutor, pmap

    async def main() -> float:
        async with ProcessExecutor(_WORKERS) as executor:
            big = partial(pmap, increment, range(_BIG_ITEMS), executor=executor)
            small = partial(pmap, math.sqrt, [4], executor=executor)
            return await _p95(small, big if beside_big else None, quick)

    return run_in("asyncio", main)


def _process_pool(quick: bool) -> float:
    from concurrent.futures import ProcessPoolExecutor

    async def main() -> float:
        loop = asyncio.get_running_loop()
        with ProcessPoolExecutor(_WORKERS) as pool:
            chunks = [range(first, first + _CHUNK) for first in range(0, _BIG_ITEMS, _CHUNK)]
            return await _p95(
                lambda: loop.run_in_executor(pool, math.sqrt, 4),
                lambda: asyncio.gather(*(loop.run_in_executor(pool, increment_all, chunk) for chunk in chunks)),
                quick,
            )

    return run_in("asyncio", main)


async def _p95(small: Map, big: Map | None, quick: bool) -> float:
    samples = []
    async with AsyncExitStack() as stack:
        if big is not None:
            await stack.enter_async_context(_again_and_again(big))
        await small()  # the first one starts what it needs
        for _ in range(scaled(_SMALL_MAPS, quick)):
            began = perf_counter()
            await small()
            samples.append(perf_counter() - began)
    return quantiles(samples, n=20, method="inclusive")[-1]


@asynccontextmanager
async def _again_and_again(big: Map) -> AsyncIterator[None]:
    async def repeat() -> None:
        while True:
            await big()

    task = asyncio.create_task(repeat())
    try:
        await asyncio.sleep(_HEAD_START_SECONDS)
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task  # raises what the big map failed with, if it did


CASES = (
    Case(
        "small-beside-big",
        "p95 of one-item maps beside a running map of 10⁶ tiny items",
        (
            Contender("asyncpar", partial(_asyncpar, True), "asyncpar"),
            Contender("ProcessPoolExecutor, in chunks", _process_pool),
            Contender("asyncpar, without the big map", partial(_asyncpar, False), "yardstick"),
        ),
        reference="ProcessPoolExecutor, in chunks",
    ),
)
