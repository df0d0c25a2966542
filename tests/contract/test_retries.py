"""`retries=`: which calls are tried again, how often and when, and the effect on the order and on other calls."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncpar import Executor, ProcessExecutor, WorkerDiedError, pmap
from asyncpar._contract.batches import Batch, BatchDone
from asyncpar._run.retrying import RetryPolicy
from tests.calls.retries import Fatal, Flaky
from tests.functions import double
from tests.loops import on_one_loop

on_every_loop = pytest.mark.anyio


@on_every_loop
@pytest.mark.parametrize("retry_wait", [0.0, 0.01])
async def test_a_call_that_fails_is_tried_again(executor: Executor, tmp_path: Path, retry_wait: float) -> None:
    sizes: list[Any] = ["auto", 1, 4]
    for batch_size in sizes:
        directory = tmp_path / str(batch_size)
        directory.mkdir()
        flaky = Flaky(directory, {2: 1, 5: 2})
        results = pmap(flaky, range(8), executor=executor, retries=2, batch_size=batch_size, retry_wait=retry_wait)
        outcomes = [outcome async for outcome in results.outcomes()]
        assert [outcome.unwrap() for outcome in outcomes] == [2 * x for x in range(8)]  # in input order, as ever
        assert [outcome.attempts for outcome in outcomes] == [1, 1, 2, 1, 1, 3, 1, 1]
        assert flaky.attempts == {x: 1 + flaky.failures.get(x, 0) for x in range(8)}
        assert results.statistics().retried == 3


@on_every_loop
async def test_after_the_last_retry_the_error_is_raised_as_it_is(executor: Executor, tmp_path: Path) -> None:
    flaky = Flaky(tmp_path, {1: 9})
    with pytest.raises(ConnectionError, match="1 is not ready") as caught:
        await pmap(flaky, range(3), executor=executor, retries=2)
    assert flaky.attempts[1] == 3
    assert any("at attempt 3" in note for note in caught.value.__notes__)


@pytest.mark.anyio
@on_one_loop
@pytest.mark.parametrize("retry_on", [ValueError, (ValueError, KeyError)])
async def test_other_errors_are_not_tried_again(executor: Executor, tmp_path: Path, retry_on: Any) -> None:
    flaky = Flaky(tmp_path, {1: 9})
    with pytest.raises(ConnectionError):
        await pmap(flaky, range(3), executor=executor, retries=5, retry_on=retry_on)
    assert flaky.attempts[1] == 1


@on_every_loop
async def test_a_call_that_waits_for_its_retry_holds_up_nobody(tmp_path: Path) -> None:
    flaky = Flaky(tmp_path, {0: 1})
    async with ProcessExecutor(1) as executor:
        values = await pmap(flaky, range(6), executor=executor, retries=1, retry_wait=0.5, batch_size=1)
    assert values == [0, 2, 4, 6, 8, 10]
    assert flaky.order == [0, 1, 2, 3, 4, 5, 0]


@on_every_loop
async def test_a_stream_hands_on_what_need_not_wait(tmp_path: Path) -> None:
    flaky = Flaky(tmp_path, {0: 1})
    async with ProcessExecutor(1) as executor:
        results = pmap(flaky, range(4), executor=executor, retries=1, retry_wait=0.5, ordered=False)
        assert [value async for value in results] == [2, 4, 6, 0]


@on_every_loop
async def test_cancelling_does_not_wait_for_a_retry(tmp_path: Path) -> None:
    flaky = Flaky(tmp_path, {0: 1})
    async with ProcessExecutor(1) as executor:
        async with pmap(flaky, range(3), executor=executor, retries=1, retry_wait=1e6, ordered=False) as results:
            assert [await anext(results), await anext(results)] == [2, 4]
        assert await pmap(double, [1], executor=executor) == [2]


@on_every_loop
async def test_a_call_that_lost_its_worker_is_tried_again(tmp_path: Path) -> None:
    async with ProcessExecutor(2) as executor:
        assert await pmap(Fatal(tmp_path, 2), range(10), executor=executor, retries=2) == list(range(10))


@on_every_loop
async def test_a_call_that_keeps_killing_is_given_up_and_the_pool_survives(tmp_path: Path) -> None:
    fatal = Fatal(tmp_path, 99)
    async with ProcessExecutor(2) as executor:
        values = await pmap(fatal, range(10), executor=executor, retries=3, on_error="return")
        assert isinstance(values[3], WorkerDiedError)
        assert [value for value in values if not isinstance(value, WorkerDiedError)] == [0, 1, 2, 4, 5, 6, 7, 8, 9]
        assert len(list(tmp_path.iterdir())) == 4
        assert await pmap(double, [1], executor=executor) == [2]


@on_every_loop
async def test_coroutine_calls_are_tried_again() -> None:
    seen: Counter[int] = Counter()

    async def flaky(x: int) -> int:
        seen[x] += 1
        if x % 2 and seen[x] < 3:
            raise ConnectionError(x)
        return x

    assert await pmap(flaky, range(6), retries=2) == list(range(6))
    assert seen == {0: 1, 1: 3, 2: 1, 3: 3, 4: 1, 5: 3}


@given(
    failures=st.dictionaries(st.integers(0, 39), st.integers(1, 4), max_size=15),
    retries=st.integers(0, 3),
    retry_wait=st.sampled_from([0.0, 1e-4]),
    batch_size=st.sampled_from(["auto", 1, 3, 10]),
    ordered=st.booleans(),
    buffersize=st.none() | st.integers(1, 10),
    kind=st.sampled_from(["inline", "thread"]),
    backend=st.sampled_from(["asyncio", "trio"]),
)
@settings(max_examples=60)
def test_every_item_has_one_outcome_after_as_many_attempts_as_it_needs(
    failures: dict[int, int], retries: int, backend: str, ordered: bool, **options: Any
) -> None:
    seen: Counter[int] = Counter()

    def flaky(x: int) -> int:
        seen[x] += 1
        if seen[x] <= failures.get(x, 0):
            raise ConnectionError(x)
        return x

    options["executor"] = options.pop("kind")

    async def collect() -> list[Any]:
        async with pmap(flaky, range(40), retries=retries, ordered=ordered, **options) as results:
            return [outcome async for outcome in results.outcomes()]

    outcomes = anyio.run(collect, backend=backend)
    indices = [outcome.index for outcome in outcomes]
    assert indices == list(range(40)) if ordered else sorted(indices) == list(range(40))
    for outcome in outcomes:
        needed = failures.get(outcome.index, 0)
        assert outcome.attempts == seen[outcome.index] == min(needed, retries) + 1
        assert (outcome.error is None) == (needed <= retries)


@given(failures=st.integers(1, 20), wait=st.floats(0, 10))
def test_each_retry_waits_for_twice_as_long_less_a_random_half(failures: int, wait: float) -> None:
    full = wait * 2 ** (failures - 1)
    assert full / 2 <= RetryPolicy(30, Exception, wait).wait_seconds(failures) <= full


def test_the_waiting_time_after_very_many_failures_is_very_long() -> None:
    policy = RetryPolicy(10_000, Exception, wait=1.0)
    assert policy.wait_seconds(10_000) > 1e300
    assert RetryPolicy(10_000, Exception, wait=0.0).wait_seconds(10_000) == 0


@on_every_loop
async def test_a_call_may_fail_more_often_than_numbers_can_be_doubled() -> None:
    failures = 0

    def fail(x: int) -> int:
        nonlocal failures
        failures += 1
        if failures <= 1100:
            raise ConnectionError
        return x

    assert await pmap(fail, [7], executor="inline", retries=2000, retry_wait=5e-324) == [7]


@given(length=st.integers(1, 30), positions=st.sets(st.integers(0, 29)), strides=st.lists(st.integers(1, 9), min_size=30))
def test_taking_out_calls_keeps_what_the_others_came_to(length: int, positions: set[int], strides: list[int]) -> None:
    from asyncpar._run.outcomes import to_outcomes, without

    errors: dict[int, BaseException] = {position: KeyError(position) for position in positions if position < length}
    timings: list[tuple[int, float]] = []
    while sum(calls for calls, _ in timings) < length:
        calls = min(strides.pop(), length - sum(calls for calls, _ in timings))
        timings.append((calls, float(calls)))
    batch = Batch(range(100, 100 + length), (range(length),))
    done = BatchDone(batch, list(range(length)), errors, timings, "worker")
    again = batch.failed(sorted(errors))
    assert [index for part in again for index in part.indices] == [100 + position for position in sorted(errors)]
    assert [item for part in again for item in part.columns[0]] == sorted(errors)
    assert {(part.failures, part.attempts) for part in again} <= {(1, 2)}
    kept = [outcome for stretch in without(done, sorted(errors)) for outcome in to_outcomes(stretch)]
    assert [(outcome.index, outcome.value) for outcome in kept] == [
        (100 + position, position) for position in range(length) if position not in errors
    ]
    assert all(outcome.seconds == pytest.approx(1.0) for outcome in kept)
