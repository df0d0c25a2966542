"""`Memory` and the cached twins of functions: what is computed, what is found, and what is refused."""

from __future__ import annotations

import asyncio
import copy
import functools
import importlib
import os
import pickle
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import cloudpickle
import numpy as np
import pytest

from asyncpar import CacheWarning, MemorizedResult, Memory, UnsafeCacheError, expires_after, pmap
from asyncpar._cache import pruning
from asyncpar._cache.forms import UnstableValueError
from tests.calls.processes import write_and_square
from tests.loops import on_one_loop

calls: list[Any] = []


@pytest.fixture(autouse=True)
def no_calls_yet() -> None:
    calls.clear()


def square(x: int, y: int = 0) -> int:
    calls.append((x, y))
    return x * x + y


async def asquare(x: int, y: int = 0) -> int:
    calls.append((x, y))
    await anyio.lowlevel.checkpoint()
    return x * x + y


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path / "cache", verbose=0)


def test_a_call_is_computed_once(memory: Memory) -> None:
    cached = memory.cache(square)
    assert [cached(3), cached(x=3), cached(3, 0), cached(3, y=1)] == [9, 9, 9, 10]
    assert calls == [(3, 0), (3, 1)]
    assert Memory(memory.location, verbose=0).cache(square)(3) == 9
    assert len(calls) == 2


async def test_a_coroutine_functions_twin_is_awaited(memory: Memory) -> None:
    cached = memory.cache(asquare)
    assert [await cached(3), await cached(x=3), await cached(3, y=1)] == [9, 9, 10]
    assert calls == [(3, 0), (3, 1)]


async def test_a_plain_functions_twin_can_be_awaited(memory: Memory) -> None:
    cached = memory.cache(square)
    assert [await cached.acall(3), await cached.acall(3), cached(3)] == [9, 9, 9]
    assert calls == [(3, 0)]


def test_cache_is_a_decorator_with_and_without_arguments(memory: Memory) -> None:
    @memory.cache
    def one(x: int) -> int:
        """Documented."""
        calls.append(x)
        return x

    @memory.cache(ignore=["loud"])
    def other(x: int, loud: bool = False) -> int:
        calls.append(x)
        return x

    assert (one(1), one(1), other(2), other(2, loud=True)) == (1, 1, 2, 2)
    assert calls == [1, 2]
    assert (one.__name__, one.__doc__, one.func(1), other.ignore) == ("one", "Documented.", 1, ["loud"])


class Model:
    memory: Memory

    def __init__(self, weight: int) -> None:
        self.weight = weight
        self.late: Any = None

    def predict(self, x: int) -> int:
        calls.append(x)
        return self.weight * x

    async def apredict(self, x: int) -> int:
        calls.append(x)
        return self.weight * x


async def test_methods_are_cached_by_their_object(memory: Memory) -> None:
    class Cached(Model):
        predict = memory.cache(Model.predict)
        apredict = memory.cache(Model.apredict)

    one, other, equal = Cached(2), Cached(3), Cached(2)
    assert [one.predict(5), other.predict(5), equal.predict(5)] == [10, 15, 10]
    assert [await one.apredict(5), await equal.apredict(5)] == [10, 10]
    assert calls == [5, 5, 5]
    assert await one.predict.acall(5) == 10
    assert one.predict.check_call_in_cache(5)
    assert one.predict.call_and_shelve(5).get() == 10


def test_a_bound_method_is_cached_even_if_its_object_holds_the_twin(memory: Memory) -> None:
    model = Model(2)
    model.late = memory.cache(model.predict)
    assert [model.late(5), model.late(5)] == [10, 10]
    assert calls == [5]
    assert pickle.loads(cloudpickle.dumps(model.late))(5) == 10
    model.weight = 3
    assert model.late(5) == 15


