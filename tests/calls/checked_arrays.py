"""Arrays that tell whether a byte of them is wrong."""

from __future__ import annotations

import os
import zlib
from typing import Any

import numpy as np


def content(seed: int) -> np.ndarray[Any, Any]:
    size = 1 + seed * 7919 % 60_000
    return np.frombuffer(np.random.default_rng(seed).bytes(size), np.uint8)


_hoard: list[Any] = []


def check_and_answer(array: Any, checksum: int, seed: int) -> tuple[bool, Any]:
    """Says whether the array is what was sent, and sends another; keeps some, and dies now and then."""
    if seed % 97 == 13:
        os._exit(1)
    _hoard.append((array[::2], zlib.crc32(array[::2].tobytes())))
    if len(_hoard) > 5:
        _hoard.pop(seed % 5)
    unharmed = all(zlib.crc32(kept.tobytes()) == kept_sum for kept, kept_sum in _hoard)
    return unharmed and zlib.crc32(array) == checksum, content(seed + 1)
