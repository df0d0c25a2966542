"""Calls that exit, or stop in the debugger."""

from __future__ import annotations

import sys

ENDS = [SystemExit("enough"), KeyboardInterrupt(), GeneratorExit()]


def raise_it(error: BaseException) -> None:
    raise error


async def raise_it_soon(error: BaseException) -> None:
    raise error


class Mute(SystemExit):
    def __str__(self) -> str:
        raise ValueError("nothing to say")


def exit_at_two(x: int) -> int:
    if x == 2:
        sys.exit(1)
    return x


def stop_in_the_debugger(x: object) -> object:
    breakpoint()
    return x


async def stop_in_the_debugger_soon(x: object) -> object:
    breakpoint()
    return x


def linger() -> None:
    import atexit
    import time

    atexit.register(time.sleep, 3600)
