"""The law of `rate=`, over a clock that hypothesis moves: what is spent stays within the bound, and no token is held back."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpar._run.token_bucket import TokenBucket

rates = st.floats(1e-6, 1e6)
bursts = st.integers(1, 20) | st.floats(1, 20)
pauses = st.floats(0, 30)  # in the times between two tokens
steps = st.lists(st.tuples(st.sampled_from(["wait", "wait until due", "promise", "spend"]), pauses), max_size=60)


def most_at_once(begun: list[tuple[float, int]], rate: float) -> float:
    """By how many the calls of any stretch of time exceed those that come in it. `begun`: (when, how many), in order."""
    most = so_far = 0.0  # of a stretch that ends with the call just looked at
    last = -math.inf
    for when, calls in begun:
        so_far = max(0.0, so_far - rate * (when - last)) + calls
        most, last = max(most, so_far), when
    return most


@dataclass
class Simulation:
    rate: float
    burst: float
    now: float = 1000.0
    promised: int = 0
    spent: list[tuple[float, int]] = field(default_factory=list)  # (when, how many)

    def __post_init__(self) -> None:
        self.bucket = TokenBucket(self.rate, self.burst)

    def take(self, step: str, amount: float) -> None:
        bucket = self.bucket
        if step == "wait":
            self.now += amount / self.rate
        elif step == "wait until due":
            due = bucket.due()
            if due == math.inf:
                assert self.promised + 1 > self.burst, "only promised tokens make one wait for ever"
            else:
                self.now = max(self.now, due)
                assert bucket.tokens(self.now) >= 1, "whoever waited is sent away"
        elif step == "promise":
            calls = min(bucket.tokens(self.now), 1 + int(amount))
            bucket.promise(calls)
            self.promised += calls
        else:
            calls = min(self.promised, 1 + int(amount))
            bucket.spend(calls, self.now)
            self.promised -= calls
            self.spent.append((self.now, calls))


@given(rates, bursts, steps)
def test_no_stretch_of_time_has_more_calls_than_the_burst_and_what_comes_in_it(
    rate: float, burst: float, steps: list[tuple[str, float]]
) -> None:
    simulation = Simulation(rate, burst)
    for step, amount in steps:
        simulation.take(step, amount)
        assert simulation.promised <= burst
    assert most_at_once(simulation.spent, rate) <= burst + 1e-6


@given(rates, bursts, steps, st.integers(1, 50))
def test_the_rate_is_reached(rate: float, burst: float, steps: list[tuple[str, float]], calls: int) -> None:
    simulation = Simulation(rate, burst)
    for step, amount in steps:
        simulation.take(step, amount)
    simulation.take("spend", 1e9)
    began = simulation.now
    for _ in range(calls):
        simulation.take("wait until due", 0)
        simulation.take("promise", 0)
        simulation.take("spend", 0)
    assert simulation.now - began <= calls / rate * (1 + 1e-6)


@given(rates, bursts, steps)
def test_after_a_pause_as_many_may_begin_as_the_bucket_holds(rate: float, burst: float, steps: list[tuple[str, float]]) -> None:
    simulation = Simulation(rate, burst)
    assert simulation.bucket.tokens(simulation.now) == int(burst)
    for step, amount in steps:
        simulation.take(step, amount)
    simulation.take("wait", 1.01 * burst)
    assert simulation.bucket.tokens(simulation.now) == int(burst) - simulation.promised


def test_promised_tokens_leave_no_room_for_new_ones() -> None:
    bucket = TokenBucket(rate=1.0, burst=2)
    bucket.promise(2)
    assert bucket.tokens(now=1e9) == 0
    assert bucket.due() == math.inf
    bucket.spend(2, now=1e9)
    assert bucket.tokens(now=1e9) == 0
    assert bucket.due() == pytest.approx(1e9 + 1)
