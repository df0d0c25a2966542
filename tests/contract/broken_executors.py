"""Executors that break the contract, each in one way. `test_broken_executors.py` lets the kit judge them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from asyncpar import InlineExecutor
from asyncpar._contract.batches import BatchDone
from asyncpar._contract.executor import Place, Session, Traits
from asyncpar._contract.lending import PooledExecutor
from asyncpar.executors.inline import InlinePlace
from asyncpar.testing import ExecutorContract


class ChangedPlace(Place):
    """Runs a batch inline, and changes what became of it."""

    def __init__(self, change: Callable[[BatchDone], BatchDone]) -> None:
        self._change = change
        self._place = InlinePlace()

    async def run(self, parcel: Any) -> BatchDone:
        return self._change(await self._place.run(parcel))


class ChangingExecutor(PooledExecutor[Place]):
    traits = Traits(stops="between_calls", prepares=False)

    def __init__(self) -> None:
        super().__init__(1)

    async def start_place(self) -> Place:
        return ChangedPlace(self.change)

    def change(self, done: BatchDone) -> BatchDone:
        return done


class DropsAResult(ChangingExecutor):
    def change(self, done: BatchDone) -> BatchDone:
        return done._replace(values=done.values[:-1], timings=[(len(done.values) - 1, 0.0)])


class ShiftsResults(ChangingExecutor):
    def change(self, done: BatchDone) -> BatchDone:
        return done._replace(values=done.values[1:] + done.values[:1])


class SwallowsErrors(ChangingExecutor):
    def change(self, done: BatchDone) -> BatchDone:
        return done._replace(errors={})


class ChangesErrors(ChangingExecutor):
    def change(self, done: BatchDone) -> BatchDone:
        return done._replace(errors={position: RuntimeError(str(error)) for position, error in done.errors.items()})


class ShiftsErrors(ChangingExecutor):
    def change(self, done: BatchDone) -> BatchDone:
        errors = [done.errors[position] for position in sorted(done.errors)]
        return done._replace(errors=dict(zip(sorted(done.errors), errors[::-1], strict=True)))


class LosesTheRest(ChangingExecutor):
    def change(self, done: BatchDone) -> BatchDone:
        return done._replace(rest=())


class GivesBackTooMuch(ChangingExecutor):
    def change(self, done: BatchDone) -> BatchDone:
        return done._replace(rest=done.batch.rest(max(0, len(done.values) - 1)))


class IgnoresBudgets(ChangingExecutor):
    async def start_place(self) -> Place:
        class Patient(InlinePlace):
            async def run(self, parcel: Any) -> BatchDone:
                parcel.budget = 1e9
                return await super().run(parcel)

        return Patient()


class MakesCallsTwice(ChangingExecutor):
    async def start_place(self) -> Place:
        class Eager(InlinePlace):
            async def run(self, parcel: Any) -> BatchDone:
                await super().run(parcel)
                return await super().run(parcel)

        return Eager()


class NeverGivesAPlaceBack(ChangingExecutor):
    def open(self, *arguments: Any) -> Session:
        session = super().open(*arguments)
        session.release = lambda place: None  # type: ignore[method-assign]
        return session


class ServesOnWhenClosed(ChangingExecutor):
    async def aclose(self) -> None:
        pass


class LeavesDescriptors(ChangingExecutor):
    left: list[Any] = []  # noqa: RUF012 - for good, that is its fault

    async def aclose(self) -> None:
        import socket

        self.left.append(socket.socket())
        await super().aclose()


class HasNoWords(ChangingExecutor):
    def change(self, done: BatchDone) -> BatchDone:
        return done._replace(worker="")


class OnAsyncio(ExecutorContract):
    """Quick to judge: on one event loop, and without much patience."""

    holds_event_loop = True
    patience = 3.0

    @pytest.fixture
    def anyio_backend(self) -> tuple[str, dict[str, Any]]:
        return "asyncio", {}


class TestSound(OnAsyncio):
    def make_executor(self) -> InlineExecutor:
        return InlineExecutor()


BROKEN: dict[type[ChangingExecutor], tuple[str, str]] = {  # {executor: a test that finds out, and what it says}
    DropsAResult: ("test_many_short_calls_all_have_their_results", "it gave back 0 outcomes"),
    ShiftsResults: ("test_results_are_those_of_a_comprehension[list]", "results are shifted"),
    SwallowsErrors: ("test_each_error_stands_in_the_place_of_its_item[5]", "not ('Refused', "),
    ChangesErrors: ("test_each_error_stands_in_the_place_of_its_item[50]", "is ('RuntimeError', "),
    ShiftsErrors: ("test_each_error_stands_in_the_place_of_its_item[100]", "results are shifted"),
    LosesTheRest: ("test_a_batch_past_its_budget_gives_the_rest_back", "calls in BatchDone.rest"),
    GivesBackTooMuch: ("test_a_batch_past_its_budget_gives_the_rest_back", "calls in BatchDone.rest"),
    IgnoresBudgets: ("test_a_batch_past_its_budget_gives_the_rest_back", "though its time budget was over"),
    MakesCallsTwice: ("test_each_call_is_made_exactly_once", "calls that were made more than once"),
    NeverGivesAPlaceBack: ("test_an_executor_serves_run_after_run", "a place that was not given back"),
    ServesOnWhenClosed: ("test_an_executor_may_be_closed_twice_and_serves_nobody_then", "executor.closed is False"),
    LeavesDescriptors: ("test_nothing_is_left_behind", "has left behind: {'descriptors'"),
    HasNoWords: ("test_outcomes_have_index_value_error_and_attempts", "does not say which worker"),
}
for _kind in BROKEN:
    _name = f"Test{_kind.__name__}"
    globals()[_name] = type(_name, (OnAsyncio,), {"make_executor": lambda _, kind=_kind: kind()})