async def test_without_a_location_nothing_is_kept() -> None:
    memory = Memory(None)
    cached = memory.cache(square)
    assert [cached(3), cached(3), await cached.acall(3), await memory.cache(asquare)(3)] == [9, 9, 9, 9]
    assert len(calls) == 4
    shelved = cached.call_and_shelve(3)
    assert pickle.loads(pickle.dumps(shelved)).get() == shelved.get() == 9
    assert not cached.check_call_in_cache(3)
    assert cached.call(3) == (9, {})
    cached.clear()
    memory.clear()
    memory.reduce_size(1)


def test_errors_are_not_kept(memory: Memory) -> None:
    @memory.cache
    def fail() -> None:
        calls.append(1)
        raise KeyError("no")

    for _ in range(2):
        with pytest.raises(KeyError, match="no"):
            fail()
    assert len(calls) == 2


async def test_shelved_results_are_small_and_picklable(memory: Memory) -> None:
    cached = memory.cache(lambda n: np.arange(n))
    shelved = cached.call_and_shelve(100_000)
    assert isinstance(shelved, MemorizedResult)
    data = pickle.dumps(shelved)
    assert len(data) < 1000
    assert len(pickle.loads(data).get()) == len(await shelved.aget()) == 100_000
    pickle.loads(data).clear()
    with pytest.raises(KeyError, match="not in the cache any more"):
        shelved.get()
    acached = memory.cache(asquare)
    assert (await acached.call_and_shelve(4)).get() == 16
    assert (await acached.call_and_shelve(4)).get() == 16
    assert (await memory.cache(square).acall_and_shelve(4)).get() == 16
    assert len(calls) == 2


async def test_call_computes_in_any_case(memory: Memory) -> None:
    cached, acached = memory.cache(square), memory.cache(asquare)
    cached(3)
    value, metadata = cached.call(3)
    assert (value, len(calls)) == (9, 2)
    assert metadata["input_args"] == {"x": "3", "y": "0"}
    assert metadata["duration"] < 10
    assert (await acached.call(3))[0] == 9
    assert await acached(3) == 9
    assert len(calls) == 3


def test_clear_forgets(memory: Memory) -> None:
    one, other = memory.cache(square), memory.cache(lambda x: calls.append(x))
    one(1), other(1)
    assert one.check_call_in_cache(1)
    one.clear()
    assert not one.check_call_in_cache(1)
    assert other.check_call_in_cache(1)
    memory.clear()
    assert not other.check_call_in_cache(1)
    assert one(1) == 1
    assert one.check_call_in_cache(1)


def test_eval_calls_the_twin(memory: Memory) -> None:
    assert [memory.eval(square, 3), memory.eval(square, 3)] == [9, 9]
    assert calls == [(3, 0)]


def test_a_validation_callback_decides(memory: Memory) -> None:
    asked: list[dict[str, Any]] = []
    answers = [True, False]

    def is_valid(metadata: dict[str, Any]) -> bool:
        asked.append(metadata)
        return answers.pop(0)

    cached = memory.cache(square, cache_validation_callback=is_valid)
    assert [cached(3), cached(3), cached(3)] == [9, 9, 9]
    assert len(calls) == 2
    assert set(asked[0]) == {"duration", "time", "input_args"}
    assert asked[0]["input_args"] == {"x": "3", "y": "0"}


def test_a_validation_callback_must_be_callable(memory: Memory) -> None:
    with pytest.raises(ValueError, match="cache_validation_callback needs to be callable"):
        memory.cache(square, cache_validation_callback="yes")  # type: ignore[call-overload]


def test_results_expire(memory: Memory) -> None:
    forever, never = (
        memory.cache(square, cache_validation_callback=expires_after(**age)) for age in ({"days": 1}, {"seconds": 0})
    )
    assert [forever(3), forever(3), never(3), never(3)] == [9, 9, 9, 9]
    assert len(calls) == 3


def test_the_age_limit_counts_from_when_a_result_was_computed(tmp_path: Path) -> None:
    one, other = (Memory(tmp_path / "cache", verbose=0, age_limit=age).cache(square) for age in (timedelta(days=1), 0.0))
    assert [one(3), one(3), other(3), other(3)] == [9, 9, 9, 9]
    assert len(calls) == 3


