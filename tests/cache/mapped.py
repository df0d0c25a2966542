"""Functions that are mapped over in these tests. Each notes its calls in a file of its own, whatever process it runs in.

Hundreds of workers import this module, so what takes long to import is imported by the functions that need it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def note(folder: str, x: object) -> None:
    fd = os.open(f"{folder}/calls", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(fd, f"{x}\n".encode())
    finally:
        os.close(fd)


def calls_noted(folder: object) -> list[str]:
    """The items of the calls that were made, sorted."""
    path = Path(str(folder), "calls")
    return sorted(path.read_text().split()) if path.exists() else []


def square(folder: str, x: int) -> int:
    note(folder, x)
    return x * x


async def square_awaited(folder: str, x: int) -> int:
    import anyio.lowlevel

    note(folder, x)
    await anyio.lowlevel.checkpoint()
    return x * x


def listed(folder: str, x: int) -> list[int]:
    note(folder, x)
    return [x] * 3


async def listed_awaited(folder: str, x: int) -> list[int]:
    return listed(folder, x)


def generated(folder: str, x: int) -> Iterator[int]:
    """Which cannot be pickled."""
    note(folder, x)
    return (y for y in range(x))


def wide(folder: str, x: int) -> np.ndarray:
    import numpy as np

    note(folder, x)
    return np.full(100_000, x)


def fail_on_odd(folder: str, x: int) -> int:
    note(folder, x)
    if x % 2:
        raise ValueError(f"{x} is odd")
    return x


def fail_at_first(folder: str, x: int) -> int:
    """Fails until it has been called as often as the item says."""
    note(folder, x)
    if calls_noted(folder).count(str(x)) <= x:
        raise ValueError(f"{x} fails")
    return x


def die_at_first(folder: str, x: int) -> int:
    """Its process dies in the first call for 3."""
    note(folder, x)
    if x == 3 and calls_noted(folder).count("3") == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def hang_at_first(folder: str, x: int) -> int:
    """The first call for 3 waits for the test."""
    note(folder, x)
    if x == 3 and calls_noted(folder).count("3") == 1:
        wait_for(folder)
    return x


def gated(folder: str, x: int) -> int:
    note(folder, x)
    wait_for(folder)
    return x


async def gated_awaited(folder: str, x: int) -> int:
    import anyio

    note(folder, x)
    while not Path(folder, "go").exists():
        await anyio.sleep(0.001)
    return x


async def first_gated_awaited(folder: str, x: int) -> int:
    """Only the call for 0 waits for the test."""
    return await gated_awaited(folder, x) if x == 0 else await square_awaited(folder, x)


async def wide_first_gated_awaited(folder: str, x: int) -> np.ndarray:
    import numpy as np

    return np.full(100_000, await first_gated_awaited(folder, x))


async def die_on_odd_awaited(folder: str, x: int) -> int:
    import anyio.lowlevel

    note(folder, x)
    await anyio.lowlevel.checkpoint()
    if x % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def wait_for(folder: str) -> None:
    while not Path(folder, "go").exists():
        time.sleep(0.001)


def slow(folder: str, x: int) -> int:
    note(folder, x)
    time.sleep(0.005)
    return x


def generate(folder: str, x: int) -> Any:
    yield x


class Raise:
    """A function without a name."""

    def __init__(self, exponent: int) -> None:
        self.exponent = exponent

    def __call__(self, folder: str, x: int) -> int:
        square(folder, x)
        return int(x**self.exponent)


def factorial(folder: str, location: str, x: int) -> int:
    """Calls its own cached twin, also with the items of other calls."""
    from asyncpar import Memory

    note(folder, x)
    if x == 0:
        return 1
    smaller: int = Memory(location, verbose=0).cache(factorial)(folder, location, x - 1)
    return x * smaller
