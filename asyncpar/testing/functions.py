"""The functions that the tests of the kit map. Workers import this module, so it imports only the standard library.

A test sees what a call does, wherever it runs, through files in a directory of its own.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

_PATIENCE = 20.0  # seconds after which a call stops waiting for its test


def double(x: Any) -> Any:
    return x * 2


async def double_soon(x: Any) -> Any:
    return x * 2


def add(a: Any, b: Any) -> Any:
    return a + b


def nap(x: Any) -> Any:
    time.sleep(0.001)
    return x


def refuse_even(x: int) -> int:
    if x % 2 == 0:
        raise ValueError(f"bad {x}", x)
    return x


def exit_at_three(x: int) -> int:
    if x == 3:
        raise SystemExit(9)
    return x


def stop_iteration(x: object) -> NoReturn:
    raise StopIteration(x)


class Refused(Exception):
    """Its arguments say which item it belongs to."""


class Refusing:
    """Squares numbers, but refuses `percent` of them, scattered over the input."""

    def __init__(self, percent: int) -> None:
        self.percent = percent

    def refuses(self, x: int) -> bool:
        return x * 7919 % 100 < self.percent

    def __call__(self, x: int) -> int:
        if self.refuses(x):
            raise Refused(x)
        return x * x


class Marking:
    """Leaves a mark for each call that begins, then waits for the file `go on` if asked to, and refuses some items."""

    def __init__(self, directory: Path, *, refuses: tuple[int, ...] = (), waits: bool = False) -> None:
        self.directory = directory
        self.refuses = refuses
        self.waits = waits

    def __call__(self, x: int) -> int:
        with (self.directory / "marks").open("a") as file:
            file.write(f"{x}\n")
        deadline = time.monotonic() + _PATIENCE
        while self.waits and time.monotonic() < deadline and not (self.directory / "go on").exists():
            time.sleep(0.001)
        if x in self.refuses:
            raise Refused(x)
        return x

    def let_go(self) -> None:
        (self.directory / "go on").touch()

    @property
    def begun(self) -> Counter[int]:
        """How often each item has been called."""
        marks = self.directory / "marks"
        return Counter(map(int, marks.read_text().split())) if marks.exists() else Counter()


class Spinning:
    """Calls that count in a file forever and cannot be stopped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():  # otherwise this is a copy of it
            path.write_bytes(bytes(mmap.PAGESIZE))

    def __call__(self, _: object) -> NoReturn:
        numbers = self._numbers()
        numbers[0] = os.getpid()
        while True:
            numbers[1] += 1

    @property
    def count(self) -> int:
        return self._numbers()[1]

    def _numbers(self) -> memoryview[int]:
        with self.path.open("r+b") as file:
            return memoryview(mmap.mmap(file.fileno(), mmap.PAGESIZE)).cast("q")


class Holding:
    """Holds a lock, which cannot be pickled."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __call__(self, x: Any) -> Any:
        return x
