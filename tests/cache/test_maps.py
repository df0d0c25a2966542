"""Maps that use the cache: hits need no worker, equal calls are computed once, and all else is as in any map."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import anyio.to_thread
import numpy as np
import pytest

import asyncpar
from asyncpar import CallTimeoutError, FuturesExecutor, InterpreterExecutor, Memory, ProcessExecutor, Statistics, pmap
from asyncpar._cache import flights
from asyncpar._contract.batches import Batch, BatchDone
from asyncpar._run.answering import CacheSource
from asyncpar._run.sources import open_source
from asyncpar.executors import Place, PooledExecutor, batch_done, make_calls
from tests.cache.mapped import (
    Raise,
    calls_noted,
    die_at_first,
    die_on_odd_awaited,
    factorial,
    fail_at_first,
    fail_on_odd,
    first_gated_awaited,
    gated,
    gated_awaited,
    generate,
    generated,
    hang_at_first,
    listed,
    listed_awaited,
    slow,
    square,
    square_awaited,
    wide,
    wide_first_gated_awaited,
)
from tests.calls import interpreted
from tests.conftest import make_executor
from tests.helper_processes import helper_processes
from tests.interpreters import needs_interpreters
from tests.loops import on_one_loop
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio
ITEMS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
SQUARES = [x * x for x in ITEMS]
DISTINCT = sorted({str(x) for x in ITEMS})


@pytest.fixture(scope="module", autouse=True)
def helpers_run() -> Iterator[None]:
    with helper_processes():
        yield


class OwnPlace(Place):
    """As little as the contract asks for."""

    async def run(self, parcel: Any) -> Any:
        program, batch = parcel.program, parcel.batch
        report = await anyio.to_thread.run_sync(make_calls, program, batch.columns, parcel.budget)
        return batch_done(program, batch, report, "a place of its own")


class OwnExecutor(PooledExecutor[OwnPlace]):
    async def start_place(self) -> OwnPlace:
        return OwnPlace()


MADE: dict[str, Callable[[], asyncpar.Executor]] = {
    "process": lambda: make_executor("process"),
    "thread": lambda: make_executor("thread"),
    "inline": lambda: make_executor("inline"),
    "pool of threads": lambda: FuturesExecutor(lambda: concurrent.futures.ThreadPoolExecutor(2)),
    "pool of processes": lambda: FuturesExecutor(
        lambda: concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("forkserver"))
    ),
    "somebody's own": lambda: OwnExecutor(2),
}


@pytest.fixture(params=MADE)
async def anywhere(request: pytest.FixtureRequest, anyio_backend: object) -> AsyncIterator[asyncpar.Executor]:
    """Executors of all kinds."""
    async with MADE[request.param]() as executor:
        yield executor


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path / "cache", verbose=0)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path)


def no_lock_is_left(memory: Memory) -> bool:
    assert memory._store is not None
    return memory._store.locks._users == 0 and not flights._flights


# What is computed, and what is found


async def test_each_distinct_call_is_computed_once_and_then_found(
    memory: Memory, folder: str, anywhere: asyncpar.Executor
) -> None:
    for _ in range(2):
        run = pmap(square, [folder] * 10, ITEMS, cache=memory, executor=anywhere)
        assert await run == SQUARES
        assert calls_noted(folder) == DISTINCT
    statistics = run.statistics()
    assert (statistics.cache_hits, statistics.finished, statistics.batches) == (10, 10, 0)
    assert no_lock_is_left(memory)


async def test_coroutine_calls_are_computed_once_in_the_callers_loop_and_in_workers(
    memory: Memory, folder: str, anywhere: asyncpar.Executor
) -> None:
    assert await pmap(square_awaited, [folder] * 5, ITEMS, cache=memory) == SQUARES[:5]
    assert await pmap(square_awaited, [folder] * 10, ITEMS, cache=memory, executor=anywhere) == SQUARES
    assert await pmap(square_awaited, [folder] * 10, ITEMS, cache=memory) == SQUARES
    assert calls_noted(folder) == DISTINCT
    assert no_lock_is_left(memory)


async def test_a_map_of_which_all_is_cached_starts_no_worker(memory: Memory, folder: str) -> None:
    cached = memory.cache(square)
    for x in ITEMS:
        cached(folder, x)
    async with ProcessExecutor(2) as executor:
        assert await pmap(square, [folder] * 10, ITEMS, cache=memory, executor=executor) == SQUARES
        assert await pmap(square, [folder], [3], cache=memory, executor=executor) == [9]
        assert await pmap(cached, [folder] * 10, ITEMS, executor=executor, ordered=False) == SQUARES
        assert [x async for x in pmap(cached, [folder] * 10, ITEMS, executor=executor)] == SQUARES
        assert executor._zygote is None


async def test_entries_are_shared_with_direct_calls_in_both_directions(memory: Memory, folder: str) -> None:
    assert await pmap(square, [folder] * 3, [1, 2, 3], cache=memory, executor="thread") == [1, 4, 9]
    assert memory.cache(square)(folder, 2) == 4
    assert memory.cache(square)(folder, 4) == 16
    assert await pmap(square, [folder] * 2, [4, 3], cache=memory, executor="thread") == [16, 9]
    assert calls_noted(folder) == ["1", "2", "3", "4"]


@on_one_loop
async def test_equal_items_do_not_share_one_mutable_result(memory: Memory, folder: str, executor: asyncpar.Executor) -> None:
    for function in (listed, listed_awaited):
        results = await pmap(function, [folder] * 40, [7] * 40, cache=memory, executor=executor)
        assert results == [[7] * 3] * 40
        assert len({id(result) for result in results}) == 40
    assert calls_noted(folder) == ["7"] * 2


@on_one_loop
@pytest.mark.filterwarnings("ignore:a result of .* cannot be kept:asyncpar.CacheWarning")
@pytest.mark.parametrize("kind", ["thread", "inline"])
async def test_equal_items_do_not_share_a_result_that_cannot_be_kept(memory: Memory, folder: str, kind: str) -> None:
    results = await pmap(generated, [folder] * 4, [3, 3, 2, 3], cache=memory, executor=kind)
    assert [list(result) for result in results] == [[0, 1, 2], [0, 1, 2], [0, 1], [0, 1, 2]]


@on_one_loop
async def test_equal_items_do_not_share_a_result_that_has_been_removed(memory: Memory, folder: str) -> None:
    source = CacheSource(open_source([[folder] * 4, [2, 2, 2, 3]]), memory.cache(listed))
    await source.pump(4)
    assert source.take(4) == ([folder] * 2, [2, 3])
    for index, is_last in ((0, False), (1, False), (2, True)):
        source.settle(BatchDone(Batch([index], ([folder], [2])), [[2] * 3], {}, [(1, 0.0)], "a worker"))
        await source.answer_doubles()
        assert source.take_answers() == []
        assert source.exhausted == is_last
        assert source.take(4) == (() if is_last else ([folder], [2]))


@on_one_loop
@pytest.mark.parametrize("function", [partial(square), Raise(2)])
async def test_functions_without_a_name_are_cached_too(
    memory: Memory, folder: str, executor: asyncpar.Executor, function: Any
) -> None:
    for _ in range(2):
        assert await pmap(function, [folder] * 3, [1, 2, 1], cache=memory, executor=executor) == [1, 4, 1]
    assert calls_noted(folder) == ["1", "2"]


async def test_one_item_is_found_too(memory: Memory, folder: str, executor: asyncpar.Executor) -> None:
    for _ in range(2):
        assert await pmap(square, [folder], [5], cache=memory, executor=executor) == [25]
    assert calls_noted(folder) == ["5"]


async def test_no_items_are_no_results(memory: Memory, executor: asyncpar.Executor) -> None:
    assert await pmap(abs, [], cache=memory, executor=executor) == []


@on_one_loop
async def test_what_a_twin_ignores_does_not_count(memory: Memory, folder: str, executor: asyncpar.Executor) -> None:
    twin = memory.cache(square, ignore=["folder"])
    assert await pmap(twin, [folder, folder + "/"], [3, 3], executor=executor) == [9, 9]
    assert calls_noted(folder) == ["3"]


@on_one_loop
async def test_what_a_twin_does_not_find_valid_is_computed_again(
    memory: Memory, folder: str, executor: asyncpar.Executor
) -> None:
    began = 0.0

    def is_valid(metadata: dict[str, Any]) -> bool:
        return bool(metadata["input_args"]["x"] == "2" or metadata["time"] > began)

    twin = memory.cache(square, ignore=["folder"], cache_validation_callback=is_valid)
    for _ in range(2):
        began = time.time()
        assert await pmap(twin, [folder] * 5, [1, 2, 1, 2, 1], executor=executor) == [1, 4, 1, 4, 1]
    assert calls_noted(folder) == ["1", "1", "2"]


@on_one_loop
async def test_what_is_older_than_the_age_limit_is_computed_again(tmp_path: Path, folder: str) -> None:
    memory = Memory(tmp_path / "cache", verbose=0, age_limit=3600)
    assert await pmap(square, [folder] * 4, [1, 2, 1, 2], cache=memory, executor="thread") == [1, 4, 1, 4]
    strict = Memory(tmp_path / "cache", verbose=0, age_limit=0)
    assert await pmap(square, [folder] * 4, [1, 2, 1, 2], cache=strict, executor="thread") == [1, 4, 1, 4]
    assert calls_noted(folder) == ["1", "1", "2", "2"]


@on_one_loop
async def test_without_a_location_everything_is_computed(folder: str, executor: asyncpar.Executor) -> None:
    run = pmap(square, [folder] * 10, ITEMS, cache=Memory(None, verbose=0), executor=executor)
    assert await run == SQUARES
    assert len(calls_noted(folder)) == 10
    assert run.statistics().cache_hits == 0


@on_one_loop
@pytest.mark.filterwarnings("ignore::asyncpar.CacheWarning")
async def test_damaged_entries_are_misses(memory: Memory, folder: str, executor: asyncpar.Executor) -> None:
    assert await pmap(square, [folder] * 10, ITEMS, cache=memory, executor=executor) == SQUARES
    entries = [path for path in Path(str(memory.location)).rglob("*") if len(path.name) == 38]
    for entry in entries[:3]:
        data = bytearray(entry.read_bytes())
        data[-1] ^= 1
        entry.write_bytes(data)
    assert await pmap(square, [folder] * 10, ITEMS, cache=memory, executor=executor) == SQUARES
    assert len(calls_noted(folder)) == len(DISTINCT) + 3


@on_one_loop
@pytest.mark.filterwarnings("ignore::asyncpar.CacheWarning")
@pytest.mark.parametrize("function", [square, listed])
async def test_where_nothing_can_be_kept_the_results_are_right(
    tmp_path: Path, folder: str, executor: asyncpar.Executor, function: Any
) -> None:
    (tmp_path / "cache").write_text("no folder")
    memory = Memory(tmp_path / "cache", verbose=0)
    assert await pmap(function, [folder] * 10, ITEMS, cache=memory, executor=executor) == [function(folder, x) for x in ITEMS]
    assert not flights._flights


async def test_calls_may_call_the_twin_for_each_others_items(memory: Memory, folder: str, executor: asyncpar.Executor) -> None:
    location = str(memory.location)
    results = await pmap(factorial, [folder] * 6, [location] * 6, [5, 0, 4, 3, 1, 2], cache=memory, executor=executor)
    assert results == [120, 1, 24, 6, 1, 2]


@on_one_loop
async def test_arrays_and_ranges_of_which_a_part_is_cached(memory: Memory, folder: str, executor: asyncpar.Executor) -> None:
    for x in range(0, 50, 3):
        memory.cache(square)(folder, x)
        memory.cache(square)(folder, np.int64(x))  # type: ignore[arg-type]  # another key
    squares = [x * x for x in range(50)]
    assert await pmap(square, [folder] * 50, range(50), cache=memory, executor=executor) == squares
    numbers: Any = np.arange(50)
    assert await pmap(square, [folder] * 50, numbers, cache=memory, executor=executor) == squares
    assert len(calls_noted(folder)) == 100


async def test_a_source_is_exhausted_only_when_its_answers_have_been_taken(memory: Memory, folder: str) -> None:
    twin: Any = memory.cache(square)
    twin(folder, 1)
    source = CacheSource(open_source([[folder] * 4, [1, 2, 2, 1]]), twin)
    assert await source.pump(4) == 4
    assert (source.exhausted, source.remaining, source.stored) == (False, 4, 1)
    assert [(done.batch.start, done.values) for done in source.take_answers()] == [(0, [1]), (3, [1])]
    assert source.take(4) == ([folder], [2])
    assert (source.indices, source.exhausted, source.remaining) == (range(1, 2), False, 1)
    source.settle(BatchDone(Batch([1], ([folder], [2])), [4], {}, [(1, 0.0)], "a worker"))
    await source.answer_doubles()
    assert [(done.batch.start, done.values) for done in source.take_answers()] == [(2, [4])]
    assert (source.remaining, source.exhausted) == (0, True)
    assert await source.pump(4) == 0


# Errors, retries, timeouts


@on_one_loop
async def test_errors_are_of_their_own_index_and_are_never_kept(
    memory: Memory, folder: str, executor: asyncpar.Executor
) -> None:
    items = [2, 1, 1, 4, 3, 2, 1]
    for times in (1, 2):
        results: list[Any] = await pmap(fail_on_odd, [folder] * 7, items, cache=memory, executor=executor, on_error="return")
        errors = {index: str(error) for index, error in enumerate(results) if isinstance(error, ValueError)}
        assert errors == {1: "1 is odd", 2: "1 is odd", 4: "3 is odd", 6: "1 is odd"}
        assert all(f"raised by call {index}, item" in "".join(results[index].__notes__) for index in errors)
        assert [x for x in results if not isinstance(x, ValueError)] == [2, 4, 2]
        assert calls_noted(folder) == sorted(["1"] * 3 * times + ["3"] * times + ["2", "4"])
    assert no_lock_is_left(memory)


async def test_the_first_error_ends_the_run(memory: Memory, folder: str, executor: asyncpar.Executor) -> None:
    with pytest.raises(ValueError, match="1 is odd"):
        await pmap(fail_on_odd, [folder] * 3, [2, 1, 4], cache=memory, executor=executor)
    assert await pmap(fail_on_odd, [folder] * 3, [2, 1, 4], cache=memory, executor=executor, on_error="skip") == [2, 4]


async def test_the_second_of_equal_calls_is_made_when_the_first_has_failed_and_the_third_finds_its_result(
    memory: Memory, folder: str, executor: asyncpar.Executor
) -> None:
    results = await pmap(fail_at_first, [folder] * 4, [1] * 4, cache=memory, executor=executor, on_error="return")
    assert isinstance(results[0], ValueError)
    assert results[1:] == [1, 1, 1]
    assert calls_noted(folder) == ["1", "1"]


async def test_calls_are_retried_as_in_any_map(memory: Memory, folder: str, executor: asyncpar.Executor) -> None:
    run = pmap(fail_at_first, [folder] * 6, [0, 2, 1, 2, 0, 1], cache=memory, executor=executor, retries=2)
    assert await run == [0, 2, 1, 2, 0, 1]
    assert calls_noted(folder) == ["0", "1", "1", "2", "2", "2"]
    assert run.statistics().retried == 3


async def test_the_retry_of_a_call_that_hangs_in_its_thread_does_not_wait_for_it(memory: Memory, folder: str) -> None:
    async with make_executor("thread") as executor:
        run = pmap(
            hang_at_first,
            [folder] * 6,
            range(6),
            cache=memory,
            executor=executor,
            timeout=1,
            retries=1,
            retry_on=CallTimeoutError,
        )
        assert await run == list(range(6))
        assert calls_noted(folder).count("3") == 2
        Path(folder, "go").touch()
    await wait_until(lambda: no_lock_is_left(memory))


async def test_another_run_does_not_wait_for_a_call_that_took_too_long_in_its_thread(memory: Memory, folder: str) -> None:
    async with make_executor("thread") as executor:
        with pytest.raises(CallTimeoutError):
            await pmap(hang_at_first, [folder], [3], cache=memory, executor=executor, timeout=0.05)
        assert await pmap(hang_at_first, [folder], [3], cache=memory, executor=executor) == [3]
        Path(folder, "go").touch()
    await wait_until(lambda: no_lock_is_left(memory))


async def test_another_run_waits_for_a_call_that_goes_on_after_its_run_was_cancelled(memory: Memory, folder: str) -> None:
    async with make_executor("thread") as executor:
        async with anyio.create_task_group() as group:
            group.start_soon(_await, pmap(gated, [folder], [3], cache=memory, executor=executor))
            await wait_until(lambda: calls_noted(folder))
            group.cancel_scope.cancel()
        async with anyio.create_task_group() as group:
            group.start_soon(_await, pmap(gated, [folder], [3], cache=memory, executor=executor))
            await wait_until(lambda: [len(flight._callbacks) for flight in flights._flights.values()] == [1])
            Path(folder, "go").touch()
    assert calls_noted(folder) == ["3"]


async def _await(run: Any) -> None:
    await run


@on_one_loop
async def test_a_call_without_a_key_is_an_error_of_that_call(memory: Memory, folder: str, executor: asyncpar.Executor) -> None:
    items: list[Any] = [1, iter([]), 2]
    twin = Memory(memory.location, verbose=0, strict=True).cache(square)
    results = await pmap(twin, [folder] * 3, items, executor=executor, on_error="return")
    assert [results[0], results[2]] == [1, 4]
    assert isinstance(results[1], TypeError)


class Exiting:
    def __reduce_ex__(self, protocol: Any) -> Any:
        raise SystemExit("no key")


async def test_an_item_that_exits_when_its_key_is_made_fails_only_its_call(
    memory: Memory, folder: str, executor: asyncpar.Executor
) -> None:
    items: list[Any] = [1, Exiting(), 2]
    results = await pmap(square, [folder] * 3, items, cache=memory, executor=executor, on_error="return")
    assert [results[0], results[2]] == [1, 4]
    assert isinstance(results[1], Exception)


@on_one_loop
async def test_an_argument_that_cannot_be_sent_is_named_as_without_a_cache(memory: Memory, folder: str) -> None:
    messages, items = [], list[Any]([Unsendable()])
    async with ProcessExecutor(1) as executor:
        for cache in (None, memory):
            results = await pmap(square, [folder], items, cache=cache, executor=executor, on_error="return")
            error: Any = results[0]
            assert isinstance(error, asyncpar.PicklingError)
            messages.append((str(error), error.__notes__))
    assert messages[0] == messages[1]


class Unsendable:
    """Has a key, and is refused where it is sent."""

    def __reduce__(self) -> Any:
        if sys._getframe(1).f_globals["__name__"].startswith("asyncpar._cache"):
            return Unsendable, ()
        raise ValueError("stays here")


@on_one_loop
async def test_a_call_that_lacks_arguments_is_told_what_to_write(memory: Memory, executor: asyncpar.Executor) -> None:
    with pytest.raises(TypeError) as caught:
        await pmap(square, [("a", 1)], cache=memory, executor=executor)  # type: ignore[arg-type]  # as users do
    assert "pmap(f, *zip(*items))" in "".join(caught.value.__notes__)


@on_one_loop
async def test_validation_that_raises_is_an_error_of_that_call(
    memory: Memory, folder: str, executor: asyncpar.Executor
) -> None:
    def refuse(metadata: dict[str, Any]) -> bool:
        raise LookupError("no")

    memory.cache(square)(folder, 1)
    twin = memory.cache(square, cache_validation_callback=refuse)
    results = await pmap(twin, [folder] * 2, [1, 2], executor=executor, on_error="return")
    assert isinstance(results[0], LookupError)
    assert results[1] == 4


# Streams, windows, progress


async def test_streams_have_hits_and_misses_in_order_and_as_outcomes(
    memory: Memory, folder: str, executor: asyncpar.Executor
) -> None:
    for x in (1, 5):
        memory.cache(square)(folder, x)
    async with pmap(square, [folder] * 10, ITEMS, cache=memory, executor=executor) as results:
        assert [x async for x in results] == SQUARES
    run = pmap(square, [folder] * 10, iter(ITEMS), cache=memory, executor=executor, ordered=False)
    assert sorted([x async for x in run]) == sorted(SQUARES)
    outcomes = [x async for x in pmap(square, [folder] * 2, [1, 77], cache=memory, executor=executor).outcomes()]
    assert [(outcome.index, outcome.value) for outcome in outcomes] == [(0, 1), (1, 77 * 77)]
    assert (outcomes[0].worker, outcomes[0].attempts, outcomes[0].seconds) == ("the cache", 0, 0.0)
    assert outcomes[1].attempts == 1


async def test_async_sources_are_looked_up_as_they_come(memory: Memory, folder: str, executor: asyncpar.Executor) -> None:
    async def items() -> AsyncIterator[int]:
        for x in ITEMS:
            await anyio.lowlevel.checkpoint()
            yield x

    for _ in range(2):
        run = pmap(square, [folder] * 10, items(), cache=memory, executor=executor)
        assert await run == SQUARES
    assert calls_noted(folder) == DISTINCT
    assert run.statistics().cache_hits == 10


async def test_a_source_that_raises_delivers_what_came_before(memory: Memory, folder: str, executor: asyncpar.Executor) -> None:
    def items() -> Iterator[int]:
        yield from ITEMS
        raise KeyError("the end")

    for _ in range(2):
        results = []
        with pytest.raises(KeyError, match="the end"):
            async for result in pmap(square, [folder] * 99, items(), cache=memory, executor=executor):
                results.append(result)
        assert results == SQUARES


async def test_no_more_items_are_pulled_than_the_window_allows(
    memory: Memory, folder: str, executor: asyncpar.Executor
) -> None:
    for x in range(60):
        memory.cache(listed)(folder, x % 30)
    handed = 0
    pulled = 0

    def items() -> Iterator[int]:
        nonlocal pulled
        for x in range(60):
            pulled += 1
            assert pulled - handed <= 5
            yield x

    async with pmap(listed, [folder] * 60, items(), cache=memory, executor=executor, buffersize=5) as results:
        async for _ in results:
            handed += 1
            await anyio.lowlevel.checkpoint()
    assert handed == 60


async def test_large_items_are_not_pulled_far_ahead(memory: Memory) -> None:
    pulled = 0

    def items() -> Iterator[np.ndarray]:
        nonlocal pulled
        for x in range(60):
            pulled += 1
            yield np.full(1 << 20, x, np.float64)  # 8 MiB, whose keys take milliseconds

    async with pmap(np.sum, items(), cache=memory, executor="thread", n_jobs=2, batch_size=1) as results:
        count = 0
        async for _ in results:
            count += 1
            assert pulled - count <= 16
    assert count == 60


@on_one_loop
async def test_progress_and_statistics_count_hits(memory: Memory, folder: str, executor: asyncpar.Executor) -> None:
    for x in range(20):
        memory.cache(square)(folder, x)
    seen: list[Statistics] = []
    run = pmap(square, [folder] * 40, range(40), cache=memory, executor=executor, progress=seen.append)
    await run
    assert seen[-1].finished == run.statistics().finished == run.statistics().pulled == run.statistics().handed == 40
    assert run.statistics().cache_hits == 20
    assert [one.finished for one in seen] == sorted(one.finished for one in seen)


class Keyed:
    """Says in which thread its key is made."""

    threads: ClassVar[set[int]] = set()

    def __reduce__(self) -> Any:
        self.threads.add(threading.get_ident())
        return Keyed, ()


async def test_keys_of_what_is_not_plain_are_made_in_a_thread(memory: Memory, folder: str) -> None:
    Keyed.threads.clear()
    twin = memory.cache(listed, ignore=["folder"])
    twin(folder, 1)
    Keyed.threads.clear()
    items: list[Any] = [Keyed() for _ in range(3)]
    await pmap(twin, [folder] * 3, items, executor="thread")
    assert Keyed.threads
    assert threading.get_ident() not in Keyed.threads


# Large results


@on_one_loop
@pytest.mark.parametrize("mmap_mode", [None, "r", "c"])
async def test_large_results_are_read_or_mapped_from_where_workers_kept_them(
    tmp_path: Path, folder: str, anywhere: asyncpar.Executor, mmap_mode: Any
) -> None:
    memory = Memory(tmp_path / "cache", verbose=0, mmap_mode=mmap_mode)
    for _ in range(2):
        run = pmap(wide, [folder] * 4, [1, 2, 1, 3], cache=memory, executor=anywhere)
        results = await run
        assert [int(result.sum()) for result in results] == [100_000, 200_000, 100_000, 300_000]
        assert all(result.flags.writeable == (mmap_mode != "r") for result in results)
    assert calls_noted(folder) == ["1", "2", "3"]
    del results


@on_one_loop
async def test_large_results_do_not_travel(memory: Memory, folder: str) -> None:
    async with ProcessExecutor(1) as executor:
        run = pmap(wide, [folder] * 4, range(4), cache=memory, executor=executor, max_nbytes=None)
        await run
        assert run.statistics().inline_bytes < 10_000


@on_one_loop
@needs_interpreters
async def test_large_results_do_not_travel_from_interpreters_either(memory: Memory) -> None:
    async with InterpreterExecutor(2) as executor:
        run = pmap(interpreted.make_text, [100_000, 200_000, 100_000], cache=memory, executor=executor)
        assert list(map(len, await run)) == [100_000, 200_000, 100_000]
        assert run.statistics().inline_bytes < 10_000
        again = pmap(interpreted.make_text, [200_000], cache=memory, executor=executor)
        assert list(map(len, await again)) == [200_000]
        assert again.statistics().cache_hits == 1


async def test_a_large_result_that_is_cleared_before_it_is_read_is_computed_again(
    memory: Memory, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert memory._store is not None
    read, lost = memory._store.read, list[bytes]()

    def lose_the_first_two(place: str, key: bytes, breathe: bool = False) -> Any:
        found = read(place, key, breathe)
        if found is not None and len(lost) < 2:
            lost.append(key)
            memory._store.remove(place, key)  # type: ignore[union-attr]
            return None
        return found

    monkeypatch.setattr(memory._store, "read", lose_the_first_two)
    async with ProcessExecutor(2) as executor:
        results = await pmap(wide, [folder] * 4, range(4), cache=memory, executor=executor)
    assert [int(result[0]) for result in results] == [0, 1, 2, 3]
    assert len(lost) == 2


class ReadsLosing:
    """Reads the entries of a store, and loses the ones that a test chooses."""

    def __init__(self, store: Any, lose: Callable[[int], bool]) -> None:
        self.found = 0
        self._read, self._store, self._lose = store.read, store, lose

    def __call__(self, place: str, key: bytes, breathe: bool = False) -> Any:
        found = self._read(place, key, breathe)
        if found is None:
            return None
        self.found += 1
        if not self._lose(self.found):
            return found
        self._store.remove(place, key)
        return None


async def test_only_what_comes_after_a_lost_result_in_its_batch_is_run_again(
    memory: Memory, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory._store, "read", ReadsLosing(memory._store, lambda found: found == 3))
    async with ProcessExecutor(1) as executor:
        run = pmap(wide, [folder] * 5, range(5), cache=memory, executor=executor, batch_size=5)
        outcomes = [outcome async for outcome in run.outcomes()]
    assert [int(outcome.unwrap()[0]) for outcome in outcomes] == list(range(5))
    first = next(index for index, outcome in enumerate(outcomes) if outcome.attempts == 2)
    assert [outcome.attempts for outcome in outcomes] == [1] * first + [2] * (5 - first)
    assert first > 0 or run.statistics().batches > 2
    assert calls_noted(folder) == sorted([*"01234", str(int(outcomes[first].unwrap()[0]))])


@on_one_loop
async def test_where_workers_keep_results_on_another_disk_they_send_them(
    memory: Memory, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory._store, "read", ReadsLosing(memory._store, lambda found: True))
    async with ProcessExecutor(2) as executor:
        results = await pmap(wide, [folder] * 4, range(4), cache=memory, executor=executor)
    assert [int(result[0]) for result in results] == [0, 1, 2, 3]


@on_one_loop
async def test_in_threads_large_results_are_handed_over_as_they_are(
    memory: Memory, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = ReadsLosing(memory._store, lambda found: False)
    monkeypatch.setattr(memory._store, "read", reads)
    async with make_executor("thread") as executor:
        assert len(await pmap(wide, [folder] * 4, range(4), cache=memory, executor=executor)) == 4
    assert reads.found == 0


@on_one_loop
async def test_results_that_could_travel_are_mapped_too_as_in_direct_calls(tmp_path: Path, executor: asyncpar.Executor) -> None:
    memory = Memory(tmp_path / "cache", verbose=0, mmap_mode="r")
    for _ in range(2):
        results = await pmap(np.arange, [4000, 5000, 4000], cache=memory, executor=executor)
        assert [len(result) for result in results] == [4000, 5000, 4000]
        assert not any(result.flags.writeable for result in results)
    del results


async def test_results_of_coroutine_calls_in_processes_do_not_wait_for_a_slower_call_of_their_batch(
    memory: Memory, folder: str
) -> None:
    items = [folder] * 5, range(5)
    async with ProcessExecutor(1) as executor:
        run = pmap(first_gated_awaited, *items, cache=memory, executor=executor, batch_size=5, ordered=False)
        assert sorted([await anext(run) for _ in range(4)]) == [1, 4, 9, 16]
        Path(folder, "go").touch()
        assert [result async for result in run] == [0]
        assert await pmap(first_gated_awaited, *items, cache=memory, executor=executor) == [0, 1, 4, 9, 16]
    assert calls_noted(folder) == list("01234")


async def test_a_result_that_is_lost_is_run_again_while_other_calls_of_its_batch_go_on(
    memory: Memory, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory._store, "read", ReadsLosing(memory._store, lambda found: found == 2))
    items = [folder] * 5, range(5)
    async with ProcessExecutor(1) as executor:
        run = pmap(wide_first_gated_awaited, *items, cache=memory, executor=executor, batch_size=5, ordered=False)
        first_four = [int((await anext(run))[0]) for _ in range(4)]
        Path(folder, "go").touch()
        assert [int(result[0]) async for result in run] == [0]
    assert sorted(first_four) == [1, 4, 9, 16]
    assert len(calls_noted(folder)) > 5


# Deaths, cancellations, other programs


async def test_after_the_death_of_a_worker_the_rest_is_computed_once(memory: Memory, folder: str) -> None:
    async with ProcessExecutor(2) as executor:
        with pytest.raises(asyncpar.WorkerDiedError):
            await pmap(die_at_first, [folder] * 8, range(8), cache=memory, executor=executor)
        assert await pmap(die_at_first, [folder] * 8, range(8), cache=memory, executor=executor) == list(range(8))
    assert calls_noted(folder) == sorted([*map(str, range(8)), "3"])
    assert no_lock_is_left(memory)


async def test_each_coroutine_call_that_kills_its_worker_is_found(memory: Memory, folder: str) -> None:
    """Although two of them are under way whenever one kills the worker."""
    async with ProcessExecutor(1) as executor:
        run = pmap(die_on_odd_awaited, [folder] * 4, range(4), cache=memory, executor=executor, on_error="return")
        assert [type(result) for result in await run] == [int, asyncpar.WorkerDiedError] * 2
    assert no_lock_is_left(memory)


async def test_a_call_that_loses_its_worker_can_be_retried(memory: Memory, folder: str) -> None:
    async with ProcessExecutor(2) as executor:
        run = pmap(die_at_first, [folder] * 8, range(8), cache=memory, executor=executor, retries=1)
        assert await run == list(range(8))
    assert calls_noted(folder) == sorted([*map(str, range(8)), "3"])


@pytest.mark.parametrize("function", [gated, gated_awaited])
async def test_a_run_that_is_cancelled_while_calls_run_leaves_no_lock(
    memory: Memory, folder: str, executor: asyncpar.Executor, function: Any
) -> None:
    if isinstance(executor, asyncpar.InlineExecutor) and function is gated:
        pytest.skip("the call would hold the event loop")
    async with anyio.create_task_group() as group:
        group.start_soon(_await, pmap(function, [folder] * 6, [1, 2, 1, 2, 3, 4], cache=memory, executor=executor))
        await wait_until(lambda: calls_noted(folder))
        group.cancel_scope.cancel()
    Path(folder, "go").touch()
    await wait_until(lambda: no_lock_is_left(memory))
    assert await pmap(function, [folder] * 2, [1, 2], cache=memory, executor=executor) == [1, 2]


async def test_a_run_in_the_callers_loop_has_no_call_left_when_it_is_cancelled(memory: Memory, folder: str) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(_await, pmap(gated_awaited, [folder] * 6, range(6), cache=memory))
        await wait_until(lambda: len(calls_noted(folder)) == 6)
        group.cancel_scope.cancel()
    assert no_lock_is_left(memory)


@pytest.mark.parametrize("function", [listed, listed_awaited])
async def test_a_run_that_is_cancelled_at_any_point_leaves_no_lock(memory: Memory, folder: str, function: Any) -> None:
    async with make_executor("thread") as executor:
        for steps in range(40):
            async with anyio.create_task_group() as group:
                run = pmap(function, [folder] * 6, [1, steps, 1, 2, steps, 3], cache=memory, executor=executor)
                group.start_soon(_await, run)
                for _ in range(steps):
                    await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
        await wait_until(lambda: no_lock_is_left(memory))
        assert await pmap(function, [folder] * 2, [1, 2], cache=memory, executor=executor) == [[1] * 3, [2] * 3]


async def test_two_runs_at_once_compute_each_call_once(memory: Memory, folder: str, executor: asyncpar.Executor) -> None:
    results: list[list[int]] = []

    async def collect(items: list[int]) -> None:
        results.append(await pmap(slow, [folder] * 20, items, cache=memory, executor=executor))

    async with anyio.create_task_group() as group:
        group.start_soon(collect, list(range(20)))
        group.start_soon(collect, list(range(20)))
    assert results == [list(range(20))] * 2
    assert calls_noted(folder) == sorted(map(str, range(20)))


# What is refused


@on_one_loop
@pytest.mark.parametrize("cache", ["a folder", True, 3, Path("x"), object()])
async def test_what_is_no_memory_is_refused(cache: Any) -> None:
    with pytest.raises(TypeError, match=r"cache must be an asyncpar\.Memory"):
        pmap(abs, [1], cache=cache)


@on_one_loop
async def test_a_generator_function_is_refused(memory: Memory) -> None:
    with pytest.raises(TypeError, match="generator cannot be kept"):
        pmap(generate, ["x"], [1], cache=memory)
    with pytest.raises(TypeError, match="generator cannot be kept"):
        asyncpar.map(generate, ["x"], [1], cache=memory)
