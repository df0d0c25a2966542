"""`rate=` and `burst=`: how many coroutine calls begin in any time, wherever they run, and what goes on as it does without."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncpar import Executor, InterpreterExecutor, Memory, ProcessExecutor, ThreadExecutor, pmap
from asyncpar._contract.batches import BatchDone
from asyncpar._contract.executor import Parcel, Place, Traits
from asyncpar._contract.lending import PooledExecutor
from asyncpar._run.rate_limit import TICK
from tests.calls.rates import begin, begin_and_fail_at_first
from tests.functions import double_soon
from tests.interpreters import needs_interpreters
from tests.properties.test_token_bucket import most_at_once
from tests.simulation.virtual_time import run_in_virtual_time

T = TypeVar("T")

any_pmap: Any = pmap  # what a type checker would refuse


def in_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    def now() -> float:
        return asyncio.get_running_loop().time()

    with mock.patch("asyncpar._run.rate_limit.monotonic", now):
        return run_in_virtual_time(main)


class Calls:
    """Calls in a loop with virtual time. `begun`: when each began, in order."""

    def __init__(self, seconds: Callable[[int], float] = lambda x: 0.0) -> None:
        self.begun: list[float] = []
        self._seconds = seconds

    async def __call__(self, x: int) -> int:
        self.begun.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self._seconds(x))
        return 2 * x

    def most_at_once(self, rate: float) -> float:
        return most_at_once([(when, 1) for when in self.begun], rate)


async def collect(results: Any) -> list[Any]:
    async with results:
        return [result async for result in results]


# In the caller's event loop


@given(
    rate=st.floats(0.01, 500),
    burst=st.integers(1, 12),
    calls=st.integers(2, 40),
    seconds=st.lists(st.sampled_from([0.0, 0.5, 3.0]), min_size=1, max_size=5),  # in the times between two tokens
    options=st.fixed_dictionaries(
        {
            "concurrency": st.none() | st.integers(1, 10),
            "buffersize": st.none() | st.integers(1, 10),
            "ordered": st.booleans(),
        }
    ),
    as_list=st.booleans(),
    from_iterator=st.booleans(),
)
@settings(max_examples=60)
def test_no_more_calls_begin_than_the_rate_allows(
    rate: float, burst: int, calls: int, seconds: list[float], options: Any, as_list: bool, from_iterator: bool
) -> None:
    fn = Calls(lambda x: seconds[x % len(seconds)] / rate)

    async def main() -> list[int]:
        results = pmap(fn, iter(range(calls)) if from_iterator else range(calls), rate=rate, burst=burst, **options)
        return await results if as_list else await collect(results)

    assert sorted(in_virtual_time(main())) == [2 * x for x in range(calls)]
    assert len(fn.begun) == calls
    assert fn.most_at_once(rate) <= burst + 1e-6
    if options["concurrency"] is options["buffersize"] is None:  # nothing else holds them up
        assert fn.begun[-1] - fn.begun[0] <= max(0, calls - burst) / rate + calls * TICK  # nor does the limit for longer


@pytest.mark.parametrize(("rate", "most"), [(0.5, 1), (10, 1), (49, 1), (50, 2), (990, 20)])
def test_without_a_burst_calls_begin_one_by_one_or_a_fiftieth_of_a_second_at_once(rate: float, most: int) -> None:
    fn = Calls()
    in_virtual_time(collect(pmap(fn, range(100), rate=rate)))
    assert fn.begun.count(fn.begun[0]) == most
    assert fn.begun[-1] - fn.begun[0] == pytest.approx((99 - rate / 50) / rate, abs=2e-3)


def test_after_a_pause_of_the_source_a_burst_begins_at_once() -> None:
    async def source() -> AsyncIterator[int]:
        for x in range(20):
            if x == 10:
                await asyncio.sleep(100)
            yield x

    fn = Calls()
    assert in_virtual_time(collect(pmap(fn, source(), rate=1, burst=4))) == [2 * x for x in range(20)]
    assert [fn.begun.count(when) for when in sorted(set(fn.begun))] == [4, *[1] * 6, 4, *[1] * 6]


def test_a_slow_consumer_meets_no_run_that_has_stopped() -> None:
    async def main() -> list[int]:
        taken = []
        async with pmap(Calls(), range(12), rate=1, buffersize=1) as results:
            async for result in results:
                await asyncio.sleep(5)
                taken.append(result)
        return taken

    assert in_virtual_time(main()) == [2 * x for x in range(12)]


@pytest.mark.parametrize("retry_wait", [0.0, 0.1])
def test_a_retry_counts_as_a_call(retry_wait: float) -> None:
    fn = Calls()
    failed = set()

    async def fail_once(x: int) -> int:
        result = await fn(x)
        if x not in failed:
            failed.add(x)
            raise ConnectionError
        return result

    results = pmap(fail_once, range(10), rate=2, burst=3, retries=1, retry_wait=retry_wait)
    assert in_virtual_time(collect(results)) == [2 * x for x in range(10)]
    assert len(fn.begun) == 20
    assert fn.most_at_once(2) <= 3 + 1e-6


def test_errors_and_progress_are_as_without_a_rate() -> None:
    async def fail(x: int) -> int:
        raise KeyError(x)

    seen: list[int] = []
    options: Any = {"rate": 5, "progress": lambda statistics: seen.append(statistics.finished)}

    async def main() -> None:
        with pytest.raises(KeyError):
            await pmap(fail, range(10), **options)
        assert [error.args for error in await any_pmap(fail, range(3), on_error="return", **options)] == [(0,), (1,), (2,)]
        assert await pmap(fail, range(3), on_error="skip", **options) == []

    in_virtual_time(main())
    assert seen == [1, 1, 2, 3, 1, 2, 3]


# Where a batch waits between the cutting and the sending


class Recorded(Place):
    """One worker's places: it makes one batch at a time, and begins all its calls together."""

    def __init__(self, executor: RecordedExecutor, worker: asyncio.Lock) -> None:
        self._executor = executor
        self._worker = worker

    async def run(self, parcel: Parcel) -> BatchDone:
        batch, loop = parcel.batch, asyncio.get_running_loop()
        async with self._worker:
            self._executor.begun.append((loop.time(), len(batch)))
            seconds = self._executor.seconds
            await asyncio.sleep(seconds - loop.time() % seconds if seconds else 0)
        done = len(batch) if self._executor.most_made is None else min(len(batch), self._executor.most_made)
        rest = (batch.part(done, len(batch)),) if done < len(batch) else ()
        return BatchDone(batch.part(0, done), list(batch.columns[0][:done]), {}, ((done, 1e-6),), "recorded", rest)


