"""Calls that take memory, and leave a line for each time they were made."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

MIB = 1 << 20


class Logged:
    """Leaves a line for each call, so that calls can be counted whatever becomes of their workers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def __call__(self, x: int) -> tuple[int, int]:
        with self.path.open("a") as file:
            file.write(f"{x}\n")
        return x, os.getpid()

    async def soon(self, x: int) -> tuple[int, int]:
        import asyncio

        await asyncio.sleep(0)
        return self(x)

    def assert_each_was_called_once(self, items: Any) -> None:
        assert sorted(map(int, self.path.read_text().split())) == sorted(items)


def allocate(size: int) -> tuple[int, int]:
    return len(bytearray(size)), os.getpid()


class Hoard:
    """Keeps a little memory forever at each call, in whichever process it runs."""

    kept: list[bytes] = []  # noqa: RUF012 - forever is meant

    def __init__(self, log: Logged) -> None:
        self.log = log

    def __call__(self, x: int) -> tuple[int, int]:
        Hoard.kept.append(os.urandom(MIB))
        return self.log(x)
