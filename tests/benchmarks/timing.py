"""Repetitions and their median, plain, awaited and of whole scripts, and the event loops to await them in."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from statistics import median
from time import perf_counter
from typing import Literal, TypeAlias, TypeVar

T = TypeVar("T")

Loop: TypeAlias = Literal["asyncio", "uvloop", "trio"]

_WARM_UP_SHARE = 0.1  # of the repetitions: caches fill, the adaptive interpreter specializes


def median_seconds(action: Callable[[], object], repetitions: int) -> float:
    """The median of a number of repetitions, after one that does not count."""
    action()
    return median([_seconds(action) for _ in range(repetitions)])


def median_seconds_of_script(source: str, repetitions: int) -> float:
    """The same for a process of its own that runs `source`, from the start of its interpreter to its end."""
    command = [sys.executable, "-c", source]
    return median_seconds(lambda: subprocess.run(command, check=True), repetitions)


async def median_seconds_awaited(action: Callable[[], Awaitable[object]], repetitions: int) -> float:
    """The same for something that is awaited; some repetitions at the start do not count."""
    for _ in range(1 + int(_WARM_UP_SHARE * repetitions)):
        await action()
    samples = []
    for _ in range(repetitions):
        began = perf_counter()
        await action()
        samples.append(perf_counter() - began)
    return median(samples)


def run_in(loop: Loop, main: Callable[[], Awaitable[T]]) -> T:
    """What `main` returns, from an event loop of that kind."""
    if loop == "asyncio":
        return asyncio.run(_as_coroutine(main))
    if loop == "uvloop":
        import uvloop

        return uvloop.run(_as_coroutine(main))
    import trio

    result: T = trio.run(main)
    return result


async def _as_coroutine(main: Callable[[], Awaitable[T]]) -> T:
    return await main()


def _seconds(action: Callable[[], object]) -> float:
    began = perf_counter()
    action()
    return perf_counter() - began
