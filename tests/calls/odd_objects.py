"""Items and exceptions whose own methods raise."""

from __future__ import annotations

import sys
from typing import Any


class Alarm(BaseException):
    pass


ODD_KINDS = [RuntimeError, SystemExit, GeneratorExit, Alarm]


class RaisesWhen:
    """Its `method` raises `kind`."""

    def __init__(self, method: str, kind: type[BaseException]) -> None:
        self.method = method
        self.kind = kind

    def _reach(self, method: str) -> None:
        if method == self.method:
            raise self.kind

    def __repr__(self) -> str:
        self._reach("__repr__")
        return "odd"

    def __getstate__(self) -> Any:
        self._reach("__getstate__")
        return self.__dict__

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state)
        self._reach("__setstate__")

    def __call__(self, x: int) -> int:
        return x


def refuse(_: object) -> None:
    raise ValueError("no")


def refuse_for_good(_: object) -> None:
    raise RefusesNotes("no")


class RefusesNotes(Exception):
    def add_note(self, note: str) -> None:
        raise SystemExit(note)


def refuse_with_odd_notes(_: object) -> None:
    error = ValueError("no")
    error.__notes__ = "text"  # type: ignore[assignment]  # nobody keeps a user from that
    raise error


def spin_for_ever(_: object) -> None:
    while True:
        pass


def make_odd(x: Any) -> Any:
    return x if type(x) is int else RaisesWhen(*x)


class WithoutWords(Exception):
    def __str__(self) -> str:
        raise SystemExit

    __repr__ = __str__

    def __bool__(self) -> bool:
        raise SystemExit


class RefusesWithoutWords:
    def __reduce__(self) -> Any:
        raise WithoutWords from WithoutWords()


class Stubborn:
    """Stands for stdout, and cannot be flushed."""

    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        raise self.kind


def replace_output(kind: type[BaseException] | None) -> None:
    for name in ("stdout", "stderr"):
        if kind is None:
            delattr(sys, name)
        else:
            setattr(sys, name, Stubborn(kind))
