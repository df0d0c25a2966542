"""How many calls the next batch should have. Pure: no clock, no I/O, so that tests and simulations can drive it.

A batch should be long enough that what it costs to send does not matter, and short enough that results keep coming and no
worker is left alone with the last one:

    size = TARGET_SECONDS / seconds per call                      (cost: a round trip is below 1 % of a batch)
    size <= remaining / (2 * workers), where that is known        (tail: guided self-scheduling,
                                                                   Polychronopoulos & Kuck 1987, with half their share),
            but not less than LEAST_SECONDS of work               (a shorter batch costs more than it evens out)
    size <= GROWTH * the largest batch seen                       (an estimate from few calls is trusted only so far)
    size <= MOST_CALLS                                            (the event loop pickles and unpickles a batch in one go)

Seconds per call are an exponentially weighted mean over batches, weighted by how many calls each had.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol, TypeAlias

TARGET_SECONDS = 0.03  # a guess between results that are late (100 ms) and a round trip of 0.1 ms being 1 % (10 ms)
LEAST_SECONDS = 1e-3  # ten round trips of 0.1 ms; a guess
MOST_CALLS = 50_000  # 1 ms of pickling for a list of numbers, of the 5 ms that may hold the event loop
GROWTH = 8  # from single calls to thousands within five batches
RECENT = 0.4  # weight of the newest batch; a guess

BatchSize: TypeAlias = int | Literal["auto"]


class BatchTiming(NamedTuple):
    """What a finished batch tells: its calls, the seconds its worker spent on them, and what is left of the run."""

    calls: int
    busy_seconds: float
    remaining: int | None
    workers: int


class BatchSizer(Protocol):
    """Says how many calls the next batch should have, and learns from each batch that is done."""

    @property
    def size(self) -> int: ...

    def observe(self, timing: BatchTiming) -> int:
        """Takes in a timing; returns the next size."""
        ...


class FixedSizer:
    """The size that the user asked for."""

    def __init__(self, size: int) -> None:
        self.size = size

    def observe(self, timing: BatchTiming) -> int:
        return self.size


class AdaptiveSizer:
    """Finds the size.

    `concurrency` is what a worker can have under way at once: batches are as long as that, as far as the items go round.
    """

    def __init__(self, concurrency: int = 1, remaining: int | None = None, workers: int = 1) -> None:
        self._concurrency = concurrency
        self.size = self._least(remaining, workers)
        self._largest = 1
        self._seconds_per_call: float | None = None

    def observe(self, timing: BatchTiming) -> int:
        if timing.calls:
            self._learn(timing)
            self.size = self._next(timing)
        return self.size

    def _learn(self, timing: BatchTiming) -> None:
        newest = timing.busy_seconds / timing.calls
        known = self._seconds_per_call
        weight = RECENT * min(1.0, timing.calls / self._largest)
        self._seconds_per_call = newest if known is None else known + weight * (newest - known)
        self._largest = max(self._largest, timing.calls)

    def _next(self, timing: BatchTiming) -> int:
        seconds = self._seconds_per_call or 1e-9  # a clock too coarse to see the calls
        size = TARGET_SECONDS / seconds
        if timing.remaining is not None:
            size = min(size, max(timing.remaining / (2 * timing.workers), LEAST_SECONDS / seconds))
        size = min(size, GROWTH * self._largest, MOST_CALLS)
        return max(int(size), self._least(timing.remaining, timing.workers))

    def _least(self, remaining: int | None, workers: int) -> int:
        if remaining is None:
            return self._concurrency
        return max(1, min(self._concurrency, remaining // workers))


def make_sizer(batch_size: BatchSize, concurrency: int, remaining: int | None, workers: int) -> BatchSizer:
    """The sizer for `batch_size`, "auto" or a number of calls."""
    return AdaptiveSizer(concurrency, remaining, workers) if batch_size == "auto" else FixedSizer(batch_size)
