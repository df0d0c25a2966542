"""Calls on tables, and what has a large buffer and is no array."""

from __future__ import annotations

import pickle
from typing import Any


class Blob:
    """Has a large buffer that is not an array."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Blob, (pickle.PickleBuffer(self.content),)

    def __len__(self) -> int:
        return len(memoryview(self.content))


def length_and_more(table: Any, more: int) -> int:
    return len(table) + more
