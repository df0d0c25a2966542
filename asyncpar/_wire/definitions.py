"""Classes and functions that are sent by value, once to each worker and not with each object that refers to them.

A worker cannot import the script or the notebook, so what these define travels by value. That takes some hundred bytes and
20 to 100 µs, which is nothing once a run, and forty times the rest if it happens with each of many small objects. So a program
keeps the *definitions* that have been sent for it, as a numbered list, which the parent and every worker have alike. Their
pickles refer to a definition by its number, in both directions.

- What the function of a run refers to becomes a definition when the function is pickled (`Pickler.brought`). It is in the same
  pickle, so the function and its classes share one set of globals in the worker, as they do at home.
- A class, or a function of a module, that comes with items travels with its batch, and for that batch has a number, too: its
  results and errors refer to it. (If they brought it back by value, cloudpickle would give the caller's own class the
  attributes and methods of the copy.) When it comes a second time, it becomes a definition for the next batches. So runs of
  one batch have nothing to send, and neither have classes that come once. What is made for each item (a lambda, a function
  within a function) is not worth it.

A definition is one object in its worker from then on, as it would be in a plain loop, and so is what calls change in it.

A run has its own definitions. So a class that is defined again, or changed, between two runs is sent again. Within a run it
stays what it was when it was first sent. Programs that outlive their run, and those in foreign pools, have only the definitions
that come with their function and with the batch: a class might change meanwhile, and it is not known which worker has which.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

from asyncpar._wire.codec import Undeliverable

MOST_DEFINITIONS = 100  # that come with the items of a run; if it makes classes in a loop, the others travel with their batches

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

    def with_more(self, objects: list[Any]) -> Definitions:
        """These, and more at the end: for one batch, which has brought them."""
        return Definitions([*self.objects, *objects]) if objects else self

    def extend(self, objects: Iterable[Any]) -> None:
        for value in objects:
            self.objects.append(value)
            self._numbers[id(value)] = len(self.objects) - 1  # last: another thread finds a number only if it is there


class Candidates:
    """Chooses, in the parent, what becomes a definition of a run."""

    def __init__(self) -> None:
        self._seen: dict[int, Any] = {}  # {id: object}: those that have come once
        self._chosen: dict[int, Any] = {}

    def choose(self, brought: Iterable[Any]) -> list[Any]:
        """Those of these objects that have come before, and so are likely to come again. Each is chosen once."""
        chosen: list[Any] = []
        for key, value in {id(value): value for value in brought}.items():
            if key in self._chosen or _is_made_for_an_item(value):
                continue
            if key not in self._seen:
                if len(self._seen) < MOST_DEFINITIONS:
                    self._seen[key] = value
            else:
                self._chosen[key] = value
                chosen.append(value)
        return chosen


def _is_made_for_an_item(value: object) -> bool:
    return isinstance(value, FunctionType) and "<" in value.__qualname__  # <lambda>, or <locals>


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
