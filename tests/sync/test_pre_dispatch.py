"""How far `Parallel` pulls ahead if its user says how far: tasks are counted, or batches where tasks are short."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncpar import Parallel, ProcessExecutor, Statistics, delayed
from tests.functions import double
from tests.sync.functions import note, take_milliseconds


class Tasks:
    """Tasks of one function, endless, which know how many of them have been pulled."""

    def __init__(self, function: Any, seconds: float = 0.0) -> None:
        self.pulled = 0
        self._function = function
        self._seconds = seconds

    def __iter__(self) -> Iterator[Any]:
        for x in itertools.count():
            time.sleep(self._seconds)
            self.pulled += 1
            yield delayed(self._function)(x)


@pytest.mark.parametrize("return_as", ["generator", "generator_unordered"])
@pytest.mark.parametrize("pre_dispatch", [2, 6])
def test_long_tasks_are_counted_one_by_one(return_as: Any, pre_dispatch: int) -> None:
    tasks = Tasks(take_milliseconds)
    results: Any = Parallel(n_jobs=2, return_as=return_as, pre_dispatch=pre_dispatch)(tasks)
    for handed, _ in enumerate(itertools.islice(results, 40), 1):
        assert tasks.pulled <= handed + pre_dispatch
    results.close()


def test_tasks_that_come_slowly_are_counted_one_by_one() -> None:
    tasks = Tasks(double, seconds=3e-3)
    results = Parallel(n_jobs=2, return_as="generator", pre_dispatch=6)(tasks)
    for handed, result in enumerate(itertools.islice(results, 40)):
        assert result == 2 * handed
        assert tasks.pulled <= handed + 1 + 6
    results.close()


def test_short_tasks_are_counted_in_batches() -> None:
    told: list[Statistics] = []
    parallel = Parallel(n_jobs=2, pre_dispatch=8, progress=told.append)
    assert parallel(delayed(double)(x) for x in range(20_000)) == [2 * x for x in range(20_000)]
    assert told[-1].finished == 20_000
    assert told[-1].batches < 2000
    assert all(statistics.window % 8 == 0 for statistics in told)


def test_an_executor_of_the_users_gets_batches_too() -> None:
    told: list[Statistics] = []
    parallel = Parallel(n_jobs=2, backend=ProcessExecutor(2), pre_dispatch=8, progress=told.append)
    assert parallel(delayed(double)(x) for x in range(20_000)) == [2 * x for x in range(20_000)]
    assert told[-1].batches < 2000


def test_one_task_at_a_time_is_done_before_the_next_is_pulled(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "done"
    path.touch()

    def tasks() -> Iterator[Any]:
        for x in range(100):
            assert len(path.read_text().splitlines()) == x
            yield delayed(note)(path, x)

    assert Parallel(n_jobs=2, backend=backend, pre_dispatch=1)(tasks()) == list(range(100))


def test_an_iterable_may_wait_for_tasks_in_threads() -> None:
    done: list[int] = []

    def tasks() -> Iterator[Any]:
        for x in range(300):
            assert x - len(done) < 3  # this one is at most the third
            yield delayed(done.append)(x)

    Parallel(n_jobs=2, backend="threading", pre_dispatch=3)(tasks())
    assert sorted(done) == list(range(300))


@pytest.mark.parametrize("pre_dispatch", [4, "all"])
def test_an_error_among_short_tasks_is_raised(pre_dispatch: Any) -> None:
    tasks = [*(delayed(double)(x) for x in range(3000)), delayed(divmod)(1, 0), *(delayed(double)(x) for x in range(3000))]
    with pytest.raises(ZeroDivisionError):
        Parallel(n_jobs=2, pre_dispatch=pre_dispatch)(tasks)
