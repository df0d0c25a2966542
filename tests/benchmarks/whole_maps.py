"""The wall time of a whole map over two warm workers, taken as a list or as a stream: asyncpar's and two peers'.

The peers are told to cut the input into 64 chunks, so that nothing but the items themselves costs much; asyncpar is told
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, TypeAlias

from tests.benchmarks import peers
from tests.benchmarks.frame import scaled
from tests.benchmarks.timing import median_seconds, median_seconds_awaited, run_in

How: TypeAlias = Literal["list", "stream"]

ASYNCPAR = "asyncpar"
POOL = "multiprocessing.Pool"
PROCESS_POOL = "ProcessPoolExecutor"

_CHUNKS = 64
_REPETITIONS = 5
_PEERS: dict[tuple[str, How], Callable[[int], AbstractContextManager[peers.Stream]]] = {
    (POOL, "list"): peers.pool,
    (POOL, "stream"): peers.pool_stream,
    (PROCESS_POOL, "list"): peers.process_pool,
    (PROCESS_POOL, "stream"): peers.process_pool_stream,
}


def median_seconds_of_map(contender: str, how: How, fn: Callable[[Any], Any], items: Sequence[Any], *, quick: bool) -> float:
    """The median of some maps of all items, after one that does not count."""
    repetitions = scaled(_REPETITIONS, quick)
    if contender == ASYNCPAR:
        return _asyncpar(how, fn, items, repetitions)
    with _PEERS[contender, how](-(-len(items) // _CHUNKS)) as map_items:
        return median_seconds(lambda: _expect(len(items), _count(map_items(fn, items))), repetitions)


def _asyncpar(how: How, fn: Callable[[Any], Any], items: Sequence[Any], repetitions: int) -> float:
    from asyncpar import ProcessExecutor, pmap

    async def main() -> float:
        async with ProcessExecutor(peers.WORKERS) as executor:

            async def as_list() -> None:
                _expect(len(items), len(await pmap(fn, items, executor=executor)))

            async def as_stream() -> None:
                count = 0
                async for _ in pmap(fn, items, executor=executor):
                    count += 1
                _expect(len(items), count)

            return await median_seconds_awaited(as_list if how == "list" else as_stream, repetitions)

    return run_in("asyncio", main)


def _count(results: Iterable[Any]) -> int:
    """How many there are: a list is there as a whole, and a stream is taken one by one."""
    if isinstance(results, list):
        return len(results)
    count = 0
    for _ in results:
        count += 1
    return count


def _expect(expected: int, count: int) -> None:
    assert count == expected, f"{expected} results were expected, and {count} came"
