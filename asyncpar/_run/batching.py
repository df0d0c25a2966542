"""The control law: how many calls the next batch should have. Pure: no clock, no I/O, so that tests and simulations drive it.

A batch should be long enough that what it costs to send does not matter, and short enough that results keep coming and no
worker is left alone with the last one:

    overhead = round trip - busy seconds, per batch             (the least of the recent ones)
    target   = overhead / OVERHEAD_SHARE                         (cost: about 1 % of a batch)
    target   within LEAST_SECONDS .. MOST_SECONDS                (latency: results keep coming)
                    or, where that is longer, .. ROUND_TRIPS round trips as the executor guesses them
    size     = target / seconds per call
    size    <= remaining / (2 * workers), where that is known    (tail: guided self-scheduling,
                                                                  Polychronopoulos & Kuck 1987, with half their share),
               but not less than LEAST_SECONDS of work           (a shorter batch costs more than it evens out)
    size    <= GROWTH * the calls of the newest batch            (an estimate from few calls is trusted only so far)
    size    <= MOST_CALLS                                        (the event loop pickles and unpickles a batch in one go)
    size    <= MOST_ERRORS / the share of calls that fail        (the loop also reads and notes errors in one go)
    size    <= what the loop packs and reads in its time for one batch, as the executor measures it, if that is FEW_CALLS or
               more; else MOST_TURNS times that                  (fewer and larger objects are left to threads)
    budget   = PATIENCE * the time that the batch should take    (a worker past it gives the rest back)

**Seconds per call** are an exponentially weighted mean over batches, of logarithms, so that a tenfold error upwards weighs as
much as one downwards; no batch moves it by more than OUTLIER, so that one call that takes a thousand times as long as the
others does not spoil the estimate. **Overhead** is a minimum that is forgotten slowly: what delays single round trips (a busy
machine, a large answer) only ever adds to it.

**Coroutine calls that interleave** need no long batches: a worker has many under way at once, so that it is never without work
while one travels. There, a batch has as many calls as one worker makes in LEAST_SECONDS, the seconds of a call being its own
divided by how many are under way. Until that is known, a few batches fill a worker. The budget does not matter.

A wrong estimate costs little, because a batch has a time budget: the calls that it has no time for come back and are cut
again, by an estimate that has learnt from it.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, Protocol, TypeAlias

from asyncpar._child.run_batch import MOST_ERRORS

OVERHEAD_SHARE = 0.005  # by the least overhead: half of the 1 % that it is by the usual one; chosen by `short-calls`
LEAST_SECONDS = 1e-3  # ten round trips of 0.1 ms; a guess
MOST_SECONDS = 0.1  # results keep coming at least this often, and so do workers for other runs
ROUND_TRIPS = 2.0  # so that a worker with two places computes one batch while the next one travels, and has time to spare
MOST_CALLS = 50_000  # 1 ms of pickling for a list of numbers, of the 5 ms that may hold the event loop
GROWTH = 16  # from single calls to thousands within four batches
RECENT = 0.4  # weight of the newest batch; a guess
OUTLIER = 4.0  # largest factor by which one batch may differ from the estimate; a guess
FORGET = 1.05  # by which the least overhead grows with each batch, until a newer one is the least; a guess
FEW_CALLS = 64  # whose packing takes longer than the rest of a batch, even in a thread; a guess
MOST_TURNS = 16  # such times that a thread packs or reads at once: 3 MiB, about what stays in the processor's cache; a guess
PATIENCE = 2.0  # a batch that takes twice its time was cut by a wrong estimate; a guess

_FIRST_BATCHES = 8  # that fill a worker with coroutine calls; a guess
_LEAST_CALL_SECONDS = 1e-9  # a clock may be too coarse to see the calls

BatchSize: TypeAlias = int | Literal["auto"]


class BatchTiming(NamedTuple):
    """What a finished batch reports.

    Attributes:
        calls: how many of its calls were run.
        busy_seconds: what its worker spent in them, summed up.
        round_trip_seconds: from sending it until the answer was there; None: not known, because it waited for another batch.
        remaining: calls of the run that no worker has yet; None where that is not known.
        workers: how many workers the run may hold at once.
        errors: how many of the calls that were run have failed.
        loop_share_of_call: how much of the event loop's time for one batch it takes to pack or read one call; 0: it does not
            matter.
    """

    calls: int
    busy_seconds: float
    round_trip_seconds: float | None
    remaining: int | None
    workers: int
    errors: int = 0
    loop_share_of_call: float = 0.0


class BatchSizer(Protocol):
    """Says how many calls the next batch should have, and learns from each batch that is done.

    `seconds_per_call` and `overhead_seconds` (of a batch) are None until the first timing. `least_ahead`: calls that may be
    pulled for each worker in any case.
    """

    least_ahead: int

    @property
    def size(self) -> int: ...
    @property
    def seconds_per_call(self) -> float | None: ...
    @property
    def overhead_seconds(self) -> float | None: ...

    def budget(self, calls: int) -> float:
        """Seconds after which a batch of that many calls should come back, done or not."""
        ...

    def observe(self, timing: BatchTiming) -> int:
        """Learns from a timing; returns the next size."""
        ...


class _Learner:
    """Estimates seconds per call and overhead per batch from timings.

    `concurrency`: how many calls a worker has under way at once; their seconds overlap.
    """

    seconds_per_call: float | None = None
    overhead_seconds: float | None = None
    least_ahead = 0

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency

    def learn(self, timing: BatchTiming) -> None:
        busy = timing.busy_seconds / min(self._concurrency, timing.calls)
        self._learn_seconds(max(busy / timing.calls, _LEAST_CALL_SECONDS))
        if timing.round_trip_seconds is not None:
            self._learn_overhead(max(timing.round_trip_seconds - busy, 0.0))

    def _learn_seconds(self, newest: float) -> None:
        known = self.seconds_per_call
        if known is None:
            self.seconds_per_call = newest
        else:
            error = min(max(newest / known, 1 / OUTLIER), OUTLIER)
            self.seconds_per_call = known * error**RECENT

    def _learn_overhead(self, newest: float) -> None:
        known = self.overhead_seconds
        self.overhead_seconds = newest if known is None else min(newest, FORGET * known)


class FixedSizer(_Learner):
    """The size that the user asked for, whatever it takes. It learns only for the statistics."""

    def __init__(self, size: int, concurrency: int = 1) -> None:
        super().__init__(concurrency)
        self.size = size

    def budget(self, calls: int) -> float:
        return math.inf

    def observe(self, timing: BatchTiming) -> int:
        if timing.calls:
            self.learn(timing)
        return self.size


class AdaptiveSizer(_Learner):
    """The law at the head of this file.

    With a `concurrency` above 1, batches have at least that many calls, as far as the items go round. `round_trip`: seconds,
    as the executor guesses them.
    """

    _most_seconds = MOST_SECONDS
    _seen = _failed = 0.0  # calls, and those of them that failed; older batches count ever less
    _loop_share = 0.0

    def __init__(self, concurrency: int = 1, remaining: int | None = None, workers: int = 1, round_trip: float = 0.0) -> None:
        super().__init__(concurrency)
        if round_trip:
            self._most_seconds = max(MOST_SECONDS, ROUND_TRIPS * round_trip)
        self.size = self._least(remaining, workers)

    @property
    def target_seconds(self) -> float:
        """How long a batch should take."""
        return self._within_limits((self.overhead_seconds or 0.0) / OVERHEAD_SHARE)

    def budget(self, calls: int) -> float:
        if self.seconds_per_call is None:
            return self._most_seconds
        return self._within_limits(PATIENCE * calls * self.seconds_per_call)

    def observe(self, timing: BatchTiming) -> int:
        if timing.calls:
            self.learn(timing)
            self.size = self._next(timing)
        return self.size

    def _next(self, timing: BatchTiming) -> int:
        seconds = self.seconds_per_call or _LEAST_CALL_SECONDS
        size = self.target_seconds / seconds
        if timing.remaining is not None:
            size = min(size, max(timing.remaining / (2 * timing.workers), LEAST_SECONDS / seconds))
        size = min(size, max(GROWTH * timing.calls, self.size), MOST_CALLS)
        self._seen, self._failed = self._seen / 2 + timing.calls, self._failed / 2 + timing.errors
        if self._failed:
            size = min(size, MOST_ERRORS * self._seen / self._failed)
        self._loop_share = max(timing.loop_share_of_call, self._loop_share * (1 - RECENT))
        if self._loop_share:
            at_once = 1 / self._loop_share
            size = min(size, at_once if at_once >= FEW_CALLS else MOST_TURNS * at_once)
        return max(int(size), self._least(timing.remaining, timing.workers))

    def _within_limits(self, seconds: float) -> float:
        return min(max(seconds, LEAST_SECONDS), self._most_seconds)

    def _least(self, remaining: int | None, workers: int) -> int:
        if remaining is None:
            return self._concurrency
        return max(1, min(self._concurrency, remaining // workers))


class InterleavingSizer(AdaptiveSizer):
    """The law for coroutine calls that interleave: see the head of this file."""

    _most_seconds = LEAST_SECONDS

    def __init__(self, concurrency: int, remaining: int | None, workers: int) -> None:
        super().__init__(1)
        self.least_ahead = 2 * concurrency
        self._at_once = concurrency
        self.size = max(1, concurrency // _FIRST_BATCHES)
        if remaining is not None:
            self.size = max(1, min(self.size, remaining // (2 * workers)))

    def budget(self, calls: int) -> float:
        return math.inf

    def learn(self, timing: BatchTiming) -> None:
        at_once = timing._replace(busy_seconds=timing.busy_seconds / self._at_once)
        super().learn(at_once)


def make_sizer(
    batch_size: BatchSize,
    concurrency: int,
    remaining: int | None,
    workers: int,
    round_trip: float = 0.0,
    *,
    interleaves: bool = False,
) -> BatchSizer:
    """The sizer for `batch_size`, "auto" or a number of calls."""
    if batch_size == "auto" and interleaves:
        return InterleavingSizer(concurrency, remaining, workers)
    if batch_size == "auto":
        return AdaptiveSizer(concurrency, remaining, workers, round_trip)
    return FixedSizer(batch_size, concurrency)
