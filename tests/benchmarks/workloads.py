"""The functions that are mapped. Importable by name and free of dependencies, because every peer's workers import them."""

from __future__ import annotations

import time


def increment(x: int) -> int:
    """The least that a call can do."""
    return x + 1


def spin(milliseconds: float) -> float:
    """Computes for so long by the wall clock; returns how many seconds it really took.

    On a busy machine that is longer than asked for: the process may be set aside when its time is up.
    """
    began = time.perf_counter()
    until = began + milliseconds / 1000
    while (now := time.perf_counter()) < until:
        pass
    return now - began
