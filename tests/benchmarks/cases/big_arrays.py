"""Arrays of 100 MiB, there and back: as an argument that nobody has seen, as one that 40 calls share, as a result.

Then eight such results in turn: by how much the parent's peak of resident memory grows; ten thousand results of 10 KiB; an
array just below the threshold beside one just above; and how late the event loop wakes a task while 4 GiB go through it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any, TypeAlias

from tests.benchmarks import peers
from tests.benchmarks.cases.loop_lag import p999, probed
from tests.benchmarks.cases.stream_memory import peak_bytes
from tests.benchmarks.frame import Case, Contender, Target, scaled
from tests.benchmarks.timing import run_in

_BYTES = 100 << 20
_REPETITIONS = 8
_SHARING_CALLS = 40
_SMALL_BYTES = 10 << 10
_SMALL_RESULTS = 10_000
_RESULTS_IN_TURN = 8
_TRANSFERS = (4 << 30) // (2 * _BYTES)  # there and back
_THRESHOLD = 1 << 20

Round: TypeAlias = Callable[[Any], tuple[Callable[[Any], Any], list[Any]]]  # a fresh array -> what to map over what

_made: dict[int, Any] = {}


def first(array: Any) -> float:
    return float(array[0])


def make(size: int) -> Any:
    """An array of this many bytes. The worker keeps it, so that only its way back is measured."""
    import numpy

    if size not in _made:
        _made[size] = numpy.ones(size // 8)
    return _made[size]


def make_small(number: int) -> Any:
    """One like no other: pickle would send the same one once for a whole chunk."""
    import numpy

    return numpy.full(_SMALL_BYTES // 8, float(number))


def _fresh(array: Any) -> tuple[Callable[[Any], Any], list[Any]]:
    return first, [array]


def _shared(array: Any) -> tuple[Callable[[Any], Any], list[Any]]:
    return first, [array] * _SHARING_CALLS


def _result(_: Any) -> tuple[Callable[[Any], Any], list[Any]]:
    return make, [_BYTES]


def _small_results(_: Any) -> tuple[Callable[[Any], Any], list[Any]]:
    return make_small, list(range(_SMALL_RESULTS))


def _asyncpar(prepare: Round, quick: bool) -> float:
    import numpy

    from asyncpar import ProcessExecutor, pmap

    async def main() -> float:
        async with ProcessExecutor(peers.WORKERS) as executor:
            seconds = []
            for number in range(1 + scaled(_REPETITIONS, quick)):
                fn, items = prepare(numpy.full(_BYTES // 8, float(number)))
                began = perf_counter()
                await pmap(fn, items, executor=executor)
                seconds.append(perf_counter() - began)
            return median(seconds[1:])

    return run_in("asyncio", main)


def _peer(peer: peers.Peer, prepare: Round, quick: bool) -> float:
    import numpy

    with peer() as map_items:
        seconds = []
        for number in range(1 + scaled(_REPETITIONS, quick)):
            fn, items = prepare(numpy.full(_BYTES // 8, float(number)))
            began = perf_counter()
            map_items(fn, items)
            seconds.append(perf_counter() - began)
        return median(seconds[1:])


def _in_turn(quick: bool) -> float:
    from asyncpar import ProcessExecutor, pmap

    async def main() -> float:
        async with ProcessExecutor(peers.WORKERS) as executor:
            await pmap(make, [8], executor=executor)
            before = peak_bytes()
            async with pmap(make, [_BYTES] * _RESULTS_IN_TURN, executor=executor) as results:
                async for array in results:
                    assert array.sum() == _BYTES // 8
            return peak_bytes() - before

    return run_in("asyncio", main)


def _beside_the_threshold(size: int, quick: bool) -> float:
    import numpy

    from asyncpar import ProcessExecutor, pmap

    async def main() -> float:
        async with ProcessExecutor(peers.WORKERS) as executor:
            seconds = []
            for number in range(1 + scaled(20 * _REPETITIONS, quick)):
                items = [numpy.full(size // 8, float(number))]
                began = perf_counter()
                await pmap(first, items, executor=executor)
                seconds.append(perf_counter() - began)
            return median(seconds[1:])

    return run_in("asyncio", main)


def _lag_asyncpar(quick: bool) -> float:
    import numpy

    from asyncpar import ProcessExecutor, pmap

    async def main() -> float:
        array = numpy.ones(_BYTES // 8)
        async with ProcessExecutor(peers.WORKERS) as executor:

            async def transfer() -> None:
                for _ in range(scaled(_TRANSFERS, quick)):
                    await pmap(make, [_BYTES], executor=executor)
                    await pmap(first, [array], executor=executor)

            return await _lateness(transfer)

    return run_in("asyncio", main)


def _lag_to_process(quick: bool) -> float:
    import numpy
    from anyio import to_process

    async def main() -> float:
        array = numpy.ones(_BYTES // 8)

        async def transfer() -> None:
            for _ in range(scaled(_TRANSFERS, quick)):
                await to_process.run_sync(make, _BYTES)
                await to_process.run_sync(first, array)

        return await _lateness(transfer)

    return run_in("asyncio", main)


async def _lateness(transfer: Callable[[], Awaitable[None]]) -> float:
    lags: list[float] = []
    await transfer()
    await probed(transfer, lags)
    return p999(lags)


def _case(name: str, title: str, prepare: Round, *targets: Target) -> Case:
    def peer(name: str, peer: peers.Peer) -> Contender:
        return Contender(name, partial(_peer, peer, prepare))

    return Case(
        name,
        f"{title}, 2 warm workers",
        (
            Contender("asyncpar", partial(_asyncpar, prepare), "asyncpar", targets),
            peer("joblib", peers.joblib),
            peer("multiprocessing.Pool", peers.pool),
            peer("ProcessPoolExecutor", peers.process_pool),
            peer("mpire", peers.mpire),
        ),
        reference="asyncpar",
    )


CASES = (
    _case("array-argument", "an array of 100 MiB as an argument", _fresh, Target(plus=20e-3)),
    _case("array-shared", "the same array of 100 MiB in 40 calls", _shared, Target(plus=25e-3)),
    _case("array-result", "an array of 100 MiB as a result", _result, Target(plus=20e-3)),
    _case("small-results", "10 000 results of 10 KiB", _small_results),
    Case(
        "array-threshold",
        "an array of 1 MiB as an argument",
        (
            Contender("asyncpar, 8 bytes less", partial(_beside_the_threshold, _THRESHOLD - 8), "yardstick"),
            Contender("asyncpar", partial(_beside_the_threshold, _THRESHOLD), "asyncpar", (Target(times=2.0),)),
        ),
        reference="asyncpar, 8 bytes less",
    ),
    Case(
        "array-memory",
        "peak memory of the parent while it takes 8 results of 100 MiB in turn",
        (Contender("asyncpar", _in_turn, "asyncpar", (Target(plus=3 * _BYTES),)),),
        unit="bytes",
    ),
    Case(
        "array-lag",
        "event-loop lag while 4 GiB of arrays go there and back, 99.9th percentile",
        (
            Contender("asyncpar", _lag_asyncpar, "asyncpar", (Target(plus=5e-3),)),
            Contender("anyio.to_process", _lag_to_process),
        ),
    ),
)
