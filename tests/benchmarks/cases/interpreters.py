"""Calls in interpreters of this process, beside those in processes and in `InterpreterPoolExecutor`. Needs CPython 3.14.

One call there and back; a million tiny calls; calls that compute, on two interpreters and on one; the first call of a new
executor; 100 MiB that are looked at where they lie; and how long an endless loop survives its cancellation, or the end of its
executor.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

from tests.benchmarks.frame import Case, Contender, Reading, Target, scaled
from tests.benchmarks.timing import median_seconds, median_seconds_awaited, run_in
from tests.benchmarks.workloads import count, increment, spin_forever

_REPETITIONS = 2000
_ENDS = 20
_ITEMS = 10**6
_FEWER_ITEMS = 10**4  # for InterpreterPoolExecutor, which sends each by itself
_STEPS = 300_000  # of a call, some 10 ms
_BUSY_CALLS = 40
_LARGE = 100 << 20
_BEGUN_SECONDS = 0.05  # after which an endless loop is under way


def _unavailable() -> str | None:
    return None if importlib.util.find_spec("concurrent.interpreters") else "CPython 3.14 or newer is needed"


def _one_call(kind: str, *, maps: bool, quick: bool) -> float:
    from asyncpar import pmap

    async def main() -> float:
        async with _executor(kind, 1) as executor:
            action = partial(pmap, math.sqrt, [4], executor=executor) if maps else partial(executor.run, math.sqrt, 4)
            return await median_seconds_awaited(action, scaled(_REPETITIONS, quick))

    return run_in("asyncio", main)


def _one_call_of_pool(quick: bool) -> float:
    import asyncio

    async def main() -> float:
        with _standard_pool(1) as pool:
            loop = asyncio.get_running_loop()
            return await median_seconds_awaited(lambda: loop.run_in_executor(pool, math.sqrt, 4), scaled(_REPETITIONS, quick))

    return run_in("asyncio", main)


def _tiny_items(kind: str, quick: bool) -> float:
    from asyncpar import pmap

    items = range(scaled(_ITEMS, quick))

    async def main() -> float:
        async with _executor(kind, 2) as executor:
            return await median_seconds_awaited(lambda: pmap(increment, items, executor=executor), 3)

    return run_in("asyncio", main) / len(items)


def _tiny_items_of_pool(quick: bool) -> float:
    items = range(scaled(_FEWER_ITEMS, quick))
    with _standard_pool(2) as pool:
        return median_seconds(lambda: list(pool.map(increment, items)), 3) / len(items)


def _busy(kind: str, quick: bool) -> Reading:
    from asyncpar import pmap

    calls = [_STEPS] * scaled(_BUSY_CALLS, quick)

    async def main() -> Reading:
        async with _executor(kind, 2) as executor:
            two = await median_seconds_awaited(lambda: pmap(count, calls, executor=executor), 3)
            one = await median_seconds_awaited(lambda: pmap(count, calls, executor=executor, n_jobs=1), 3)
            return Reading(two, one)

    return run_in("asyncio", main)


def _first_call(kind: str, quick: bool) -> float:
    async def main() -> float:
        return median([await use() for _ in range(1 + scaled(_ENDS, quick))][1:])

    async def use() -> float:
        began = perf_counter()
        async with _executor(kind, 1) as executor:
            await executor.run(math.sqrt, 4)
            return perf_counter() - began

    return run_in("asyncio", main)


def _large(kind: str, quick: bool) -> float:
    memory: Any = bytearray(_LARGE)
    if kind == "interpreter":
        memory = memoryview(memory)

    async def main() -> float:
        async with _executor(kind, 1) as executor:
            return await median_seconds_awaited(lambda: executor.run(len, memory), scaled(_ENDS, quick))

    return run_in("asyncio", main)


def _cancel(kind: str, quick: bool) -> float:
    import asyncio

    async def main() -> float:
        async with _executor(kind, 1) as executor:

            async def cancel() -> float:
                await executor.run(math.sqrt, 4)
                task = asyncio.create_task(executor.run(spin_forever, 0))
                await asyncio.sleep(_BEGUN_SECONDS)
                began = perf_counter()
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                return perf_counter() - began

            return median([await cancel() for _ in range(scaled(_ENDS, quick))])

    return run_in("asyncio", main)


def _close(kind: str, quick: bool) -> float:
    import asyncio

    async def main() -> float:
        return median([await close() for _ in range(scaled(_ENDS, quick))])

    async def close() -> float:
        executor = _executor(kind, 1)
        task = asyncio.create_task(executor.run(spin_forever, 0))
        await asyncio.sleep(_BEGUN_SECONDS)
        began = perf_counter()
        await executor.aclose()
        taken = perf_counter() - began
        await asyncio.wait([task])
        task.exception()
        return taken

    return run_in("asyncio", main)


def _executor(kind: str, workers: int) -> Any:
    from asyncpar import InterpreterExecutor, ProcessExecutor

    return InterpreterExecutor(workers) if kind == "interpreter" else ProcessExecutor(workers)


def _standard_pool(workers: int) -> Any:
    from concurrent import futures

    return futures.InterpreterPoolExecutor(workers)  # type: ignore[attr-defined, unused-ignore]  # since 3.14


def _case(name: str, title: str, measure: Callable[[str, bool], float | Reading], targets: tuple[Target, ...]) -> Case:
    """Interpreters beside our own processes."""
    return Case(
        f"interpreters-{name}",
        title,
        (
            Contender("interpreters", partial(measure, "interpreter"), "asyncpar", targets),
            Contender("processes", partial(measure, "process"), "yardstick"),
        ),
        "processes",
        unavailable=_unavailable,
    )


CASES = (
    Case(
        "interpreters-one-item",
        "one call there and back, in an interpreter",
        (
            Contender(
                "executor.run",
                lambda quick: _one_call("interpreter", maps=False, quick=quick),
                "asyncpar",
                (Target(times=0.7),),
            ),
            Contender(
                "pmap",
                lambda quick: _one_call("interpreter", maps=True, quick=quick),
                "asyncpar",
                (Target(times=1.0, of="pmap in a process"),),
            ),
            Contender("pmap in a process", lambda quick: _one_call("process", maps=True, quick=quick), "yardstick"),
            Contender("InterpreterPoolExecutor", _one_call_of_pool),
        ),
        "InterpreterPoolExecutor",
        unavailable=_unavailable,
    ),
    Case(
        "interpreters-tiny-items",
        "10⁶ times x + 1 over 2 warm interpreters, per item",
        (
            Contender(
                "interpreters",
                partial(_tiny_items, "interpreter"),
                "asyncpar",
                (Target(times=1.3, of="processes"), Target(times=0.01, of="InterpreterPoolExecutor.map")),
            ),
            Contender("processes", partial(_tiny_items, "process"), "yardstick"),
            Contender("InterpreterPoolExecutor.map", _tiny_items_of_pool),
        ),
        "processes",
        unavailable=_unavailable,
    ),
    Case(
        "interpreters-busy",
        "calls that compute for some 10 ms, over 2 interpreters and over one (the ideal shown)",
        (Contender("interpreters", partial(_busy, "interpreter"), "asyncpar", (Target(times=1 / 1.8),)),),
        "one interpreter",
        unavailable=_unavailable,
    ),
    _case("first-call", "the first call of a new executor", _first_call, (Target(plus=40e-3),)),
    _case("large", "100 MiB that are looked at where they lie", _large, (Target(plus=1e-3),)),
    _case("cancel", "an endless loop until its cancellation is over", _cancel, (Target(plus=100e-3),)),
    _case("close", "an endless loop until its executor is closed", _close, (Target(plus=100e-3),)),
)
