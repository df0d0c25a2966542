"""Users' options for shared memory: from how many bytes on buffers are shared, and how arguments are mapped."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from math import inf
from types import MappingProxyType
from typing import Any

from asyncpar._basics.validation import is_number, to_bytes
from asyncpar._memory.loans import MMAP_MODES, MmapMode

DEFAULT_MAX_NBYTES = "1M"  # as in joblib
DEFAULT_BYTES = 1 << 20
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_SIZE = re.compile(r"\s*(\d+(?:\.\d*)?)\s*([KMG]?)\s*", re.IGNORECASE)


def resolve_max_nbytes(value: Any) -> int | None:
    """The number of bytes, or None for no sharing.

    >>> resolve_max_nbytes("1M"), resolve_max_nbytes(100), resolve_max_nbytes(None)
    (1048576, 100, None)

    Raises:
        ValueError: it is neither a number of bytes nor a number with a unit.
    """
    if value is None:
        return None
    if isinstance(value, str) and (found := _SIZE.fullmatch(value)) is not None:
        return max(1, to_bytes(min(float(found[1]) * _UNITS[found[2].upper()], sys.maxsize)))
    if is_number(value) and 0 <= value < inf:
        return max(1, to_bytes(value))
    raise ValueError(
        f"max_nbytes must be a number of bytes, 0 or more, a text such as '100K', '1M' or '2G', or None for no shared memory, "
        f"not {value!r}"
    )


def check_mmap_mode(value: Any, synonyms: Mapping[str, MmapMode] = MappingProxyType({})) -> MmapMode:
    """The mode itself, or what its synonym stands for.

    Raises:
        ValueError: there is no such mode.
    """
    for mode in MMAP_MODES:
        if value is mode or value == mode:
            return mode
    for synonym, mode in synonyms.items():
        if value == synonym:
            return mode
    raise ValueError(f"mmap_mode must be one of {', '.join(map(repr, [*MMAP_MODES, *synonyms]))}, not {value!r}")
