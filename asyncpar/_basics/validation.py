"""What counts as a number where users give one: integers and floats of every library, and no booleans. And what as nothing."""

from __future__ import annotations

import operator
import sys
from math import inf, nan
from numbers import Real
from typing import Any, Final, TypeGuard


class _Unset:
    def __repr__(self) -> str:
        return "<default>"


UNSET: Final[Any] = _Unset()  # the default of a parameter for which None means something


MOST = 1 << 30  # more than anybody has of workers, calls or items, and a number that can still be multiplied with seconds


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool)


def is_int(value: Any) -> TypeGuard[int]:
    if isinstance(value, int):
        return not isinstance(value, bool)
    try:
        operator.index(value)  # numpy's integers are welcome
    except TypeError:
        return False
    return True


def is_positive_int(value: Any) -> TypeGuard[int]:
    return is_int(value) and operator.index(value) >= 1


def to_count(value: Any) -> int:
    """A whole number of any library as an int that can be counted with."""
    return min(operator.index(value), MOST)


def to_bytes(value: Any) -> int:
    """A number of bytes as an int that the system takes."""
    return min(int(value), sys.maxsize)


def to_seconds(value: Any) -> float:
    """A number of any library as a float, infinite where it is too large for one; not a number if it is none."""
    if not is_number(value):
        return nan
    try:
        return float(value)
    except OverflowError:
        return inf if value > 0 else -inf


def check_timeout(timeout: Any, of_what: str) -> float | None:
    """Seconds; None if there is no limit.

    Raises:
        ValueError: neither a positive number nor None.
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
