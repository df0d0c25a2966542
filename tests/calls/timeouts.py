"""Calls that take too long."""

from __future__ import annotations

import time
from pathlib import Path

from asyncpar import CallTimeoutError


class Stuck:
    """Negative items wait until they are let go; others are doubled. Each call leaves a mark."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(self, x: int) -> int:
        with (self.directory / "marks").open("a") as file:
            file.write(f"{x}\n")
        while x < 0 and not (self.directory / "let go").exists():
            time.sleep(0.001)
        return x * 2

    def let_go(self) -> None:
        (self.directory / "let go").touch()

    @property
    def marks(self) -> list[int]:
        return [int(line) for line in (self.directory / "marks").read_text().split()]


async def nap(seconds: float) -> float:
    import anyio

    await anyio.sleep(seconds)
    return seconds


async def nap_in_asyncio(seconds: float) -> float:
    import asyncio

    await asyncio.sleep(seconds)
    return seconds


async def hold_the_loop(x: int) -> int:
    while x < 0:
        pass
    return x


async def time_out_in_its_own_words(text: str) -> None:
    error = CallTimeoutError(text)
    error.add_note("a note of its own")
    raise error
