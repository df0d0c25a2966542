"""How long one call takes there and back: one item, one warm worker process, on each event loop.

This is what a service pays for handing one request's computation to a process. The yardstick is
`anyio.to_process.run_sync`, which does only that.
"""

from __future__ import annotations

import math
from functools import partial

from tests.benchmarks.frame import Case, Contender, Target, scaled
from tests.benchmarks.timing import Loop, median_seconds_awaited, run_in

_REPETITIONS = 2000


def _asyncpar(loop: Loop, quick: bool) -> float:
    from asyncpar import ProcessExecutor, pmap

    async def main() -> float:
        async with ProcessExecutor(1) as executor:
            return await median_seconds_awaited(lambda: pmap(math.sqrt, [4], executor=executor), scaled(_REPETITIONS, quick))

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


def _case(loop: Loop) -> Case:
    contenders = [
        Contender("asyncpar", partial(_asyncpar, loop), "asyncpar", Target(times=1.0)),
        Contender("anyio.to_process", partial(_to_process, loop)),
    ]
    if loop != "trio":  # which cannot await it
        contenders.append(Contender("ProcessPoolExecutor", partial(_process_pool, loop)))
    return Case(f"one-item-{loop}", f"one call there and back, {loop}", tuple(contenders), "anyio.to_process")


CASES = (_case("asyncio"), _case("uvloop"), _case("trio"))
