"""How much the parent grows while ten million results are streamed through it: the peak of its resident memory.

Programs stream because the whole does not fit in memory, so nothing must grow with the length: neither the items that have
been pulled ahead, nor the results that wait for the consumer. A thousand items before the start do not count, nor does what
they import. The case shows which peers pull their whole input ahead.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterable
from functools import partial

from tests.benchmarks.frame import Case, Contender, Target, scaled
from tests.benchmarks.timing import run_in
from tests.benchmarks.workloads import increment

_ITEMS = 10**7
_WARM_UP_ITEMS = 1000
_CHUNK = 10**4
_WORKERS = 2
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes


def _asyncpar(quick: bool) -> float:
    from asyncpar import ProcessExecutor, pmap

    async def main() -> float:
        async with ProcessExecutor(_WORKERS) as executor:

            async def consume(length: int) -> None:
                async with pmap(increment, range(length), executor=executor) as results:
                    async for _ in results:
                        pass

            await consume(_WARM_UP_ITEMS)
            before = peak_bytes()
            await consume(scaled(_ITEMS, quick))
            return peak_bytes() - before

    return run_in("asyncio", main)


def _growth(stream: Callable[[range], Iterable[int]], quick: bool) -> float:
    for _ in stream(range(_WARM_UP_ITEMS)):
        pass
    before = peak_bytes()
    for _ in stream(range(scaled(_ITEMS, quick))):
        pass
    return peak_bytes() - before


def _pool(quick: bool) -> float:
    import multiprocessing

    with multiprocessing.Pool(_WORKERS) as pool:
        return _growth(lambda items: pool.imap(increment, items, _CHUNK), quick)


def _process_pool(quick: bool) -> float:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(_WORKERS) as pool:
        return _growth(partial(pool.map, increment, chunksize=_CHUNK), quick)


def _mpire(quick: bool) -> float:
    from mpire.pool import WorkerPool

    with WorkerPool(_WORKERS, keep_alive=True) as pool:
        return _growth(lambda items: pool.imap(increment, items, chunk_size=_CHUNK), quick)


def _joblib(quick: bool) -> float:
    from joblib import Parallel, delayed  # type: ignore[import-untyped]  # it has no type information

    with Parallel(n_jobs=_WORKERS, return_as="generator") as parallel:
        return _growth(lambda items: parallel(delayed(increment)(item) for item in items), quick)


def peak_bytes() -> float:
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT)


CASES = (
    Case(
        "stream-memory",
        "growth of the parent over a stream of 10⁷ tiny items",
        (
            Contender("asyncpar", _asyncpar, "asyncpar", (Target(plus=20 * 2**20),)),
            Contender("multiprocessing.Pool, in chunks", _pool),
            Contender("ProcessPoolExecutor, in chunks", _process_pool),
            Contender("mpire, in chunks", _mpire),
            Contender("joblib", _joblib),
        ),
        unit="bytes",
    ),
)
