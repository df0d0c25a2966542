"""How long each call of a simulated run takes: a profile, drawn from a distribution with a seed, that repeats for long runs."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Seconds: TypeAlias = NDArray[np.float64]

_PERIOD = 1 << 20  # calls after which a profile repeats: 8 MiB of memory for a run of any length
_LONGEST_MEANS = 1000.0  # a Pareto call is cut off at this many times the mean: without that, one call decides the run


class Profile:
    """Calls `0 .. length - 1`, which take `seconds`, over and over; `until(n)` is what the first `n` take."""

    def __init__(self, seconds: Seconds, length: int) -> None:
        self.length = length
        self._period = len(seconds)
        self._sums = np.concatenate([[0.0], np.cumsum(seconds)])
        self.longest = float(seconds[:length].max())

    def until(self, count: int) -> float:
        rounds, rest = divmod(count, self._period)
        return float(rounds * self._sums[-1] + self._sums[rest])

    @property
    def total(self) -> float:
        return self.until(self.length)

    def calls_within(self, begin: int, end: int, budget: float) -> int:
        """How many of the calls from `begin` up to `end` are run by a worker that starts none after `budget` seconds."""
        limit = self.until(begin) + budget
        return 1 + bisect_left(range(begin + 1, end), limit, key=self.until)  # at least one call is made


def _constant(length: int, random: np.random.Generator) -> Seconds:
    return np.ones(length)


def _exponential(length: int, random: np.random.Generator) -> Seconds:
    return random.exponential(1.0, length)


def _pareto(length: int, random: np.random.Generator) -> Seconds:
    """Tail index 1.5: finite mean, infinite variance."""
    return np.minimum((random.pareto(1.5, length) + 1) / 3, _LONGEST_MEANS)


def _bimodal(length: int, random: np.random.Generator) -> Seconds:
    """One call in twenty takes two hundred times as long as the others."""
    return np.where(random.random(length) < 0.05, 200.0, 1.0) / 10.95


def _drifting(length: int, random: np.random.Generator) -> Seconds:
    """A hundredfold from the first call to the last, with noise."""
    return np.geomspace(0.1, 10.0, length) * random.uniform(0.5, 1.5, length)


def _sorted(length: int, random: np.random.Generator) -> Seconds:
    """The longest calls last, which is the worst order for the tail."""
    return np.sort(random.exponential(1.0, length))


_SHAPES: dict[str, Callable[[int, np.random.Generator], Seconds]] = {
    "constant": _constant,
    "exponential": _exponential,
    "Pareto": _pareto,
    "bimodal": _bimodal,
    "drifting": _drifting,
    "sorted": _sorted,
}
SHAPES = tuple(_SHAPES)


def make_profile(shape: str, length: int, mean: float, seed: int = 0) -> Profile:
    """A number of calls that take `mean` seconds on average (over one period)."""
    seconds = _SHAPES[shape](min(length, _PERIOD), np.random.default_rng(seed))
    return Profile(seconds * (mean / seconds.mean()), length)
