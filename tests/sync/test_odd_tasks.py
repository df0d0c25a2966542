"""Iterables of tasks that misbehave, and arguments that cannot be compared, hashed or tested."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from asyncpar import CallTimeoutError, Parallel, delayed
from tests.contract.test_odd_objects import Unprintable
from tests.contract.test_odd_sources import ForgetsItsEnd, HasNoLength, HasOtherItems, LongerThanItSays, Touchy, another, pair
from tests.functions import double

TASKS = [delayed(double)(x) for x in range(50)]


class MoreThanItHolds(list[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(TASKS)


@pytest.mark.parametrize("kind", [LongerThanItSays, HasNoLength, HasOtherItems, MoreThanItHolds, tuple, iter])
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_tasks_are_those_that_iterating_gives(kind: Any, n_jobs: int) -> None:
    source = kind(TASKS[:3]) if kind is MoreThanItHolds else kind(TASKS)
    assert Parallel(n_jobs, "threading")(source) == [2 * x for x in range(50)]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_what_an_iterator_has_after_its_end_is_left_there(n_jobs: int) -> None:
    source = ForgetsItsEnd()
    assert Parallel(n_jobs, "threading")(map(delayed(double), source)) == [2 * x for x in range(50)]
    assert next(source) == 51


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_arguments_are_neither_compared_nor_hashed_nor_tested(backend: str) -> None:
    items = [Touchy(number) for number in range(12)]
    alike = [delayed(another)(item) for item in items]
    mixed = [task for item in items for task in (delayed(another)(item), delayed(another)(item=item), delayed(pair)(1, 2))]
    assert [result.number for result in Parallel(2, backend)(alike)] == list(range(12))
    assert [result.number for result in Parallel(2, backend)(mixed) if type(result) is Touchy] == sorted([*range(12)] * 2)


class Overtime(CallTimeoutError):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def raise_overtime(_: object) -> None:
    raise Overtime("too late")


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_a_timeout_error_of_the_users_own_stays_what_it_is(backend: str) -> None:
    with pytest.raises(Overtime) as caught:
        Parallel(2, backend)(delayed(raise_overtime)(x) for x in range(3))
    assert caught.value.args == ("too late",)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_what_is_no_task_is_refused_even_if_it_cannot_be_printed(n_jobs: int) -> None:
    with pytest.raises(TypeError, match="not <Unprintable whose repr raised SystemExit>"):
        Parallel(n_jobs, "threading")([Unprintable()])  # type: ignore[arg-type]  # that is the point
    with pytest.raises(TypeError, match="not <Unprintable whose repr raised SystemExit>"):
        Parallel(n_jobs, "threading")(Unprintable())  # type: ignore[arg-type]  # as above