class RecordedExecutor(PooledExecutor[Recorded]):
    """`workers`, each with `depth` places. A batch goes on until the time is a multiple of `seconds`. Of its calls,
    `most_made` are made, and the rest comes back.
    """

    most_made: int | None = None

    def __init__(self, workers: int, seconds: float, depth: int = 1) -> None:
        super().__init__(workers * depth)
        self.traits = Traits(depth=depth)
        self.seconds = seconds
        self.begun: list[tuple[float, int]] = []
        self._locks: list[asyncio.Lock] = []

    async def start_place(self) -> Recorded:
        if not self._locks:
            self._locks = [asyncio.Lock()] * self.traits.depth
        return Recorded(self, self._locks.pop())


def test_calls_that_wait_for_a_worker_do_not_begin_in_a_lump() -> None:
    executor = RecordedExecutor(8, seconds=100)

    async def main() -> list[int]:
        async with asyncio.TaskGroup() as group:
            group.create_task(_await(pmap(double_soon, range(8), executor=executor, batch_size=1)))
            await asyncio.sleep(1)
            executor.seconds = 0
            return await pmap(double_soon, range(40), executor=executor, rate=1, burst=5, batch_size=1)

    assert in_virtual_time(main()) == list(range(40))
    begun = executor.begun[8:]
    assert [when for when, _ in begun][:5] == [100.0] * 5
    assert most_at_once(begun, rate=1) <= 5 + 1e-6


@pytest.mark.parametrize("depth", [1, 2])
def test_a_batch_does_not_wait_for_another_one_in_its_worker(depth: int) -> None:
    executor = RecordedExecutor(4, seconds=10, depth=depth)
    results = pmap(double_soon, range(40), executor=executor, rate=1, burst=2)
    assert in_virtual_time(collect(results)) == list(range(40))
    assert most_at_once(executor.begun, rate=1) <= 2 + 1e-6


def test_a_batch_has_no_more_calls_than_begin_at_once_in_a_worker() -> None:
    executor = RecordedExecutor(2, seconds=0)
    in_virtual_time(collect(pmap(double_soon, range(40), executor=executor, rate=10, burst=20, concurrency=3)))
    assert {calls for _, calls in executor.begun} <= {1, 2, 3}
    assert most_at_once(executor.begun, rate=10) <= 20 + 1e-6


@pytest.mark.parametrize("items", [range(10), iter(range(10))])
def test_calls_that_come_back_undone_wait_for_new_tokens(items: Any) -> None:
    executor = RecordedExecutor(2, seconds=0)
    executor.most_made = 1
    results = any_pmap(double_soon, items, executor=executor, rate=1, burst=10, batch_size=10)
    assert in_virtual_time(_await(results)) == list(range(10))
    assert most_at_once(executor.begun, rate=1) <= 10 + 1e-6


async def _await(results: Any) -> Any:
    return await results


# In workers

RATE = 50.0
LATE = 0.4  # seconds between the sending of a call and its beginning, on a machine that does much else
LATE_IN_LOOP = 0.02  # the same in the caller's own event loop


def make_executor(kind: str) -> Executor:
    if kind == "interpreter":
        return InterpreterExecutor(2)
    return ProcessExecutor(2) if kind == "process" else ThreadExecutor(2)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["process", "thread", pytest.param("interpreter", marks=needs_interpreters)])
