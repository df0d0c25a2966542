"""What is decided about coroutine calls that interleave, without a loop: whom to blame, how large a batch is, what is next."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from asyncpar._child.event_loop import _Batch, _Queue
from asyncpar._contract.batches import Batch
from asyncpar._processes.verdicts import judge_interleaved
from asyncpar._run.batching import LEAST_SECONDS, MOST_CALLS, BatchTiming, InterleavingSizer, make_sizer

# Whom to blame


class Death(NamedTuple):
    batch: Batch
    open_positions: list[int]
    running: list[int]
    elsewhere: int  # calls of other batches that were running


@st.composite
def deaths(draw: st.DrawFn) -> Death:
    length = draw(st.integers(1, 8))
    batch = Batch(range(10, 10 + length), ([f"item {index}" for index in range(length)],))
    positions = st.sets(st.integers(0, length - 1))
    open_positions = draw(positions)
    return Death(batch, sorted(open_positions), sorted(open_positions & draw(positions)), draw(st.integers(0, 2)))


@given(deaths(), st.booleans(), st.booleans())
def test_every_open_call_is_blamed_or_run_again_exactly_once(death: Death, none_is_to_blame: bool, may_blame: bool) -> None:
    batch, open_positions, running, elsewhere = death
    suspects = None if none_is_to_blame else len(running) + elsewhere
    culprit, again = judge_interleaved(batch, open_positions, running, suspects, may_blame=may_blame)
    blamed = [] if culprit is None else [batch.indices[culprit]]
    indices = [index for part in again for index in part.indices]
    assert sorted(blamed + indices) == [batch.indices[position] for position in open_positions]
    assert all(part.columns[0][place] == f"item {index - 10}" for part in again for place, index in enumerate(part.indices))
    assert all(part.attempts == batch.attempts + 1 for part in again)


@given(deaths(), st.booleans(), st.booleans())
def test_a_call_is_blamed_only_if_no_other_can_have_done_it(death: Death, none_is_to_blame: bool, may_blame: bool) -> None:
    batch, open_positions, running, elsewhere = death
    suspects = None if none_is_to_blame else len(running) + elsewhere
    culprit, again = judge_interleaved(batch, open_positions, running, suspects, may_blame=may_blame)
    assert (culprit is not None) == (may_blame and not none_is_to_blame and len(running) == 1 and not elsewhere)
    alone = [index for part in again if part.alone for index in part.indices]
    suspected = [batch.indices[position] for position in running]
    assert alone == ([] if none_is_to_blame or culprit is not None else suspected)
    assert all(len(part) == 1 for part in again if part.alone)


@given(deaths())
def test_a_death_while_nothing_was_running_counts_for_every_batch(death: Death) -> None:
    _, again = judge_interleaved(death.batch, death.open_positions, [], 0)
    assert [part.deaths for part in again] == [death.batch.deaths + 1]


def test_what_is_suspect_stays_alone() -> None:
    batch = Batch(range(4), (list("abcd"),)).some([1, 2], alone=True)
    assert batch.alone
    assert batch.part(0, 1).alone
    assert all(part.alone for part in batch.failed([1]))


# How large a batch is


@given(st.integers(1, 1000), st.none() | st.integers(0, 10_000), st.integers(1, 64))
def test_a_few_batches_fill_a_worker_at_first(concurrency: int, remaining: int | None, workers: int) -> None:
    sizer = make_sizer("auto", concurrency, remaining, workers, interleaves=True)
    assert isinstance(sizer, InterleavingSizer)
    assert 1 <= sizer.size <= max(1, concurrency // 8)
    assert sizer.least_ahead == 2 * concurrency
    if remaining is not None:
        assert sizer.size == 1 or sizer.size * 2 * workers <= remaining
    assert sizer.budget(sizer.size) == math.inf


@given(st.integers(1, 200), st.floats(1e-6, 1.0))
def test_a_batch_has_as_many_calls_as_a_worker_makes_in_a_millisecond(concurrency: int, call: float) -> None:
    sizer = InterleavingSizer(concurrency, None, 2)
    for _ in range(60):
        busy = sizer.size * call
        sizer.observe(BatchTiming(sizer.size, busy, busy + 1e-3, None, 2))
    made = LEAST_SECONDS / (call / concurrency)
    assert min(max(1, int(0.99 * made)), MOST_CALLS) <= sizer.size <= min(max(1, int(1.01 * made)), MOST_CALLS)


# What a worker does next


class Steps:
    """A worker's bookkeeping of two programs' batches, as its event loop does it, with no calls."""

    def __init__(self, lengths: list[int], concurrency: int) -> None:
        self.queue = _Queue()
        self.concurrency = concurrency
        self.batches = [_Batch(ticket, as_request(length)) for ticket, length in enumerate(lengths)]
        self.told: list[dict[int, object]] = [{} for _ in lengths]  # {position: value}, of each batch
        self.running: list[tuple[_Batch, int]] = []
        for batch in self.batches:
            self.queue.waiting.extend([(batch, position, ()) for position in range(batch.calls)])

    def start(self) -> None:
        while self.queue.waiting and self.queue.running < self.concurrency:
            batch, position, _ = self.queue.take()
            self.running.append((batch, position))

    def end(self, which: int) -> None:
        if self.running:
            batch, position = self.running.pop(which % len(self.running))
            self.queue.running -= 1
            batch.end(position, (batch.ticket, position), ValueError() if which % 3 == 0 else None, 1.0)

    def tell(self, which: int, *, is_last: bool = False) -> tuple[list[int], list[int]] | None:
        batch = self.batches[which % len(self.batches)]
        report, positions = batch.take(is_last=is_last)
        ended = range(batch.calls) if positions is None else positions[0]
        assert len(report.values) == len(report.timings) == len(ended)
        for place, (position, value) in enumerate(zip(ended, report.values, strict=True)):
            assert position not in self.told[batch.ticket]
            assert value == (batch.ticket, position)
            assert place not in report.errors or isinstance(report.errors[place], ValueError)
            self.told[batch.ticket][position] = value
        assert (batch.errors, batch.outcomes) == (0, {})
        return positions

    def drop(self, which: int) -> None:
        batch = self.batches[which % len(self.batches)]
        waiting = batch.waiting
        assert self.queue.drop(batch) == ({batch} if waiting else set())
        assert batch.waiting == 0


def as_request(length: int) -> Any:
    class Request:
        columns = [range(length)]  # noqa: RUF012 - of the only instance

    return Request()


steps = st.lists(st.tuples(st.sampled_from(["end", "end", "tell", "drop"]), st.integers(0, 20)), max_size=40)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(1, 5), steps)
def test_every_call_is_told_of_exactly_once_and_those_not_begun_are_named(
    lengths: list[int], concurrency: int, script: list[tuple[str, int]]
) -> None:
    worker = Steps(lengths, concurrency)
    worker.start()
    for name, which in script:
        getattr(worker, name)(which)
        worker.start()
        assert worker.queue.running == len(worker.running) <= concurrency
        assert all(batch.running == sum(other is batch for other, _ in worker.running) for batch in worker.batches)
    while worker.running:
        worker.end(0)
        worker.start()
    for batch in worker.batches:
        positions = worker.tell(batch.ticket, is_last=True)
        unstarted = [] if positions is None else positions[1]
        assert sorted([*worker.told[batch.ticket], *unstarted]) == list(range(batch.calls))
        assert not batch.running
        assert not batch.waiting


@given(st.integers(1, 6), st.integers(1, 6))
def test_the_outcomes_of_a_cancelled_batch_are_not_told(length: int, ended: int) -> None:
    worker = Steps([length], 10)
    worker.start()
    for _ in range(min(ended, length - 1)):
        worker.end(1)
    worker.batches[0].is_cancelled = True
    assert worker.tell(0, is_last=True) == ([], [])
