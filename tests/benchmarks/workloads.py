"""The functions that are mapped. Importable by name and free of dependencies, because every peer's workers import them."""

from __future__ import annotations

import time
from collections.abc import Iterable


def increment(x: int) -> int:
    """The least that a call can do."""
    return x + 1


def increment_all(xs: Iterable[int]) -> list[int]:
    """The same for a chunk of items, where a peer sends calls one by one and its user has to make the chunks."""
    return [x + 1 for x in xs]


def spin(milliseconds: float) -> float:
    """Computes for so long by the wall clock; returns how many seconds it really took.

    On a busy machine that is longer than asked for: the process may be set aside when its time is up.
    """
    began = time.perf_counter()
    until = began + milliseconds / 1000
    while (now := time.perf_counter()) < until:
        pass
    return now - began


def count(steps: int) -> int:
    """Computes, for as long as so many steps take."""
    total = 0
    for step in range(steps):
        total += step
    return total


def spin_forever(_: object) -> None:
    """Does not end by itself."""
    while True:
        pass
