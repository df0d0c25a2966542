"""Calls that tell of the process that they are made in."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any


def surroundings(_: object) -> tuple[str, str | None, list[str], bool]:
    return os.getcwd(), os.environ.get("ASYNCPAR_TEST"), sys.argv, "/nowhere/special" in sys.path


class CountsItsPickles:
    """A function that knows how often it was pickled."""

    pickled = 0

    def __call__(self, x: int) -> int:
        return x

    def __reduce__(self) -> tuple[Any, ...]:
        CountsItsPickles.pickled += 1
        return CountsItsUnpickles, ()


class CountsItsUnpickles:
    """What it is in a worker, where it knows how often it was read."""

    read = 0

    def __init__(self) -> None:
        CountsItsUnpickles.read += 1

    def __call__(self, x: int) -> int:
        return CountsItsUnpickles.read


def write_and_square(folder: str, x: int) -> int:
    Path(folder, f"{os.getpid()}-{x}").touch()
    return x * x


def say_so_and_wait(directory: Path) -> None:
    """Says that it runs, and goes on when it may."""
    (directory / "running").touch()
    while not (directory / "go on").exists():
        time.sleep(0.001)