def test_a_clock_that_was_set_back_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = Memory(tmp_path / "cache", verbose=0, age_limit=60, size_limit=10**6).cache(square)
    now = time.time_ns()
    monkeypatch.setattr("asyncpar._cache.entries.time.time_ns", lambda: now + 10**9 * 3600)
    cached(3)
    monkeypatch.undo()
    assert cached(3) == 9
    assert len(calls) == 1


@pytest.mark.parametrize(("mode", "writable"), [("r", False), ("c", True), ("r+", True), ("w+", True)])
def test_results_are_mapped_and_what_a_caller_writes_stays_with_it(tmp_path: Path, mode: str, writable: bool) -> None:
    cached = Memory(tmp_path / "cache", verbose=0, mmap_mode=mode).cache(lambda: np.zeros(100_000))
    for result in (cached(), cached()):
        assert result.base is not None
        assert result.flags.writeable is writable
        if writable:
            result[:] = 1
    assert not cached().any()


def test_an_entry_may_be_cleared_while_it_is_mapped(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "cache", verbose=0, mmap_mode="r")
    cached = memory.cache(lambda: np.arange(100_000))
    mapped = cached()
    memory.clear()
    assert mapped.sum() == np.arange(100_000).sum()
    assert len(cached()) == 100_000


@pytest.mark.parametrize(
    "options",
    [
        {"compress": True},
        {"compress": "xz"},
        {"durable": True},
        {"key": b"k" * 32},
        {"serializer": "plain"},
        {"verify": "full", "mmap_mode": "r"},
    ],
)
def test_results_are_found_with_every_option(tmp_path: Path, options: dict[str, Any]) -> None:
    def make(n: int) -> Any:
        calls.append(n)
        return {"a": np.arange(n), "b": [1, "x"]}

    for _ in range(2):
        found = Memory(tmp_path / "cache", verbose=0, **options).cache(make)(50_000)
        assert found["b"] == [1, "x"]
        assert found["a"].sum() == np.arange(50_000).sum()
    assert len(calls) == 1


def entries(memory: Memory) -> list[Path]:
    assert memory.location is not None
    return [path for path in Path(memory.location).glob("v1/*/??/*") if path.is_file()]


def test_a_damaged_entry_is_computed_again_with_one_warning(memory: Memory) -> None:
    cached = memory.cache(square)
    for x in range(2):
        cached(x)
    for path in entries(memory):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(CacheWarning, match=r"was damaged.*computed again") as warned:
        assert [cached(0), cached(1)] == [0, 1]
    assert len(warned) == 1
    assert warned[0].filename == __file__
    assert [cached(0), cached(1)] == [0, 1]
    assert len(calls) == 4


def test_an_entry_of_another_key_is_not_taken(memory: Memory) -> None:
    cached = memory.cache(square)
    cached(1), cached(2)
    one, other = entries(memory)
    one.write_bytes(other.read_bytes())
    with pytest.warns(CacheWarning, match="the entry of another call"):
        assert [cached(1), cached(2)] == [1, 4]


def test_a_result_that_cannot_be_kept_is_returned_with_a_warning(memory: Memory) -> None:
    cached = memory.cache(lambda: (x for x in [1]))
    with pytest.warns(CacheWarning, match=r"cannot be stored.*generator"):
        assert list(cached()) == [1]
    assert entries(memory) == []


def test_a_location_that_cannot_be_written_to_costs_only_the_cache() -> None:
    cached = Memory("/proc/asyncpar-cache", verbose=0).cache(square)
    with pytest.warns(CacheWarning, match="cannot be kept in /proc/asyncpar-cache"):
        assert cached(3) == 9
    assert cached(3) == 9


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_location_that_others_may_write_to_is_refused_unless_it_is_signed(tmp_path: Path, mode: int) -> None:
    location = tmp_path / "cache"
    location.mkdir()
    location.chmod(mode)
    with pytest.raises(UnsafeCacheError, match=r"others may write.*chmod go-w.*key="):
        Memory(location)
    assert Memory(location, verbose=0, key=b"k" * 16).cache(square)(3) == 9


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_location_of_another_user_is_refused(tmp_path: Path) -> None:
    location = tmp_path / "cache"
    location.mkdir(0o700)
    os.chown(location, 12345, -1)
    with pytest.raises(UnsafeCacheError, match="belongs to user 12345"):
        Memory(location)


