"""Shows users' objects in our messages and notes in about one line of a terminal, whatever their methods do.

A `__repr__` or `__str__` may raise anything, including SystemExit. But a KeyboardInterrupt passes through, because it is almost
certainly Ctrl-C and not raised by the object.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any


class _Repr(reprlib.Repr):
    """Looks only at the elements that it shows; the base class sorts all of them."""

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        return super().repr_dict(dict(islice(x.items(), self.maxdict + 1)), level)

    def repr_set(self, x: set[Any], level: int) -> str:
        return super().repr_set(set(islice(x, self.maxset + 1)), level)

    def repr_frozenset(self, x: frozenset[Any], level: int) -> str:
        return super().repr_frozenset(frozenset(islice(x, self.maxfrozenset + 1)), level)


_REPR = _Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 100


def short_repr(value: object) -> str:
    """Its repr, shortened."""
    try:
        return _REPR.repr(value)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f"<{type(value).__qualname__} whose repr raised {type(error).__name__}>"


def call_in_words(function: object, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> str:
    """The call as it would be written, with its arguments shortened: `fetch('https://…', retries=3)`."""
    shown = [short_repr(argument) for argument in arguments]
    shown += [f"{keyword}={short_repr(value)}" for keyword, value in keywords.items()]
    return f"{name_of(function)}({', '.join(shown)})"


def name_of(function: object) -> str:
    """Its qualified name; the repr of something callable that has none."""
    name = getattr(function, "__qualname__", None)
    return name if isinstance(name, str) else short_repr(function)


def message_of(error: BaseException) -> str:
    """The error's message."""
    try:
        return str(error)
    except KeyboardInterrupt:
        raise
    except BaseException as broken:
        return f"<its __str__ raised {type(broken).__name__}>"


def stand_in(error: BaseException, raised_by: str) -> RuntimeError:
    """An error to raise in place of one that would end the program; `raised_by` begins its message."""
    replacement = RuntimeError(f"{raised_by} raised {in_words(error)}")
    replacement.__cause__ = error
    return replacement


def in_words(error: BaseException) -> str:
    """The error's class and message: `SystemExit: 1`."""
    message = message_of(error)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
