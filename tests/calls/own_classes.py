"""Functions of objects whose classes travel by value, because a test has made them."""

from __future__ import annotations

from typing import Any


def x_of(item: Any) -> Any:
    return item.x


def again(item: Any) -> Any:
    """An object of the same class."""
    return type(item)(item.x + 1)


def class_of(item: Any) -> Any:
    return type(item)


def label_of(item: Any) -> Any:
    return type(item).label


def call(function: Any) -> Any:
    return function()


def append_to(item: list[int]) -> int:
    item.append(0)
    return len(item)


def are_same(pair: Any) -> bool:
    return pair[0] is pair[1]


def length(item: Any) -> int:
    return len(item)
