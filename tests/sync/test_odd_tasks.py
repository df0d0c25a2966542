"""Iterables of tasks that misbehave, and arguments that cannot be compared, hashed or tested."""

from __future__ import annotations

import copy
import pickle
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest

from asyncpar import Parallel, PicklingError, delayed
from tests.calls.adders import Adder, Overtime, adder, raise_overtime
from tests.calls.arrays import write_one
from tests.calls.odd_items import Touchy, another, pair
from tests.contract.test_odd_objects import Unprintable
from tests.contract.test_odd_sources import ForgetsItsEnd, HasNoLength, HasOtherItems, LongerThanItSays
from tests.functions import double, process_id

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


@pytest.mark.parametrize("backend", ["loky", "threading"])
@pytest.mark.parametrize("in_a_row", [1, 8])
@pytest.mark.parametrize("batch_size", ["auto", 1])
def test_each_task_is_of_its_own_function_however_many_there_are(backend: str, in_a_row: int, batch_size: Any) -> None:
    """None of them is kept by the caller, so that their ids are used again."""
    numbers = [number for number in range(150) for _ in range(in_a_row)]
    plain = (delayed(function)(1) for number in range(150) for function in [adder(number)] for _ in range(in_a_row))
    named = (delayed(Adder(number).add)(x=1) for number in numbers)
    for tasks in (plain, named):
        results = Parallel(2, backend, batch_size=batch_size, return_as="generator")(tasks)
        assert list(results) == [1 + number for number in numbers]


def refuse(kind: type[BaseException]) -> Any:
    raise kind


@pytest.mark.parametrize("return_as", ["list", "generator"])
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_whatever_the_iterable_raises_at_first_is_raised(return_as: Any, kind: type[BaseException]) -> None:
    def breaks() -> Iterator[Any]:
        yield from map(refuse, [kind])

    with pytest.raises(kind):
        Parallel(2, "threading", return_as=return_as)(breaks())
    assert Parallel(2, "threading")(TASKS) == [2 * x for x in range(50)]


@pytest.mark.parametrize("keywords", [{}, {"x": 1}])
def test_a_function_that_cannot_be_sent_is_named_whatever_it_is_called_with(keywords: Any) -> None:
    lock = threading.Lock()
    with pytest.raises(PicklingError, match=r"the function <function .*<lambda>"):
        Parallel(2, "loky")([delayed(lambda **_: lock)(**keywords)])


def test_a_generator_does_not_notice_that_idle_workers_were_killed() -> None:
    for pid in set(Parallel(2, "loky", batch_size=1)(delayed(process_id)(x) for x in range(20))):
        worker = psutil.Process(pid)
        worker.kill()
        while worker.is_running():
            time.sleep(0.001)
    results = Parallel(2, "loky", return_as="generator")(TASKS)
    assert list(results) == [2 * x for x in range(50)]


def test_a_with_block_may_be_entered_twice() -> None:
    with Parallel(2, "threading", return_as="generator") as parallel:
        assert parallel.return_generator
        with parallel:
            assert list(parallel(TASKS)) == [2 * x for x in range(50)]
        assert list(parallel(TASKS)) == [2 * x for x in range(50)]
    assert not Parallel(2).return_generator


@pytest.mark.parametrize("clone", [copy.copy, lambda task: pickle.loads(pickle.dumps(task))])
def test_a_delayed_function_may_be_copied(clone: Any) -> None:
    assert clone(delayed(double))(3) == (double, (3,), {})


@pytest.mark.parametrize("mmap_mode", ["w+", "r+", "c"])
def test_a_task_may_write_to_an_array_under_joblibs_modes(mmap_mode: str) -> None:
    array = np.zeros(300_000)
    results = Parallel(2, "loky", mmap_mode=mmap_mode)(delayed(write_one)(array) for _ in range(2))
    assert results == [1.0, 1.0]
    assert array[0] == 0.0
