"""Items that cannot be compared, hashed or tested, and of subclasses of plain types."""

from __future__ import annotations

import enum
from collections import namedtuple
from collections.abc import Iterator
from typing import Any


def pair(first: Any, second: Any) -> tuple[Any, Any]:
    return first, second


def add3(first: int, second: int, third: int) -> int:
    return first + second + third


class Touchy:
    """Can be held, handed on and pickled, and nothing else. A copy does not even tell its class."""

    is_copy = False

    def __init__(self, number: int) -> None:
        self.number = number

    def refuse(self, *_: object) -> Any:
        raise SystemExit("touched")

    __eq__ = __ne__ = __lt__ = __gt__ = __bool__ = __len__ = __iter__ = __contains__ = refuse
    __hash__ = __repr__ = __str__ = __format__ = __index__ = refuse

    @property  # type: ignore[misc]  # as lazy proxies have it
    def __class__(self) -> Any:
        if self.is_copy:
            raise RuntimeError("of no class")
        return Touchy

    def __reduce__(self) -> Any:
        return copy_of_touchy, (self.number,)


def copy_of_touchy(number: int) -> Touchy:
    copy = Touchy(number)
    copy.is_copy = True
    return copy


def another(item: Touchy) -> Touchy:
    return Touchy(item.number)


class Text(str):
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return type(other) is Text and str.__eq__(self, other)

    __hash__ = str.__hash__


class Number(int):
    def __mul__(self, other: int) -> int:
        return 7


Point = namedtuple("Point", ["x", "y"])


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Letters(str):
    """Iterates over its words."""

    __slots__ = ()

    def __iter__(self) -> Iterator[str]:
        return iter(self.split())


def what_it_is(item: Any) -> tuple[type, Any]:
    return type(item), item
