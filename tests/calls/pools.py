"""What workers of other people's pools call."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any


class Large:
    """A function of a megabyte, which counts in a file how often it is read by a worker."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = bytes(1_000_000)

    def __call__(self, x: int) -> tuple[int, int]:
        time.sleep(0.001)
        return x, os.getpid()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        (self.directory / f"{os.getpid()}-{time.monotonic_ns()}").touch()


def die_at(poison: int, x: int) -> int:
    time.sleep(0.001)
    if x == poison:
        os._exit(7)
    return x


def die_on_odd_tens(x: int) -> int:
    if x in (10, 30):
        os._exit(1)
    return x


def sleep_at_two(x: int) -> int:
    time.sleep(0.5 if x == 2 else 0)
    return x


async def sleep_soon(x: float) -> float:
    import anyio

    await anyio.sleep(x)
    return x


async def map_inside(x: int) -> list[int]:
    from asyncpar import pmap

    pid = os.getpid()
    same = [other - pid for other in await pmap(lambda _: os.getpid(), [0])]
    return [*same, x]


def when(path: Path) -> tuple[float, float]:
    began = time.monotonic()
    time.sleep(0.002)
    return began, time.monotonic()


def die_on_five(x: int) -> int:
    if x == 5:
        os._exit(3)
    return x


def end_at_once() -> None:
    os._exit(1)


async def nap(x: int) -> int:
    import anyio

    await anyio.lowlevel.checkpoint()
    return x


def sum_of_naps(x: int) -> int:
    import anyio

    from asyncpar import pmap

    async def naps() -> list[int]:
        return await pmap(nap, range(x))

    return sum(anyio.run(naps))
