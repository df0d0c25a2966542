"""Calls that fail for chosen items, or before they begin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Refused(Exception):
    """Says which item it belongs to."""


class Refusing:
    """Squares what it does not refuse."""

    def __init__(self, fails: Callable[[int], bool]) -> None:
        self.fails = fails

    def __call__(self, x: int) -> int:
        if self.fails(x):
            raise Refused(x)
        return x * x

    async def soon(self, x: int) -> int:
        return self(x)

    def expected(self, x: int) -> Any:
        return ("refused", x) if self.fails(x) else x * x


def takes_two(a: object, b: object, c: object = None) -> None:
    raise AssertionError("it is never called")


async def takes_two_soon(a: object, b: object) -> None:
    raise AssertionError("it is never called")
