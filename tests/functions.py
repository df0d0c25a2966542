"""Functions that tests map. Module-level, so that workers may also import them."""

from __future__ import annotations

import mmap
import os
import signal
import time
from pathlib import Path
from typing import Any, NoReturn


def double(x: Any) -> Any:
    return x * 2


def add(a: Any, b: Any) -> Any:
    return a + b


def identity(x: Any) -> Any:
    return x


async def double_soon(x: Any) -> Any:
    import anyio

    await anyio.lowlevel.checkpoint()
    return x * 2


def double_slowly(x: int) -> int:
    time.sleep(0.002)
    return x * 2


def make_texts(count: int) -> list[str]:
    """Much to pickle and nothing for the garbage collector, whose pauses are another matter."""
    return [f"{number:x}" for number in range(count)]


def process_id(_: object) -> int:
    return os.getpid()


def raise_value_error(x: object) -> NoReturn:
    raise ValueError(f"bad {x}")


def odd_only(x: int) -> int:
    """Doubles odd numbers, and refuses even ones."""
    if x % 2 == 0:
        raise ValueError(f"{x} is even")
    return x * 2


def kill_self(_: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable: SIGKILL cannot be survived")


def die_on_negative(x: int) -> int:
    if x < 0:
        os._exit(7)
    return x


class Beacon:
    """A file through which a call in any process shows that it runs: it writes its process id, and counts up forever."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():  # else this is another process's view of the same beacon
            path.write_bytes(bytes(mmap.PAGESIZE))

    def spin(self, _: object = None) -> NoReturn:
        """Counts up without end and without listening to anybody."""
        numbers = self._numbers()
        numbers[0] = os.getpid()
        while True:
            numbers[1] += 1

    def nap(self, x: Any) -> Any:
        """A short call among many: counts itself and returns."""
        numbers = self._numbers()
        numbers[0] = os.getpid()
        numbers[1] += 1
        time.sleep(0.001)
        return x

    @property
    def pid(self) -> int:
        return self._numbers()[0]

    @property
    def count(self) -> int:
        return self._numbers()[1]

    def _numbers(self) -> memoryview[int]:
        with self.path.open("r+b") as file:
            return memoryview(mmap.mmap(file.fileno(), mmap.PAGESIZE)).cast("q")
