"""A million times `x + 1` over two warm workers: what sending an item there and its result back costs.

Nobody should compute this in another process; but whatever it costs here, every item of every map pays. Per item, from a
`range` and from a list. mpire does a tenth of the items, because it takes thirty times as long for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, TypeAlias

from tests.benchmarks import peers
from tests.benchmarks.frame import Case, Contender, Target, scaled
from tests.benchmarks.timing import Loop, median_seconds, median_seconds_awaited, run_in
from tests.benchmarks.workloads import increment

Kind: TypeAlias = Literal["range", "list"]

_ITEMS = 10**6
_FEWER_ITEMS = 10**5
_CHUNK = 10**4
_REPETITIONS = 3
_TARGETS = {
    "range": (
        Target(plus=60e-9),
        Target(times=1 / 1.5, of="multiprocessing.Pool"),
        Target(times=1 / 30, of="joblib"),
    ),
    "list": (Target(times=1.0),),
}


def _asyncpar(kind: Kind, loop: Loop, quick: bool) -> float:
    from asyncpar import ProcessExecutor, pmap

    items = _items(kind, _ITEMS, quick)

    async def main() -> float:
        async with ProcessExecutor(peers.WORKERS) as executor:
            return await median_seconds_awaited(lambda: pmap(increment, items, executor=executor), _REPETITIONS)

    return run_in(loop, main) / len(items)


def _peer(peer: peers.Peer, kind: Kind, length: int, quick: bool) -> float:
    items = _items(kind, length, quick)
    with peer() as map_items:
        return median_seconds(lambda: map_items(increment, items), _REPETITIONS) / len(items)


def _items(kind: Kind, length: int, quick: bool) -> Sequence[int]:
    items = range(scaled(length, quick))
    return items if kind == "range" else list(items)


def _case(kind: Kind) -> Case:
    def peer(name: str, peer: peers.Peer, length: int = _ITEMS) -> Contender:
        return Contender(name, partial(_peer, peer, kind, length))

    return Case(
        f"tiny-items-{kind}",
        f"10⁶ times x + 1 over 2 warm workers, from a {kind}, per item",
        (
            Contender("asyncpar", partial(_asyncpar, kind, "asyncio"), "asyncpar", _TARGETS[kind]),
            Contender("asyncpar, uvloop", partial(_asyncpar, kind, "uvloop"), "asyncpar", _TARGETS[kind]),
            peer("multiprocessing.Pool", peers.pool),
            peer("ProcessPoolExecutor, in chunks", partial(peers.process_pool, _CHUNK)),
            peer("loky, in chunks", partial(peers.loky, _CHUNK)),
            peer("mpire", peers.mpire, _FEWER_ITEMS),
            peer("joblib", peers.joblib),
        ),
        reference="multiprocessing.Pool",
    )


CASES = (_case("range"), _case("list"))
