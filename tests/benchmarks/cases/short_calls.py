"""2000 calls of 1 ms each over two warm workers: what is lost to everything that is not a call.

The ideal is the time that the calls themselves took, as each measured it in its worker, divided by two; not two thousand
times a millisecond, because a call by the wall clock gets longer when the machine has other things to do, which is nobody's
overhead. On an idle machine both are one second, so that the median can be read against that too. It takes two processors
that are free: with fewer, the parent's work competes with the calls.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from tests.benchmarks.frame import Case, Contender, Reading, Target, scaled
from tests.benchmarks.timing import run_in
from tests.benchmarks.workloads import spin

_CALLS = 2000
_WORKERS = 2


def _asyncpar(quick: bool) -> Reading:
    from asyncpar import ProcessExecutor, pmap

    async def main() -> Reading:
        async with ProcessExecutor(_WORKERS) as executor:
            await pmap(spin, _warm_up_items(), executor=executor)
            began = perf_counter()
            spent = await pmap(spin, _items(quick), executor=executor)
            return Reading(perf_counter() - began, sum(spent) / _WORKERS)

    return run_in("asyncio", main)


def _joblib(quick: bool) -> Reading:
    from joblib import Parallel, delayed  # type: ignore[import-untyped]  # it has no type information

    with Parallel(n_jobs=_WORKERS) as parallel:
        return _read(lambda items: list(parallel(delayed(spin)(item) for item in items)), quick)


def _pool(quick: bool) -> Reading:
    import multiprocessing

    with multiprocessing.Pool(_WORKERS) as pool:
        return _read(lambda items: pool.map(spin, items), quick)


def _process_pool(quick: bool) -> Reading:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(_WORKERS) as pool:
        return _read(lambda items: list(pool.map(spin, items)), quick)


def _read(run: Callable[[list[float]], list[float]], quick: bool) -> Reading:
    run(_warm_up_items())
    began = perf_counter()
    spent = run(_items(quick))
    return Reading(perf_counter() - began, sum(spent) / _WORKERS)


def _items(quick: bool) -> list[float]:
    return [1.0] * scaled(_CALLS, quick)


def _warm_up_items() -> list[float]:
    return [1.0] * 20 * _WORKERS


CASES = (
    Case(
        "short-calls",
        "2000 calls of 1 ms over 2 warm workers",
        (
            Contender("asyncpar", _asyncpar, "asyncpar", Target(times=1.03)),
            Contender("joblib", _joblib),
            Contender("multiprocessing.Pool", _pool),
            Contender("ProcessPoolExecutor", _process_pool),
        ),
        reference="the calls' own time / 2",
    ),
)
