"""A million times `x + 1` over two warm workers: what sending an item there and its result back costs.

Nobody should compute this in another process; but whatever it costs here, every item of every map pays. Per item, from a
`range` and from a list. joblib does a tenth of the items, because it takes twenty times as long for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, TypeAlias

from tests.benchmarks.frame import Case, Contender, scaled
from tests.benchmarks.timing import median_seconds, median_seconds_awaited, run_in
from tests.benchmarks.workloads import increment

Kind: TypeAlias = Literal["range", "list"]

_ITEMS = 10**6
_JOBLIB_ITEMS = 10**5
_CHUNK = 10**4  # for concurrent.futures, whose own default sends items one by one
_WORKERS = 2
_REPETITIONS = 3


def _asyncpar(kind: Kind, quick: bool) -> float:
    from asyncpar import ProcessExecutor, pmap

    items = _items(kind, _ITEMS, quick)

    async def main() -> float:
        async with ProcessExecutor(_WORKERS) as executor:
            return await median_seconds_awaited(lambda: pmap(increment, items, executor=executor), _REPETITIONS)

    return run_in("asyncio", main) / len(items)


def _pool(kind: Kind, quick: bool) -> float:
    import multiprocessing

    items = _items(kind, _ITEMS, quick)
    with multiprocessing.Pool(_WORKERS) as pool:
        return median_seconds(lambda: pool.map(increment, items), _REPETITIONS) / len(items)


def _process_pool(kind: Kind, quick: bool) -> float:
    from concurrent.futures import ProcessPoolExecutor

    items = _items(kind, _ITEMS, quick)
    with ProcessPoolExecutor(_WORKERS) as pool:
        return median_seconds(lambda: list(pool.map(increment, items, chunksize=_CHUNK)), _REPETITIONS) / len(items)


def _joblib(kind: Kind, quick: bool) -> float:
    from joblib import Parallel, delayed  # type: ignore[import-untyped]  # it has no type information

    items = _items(kind, _JOBLIB_ITEMS, quick)
    with Parallel(n_jobs=_WORKERS) as parallel:
        return median_seconds(lambda: parallel(delayed(increment)(item) for item in items), _REPETITIONS) / len(items)


def _items(kind: Kind, length: int, quick: bool) -> Sequence[int]:
    items = range(scaled(length, quick))
    return items if kind == "range" else list(items)


def _case(kind: Kind) -> Case:
    return Case(
        f"tiny-items-{kind}",
        f"a million times `x + 1` over 2 warm workers from a {kind}, per item",
        (
            Contender("asyncpar", partial(_asyncpar, kind), "asyncpar"),
            Contender("multiprocessing.Pool", partial(_pool, kind)),
            Contender(f"ProcessPoolExecutor, chunks of {_CHUNK:_}", partial(_process_pool, kind)),
            Contender("joblib", partial(_joblib, kind)),
        ),
        reference="multiprocessing.Pool",
    )


CASES = (_case("range"), _case("list"))