def test_folders_and_entries_are_for_their_owner_only(memory: Memory) -> None:
    memory.cache(square)(3)
    assert memory.location is not None
    location = Path(memory.location)
    folders = [path for path in [location, *location.rglob("*")] if path.is_dir()]
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in entries(memory)} == {0o600}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "s3"}, "backend"),
        ({"backend_options": {"a": 1}}, "no options"),
        ({"mmap_mode": "x"}, "mmap_mode"),
        ({"compress": 10}, "level"),
        ({"compress": True, "mmap_mode": "r"}, "cannot be mapped"),
        ({"size_limit": "many"}, "size_limit"),
        ({"age_limit": -1}, "age_limit"),
        ({"key": b"short"}, "16 to 64"), ({"serializer": "json"}, "serializer"), ({"verify": "no"}, "verify"),
    ],
)  # fmt: skip
def test_wrong_parameters_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Memory(tmp_path, **options)


def generator() -> Any:
    yield 1


async def async_generator() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (generator, TypeError, "is a generator function"),
        (async_generator, TypeError, "is a generator function"),
        (1, TypeError, "takes a function"),
    ],
)
def test_what_cannot_be_cached_is_refused(memory: Memory, function: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        memory.cache(function)


def test_wrong_arguments_are_refused(memory: Memory) -> None:
    with pytest.raises(ValueError, match=r"\['y'\]"):
        memory.cache(square, ignore="y")
    with pytest.raises(TypeError, match=r"square\(\) missing 1 required"):
        memory.cache(square)()  # type: ignore[call-arg]
    with pytest.raises(UnstableValueError, match="argument 'x' of square"):
        memory.cache(square)(threading.Lock())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="location is a path"):
        Memory(1)  # type: ignore[arg-type]


def test_strict_refuses_arguments_that_only_their_pickles_describe(tmp_path: Path) -> None:
    cached = Memory(tmp_path / "cache", verbose=0, strict=True).cache(lambda x: 1)
    assert cached([{"a": 1}]) == 1
    with pytest.raises(UnstableValueError, match="only its pickle"):
        cached(Model(1))


def test_verbose_prints_what_is_computed_and_what_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cached = Memory(tmp_path / "cache", verbose=2).cache(square)
    cached(3), cached(3)
    cached.clear()
    printed = capsys.readouterr().out.splitlines()
    assert printed[1] == "[Memory] Calling tests.cache.test_memory.square..."
    assert printed[2] == "square(x=3, y=0)"
    assert printed[3].endswith("_square - 0.0s, 0.0min")
    assert "Loading tests.cache.test_memory.square" in printed[4]
    assert "Clearing" in printed[5]


def test_the_size_limit_removes_what_was_not_used_for_longest(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "cache", verbose=0)
    cached = memory.cache(lambda x: bytes(10_000))
    for x in range(10):
        before = set(entries(memory))
        cached(x)
        (new,) = set(entries(memory)) - before
        os.utime(new, (time.time() - 100 * (10 - x),) * 2)
    memory.reduce_size(bytes_limit=55_000)
    assert [cached.check_call_in_cache(x) for x in range(10)] == [False] * 5 + [True] * 5
    memory.reduce_size(items_limit=3)
    assert [cached.check_call_in_cache(x) for x in range(10)] == [False] * 7 + [True] * 3
    memory.reduce_size(age_limit=150)
    assert [cached.check_call_in_cache(x) for x in range(10)] == [False] * 9 + [True]


