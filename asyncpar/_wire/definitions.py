"""Classes and functions that are sent by value, once to each worker and not with each object that refers to them.

A worker cannot import the script or the notebook, so what these define travels by value. That takes some hundred bytes and
20 to 100 µs, which is nothing once a run, and forty times the rest if it happens with each of many small objects. So a program
keeps the *definitions* that have been sent for it, as a numbered list, which the parent and every worker have alike. Their
pickles refer to a definition by its number, in both directions.

- What the function of a run refers to becomes a definition when the function is pickled (`Brought`). It is in the same pickle,
  so the function and its classes share one set of globals in the worker, as they do at home.
- A class, or a function of a module, that first comes with an item travels with that batch, and becomes a definition for the
  next ones. What is made anew for each item (a lambda, a function within a function) does not.

A run has its own definitions. So a class that is defined anew, or changed, between two runs is sent anew. Within a run it stays
what it was when it was first sent.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

from asyncpar._wire.codec import Undeliverable

MOST_DEFINITIONS = 100  # of a program; the other classes of a run that makes classes in a loop travel with their batches

_here = threading.local()  # `.objects`: the definitions of the message that this thread is reading


class Definitions:
    """A numbered list of objects, and the number of each."""

    def __init__(self, objects: Iterable[Any] = ()) -> None:
        self.objects: list[Any] = []
        self._numbers: dict[int, int] = {}  # {id of an object, which the list keeps alive: its number}
        self.extend(objects)

    def __len__(self) -> int:
        return len(self.objects)

    def number(self, value: object) -> int | None:
        return self._numbers.get(id(value))

    def extend(self, objects: Iterable[Any]) -> None:
        for value in objects:
            self.objects.append(value)
            self._numbers[id(value)] = len(self.objects) - 1  # last: another thread finds a number only if it is there

    def worth_adding(self, brought: Iterable[Any]) -> list[Any]:
        """Those of these objects that are likely to come again, and are new."""
        new = [value for value in brought if self.number(value) is None and _comes_again(value)]
        return new[: max(0, MOST_DEFINITIONS - len(self))]


def _comes_again(value: object) -> bool:
    return not isinstance(value, FunctionType) or "<" not in value.__qualname__  # <lambda> and <locals> are made anew


@contextmanager
def reading(definitions: Definitions | None) -> Iterator[None]:
    """What is unpickled in this thread meanwhile refers to these definitions."""
    before = getattr(_here, "objects", ())
    _here.objects = () if definitions is None else definitions.objects
    try:
        yield
    finally:
        _here.objects = before


def defined(number: int) -> Any:
    """The definition of this number. Pickles contain calls of this function."""
    value = _here.objects[number]
    if type(value) is Undeliverable:
        raise value.error
    return value
