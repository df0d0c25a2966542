"""Calls that run in interpreters. They import only what can be loaded there."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

state: list[int] = []


def remember(x: int) -> list[int]:
    """What this interpreter has been called with."""
    state.append(x)
    return state[:]


def where(_: object = None) -> tuple[int, int]:
    """The process and the thread of this call."""
    return os.getpid(), threading.get_ident()


def address_of(view: Any) -> int:
    import ctypes

    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def describe(view: Any) -> tuple[str, str, tuple[int, ...], bool, list[Any]]:
    return type(view).__name__, view.format, view.shape, view.readonly, view.tolist()


def fill(view: Any) -> None:
    view[:] = bytes([7]) * len(view)


def make_view(size: int) -> memoryview:
    return memoryview(bytearray(b"v") * size)


def import_module(name: str) -> str:
    return __import__(name).__name__


def names_in(package: str) -> list[str]:
    found: list[str] = importlib.import_module(package).found
    return found


def spin(_: object = None) -> NoReturn:
    while True:
        pass


def refuse_to_end(times: int) -> int:
    """Catches what interrupts it, so many times."""
    caught = 0
    while caught < times:
        try:
            spin()
        except BaseException:
            caught += 1
    return caught


def spin_at_three(x: int) -> int:
    return spin() if x == 3 else x


def sleep_at_three(x: int) -> int:
    if x == 3:
        time.sleep(1.0)  # in C code
    return x


async def wait_at_three(x: int) -> int:
    import asyncio

    await asyncio.sleep(1000 if x == 3 else 0)
    return x


async def cancel_all_others(x: int) -> int:
    import asyncio

    for task in asyncio.all_tasks():
        if task is not asyncio.current_task():
            task.cancel()
    await asyncio.sleep(0)
    return x


async def hold_the_loop_at_three(x: int) -> int:
    import asyncio

    await asyncio.sleep(0)
    return spin() if x == 3 else x


def mark_and_sleep(directory: Path, seconds: float) -> None:
    """Sleeps in C code, and leaves marks before and after."""
    (directory / "began").mkdir()
    time.sleep(seconds)
    (directory / "ended").mkdir()


def mark_and_spin(directory: Path) -> NoReturn:
    """The mark is a directory: an interruption may come as soon as it is there, and then a file might stay open."""
    (directory / "began").mkdir()
    spin()


async def mark_and_wait(directory: Path) -> None:
    import asyncio

    (directory / "began").mkdir()
    await asyncio.sleep(1000)


def spin_for(item: tuple[int, float]) -> int:
    number, seconds = item
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return number


def map_within(count: int) -> list[int]:
    import asyncpar

    return list(asyncpar.map(abs, range(-count, 0)))


def arguments_of_the_program() -> tuple[list[str], bool]:
    return sys.argv, "tests" in sys.modules


class Unreadable:
    """Its pickle cannot be read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("no number",)


def length_of_first(item: tuple[Any, object]) -> int:
    return len(item[0])


def make_text(size: int) -> str:
    return "x" * size
