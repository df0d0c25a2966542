"""Modules in files that tests edit and load again, and functions that lead there in one way or another."""

from __future__ import annotations

import functools
import importlib
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

OLD = "def answer(x):\n    return 'old', x\n"
NEW = "# changed, and longer: files of one size and one second look the same to Python\ndef answer(x):\n    return 'new', x\n"
USER = "import {name}\n\ndef ask(x):\n    return {name}.answer(x)\n"


class Source:
    """A module in a file, and another one that uses it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._path = folder / f"{name}.py"
        self.write(OLD)
        (folder / f"{name}_user.py").write_text(USER.format(name=name))

    def write(self, text: str) -> None:
        self._path.write_text(text)

    @property
    def module(self) -> Any:
        return importlib.import_module(self.name)

    @property
    def user(self) -> Any:
        return importlib.import_module(f"{self.name}_user")

    def reload(self) -> None:
        importlib.reload(self.module)

    def import_anew(self) -> None:
        for name in (self.name, f"{self.name}_user"):
            sys.modules.pop(name, None)
        assert self.user


def make_source(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    """The body of a fixture: a source that can be imported, under a name that nobody has used before."""
    monkeypatch.syspath_prepend(folder)
    name = f"reloaded_{next(_numbers)}"
    yield Source(folder, name)
    for loaded in (name, f"{name}_user"):
        sys.modules.pop(loaded, None)


_numbers = itertools.count()


def by_name(source: Source) -> Callable[[int], Any]:
    return source.module.answer  # type: ignore[no-any-return]


def by_value(source: Source) -> Callable[[int], Any]:
    module = source.module
    return lambda x: module.answer(x)


def through_another_module(source: Source) -> Callable[[int], Any]:
    return source.user.ask  # type: ignore[no-any-return]


def in_a_partial(source: Source) -> Callable[[int], Any]:
    return functools.partial(source.module.answer)


WAYS = [by_name, by_value, through_another_module, in_a_partial]
