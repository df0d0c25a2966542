"""How long one call takes there and back: one item, one warm worker process, on each event loop.

This is what a service pays for handing one request's computation to a process. The yardstick is
`anyio.to_process.run_sync`, which does only that. Beside them on asyncio, what a plain call costs in libraries that can only
be called that way: they hold the event loop until the result is there, and are measured without one.
"""

from __future__ import annotations

import math
from functools import partial

from tests.benchmarks.frame import Case, Contender, Target, scaled
from tests.benchmarks.timing import Loop, median_seconds, median_seconds_awaited, run_in

_REPETITIONS = 2000
_FEWER_REPETITIONS = 100  # for joblib, which takes a hundred times as long


def _asyncpar(loop: Loop, quick: bool) -> float:
    from asyncpar import ProcessExecutor, pmap

    async def main() -> float:
        async with ProcessExecutor(1) as executor:
            return await median_seconds_awaited(lambda: pmap(math.sqrt, [4], executor=executor), scaled(_REPETITIONS, quick))

    return run_in(loop, main)


def _single_call(loop: Loop, quick: bool) -> float:
    from asyncpar import ProcessExecutor

    async def main() -> float:
        async with ProcessExecutor(1) as executor:
            return await median_seconds_awaited(lambda: executor.run(math.sqrt, 4), scaled(_REPETITIONS, quick))

    return run_in(loop, main)


def _to_process(loop: Loop, quick: bool) -> float:
    from anyio import to_process

    async def main() -> float:
        return await median_seconds_awaited(lambda: to_process.run_sync(math.sqrt, 4), scaled(_REPETITIONS, quick))

    return run_in(loop, main)


def _process_pool(loop: Loop, quick: bool) -> float:
    import asyncio
    from concurrent.futures import ProcessPoolExecutor

    async def main() -> float:
        with ProcessPoolExecutor(1) as pool:
            running_loop = asyncio.get_running_loop()
            return await median_seconds_awaited(
                lambda: running_loop.run_in_executor(pool, math.sqrt, 4), scaled(_REPETITIONS, quick)
            )

    return run_in(loop, main)


def _pool(quick: bool) -> float:
    import multiprocessing

    with multiprocessing.Pool(1) as pool:
        return median_seconds(lambda: pool.apply(math.sqrt, (4,)), scaled(_REPETITIONS, quick))


def _loky(quick: bool) -> float:
    from loky import ProcessPoolExecutor  # type: ignore[import-untyped]  # it has no type information

    with ProcessPoolExecutor(1) as pool:
        return median_seconds(lambda: pool.submit(math.sqrt, 4).result(), scaled(_REPETITIONS, quick))


def _mpire(quick: bool) -> float:
    from mpire.pool import WorkerPool

    with WorkerPool(1, keep_alive=True) as pool:
        return median_seconds(lambda: pool.apply(math.sqrt, (4,)), scaled(_REPETITIONS, quick))


def _joblib(quick: bool) -> float:
    from joblib import Parallel, delayed  # type: ignore[import-untyped]  # it has no type information

    with Parallel(n_jobs=2) as parallel:  # with one, it calls the function in its own process
        return median_seconds(lambda: parallel([delayed(math.sqrt)(4)]), scaled(_FEWER_REPETITIONS, quick))


_BLOCKING = (
    Contender("multiprocessing.Pool, plain call", _pool),
    Contender("loky, plain call", _loky),
    Contender("mpire, plain call", _mpire),
    Contender("joblib, plain call", _joblib),
)


def _case(loop: Loop) -> Case:
    contenders = [
        Contender("asyncpar", partial(_asyncpar, loop), "asyncpar", (Target(times=1.0),)),
        Contender("asyncpar, executor.run", partial(_single_call, loop), "asyncpar", (Target(times=0.75),)),
        Contender("anyio.to_process", partial(_to_process, loop)),
    ]
    if loop != "trio":  # which cannot await it
        contenders.append(Contender("ProcessPoolExecutor", partial(_process_pool, loop)))
    if loop == "asyncio":
        contenders += _BLOCKING
    return Case(f"one-item-{loop}", f"one call there and back, {loop}", tuple(contenders), "anyio.to_process")


CASES = (_case("asyncio"), _case("uvloop"), _case("trio"))
