"""What cannot be read, or kills the worker that reads it."""

from __future__ import annotations

import os
from typing import Any


def leave(code: int) -> None:
    os._exit(code)


class KillsItsReader:
    def __reduce__(self) -> Any:
        return leave, (9,)


class NotReadThere:
    """Can be pickled, but not read."""

    def __init__(self, x: int) -> None:
        self.x = x

    def __reduce__(self) -> Any:
        return refuse_to_be_read, (self.x,)


def refuse_to_be_read(x: int) -> Any:
    raise ValueError(f"not {x}")


def unreadable_if_odd(x: int) -> Any:
    return NotReadThere(x) if x % 2 else [x]
