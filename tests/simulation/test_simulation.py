"""The real scheduler and control law over simulated workers, up to ten thousand: how close they come to the lower bound."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncpar._run.batching import MOST_SECONDS
from tests.simulation.durations import SHAPES, Profile, make_profile
from tests.simulation.simulated import SimulatedExecutor, run_on, simulate
from tests.simulation.virtual_time import run_in_virtual_time

pytestmark = pytest.mark.timeout(180)  # they compute all the time, which on a busy machine takes many times as long

# Calls that make a run 50 times as long as workers * longest call, for calls of 1 ms in the mean
LENGTHS = {("drifting", 2): 4_000, ("drifting", 16): 25_000, ("drifting", 256): 400_000, ("Pareto", 2): 120_000}


@pytest.mark.parametrize(("shape", "workers"), LENGTHS)
def test_uneven_calls_take_at_most_a_tenth_longer_than_the_bound_whatever_the_seed(shape: str, workers: int) -> None:
    seeds = 1 if workers == 256 else 5
    ratios = []
    for seed in range(seeds):
        profile = make_profile(shape, LENGTHS[shape, workers], 1e-3, seed)
        assert profile.total >= 50 * workers * profile.longest
        ratios.append(simulate(profile, workers, 1e-4).over_bound)
    assert max(ratios) <= 1.10


def test_ten_thousand_workers_are_kept_busy() -> None:
    report = simulate(make_profile("constant", 20_000, 0.1), 10_000, 1e-3)
    assert report.utilisation >= 0.95


def test_a_hundred_million_items_need_a_bounded_window() -> None:
    report = simulate(make_profile("constant", 10**8, 1e-6), 2, 1e-4)
    assert report.peak_window <= 4 * 2 * 50_000
    assert report.over_bound <= 1.05


@pytest.mark.parametrize("workers", [2, 4, 8])
def test_long_calls_at_the_end_of_a_run_of_short_ones_are_shared_among_its_workers(workers: int) -> None:
    profile = Profile(np.array([5e-8] * 200_000 + [0.02] * 96), 200_096)
    assert simulate(profile, workers, 1e-4).over_bound <= 1.15


@pytest.mark.parametrize("round_trip", [0.01, 0.05])
@pytest.mark.parametrize("seconds", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("shape", ["constant", "exponential"])
def test_workers_with_two_places_are_kept_busy_however_far_away(shape: str, seconds: float, round_trip: float) -> None:
    profile = make_profile(shape, int(200 / seconds), seconds)
    assert simulate(profile, 8, round_trip, depth=2).utilisation >= 0.9


def test_work_follows_the_places_within_a_batch() -> None:
    changes = {0.0: 0, 1.0: 2, 3.0: 6, 5.0: 1, 7.0: 0, 8.0: 4}  # {when: how many places there are from then on}

    async def run() -> tuple[float, list[tuple[float, int]]]:
        executor = SimulatedExecutor(0, 1e-3, make_profile("constant", 2000, 0.01))
        loop = asyncio.get_running_loop()
        for when, places in changes.items():
            loop.call_at(when, executor.pool.resize, places)
        report = await run_on(executor)
        return report.makespan, executor.noted

    makespan, noted = run_in_virtual_time(run())
    a_batch = 2 * MOST_SECONDS
    for begin, end in pairwise([*changes, makespan]):
        under_way = {count for when, count in noted if begin + a_batch < when < end - a_batch}
        assert under_way == ({changes[begin]} if changes[begin] else set())


def test_the_first_result_is_there_after_one_call() -> None:
    report = simulate(make_profile("constant", 1000, 0.5), 4, 1e-3, ordered=True)
    assert report.first_result == pytest.approx(0.501)


@given(
    shape=st.sampled_from(SHAPES),
    length=st.integers(1, 3000),
    workers=st.integers(1, 50),
    mean=st.floats(1e-6, 1.0),
    round_trip=st.floats(2e-5, 5e-2),
    ordered=st.booleans(),
    seed=st.integers(0, 100),
)
@settings(max_examples=100, deadline=None)
def test_no_item_is_lost_and_no_bound_is_beaten(
    shape: str, length: int, workers: int, mean: float, round_trip: float, ordered: bool, seed: int
) -> None:
    profile = make_profile(shape, length, mean, seed)
    report = simulate(profile, workers, round_trip, ordered=ordered)
    assert report.over_bound >= 1 - 1e-9
    assert 0 < report.utilisation <= 1 + 1e-9
