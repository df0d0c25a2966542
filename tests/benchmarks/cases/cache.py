"""The disk cache beside joblib.Memory, diskcache, cachier and cashews: hits, stores, keys, large arrays, the event loop.

Each contender caches the same function in a folder of its own, which is removed at the end.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from time import perf_counter
from typing import Any, TypeAlias

from tests.benchmarks.frame import Case, Contender, Role, Target, scaled
from tests.benchmarks.timing import median_seconds, median_seconds_awaited

Cached: TypeAlias = Callable[..., Any]
Cache: TypeAlias = Callable[[Callable[..., Any], str], Cached]

_HITS = 20_000
_KEYS = 1000
_STORES = 1000
_MAPPED_ITEMS = 10_000
_LARGE = 12_500_000  # floats, 100 MB
_HASHED = 32_000_000  # floats, 256 MB
_ARGUMENTS = (1, "abc", {"x": 1, "y": 2}, 2.5)
_BEAT_SECONDS = 0.0005


def _asyncpar(function: Callable[..., Any], folder: str, **options: Any) -> Cached:
    from asyncpar import Memory

    cached: Cached = Memory(folder, verbose=0, **options).cache(function)
    return cached


def _joblib(function: Callable[..., Any], folder: str, **options: Any) -> Cached:
    from joblib import Memory  # type: ignore[import-untyped]  # it has no type information

    cached: Cached = Memory(folder, verbose=0, **options).cache(function)
    return cached


def _diskcache(function: Callable[..., Any], folder: str) -> Cached:
    from diskcache import Cache

    cached: Cached = Cache(folder).memoize()(function)
    return cached


def _cachier(function: Callable[..., Any], folder: str) -> Cached:
    from cachier import cachier

    cached: Cached = cachier(cache_dir=folder, backend="pickle", separate_files=True)(function)
    return cached


def small(x: int, y: int = 1) -> dict[str, int]:
    """What is cached."""
    return {"x": x, "y": y}


async def small_async(x: int, y: int = 1) -> dict[str, int]:
    """The same, awaited."""
    return {"x": x, "y": y}


def large(size: int) -> Any:
    """A large array."""
    import numpy

    return numpy.ones(size)


def keyed(a: int, b: str, c: dict[str, int], d: float) -> None:
    """Is called with small arguments."""


@contextmanager
def _in_folder(cache: Cache, function: Callable[..., Any]) -> Iterator[Cached]:
    with tempfile.TemporaryDirectory(prefix="benchmarks-cache-") as folder:
        yield cache(function, folder)


def _hit(cache: Cache, repetitions: int, quick: bool) -> float:
    repetitions = scaled(repetitions, quick)

    with _in_folder(cache, small) as cached:
        cached(1)

        def hits() -> None:
            for _ in range(repetitions):
                cached(1)

        return median_seconds(hits, 3) / repetitions


def _hits_over_keys(cache: Cache, quick: bool) -> float:
    keys = scaled(_KEYS, quick)
    with _in_folder(cache, small) as cached:

        def hits() -> None:
            for x in range(keys):
                cached(x)

        return median_seconds(hits, 5) / keys


def _store(cache: Cache, quick: bool) -> float:
    stores = scaled(_STORES, quick)
    with _in_folder(cache, small) as cached:
        numbers = count()

        def store() -> None:
            for _ in range(stores):
                cached(next(numbers))

        return median_seconds(store, 3) / stores


async def _hits_awaited(cached: Callable[[int], Awaitable[Any]], repetitions: int) -> float:
    return await median_seconds_awaited(lambda: cached(1), repetitions)


def _async_hit(quick: bool) -> float:
    with _in_folder(_asyncpar, small_async) as cached:
        return asyncio.run(_hits_awaited(cached, scaled(_HITS, quick)))


def _async_hit_of_cashews(quick: bool) -> float:
    from cashews import cache

    with tempfile.TemporaryDirectory(prefix="benchmarks-cache-") as folder:
        cache.setup("disk://", directory=folder)
        cached: Any = cache(ttl="1h")(small_async)
        return asyncio.run(_hits_awaited(cached, scaled(_HITS // 20, quick)))


def _map_large(cache: Cache, quick: bool) -> float:
    with _in_folder(cache, large) as cached:
        cached(_LARGE)
        return median_seconds(lambda: cached(_LARGE), scaled(300, quick))


async def _mapped_hits(twin: Cached, items: int) -> float:
    from asyncpar import pmap

    return await median_seconds_awaited(lambda: pmap(twin, range(items), executor="process", n_jobs=2), 5) / items


def _hits_of_a_map(quick: bool) -> float:
    with _in_folder(_asyncpar, small) as cached:
        items = _fill(cached, quick)
        return asyncio.run(_mapped_hits(cached, items))


def _hits_of_a_loop(quick: bool) -> float:
    with _in_folder(_asyncpar, small) as cached:
        items = _fill(cached, quick)
        return median_seconds(lambda: [cached(x) for x in range(items)], 5) / items


def _hits_of_joblib_parallel(quick: bool) -> float:
    from joblib import Parallel, delayed

    with _in_folder(_joblib, small) as cached:
        items = _fill(cached, quick)
        with Parallel(n_jobs=2) as parallel:
            return median_seconds(lambda: parallel(delayed(cached)(x) for x in range(items)), 3) / items


def _fill(cached: Cached, quick: bool) -> int:
    """Computes what is found then; returns how many calls."""
    items = scaled(_MAPPED_ITEMS, quick)
    for x in range(items):
        cached(x)
    return items


def _key(make: Callable[[str], Callable[[], object]], repetitions: int, quick: bool) -> float:
    repetitions = scaled(repetitions, quick)
    with tempfile.TemporaryDirectory(prefix="benchmarks-cache-") as folder:
        key = make(folder)

        def keys() -> None:
            for _ in range(repetitions):
                key()

        return median_seconds(keys, 5) / repetitions


def _key_of_asyncpar(folder: str) -> Callable[[], object]:
    shelf: Any = _asyncpar(keyed, folder)._shelf  # type: ignore[attr-defined]
    return lambda: shelf.key(_ARGUMENTS, {})


def _key_of_joblib(folder: str) -> Callable[[], object]:
    cached: Any = _joblib(keyed, folder)
    return lambda: cached._get_args_id(*_ARGUMENTS)


def _hash(library: str, value: Callable[[], Any], quick: bool) -> float:
    from importlib import import_module

    hashed = import_module(library).hash
    hashing = value()
    return median_seconds(lambda: hashed(hashing), 1 if quick else 3)


def _array() -> Any:
    import numpy

    return numpy.arange(float(_HASHED))


def _dicts() -> Any:
    return [{"id": x, "name": f"n{x}", "value": x / 2} for x in range(100_000)]


def _loop_held(make: Callable[[str], Callable[[Any], Awaitable[Any]]], quick: bool) -> float:
    """The longest time between two beats while an array of 100 MB is stored."""
    array = large(_LARGE)

    async def main(folder: str) -> float:
        call = make(folder)
        await call(large(100_000))
        held: list[float] = []
        beating = asyncio.create_task(_beat(held))
        await asyncio.sleep(10 * _BEAT_SECONDS)
        await call(array)
        await asyncio.sleep(10 * _BEAT_SECONDS)
        beating.cancel()
        return max(held)

    with tempfile.TemporaryDirectory(prefix="benchmarks-cache-") as folder:
        return asyncio.run(main(folder))


async def _beat(held: list[float]) -> None:
    last = perf_counter()
    while True:
        await asyncio.sleep(_BEAT_SECONDS)
        now = perf_counter()
        held.append(now - last - _BEAT_SECONDS)
        last = now


async def give_back(array: Any) -> Any:
    """Is cached: its argument and its result are large."""
    return array


def _prepare_joblib(folder: str) -> Callable[[Any], Awaitable[Any]]:
    cached: Callable[[Any], Awaitable[Any]] = _joblib(give_back, folder)
    return cached


def _prepare_asyncpar(folder: str) -> Callable[[Any], Awaitable[Any]]:
    return _asyncpar(give_back, folder)


_MAPPED: dict[str, Any] = {"mmap_mode": "r"}
_OURS: Role = "asyncpar"


def _against_joblib(times: float) -> tuple[Target, ...]:
    return (Target(times=1 / times, of="joblib"),)


CASES = (
    Case(
        "cache-hit",
        "the disk cache: finding a small result",
        (
            Contender(
                "asyncpar", partial(_hit, _asyncpar, _HITS), _OURS, (*_against_joblib(8), Target(times=1, of="diskcache"))
            ),
            Contender("joblib", partial(_hit, _joblib, _HITS // 10)),
            Contender("diskcache", partial(_hit, _diskcache, _HITS // 4)),
            Contender("cachier", partial(_hit, _cachier, _HITS // 20)),
        ),
        reference="joblib",
    ),
    Case(
        "cache-keys",
        "the disk cache: small results of 1 000 keys in turn, each",
        (
            Contender("asyncpar", partial(_hits_over_keys, _asyncpar), _OURS, _against_joblib(8)),
            Contender("joblib", partial(_hits_over_keys, _joblib)),
            Contender("diskcache", partial(_hits_over_keys, _diskcache)),
        ),
        reference="joblib",
    ),
    Case(
        "cache-await",
        "the disk cache: finding a small result, awaited",
        (
            Contender("asyncpar", _async_hit, _OURS, (Target(times=1, of="cashews"),)),
            Contender("cashews", _async_hit_of_cashews),
        ),
        reference="cashews",
    ),
    Case(
        "cache-pmap",
        "the disk cache: a map over 10 000 items whose small results are all there, each",
        (
            Contender("asyncpar", _hits_of_a_map, _OURS, (Target(plus=20e-6), Target(times=1 / 4, of="joblib"))),
            Contender("a loop", _hits_of_a_loop, "yardstick"),
            Contender("joblib", _hits_of_joblib_parallel),
        ),
        reference="a loop",
    ),
    Case(
        "cache-store",
        "the disk cache: computing and keeping a small result",
        (
            Contender("asyncpar", partial(_store, _asyncpar), _OURS, _against_joblib(4)),
            Contender("joblib", partial(_store, _joblib)),
            Contender("diskcache", partial(_store, _diskcache)),
        ),
        reference="joblib",
    ),
    Case(
        "cache-map",
        "the disk cache: mapping a result of 100 MB",
        (
            Contender("asyncpar", partial(_map_large, partial(_asyncpar, **_MAPPED)), _OURS, _against_joblib(5)),
            Contender("joblib", partial(_map_large, partial(_joblib, **_MAPPED))),
        ),
        reference="joblib",
    ),
    Case(
        "cache-loop-held",
        "the longest time that the event loop is held while 100 MB are hashed and kept",
        (
            Contender("asyncpar", partial(_loop_held, _prepare_asyncpar), _OURS, (Target(plus=5e-3),)),
            Contender("joblib", partial(_loop_held, _prepare_joblib)),
        ),
        reference="joblib",
    ),
    Case(
        "cache-key",
        'the key of a call with (1, "abc", {"x": 1, "y": 2}, 2.5)',
        (
            Contender("asyncpar", partial(_key, _key_of_asyncpar, 20_000), _OURS, _against_joblib(10)),
            Contender("joblib", partial(_key, _key_of_joblib, 2000)),
        ),
        reference="joblib",
    ),
    Case(
        "cache-hash-array",
        "hash of an array of 256 MB",
        (
            Contender("asyncpar", partial(_hash, "asyncpar", _array), _OURS, _against_joblib(6)),
            Contender("joblib", partial(_hash, "joblib", _array)),
        ),
        reference="joblib",
    ),
    Case(
        "cache-hash-dicts",
        "hash of 100 000 small dicts",
        (
            Contender("asyncpar", partial(_hash, "asyncpar", _dicts), _OURS, _against_joblib(20)),
            Contender("joblib", partial(_hash, "joblib", _dicts)),
        ),
        reference="joblib",
    ),
)
