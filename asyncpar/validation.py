"""What counts as a number where users give one: integers and floats of every library, and no booleans. And what as nothing."""

from __future__ import annotations

from numbers import Real
from typing import Any, Final, TypeGuard


class _Unset:
    def __repr__(self) -> str:
        return "<default>"


UNSET: Final[Any] = _Unset()  # the default of a parameter for which None means something


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool)


def is_int(value: Any) -> TypeGuard[int]:
    return hasattr(type(value), "__index__") and not isinstance(value, bool)  # numpy's integers are welcome


def is_positive_int(value: Any) -> TypeGuard[int]:
    return is_int(value) and value >= 1


def check_inner_threads(count: object) -> None:
    """Raises ValueError unless it is a number of threads or None."""
    if count is not None and not is_positive_int(count):
        raise ValueError(f"inner_max_num_threads must be a number of threads, 1 or more, or None, not {count!r}")
