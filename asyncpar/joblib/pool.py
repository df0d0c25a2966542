"""joblib's module `pool`: multiprocessing's pool, for backends that are derived from `MultiprocessingBackend` and put their own
pool in its place.
"""

from __future__ import annotations

import mmap
from multiprocessing.pool import Pool
from typing import Any


class PicklingPool(Pool):
    """A pool of multiprocessing."""


class MemmappingPool(PicklingPool):
    """The same. Arrays travel as they are."""

    def __init__(self, processes: int | None = None, **options: Any) -> None:
        super().__init__(processes)


def has_shareable_memory(a: Any) -> bool:
    """Whether the memory of an array is a map, which other processes may see."""
    while a is not None:
        if isinstance(a, mmap.mmap):
            return True
        a = a.obj if isinstance(a, memoryview) else getattr(a, "base", None)
    return False
