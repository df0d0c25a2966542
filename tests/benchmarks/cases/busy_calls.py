"""Calls that compute for a known time, over two warm workers: what is lost to everything that is not a call.

Calls of one length; long calls after short ones have taught that calls are short; and lengths without a typical one, as real
work often has. In the last two, a batch that was cut too large leaves one worker with work and the other without.

The ideal is what two workers need at the least: half of the time that the calls themselves took, as each measured it in its
worker, or the longest call. Not the time that was asked for, because a call by the wall clock gets longer when the machine
has other things to do, which is nobody's overhead. It takes two processors that are free: with fewer, the parent's work
competes with the calls.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from time import perf_counter
from typing import TypeAlias

from tests.benchmarks import peers
from tests.benchmarks.frame import Case, Contender, Reading, Target, scaled
from tests.benchmarks.timing import run_in
from tests.benchmarks.workloads import spin

Durations: TypeAlias = Callable[[bool], list[float]]  # in milliseconds, or a tenth as many of them

_PARETO_CALLS = 2000
_SINGLE_CALLS = 1000
_ALPHA = 1.5  # few calls are most of the work, and the variance is infinite
_SHORTEST = (_ALPHA - 1) / _ALPHA  # so that the mean is 1 ms, but for the few that are cut
_LONGEST = 100.0
_SEED = 20


def _in_turn(segments: list[tuple[int, float]], quick: bool) -> list[float]:
    """Calls in segments, one after the other, each with a number of calls and their milliseconds."""
    return [milliseconds for calls, milliseconds in segments for _ in range(scaled(calls, quick))]


def _pareto(quick: bool) -> list[float]:
    random = Random(_SEED)
    return [min(_LONGEST, _SHORTEST * random.paretovariate(_ALPHA)) for _ in range(scaled(_PARETO_CALLS, quick))]


def _asyncpar(durations: Durations, quick: bool) -> Reading:
    from asyncpar import ProcessExecutor, pmap

    async def main() -> Reading:
        async with ProcessExecutor(peers.WORKERS) as executor:
            await pmap(spin, _warm_up(), executor=executor)
            began = perf_counter()
            spent = await pmap(spin, durations(quick), executor=executor)
            return _reading(perf_counter() - began, spent)

    return run_in("asyncio", main)


def _single_calls(quick: bool) -> Reading:
    """As many tasks as calls, each of which awaits its own."""
    from anyio import create_task_group

    from asyncpar import ProcessExecutor, pmap

    async def main() -> Reading:
        spent: list[float] = []

        async def call() -> None:
            spent.append(await executor.run(spin, 1.0))

        async with ProcessExecutor(peers.WORKERS) as executor:
            await pmap(spin, _warm_up(), executor=executor)
            began = perf_counter()
            async with create_task_group() as group:
                for _ in range(scaled(_SINGLE_CALLS, quick)):
                    group.start_soon(call)
            return _reading(perf_counter() - began, spent)

    return run_in("asyncio", main)


def _peer(peer: peers.Peer, durations: Durations, quick: bool) -> Reading:
    with peer() as map_items:
        map_items(spin, _warm_up())
        began = perf_counter()
        spent = map_items(spin, durations(quick))
        return _reading(perf_counter() - began, spent)


def _warm_up() -> list[float]:
    return [1.0] * 20 * peers.WORKERS


def _reading(seconds: float, spent: list[float]) -> Reading:
    return Reading(seconds, max(sum(spent) / peers.WORKERS, *spent))


def _case(name: str, title: str, durations: Durations, *targets: Target) -> Case:
    def peer(name: str, peer: peers.Peer) -> Contender:
        return Contender(name, partial(_peer, peer, durations))

    return Case(
        name,
        f"{title} over 2 warm workers",
        (
            Contender("asyncpar", partial(_asyncpar, durations), "asyncpar", targets),
            peer("joblib", peers.joblib),
            peer("multiprocessing.Pool", peers.pool),
            peer("multiprocessing.Pool, one by one", partial(peers.pool, 1)),
            peer("ProcessPoolExecutor", peers.process_pool),
            peer("loky", peers.loky),
            peer("mpire", peers.mpire),
        ),
        reference="the ideal",
    )


CASES = (
    _case("short-calls", "2000 calls of 1 ms", partial(_in_turn, [(2000, 1.0)]), Target(times=1.02)),
    _case(
        "skewed-late",
        "4000 calls of 0.1 ms, then 60 of 20 ms,",
        partial(_in_turn, [(4000, 0.1), (60, 20.0)]),
        Target(times=1.08),
    ),
    _case("pareto-calls", "2000 calls of Pareto-distributed length", _pareto),
    Case(
        "single-calls",
        "1000 single calls of 1 ms at the same time, over 2 warm workers",
        (
            Contender("asyncpar, executor.run", _single_calls, "asyncpar", (Target(times=1 / 0.97),)),
            Contender("ProcessPoolExecutor", partial(_peer, peers.process_pool, partial(_in_turn, [(_SINGLE_CALLS, 1.0)]))),
        ),
        reference="the ideal",
    ),
)
