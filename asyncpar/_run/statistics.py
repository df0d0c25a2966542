"""What a run can report about itself while it goes on."""

from __future__ import annotations

from dataclasses import dataclass

from asyncpar._run.feedback import FeedbackState


@dataclass(frozen=True, slots=True)
class Statistics:
    """A snapshot of a run; `ParallelMap.statistics()` makes one at any time.

    Attributes:
        pulled: items taken from the source.
        finished: calls that have an outcome, failed ones included.
        failed: calls that raised, took too long or lost their worker, in the end.
        retried: how often calls were run again because they had failed.
        abandoned: calls in threads that took too long, or whose run was stopped. They cannot be stopped themselves: their
            threads go on with them, and are not lent again before they have ended.
        handed: items whose outcome has been handed to the consumer (or dropped, under `on_error="skip"`).
        window: how many items may be pulled and not yet handed, now.
        batches: batches finished.
        batch_size: calls that the next batch will have.
        workers: how many workers the run may hold at once.
        busy_seconds: time that workers spent in calls, summed up.
        elapsed_seconds: time since the run began.
        seconds_per_call: what the control law expects a call to take, divided by how many are under way where coroutine
            calls interleave; None before the second batch.
        overhead_seconds: what it expects a batch to cost beside its calls, sending and waking included; None until then, too.
        inline_bytes: what was sent to workers and back, pickles and buffers, without what went through shared memory.
        shared_bytes: what went through shared memory, each use of a shared object counted.
        zero_copy_hits: how often a large object was to be sent with a batch and was in shared memory already.
        cache_hits: calls that no worker made, because their results were in the cache. They are finished, too.
        history: how the estimates developed, a few hundred states at most, for plots; each has `batches`, `batch_size`,
            `seconds_per_call` and `overhead_seconds`.
    """

    pulled: int
    finished: int
    failed: int
    handed: int
    window: int
    batches: int
    batch_size: int
    workers: int
    busy_seconds: float
    elapsed_seconds: float
    seconds_per_call: float | None = None
    overhead_seconds: float | None = None
    history: tuple[FeedbackState, ...] = ()
    retried: int = 0
    abandoned: int = 0
    inline_bytes: int = 0
    shared_bytes: int = 0
    zero_copy_hits: int = 0
    cache_hits: int = 0

    @property
    def utilisation(self) -> float:
        """Share of the workers' time that was spent in calls, from 0 to 1 (above 1 where calls overlap in one worker)."""
        available = self.elapsed_seconds * self.workers
        return self.busy_seconds / available if available else 0.0

    @property
    def overhead_share(self) -> float:
        """Share of a batch's round trip that is not spent in calls, as expected of the next one, from 0 to 1."""
        if self.overhead_seconds is None or self.seconds_per_call is None:
            return 0.0
        return self.overhead_seconds / (self.overhead_seconds + self.batch_size * self.seconds_per_call)
