"""Coroutine calls in the event loops of two worker processes, a hundred at once in each.

Calls of equal length, beside the ideal: their number times their length, divided by how many are under way. aiomultiprocess has
a loop in each of its processes, too. And calls of which one in a hundred takes 200 times as long as the others: beside the same
calls in the caller's own loop, how soon half of the results are there, and what it takes to cancel calls that only wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

from tests.benchmarks.frame import Case, Contender, Reading, Target, scaled
from tests.benchmarks.timing import median_seconds_awaited, run_in

_WORKERS = 2
_CONCURRENCY = 100
_CALLS = 10_000
_SECONDS = 0.01
_MIXED_CALLS = 2_000
_SHORT, _LONG = 0.005, 1.0  # seconds
_REPETITIONS = 3
_CANCELS = 10


async def _nap(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


def _mixed() -> list[float]:
    return [_LONG if number % 100 == 50 else _SHORT for number in range(_MIXED_CALLS)]


def _in_workers(measure: Callable[[Any], Awaitable[float]], quick: bool) -> float:
    from asyncpar import ProcessExecutor, pmap

    async def main() -> float:
        async with ProcessExecutor(_WORKERS) as executor:
            await pmap(_nap, [0.0] * 2 * _CONCURRENCY, executor=executor, concurrency=_CONCURRENCY)
            return await measure(executor)

    return run_in("asyncio", main)


def _equal_calls(quick: bool) -> Reading:
    from asyncpar import pmap

    calls = scaled(_CALLS, quick)

    async def measure(executor: Any) -> float:
        return await median_seconds_awaited(
            lambda: pmap(_nap, [_SECONDS] * calls, executor=executor, concurrency=_CONCURRENCY), _REPETITIONS
        )

    return Reading(_in_workers(measure, quick), _ideal(calls))


def _equal_calls_of_aiomultiprocess(quick: bool) -> Reading:
    from aiomultiprocess import Pool

    calls = scaled(_CALLS, quick)

    async def main() -> float:
        async with Pool(_WORKERS, childconcurrency=_CONCURRENCY) as pool:

            async def run() -> None:
                await pool.map(_nap, [_SECONDS] * calls)

            return await median_seconds_awaited(run, 1)

    return Reading(run_in("asyncio", main), _ideal(calls))


def _ideal(calls: int) -> float:
    return calls * _SECONDS / (_WORKERS * _CONCURRENCY)


def _mixed_calls(quick: bool) -> float:
    from asyncpar import pmap

    return _in_workers(
        lambda executor: median_seconds_awaited(
            lambda: pmap(_nap, _mixed(), executor=executor, concurrency=_CONCURRENCY), scaled(_REPETITIONS, quick)
        ),
        quick,
    )


def _mixed_calls_in_the_callers_loop(quick: bool) -> float:
    from asyncpar import pmap

    async def main() -> float:
        return await median_seconds_awaited(lambda: pmap(_nap, _mixed(), concurrency=_CONCURRENCY), scaled(_REPETITIONS, quick))

    return run_in("asyncio", main)


async def _until_half(executor: Any) -> float:
    from asyncpar import pmap

    began, half = perf_counter(), 0.0
    async with pmap(_nap, _mixed(), executor=executor, concurrency=_CONCURRENCY, ordered=False) as results:
        handed = 0
        async for _ in results:
            handed += 1
            if handed == _MIXED_CALLS // 2:
                half = perf_counter() - began
                break
    return half


def _half_of_the_stream(where: str | None, quick: bool) -> float:
    async def measure(executor: Any) -> float:
        return median([await _until_half(executor if where else None) for _ in range(scaled(_CANCELS, quick))])

    return _in_workers(measure, quick)


def _cancel(quick: bool) -> float:
    from asyncpar import pmap

    async def cancel_once(executor: Any) -> float:
        run = asyncio.ensure_future(_await(pmap(_nap, [60.0] * 3 * _CONCURRENCY, executor=executor, concurrency=_CONCURRENCY)))
        await asyncio.sleep(0.05)
        began = perf_counter()
        run.cancel()
        await asyncio.wait([run])
        return perf_counter() - began

    async def measure(executor: Any) -> float:
        return median([await cancel_once(executor) for _ in range(scaled(_CANCELS, quick))])

    return _in_workers(measure, quick)


async def _await(run: Awaitable[Any]) -> None:
    await run


CASES = (
    Case(
        "worker-coroutines",
        "10 000 coroutine calls of 10 ms in 2 processes, 100 at once in each",
        (
            Contender("asyncpar", _equal_calls, "asyncpar", (Target(times=1.2),)),
            Contender("aiomultiprocess", _equal_calls_of_aiomultiprocess),
        ),
        reference="the ideal",
    ),
    Case(
        "worker-coroutines-mixed",
        "2 000 coroutine calls of 5 ms, one in a hundred of 1 s, in 2 processes",
        (
            Contender("asyncpar", _mixed_calls, "asyncpar", (Target(times=1.15),)),
            Contender("the caller's loop", _mixed_calls_in_the_callers_loop, "yardstick"),
        ),
        reference="the caller's loop",
    ),
    Case(
        "worker-coroutines-half",
        "the same as a stream, until half of the results are there",
        (
            Contender("asyncpar", partial(_half_of_the_stream, "process"), "asyncpar", (Target(plus=0.05),)),
            Contender("the caller's loop", partial(_half_of_the_stream, None), "yardstick"),
        ),
        reference="the caller's loop",
    ),
    Case(
        "worker-coroutines-cancel",
        "cancelling 200 coroutine calls that wait in 2 processes",
        (Contender("asyncpar", _cancel, "asyncpar", (Target(plus=0.02),)),),
    ),
)
