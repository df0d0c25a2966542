"""The index of the next worker, found from those that live."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpar._contract.executor import Fate
from asyncpar._contract.indices import free_index


@dataclass
class Worker:
    index: int
    fate: Fate


AT_WORK = (Fate.FREE, Fate.DETAINED)


@pytest.mark.parametrize(
    ("living", "index"),
    [
        ([], 0),
        ([(0, Fate.FREE)], 1),
        ([(1, Fate.FREE)], 0),
        ([(0, Fate.DETAINED)], 1),
        ([(0, Fate.GONE)], 1),  # it is ending, and another index is free
        ([(0, Fate.DETAINED), (1, Fate.GONE)], 1),
        ([(0, Fate.LEFT), (1, Fate.FREE)], 0),
        ([(0, Fate.GONE), (1, Fate.LEFT)], 0),
        ([(0, Fate.GONE), (0, Fate.GONE), (1, Fate.FREE)], 0),
    ],
)
def test_it_is_the_lowest_that_no_worker_has_or_else_that_of_one_that_is_ending(
    living: list[tuple[int, Fate]], index: int
) -> None:
    assert free_index([Worker(*worker) for worker in living], 2) == index


def test_more_workers_than_there_may_be_now_still_have_different_ones() -> None:
    assert free_index([Worker(0, Fate.FREE), Worker(1, Fate.FREE)], 1) == 2


def test_there_may_be_any_number_of_workers() -> None:
    assert free_index([Worker(0, Fate.FREE), Worker(1, Fate.GONE)], 1 << 60) == 2


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 7), st.sampled_from(Fate))), st.integers(1, 5))
def test_workers_that_make_calls_never_share_one_and_all_are_in_range(events: list[tuple[bool, int, Fate]], size: int) -> None:
    living: list[Worker] = []
    for is_birth, which, fate in events:
        if is_birth and sum(worker.fate in AT_WORK for worker in living) < size:
            index = free_index(living, size)
            assert 0 <= index < size
            living.append(Worker(index, Fate.FREE))
        elif living:
            worker = living.pop(which % len(living))
            if worker.fate in AT_WORK and fate not in AT_WORK:
                living.append(Worker(worker.index, fate))
        at_work = [worker.index for worker in living if worker.fate in AT_WORK]
        assert len(at_work) == len(set(at_work))
