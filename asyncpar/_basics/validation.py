"""Checks of numbers that users pass: integers and floats of every library, but no booleans. And the marker for "not given"."""

from __future__ import annotations

import operator
import sys
from math import inf, nan
from numbers import Real
from typing import Any, Final, TypeGuard


class _Unset:
    def __repr__(self) -> str:
        return "<default>"


UNSET: Final[Any] = _Unset()  # the default of a parameter for which None has a meaning


MOST = 1 << 30  # more than any number of workers, calls or items, and still small enough to be multiplied by seconds


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool)


def is_int(value: Any) -> TypeGuard[int]:
    if isinstance(value, int):
        return not isinstance(value, bool)
    try:
        operator.index(value)  # numpy's integers are accepted
    except TypeError:
        return False
    return True


def is_positive_int(value: Any) -> TypeGuard[int]:
    return is_int(value) and operator.index(value) >= 1


def to_count(value: Any) -> int:
    """An integer of any library as an int of at most `MOST`."""
    return min(operator.index(value), MOST)


def to_bytes(value: Any) -> int:
    """A number of bytes as an int that the system accepts."""
    return min(int(value), sys.maxsize)


def to_seconds(value: Any) -> float:
    """A number of any library as a float: infinite if it is too large, NaN if it is not a number."""
    if not is_number(value):
        return nan
    try:
        return float(value)
    except OverflowError:
        return inf if value > 0 else -inf


def check_timeout(timeout: Any, of_what: str) -> float | None:
    """Seconds; None if there is no limit.

    Raises:
        ValueError: it is neither a positive number nor None.
    """
    if timeout is None:
        return None
    seconds = to_seconds(timeout)
    if not seconds > 0:
        raise ValueError(f"timeout must be a positive number of seconds for one {of_what}, or None, not {timeout!r:.200}")
    return None if seconds == inf else seconds


def check_inner_threads(count: object) -> None:
    """Raises ValueError unless it is a number of threads or None."""
    if count is not None and not is_positive_int(count):
        raise ValueError(f"inner_max_num_threads must be a number of threads, 1 or more, or None, not {count!r}")
