"""The control law: from timings to sizes, with no clock and no event loop."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpar._child.run_batch import MOST_ERRORS
from asyncpar._run.batching import (
    FORGET,
    LEAST_SECONDS,
    MOST_CALLS,
    MOST_SECONDS,
    OUTLIER,
    OVERHEAD_SHARE,
    RECENT,
    AdaptiveSizer,
    BatchTiming,
    FixedSizer,
    make_sizer,
)

seconds = st.floats(1e-9, 1e3)
timings = st.builds(
    BatchTiming,
    calls=st.integers(0, 10**6),
    busy_seconds=seconds,
    round_trip_seconds=seconds,
    remaining=st.none() | st.integers(0, 10**9),
    workers=st.integers(1, 10_000),
    errors=st.just(0) | st.integers(0, 10**6),
    loop_share_of_call=st.just(0.0) | st.floats(0, 1e3),
)


def batch_of(sizer: AdaptiveSizer, call: float, overhead: float = 1e-4, remaining: int | None = None) -> BatchTiming:
    """A batch of the size that the law asked for, with calls of that many seconds."""
    busy = sizer.size * call
    return BatchTiming(sizer.size, busy, busy + overhead, remaining, 2)


def settled(call: float, overhead: float = 1e-4, batches: int = 12) -> AdaptiveSizer:
    sizer = AdaptiveSizer()
    for _ in range(batches):
        sizer.observe(batch_of(sizer, call, overhead))
    return sizer


@given(st.lists(timings, max_size=50), st.integers(1, 200))
def test_the_size_is_always_a_positive_integer_and_the_budget_within_its_limits(
    observed: list[BatchTiming], concurrency: int
) -> None:
    sizer = AdaptiveSizer(concurrency)
    for timing in observed:
        size = sizer.observe(timing)
        assert type(size) is int
        assert 1 <= size <= MOST_CALLS
        assert size == sizer.size
        assert LEAST_SECONDS <= sizer.budget(size) <= MOST_SECONDS


@given(st.floats(1e-8, 1e-1), st.floats(1e-6, 1e-1))
def test_steady_calls_make_batches_of_which_the_overhead_is_a_small_share(call: float, overhead: float) -> None:
    sizer = settled(call, overhead)
    target = min(max(overhead / OVERHEAD_SHARE, LEAST_SECONDS), MOST_SECONDS)
    assert sizer.target_seconds == pytest.approx(target)
    assert 0.5 * target <= sizer.size * call <= 1.001 * target or sizer.size in (1, MOST_CALLS)


def test_batches_begin_with_single_calls_and_reach_thousands_within_three_more() -> None:
    assert AdaptiveSizer().size == 1
    assert settled(1e-7, batches=3).size > 1000


@given(st.floats(1e-7, 1e-2), st.floats(1e-6, 1e6))
def test_one_batch_out_of_line_moves_the_estimate_only_so_far(call: float, factor: float) -> None:
    sizer = settled(call)
    sizer.observe(batch_of(sizer, call * factor))
    assert sizer.seconds_per_call is not None
    assert OUTLIER**-RECENT - 1e-9 <= sizer.seconds_per_call / call <= OUTLIER**RECENT + 1e-9
    for _ in range(6):
        sizer.observe(batch_of(sizer, call))
    assert sizer.seconds_per_call == pytest.approx(call, rel=0.05)


@given(st.floats(1e-7, 1e-1), st.floats(1e-7, 1e-1))
def test_calls_that_change_for_good_are_followed(before: float, after: float) -> None:
    sizer = settled(before)
    for _ in range(40):
        sizer.observe(batch_of(sizer, after))
    assert sizer.seconds_per_call == pytest.approx(after, rel=0.01)


@given(st.floats(1e-5, 1e-2), st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_delays_of_single_round_trips_do_not_count_as_overhead(overhead: float, delays: list[float]) -> None:
    sizer = settled(1e-3, overhead)
    for delay in delays:
        sizer.observe(batch_of(sizer, 1e-3, overhead + delay))
    assert sizer.overhead_seconds is not None
    assert overhead * (1 - 1e-6) <= sizer.overhead_seconds <= overhead * FORGET ** len(delays) + 1e-9


@given(st.integers(0, 10**6), st.integers(1, 100))
def test_the_tail_is_shared_out(remaining: int, workers: int) -> None:
    call = 1e-7
    sizer = settled(call)
    size = sizer.observe(BatchTiming(sizer.size, sizer.size * call, 1e-2, remaining, workers))
    assert size <= max(1, remaining / (2 * workers), 1.001 * LEAST_SECONDS / call)


@given(st.floats(1e-7, 1.0))
def test_a_batch_that_takes_as_long_as_expected_is_within_its_budget(call: float) -> None:
    sizer = settled(call)
    assert sizer.budget(sizer.size) >= min(sizer.size * call, MOST_SECONDS)
    assert sizer.budget(MOST_CALLS) <= MOST_SECONDS


@given(st.integers(1, 10_000), st.lists(timings, max_size=10))
def test_a_fixed_size_stays_and_has_no_budget(size: int, observed: list[BatchTiming]) -> None:
    sizer = make_sizer(size, 1, None, 1)
    assert {sizer.size, *map(sizer.observe, observed)} == {size}
    assert sizer.budget(size) == math.inf


def test_a_fixed_size_still_tells_what_calls_take() -> None:
    sizer = FixedSizer(10)
    sizer.observe(BatchTiming(10, 1.0, 1.5, None, 2))
    assert (sizer.seconds_per_call, sizer.overhead_seconds) == (0.1, 0.5)


@given(st.integers(1, 500), st.integers(0, 1000), st.integers(1, 16))
def test_coroutine_calls_are_spread_over_the_workers(concurrency: int, remaining: int, workers: int) -> None:
    size = AdaptiveSizer(concurrency, remaining, workers).size
    assert 1 <= size <= max(1, remaining // workers)
    assert size <= concurrency


@given(st.floats(0.0, 1.0), st.integers(1, 100_000), st.floats(1e-8, 1e-3))
def test_a_batch_is_not_expected_to_have_too_many_errors(rate: float, calls: int, seconds: float) -> None:
    sizer = AdaptiveSizer()
    for _ in range(20):
        sizer.observe(BatchTiming(calls, seconds * calls, 1.0, None, 2, int(rate * calls)))
    share = int(rate * calls) / calls
    assert sizer.size == 1 or sizer.size * share <= MOST_ERRORS * 1.001
