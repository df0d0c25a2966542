"""The indices of an executor's workers, from 0 to the number of workers less one.

An index is not handed out and taken back, which would be an account that could go wrong. It is found, whenever a worker is
started, by looking at those that live. So a worker that has ended is followed by one with its index.

A worker may live on when its place is given to another one: it is left to a call that does not end, or it has old code and is
on its way out. Then its successor has another index, if one is free, and otherwise the same. Two workers that make calls for an
executor never have the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from asyncpar._contract.executor import FREE, Fate


class Indexed(Protocol):
    """A worker that lives."""

    @property
    def index(self) -> int: ...
    @property
    def fate(self) -> Fate: ...


def free_index(living: Iterable[Indexed], size: int) -> int:
    """The index of the next of up to `size` workers."""
    at_work, ending = set[int](), set[int]()
    for worker in living:
        (at_work if worker.fate in (FREE, Fate.DETAINED) else ending).add(worker.index)
    most = max(size, len(at_work) + 1)  # the size may have been made less than there are workers
    most = min(most, len(at_work) + len(ending) + 1)  # it may be any number; among these, one is free if any is
    return min((index for index in range(most) if index not in at_work), key=ending.__contains__)
