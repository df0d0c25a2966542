"""A module with cached functions, which workers import by name. Its cache is where the environment says."""

from __future__ import annotations

import os
from pathlib import Path

from asyncpar import Memory

memory = Memory(os.environ.get("TESTS_CACHE"), verbose=0)


@memory.cache(ignore=["folder"])
def square(x: int, folder: str) -> int:
    Path(folder, f"ran-{x}-{os.getpid()}").touch()
    return x * x
