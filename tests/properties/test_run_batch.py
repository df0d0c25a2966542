"""The inner loop is a list comprehension, whatever its calls raise, however long they take and whenever it is told to stop."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpar._child import run_batch as module
from asyncpar._child.control import POSITION, SPAN, STOP, make_nameless_file, map_page, private_page, unmap_page
from asyncpar._child.run_batch import MOST_ERRORS, BatchReport, run_batch

FOR_EVER = float("inf")
RAISED: list[type[BaseException]] = [
    ValueError,
    MemoryError,
    StopIteration,
    StopAsyncIteration,
    GeneratorExit,
    KeyboardInterrupt,
    SystemExit,
]


class Call(NamedTuple):
    """What one call does: it takes `seconds`, and returns, or raises if `raises` is a class."""

    seconds: float = 0.0
    raises: type[BaseException] | None = None


durations = st.one_of(st.just(0.0), st.floats(1e-9, 1e-4), st.floats(1e-4, 10.0))
calls = st.builds(Call, durations, st.one_of(st.none(), st.none(), st.sampled_from(RAISED)))


@st.composite
def batches(draw: st.DrawFn) -> list[Call]:
    """Up to some thousand calls: stretches that repeat a pattern, so that strides grow, and are cut short anywhere."""
    stretches = draw(st.lists(st.tuples(st.lists(calls, min_size=1, max_size=5), st.integers(1, 400)), max_size=5))
    return [call for pattern, times in stretches for call in pattern * times]


class Script:
    """Carries out one call after another, on a clock of its own, and notes which were made."""

    def __init__(self, script: Sequence[Call]) -> None:
        self.script = script
        self.now = 0.0
        self.made: list[int] = []
        self.shifted = False
        self.began_at: list[float] = []
        self.before_each: Callable[[int], object] = lambda index: None

    @property
    def length(self) -> int:
        """How many calls are made if nothing but errors ends the batch."""
        failing = [index for index, call in enumerate(self.script) if call.raises]
        return failing[MOST_ERRORS - 1] + 1 if len(failing) >= MOST_ERRORS else len(self.script)

    def monotonic(self) -> float:
        return self.now

    def __call__(self, index: int, *others: int) -> int:
        self.shifted |= any(other != index for other in others)
        self.made.append(int(index))
        self.began_at.append(self.now)
        self.before_each(index)
        seconds, raises = self.script[index]
        self.now += seconds
        if raises is not None:
            raise raises(index)
        return 2 * index

    def run(
        self, columns: Sequence[Any] | None = None, control: Any = None, budget: float = FOR_EVER, **how: Any
    ) -> BatchReport:
        columns = (range(len(self.script)),) if columns is None else columns
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "time", SimpleNamespace(monotonic=self.monotonic))
            return run_batch(self, columns, private_page() if control is None else control, budget, **how)

    def check(self, report: BatchReport) -> None:
        """What was run is a prefix of the script, each call once and in order, and the report says what became of it."""
        count = len(report.values)
        assert not self.shifted, "a call had arguments of another row"
        assert self.made == list(range(count))
        assert sum(calls for calls, _ in report.timings) == count
        for index, (call, value) in enumerate(zip(self.script, report.values, strict=False)):
            if call.raises is None:
                assert value == 2 * index
            else:
                assert value is None
                assert type(report.errors[index]) is call.raises
                assert report.errors[index].args == (index,)
        assert sorted(report.errors) == [index for index in range(count) if self.script[index].raises]


COLUMNS: dict[str, Callable[[int], Any]] = {
    "list": lambda n: list(range(n)),
    "tuple": lambda n: tuple(range(n)),
    "range": range,
}
COLUMNS["array"] = np.arange


@given(batches(), st.lists(st.sampled_from(list(COLUMNS)), min_size=1, max_size=3), st.booleans(), st.booleans())
def test_every_call_is_made_once_and_in_order_whatever_calls_raise(
    script: list[Call], kinds: list[str], singly: bool, near_end: bool
) -> None:
    run = Script(script)
    report = run.run([COLUMNS[kind](len(script)) for kind in kinds], singly=singly, near_end=near_end)
    run.check(report)
    assert len(report.values) == run.length


@given(batches(), st.booleans())
def test_an_error_is_the_last_outcome_where_it_is_to_stop_the_batch(script: list[Call], singly: bool) -> None:
    run = Script(script)
    report = run.run(stop_on_error=True, singly=singly)
    run.check(report)
    failing = [index for index, call in enumerate(script) if call.raises]
    assert len(report.values) == (failing[0] + 1 if failing else len(script))


@given(batches())
def test_exceptions_that_are_not_to_be_caught_pass_through(script: list[Call]) -> None:
    run = Script(script)
    failing = ((index, call.raises) for index, call in enumerate(script[: run.length]) if call.raises)
    passing = (index for index, kind in failing if not issubclass(kind, Exception))
    first = next(passing, None)
    if first is None:
        run.check(run.run(catch=Exception))
        return
    kind = script[first].raises
    assert kind is not None
    with pytest.raises(kind):
        run.run(catch=Exception)
    assert run.made == list(range(first + 1))


@given(batches(), st.floats(1e-6, 1.0))
def test_a_budget_is_overdrawn_by_half_a_stride_at_the_most(script: list[Call], budget: float) -> None:
    run = Script(script)
    report = run.run(budget=budget)
    run.check(report)
    late = sum(began >= budget for began in run.began_at)
    assert late < module._MOST_CALLS // 2
    if len(report.values) < run.length:
        assert run.now >= budget
    if script:
        assert report.values  # at least one call is made


@given(st.floats(1e-8, 1e-6), st.integers(0, 2000), st.floats(0.001, 1.0), st.booleans())
def test_long_calls_after_short_ones_are_left_to_others(short: float, count: int, long: float, near_end: bool) -> None:
    run = Script([Call(short)] * count + [Call(long)] * 300)
    run.run(budget=short * count + long / 2, near_end=near_end)
    assert count < len(run.made) <= count + (module._MOST_NEAR_END if near_end else module._MOST_CALLS // 2)


@given(batches(), st.integers(0, 500), st.booleans())
def test_a_stop_ends_the_batch_with_the_stride(script: list[Call], at: int, singly: bool) -> None:
    run, control = Script(script), private_page()
    spans: list[float] = []

    def stop(index: int) -> None:
        spans.append(control[POSITION] + control[SPAN])
        if index == at:
            control[STOP] = 1

    run.before_each = stop
    report = run.run(control=control, singly=singly)
    run.check(report)
    if at < run.length:
        assert at < len(report.values) <= spans[at]
        assert not singly or len(report.values) == at + 1


@given(batches(), st.integers(0, 500), st.integers(1, 3))
def test_no_call_is_made_once_the_first_column_has_been_emptied(script: list[Call], at: int, width: int) -> None:
    run, control = Script(script), private_page()
    columns = [list(range(len(script))) for _ in range(width)]

    def abandon(index: int) -> None:
        if index == at:
            control[STOP] = 1
            columns[0].clear()

    run.before_each = abandon
    report = run.run(columns, control)
    run.check(report)
    assert len(report.values) == min(at + 1, run.length)


@given(batches(), st.integers(1, 500))
def test_a_worker_that_has_to_leave_makes_no_further_call(script: list[Call], most: int) -> None:
    run = Script(script)
    report = run.run(singly=True, leave=lambda calls: calls >= most)
    run.check(report)
    assert len(report.values) == min(most, run.length)


@given(batches(), st.booleans())
def test_the_page_says_at_every_moment_which_calls_may_be_under_way(script: list[Call], singly: bool) -> None:
    descriptor = make_nameless_file(4096)
    page = map_page(descriptor)
    os.close(descriptor)
    run = Script(script)
    wrong: list[int] = []  # an assertion here would be taken for the error of a call

    def look(index: int) -> None:
        if not page[POSITION] <= index < page[POSITION] + page[SPAN] <= page[POSITION] + module._MOST_CALLS:
            wrong.append(index)
        if singly and page[SPAN] != 1:
            wrong.append(index)

    run.before_each = look
    try:
        run.check(run.run(control=page, singly=singly))
    finally:
        unmap_page(page)
    assert not wrong


def test_strides_of_short_calls_grow_and_those_of_long_ones_are_one_call() -> None:
    run = Script([Call(1e-7)] * 1000 + [Call(1e-3)] * 100)
    timings = run.run().timings
    assert max(calls for calls, _ in timings) == 64  # of 0.1 µs: between 5 and 20 µs
    assert list(itertools.islice((calls for calls, _ in reversed(timings)), 50)) == [1] * 50