def test_a_cache_with_a_size_limit_stays_within_it(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "cache", verbose=0, size_limit="200K")
    for x in range(50):
        memory.cache(lambda x: bytes(10_000), version=x // 5)(x)
        assert memory._store is not None
        memory._store.tally._written = 0.0  # a second has passed
        memory._store.pruner.wait()
    assert sum(path.stat().st_size for path in entries(memory)) <= 220_000
    assert len(entries(memory)) > 10


def test_old_results_are_removed_in_time(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "cache", verbose=0, age_limit=1000)
    for x in range(3):
        memory.cache(square)(x)
    assert memory._store is not None
    memory._store.pruner.wait()
    for path in entries(memory):
        os.utime(path, (1, 1))
    os.utime(tmp_path / "cache" / "v1" / "pruned", (1, 1))
    later = Memory(tmp_path / "cache", verbose=0, age_limit=1000, durable=True)
    later.cache(square)(3)
    assert later._store is not None
    later._store.pruner.wait()
    assert len(entries(memory)) == 1


def test_a_hit_says_at_most_hourly_that_the_entry_is_in_use(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = memory.cache(square)
    now = time.time_ns()
    monkeypatch.setattr("asyncpar._cache.entries.time.time_ns", lambda: now - 10**9 * 86400)
    cached(3)
    (path,) = entries(memory)
    recent = time.time() - 1000
    os.utime(path, (recent, recent))
    cached(3)
    assert path.stat().st_mtime == pytest.approx(recent)
    os.utime(path, (1, 1))
    cached(3)
    assert path.stat().st_mtime > recent


def test_memories_and_twins_can_be_copied_and_pickled(memory: Memory) -> None:
    assert copy.deepcopy(memory).cache(square)(3) == pickle.loads(pickle.dumps(memory)).cache(square)(3) == 9
    twin = cloudpickle.loads(cloudpickle.dumps(memory.cache(square)))
    assert twin(3) == 9
    assert len(calls) == 1
    assert repr(twin) == f"<cached tests.cache.test_memory.square in {memory.location}>"
    assert repr(memory) == f"Memory(location={memory.location!r})"


@on_one_loop
async def test_a_decorated_function_of_a_module_travels_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delitem(sys.modules, "tests.cache.decorated", raising=False)
    from tests.cache import decorated

    twin = importlib.reload(decorated).square
    assert pickle.loads(pickle.dumps(twin)) is twin
    assert len(pickle.dumps(twin)) < 100
    for _ in range(2):
        assert await pmap(functools.partial(twin, folder=str(tmp_path)), range(4), executor="process") == [0, 1, 4, 9]
    assert len(list(tmp_path.glob("ran-*"))) == 4
    monkeypatch.delitem(sys.modules, "tests.cache.decorated", raising=False)


@on_one_loop
async def test_maps_over_a_twin_find_what_earlier_maps_computed(memory: Memory, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    ran.mkdir()
    twin = memory.cache(write_and_square)
    for _ in range(2):
        assert await pmap(functools.partial(twin, str(ran)), range(6), executor="process") == [x * x for x in range(6)]
    assert len(list(ran.iterdir())) == 6
    assert twin(str(ran), 5) == 25
    assert len(list(ran.iterdir())) == 6


def test_a_coroutine_functions_twin_is_a_coroutine_function_to_a_map(memory: Memory) -> None:
    async def main() -> list[int]:
        return await pmap(memory.cache(asquare), [1, 2, 1], concurrency=1)

    assert asyncio.run(main()) == [1, 4, 1]
    assert calls == [(1, 0), (2, 0)]


@pytest.mark.parametrize("kind", [staticmethod, classmethod])
def test_the_order_of_decorators_is_told(memory: Memory, kind: Any) -> None:
    with pytest.raises(TypeError, match=f"put @{kind.__name__} above @memory.cache"):
        memory.cache(kind(square))


def test_a_long_name_of_long_letters_fits_a_folder(memory: Memory) -> None:
    def named(x: int) -> int:
        return x

    named.__qualname__ = "変" * 200
    cached = memory.cache(named)
    assert cached(1) == 1
    assert cached.check_call_in_cache(1)


def test_a_burst_of_results_keeps_to_the_size_limit(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "cache", verbose=0, size_limit=20_000)
    cached = memory.cache(lambda x: bytes(5000))
    for x in range(50):
        cached(x)
    assert memory._store is not None
    memory._store.pruner.wait()
    assert sum(file.stat().st_size for file in tmp_path.rglob("??/*")) < 30_000


@pytest.mark.parametrize("other", [{"serializer": "plain"}, {"key": b"k" * 32}], ids=["serializer", "key"])
def test_an_entry_of_other_settings_is_neither_used_nor_removed(tmp_path: Path, other: dict[str, Any]) -> None:
    own, foreign = (Memory(tmp_path / "cache", verbose=0, **options).cache(square) for options in ({}, other))
    assert own(3) == 9
    assert not foreign.check_call_in_cache(3)
    with pytest.warns(CacheWarning, match="not used, but replaced"):
        assert foreign._shelf.look_up(foreign._shelf.key((3,), {}), ((3,), {})) is None  # type: ignore[union-attr]
    assert own(3) == foreign(3) == 9
    assert calls == [(3, 0), (3, 0)]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_pipe_in_the_place_of_an_entry_is_not_waited_for(memory: Memory, tmp_path: Path) -> None:
    cached = memory.cache(square)
    assert cached(3) == 9
    (entry,) = tmp_path.rglob("??/" + "?" * 38)
    entry.unlink()
    os.mkfifo(entry)
    with pytest.warns(CacheWarning, match="damaged"):
        assert cached(3) == 9
    assert cached(3) == 9
    assert len(calls) == 2


async def test_a_key_of_ones_own_decides_what_is_found(memory: Memory) -> None:
    cached = memory.cache(square, key=lambda x, y=0: x // 10)
    assert [cached(11), cached(12), await cached.acall(15, y=3), cached(25)] == [121, 121, 121, 625]
    acached = memory.cache(key=lambda x, y=0: x // 10)(asquare)
    assert [await acached(11), await acached(12)] == [121, 121]
    assert pickle.loads(cloudpickle.dumps(cached))(13) == 121
    assert calls == [(11, 0), (25, 0), (11, 0)]


@pytest.mark.parametrize(
    "options", [{"key": 1}, {"key": asquare}, {"key": square, "ignore": ["y"]}], ids=["number", "coroutine function", "ignore"]
)
def test_a_key_that_is_no_plain_function_or_beside_ignore_is_refused(memory: Memory, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="takes the place of ignore"):
        memory.cache(square, **options)


def test_a_call_that_stores_does_not_wait_for_the_pruning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(tmp_path / "cache", verbose=0, size_limit=100_000)
    cached = memory.cache(lambda x: bytes(1000))
    go = threading.Event()
    prunings: list[Any] = []
    prune = pruning.prune

    def prune_when_told(*args: Any, **kwargs: Any) -> Any:
        prunings.append(threading.current_thread().name)
        assert go.wait(30)
        return prune(*args, **kwargs)

    monkeypatch.setattr("asyncpar._cache.shelf.prune", prune_when_told)
    monkeypatch.setattr("asyncpar._cache.shelf._FEW", 10)
    number = 0
    while not prunings:
        cached(number)
        number += 1
    cached(number)  # neither does the next one, and there is no second thread
    assert prunings == ["asyncpar cache pruning"]
    go.set()
    assert memory._store is not None
    memory._store.pruner.wait()
    assert 50 < len(entries(memory)) < 95


@pytest.mark.parametrize("limit", [{"age_limit": 3600}, {"size_limit": 2000}])
def test_a_cache_of_few_entries_is_pruned_by_the_caller(tmp_path: Path, limit: dict[str, Any]) -> None:
    memory = Memory(tmp_path / "cache", verbose=0, **limit)
    cached = memory.cache(lambda x: bytes(1000))
    for x in range(4):
        cached(x)
    assert memory._store is not None
    assert memory._store.pruner._thread is None
    assert list((tmp_path / "cache").rglob("pruned"))
    assert len(entries(memory)) == (4 if "age_limit" in limit else 1)