async def test_the_rate_holds_over_all_workers_of_a_run(kind: str) -> None:
    async with make_executor(kind) as executor:
        await pmap(double_soon, range(100), executor=executor)  # they have begun, and imported what they need
        for options in ({"burst": 1}, {"burst": 10, "batch_size": 5}):
            begun = sorted(await any_pmap(begin, range(70), executor=executor, rate=RATE, **options))
            assert most_at_once([(when, 1) for when in begun], RATE) <= options["burst"] + RATE * LATE


@pytest.mark.anyio
async def test_calls_in_processes_are_under_way_together_although_they_begin_one_by_one() -> None:
    async with ProcessExecutor(1) as executor:
        results = pmap(begin, range(20), [1.0] * 20, executor=executor, rate=RATE, burst=1)
        begun = await results
        assert results.statistics().batches == 20
    assert max(begun) - min(begun) < 20 * 1.0 / 2


@pytest.mark.anyio
async def test_retries_in_processes_count_as_calls(tmp_path: Path) -> None:
    async with ProcessExecutor(2) as executor:
        await pmap(double_soon, range(100), executor=executor)
        await pmap(begin_and_fail_at_first, range(35), [tmp_path] * 35, executor=executor, rate=RATE, burst=1, retries=1)
    begun = sorted(float(path.read_text()) for path in tmp_path.iterdir())
    assert len(begun) == 70
    assert most_at_once([(when, 1) for when in begun], RATE) <= 1 + RATE * LATE


@pytest.mark.anyio
async def test_a_foreign_pool_makes_calls_at_that_rate() -> None:
    with ThreadPoolExecutor(1) as pool:
        begun = sorted(await pmap(begin, range(70), executor=pool, rate=RATE, burst=1))
    assert most_at_once([(when, 1) for when in begun], RATE) <= 1 + RATE * LATE


@pytest.mark.anyio
async def test_the_inline_executor_begins_calls_at_that_rate() -> None:
    begun: list[float] = []

    async def note(x: int) -> int:
        begun.append(time.monotonic())
        await anyio.sleep(0.06 if x % 10 == 0 else 0)
        return x

    assert await pmap(note, range(30), executor="inline", rate=100, burst=5) == list(range(30))
    assert most_at_once([(when, 1) for when in begun], 100) <= 5 + 100 * LATE_IN_LOOP


# Leaving, and what needs no token


@pytest.mark.anyio
@pytest.mark.parametrize("executor", [None, "process"])
async def test_a_cancelled_map_does_not_wait_for_a_token(executor: str | None) -> None:
    with anyio.CancelScope() as scope:
        await pmap(double_soon, range(5), rate=1e-6, executor=executor, progress=lambda statistics: scope.cancel())
    assert scope.cancelled_caught
    async with pmap(double_soon, range(5), rate=1e-6, executor=executor) as results:
        assert await anext(results) == 0


@pytest.mark.anyio
async def test_an_error_does_not_wait_for_a_token() -> None:
    async def fail(x: int) -> int:
        raise KeyError(x)

    with pytest.raises(KeyError):
        await pmap(fail, range(5), rate=1e-6)


@pytest.mark.anyio
async def test_a_map_over_one_item_needs_no_token() -> None:
    for _ in range(3):
        assert await pmap(double_soon, [4], rate=1e-9) == [8]


@pytest.mark.anyio
async def test_a_result_from_the_cache_needs_no_token(tmp_path: Path) -> None:
    memory = Memory(tmp_path, verbose=0)
    assert await pmap(double_soon, range(30), cache=memory) == [2 * x for x in range(30)]
    assert await pmap(double_soon, range(30), cache=memory, rate=1e-6) == [2 * x for x in range(30)]


# What is refused


@pytest.mark.parametrize("rate", [0, -1, -0.5, True, math.nan, math.inf, 10**400, "10", (100, 60)])
def test_a_rate_that_is_none_is_refused(rate: Any) -> None:
    with pytest.raises(ValueError, match=r"^rate must be a number of calls per second, more than 0, or None, not "):
        any_pmap(double_soon, [1, 2], rate=rate)


@pytest.mark.parametrize("burst", [0, 0.5, -1, True, math.nan, math.inf, "10"])
def test_a_burst_that_is_none_is_refused(burst: Any) -> None:
    with pytest.raises(ValueError, match=r"^burst must be a number of calls that may begin at once, 1 or more, or None, not "):
        any_pmap(double_soon, [1, 2], rate=1, burst=burst)


def test_a_rate_is_for_coroutine_functions() -> None:
    with pytest.raises(ValueError, match=r"^rate is for coroutine functions, and <built-in function abs> is not one"):
        pmap(abs, [1, 2], rate=1)


def test_a_burst_goes_with_a_rate() -> None:
    for fn in (double_soon, abs):
        with pytest.raises(ValueError, match=r"^burst says how many calls may begin at once .* there is no rate"):
            any_pmap(fn, [1, 2], burst=3)


@pytest.mark.anyio
@pytest.mark.parametrize("rate", [5e-324, 1e-300, 1, 1e300, 10**30])
async def test_very_small_and_very_large_rates_are_no_trouble(rate: float) -> None:
    async with pmap(double_soon, range(5), rate=rate) as results:
        assert await anext(results) == 0
        if rate > 1:
            assert [result async for result in results] == [2, 4, 6, 8]
