"""Exceptions of every kind, and what raises them or cannot be pickled."""

from __future__ import annotations

import dataclasses
import math
import threading
from typing import Any

from tests.functions import raise_value_error


class TwoArguments(Exception):
    """Its `__init__` does not take its `args` back: unpickling it the usual way raises a TypeError."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")
        self.first = first
        self.second = second


class HoldsALock(Exception):
    """Cannot be pickled in any way."""

    def __init__(self, message: str) -> None:
        super().__init__(message, threading.Lock())
        self.message = message

    def __str__(self) -> str:
        return self.message


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Model:
    def __init__(self, lock: object) -> None:
        self.lock = lock

    def predict(self, x: int) -> int:
        return x


def return_a_locked_model(_: object) -> dict[str, Model]:
    return {"model": Model(threading.Lock())}


def raise_two_arguments(_: object) -> None:
    raise TwoArguments("salt", "pepper")


def raise_holding_a_lock(_: object) -> None:
    raise HoldsALock("the key is inside")


def raise_unprintable(_: object) -> None:
    raise Unprintable


def raise_from_another(_: object) -> None:
    try:
        raise KeyError("the cause")
    except KeyError as error:
        raise ValueError("the effect") from error


def raise_stop(x: type[Exception]) -> None:
    raise x


class RefusesAtLength:
    def __reduce__(self) -> Any:
        raise ValueError("no " * 200_000)


class ChangesItsMessage(Exception):
    """Its `__init__` takes its `args` back, but does not give the same exception."""

    def __init__(self, code: object) -> None:
        super().__init__(f"code {code}")


def raise_changing(x: object) -> None:
    raise ChangesItsMessage(x)


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    """Nothing can be set on it, neither a cause nor a note."""

    code: int


class AddsNoNote(Exception):
    def add_note(self, note: str, /) -> None:
        raise RuntimeError("no notes, please")


class Exits(Exception):
    """Ends the program that pickles or prints it."""

    def __reduce__(self) -> Any:
        raise SystemExit(3)

    def __str__(self) -> str:
        raise SystemExit(3)


class AnswersNothing(Exception):
    """Whatever attribute is asked for."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")


class HasOtherArgs(Exception):
    args = property(lambda self: 1 / 0)


class BadWords:
    def __str__(self) -> str:
        raise SystemExit(3)


def make_cycles() -> list[Any]:
    """Each refers to all others, so following every reference never ends."""
    nodes: list[Any] = [{}, {}, {}, {}]
    for node in nodes:
        node.update(enumerate(nodes))
    return nodes


FULL = ValueError("full")


DIFFICULT: list[Exception] = [Frozen(3), AddsNoNote("x"), ValueError(math.nan), FULL, Exits("x")]


DIFFICULT += [ExceptionGroup("group", [KeyError(1), TwoArguments("salt", "pepper")]), KeyError(ValueError("inner"))]


DIFFICULT += [AnswersNothing("x"), HasOtherArgs("x"), ValueError(*make_cycles()), TypeError(BadWords())]


def raise_difficult(item: tuple[int, str]) -> int:
    x, _ = item
    if x % 20 < len(DIFFICULT):
        raise DIFFICULT[x % 20]
    return x


def raise_full(x: int) -> None:
    raise FULL


class ReadsBadly:
    """Can be pickled, but not read back."""

    def __reduce__(self) -> tuple[Any, ...]:
        return raise_value_error, ("reading",)


def raise_with_an_array(x: int) -> int:
    if x == 1:
        import numpy as np

        raise ValueError("bad", np.arange(3))
    return x


async def awaits_a_cancelled_task(x: int) -> int:
    import asyncio

    if x == 3:
        task = asyncio.ensure_future(asyncio.sleep(10))
        task.cancel()
        await task
    return x


def raise_cancelled(x: int) -> int:
    import asyncio

    if x == 3:
        raise asyncio.CancelledError
    return x
