"""Maps inside calls."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import anyio
import psutil

from asyncpar import pmap
from tests.functions import double

Location = tuple[int, int]


def here(_: object = None) -> Location:
    """Which process and which thread this is."""
    return os.getpid(), threading.get_ident()


def map_inside(fn: Callable[[int], Any], count: int) -> list[Any]:
    """A map in an event loop of its own, as a sync function may run it."""

    async def main() -> list[Any]:
        return await pmap(fn, range(count))

    return anyio.run(main)


def two_levels(_: object) -> tuple[Location, list[Location], int]:
    return here(), map_inside(here, 4), len(psutil.Process().children())


def two_levels_below(_: object) -> tuple[Location, list[Location]]:
    return here(), map_inside(here, 4)


def three_levels(_: object) -> list[tuple[Location, list[Location]]]:
    return map_inside(two_levels_below, 2)


def sum_of_doubles(x: int) -> int:
    return sum(map_inside(double, x))


async def sum_of_doubles_soon(x: int) -> int:
    return sum(await pmap(double, range(x), executor="process"))
