"""The control law: from timings to sizes, with no clock and no event loop."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asyncpar.batching import LEAST_SECONDS, MOST_CALLS, TARGET_SECONDS, AdaptiveSizer, BatchTiming, make_sizer

seconds = st.floats(1e-9, 1e3)
timings = st.builds(
    BatchTiming,
    calls=st.integers(0, 10**6),
    busy_seconds=seconds,
    remaining=st.none() | st.integers(0, 10**9),
    workers=st.integers(1, 10_000),
)


@given(st.lists(timings, max_size=50), st.integers(1, 200))
def test_the_size_is_always_a_positive_integer(observed: list[BatchTiming], concurrency: int) -> None:
    sizer = AdaptiveSizer(concurrency)
    for timing in observed:
        size = sizer.observe(timing)
        assert type(size) is int
        assert size >= 1
        assert size == sizer.size


@given(st.floats(1e-8, 1e-2), st.integers(1, 64))
def test_steady_calls_reach_the_target_within_six_batches(seconds_per_call: float, workers: int) -> None:
    sizer = AdaptiveSizer()
    for _ in range(6 if seconds_per_call > 1e-6 else 9):
        sizer.observe(BatchTiming(sizer.size, sizer.size * seconds_per_call, None, workers))
    assert 0.4 * TARGET_SECONDS <= sizer.size * seconds_per_call <= TARGET_SECONDS * 1.01 or sizer.size in (1, MOST_CALLS)


@given(st.integers(0, 10**6), st.integers(1, 100))
def test_the_tail_is_shared_out(remaining: int, workers: int) -> None:
    sizer = AdaptiveSizer()
    for _ in range(10):
        sizer.observe(BatchTiming(sizer.size, sizer.size * 1e-7, None, workers))
    size = sizer.observe(BatchTiming(sizer.size, sizer.size * 1e-7, remaining, workers))
    assert size <= max(1, remaining / (2 * workers), 1.001 * LEAST_SECONDS / 1e-7)


@given(st.integers(1, 10_000), st.lists(timings, max_size=10))
def test_a_fixed_size_stays(size: int, observed: list[BatchTiming]) -> None:
    sizer = make_sizer(size, 1, None, 1)
    assert {sizer.size, *map(sizer.observe, observed)} == {size}


@given(st.integers(1, 500), st.integers(0, 1000), st.integers(1, 16))
def test_coroutine_calls_are_spread_over_the_workers(concurrency: int, remaining: int, workers: int) -> None:
    size = AdaptiveSizer(concurrency, remaining, workers).size
    assert 1 <= size <= max(1, remaining // workers)
    assert size <= concurrency
