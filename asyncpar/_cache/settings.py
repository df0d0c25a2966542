"""What `Memory` is told, as a value that travels to workers; and the store that belongs to it, one for each process."""

from __future__ import annotations

import os
import re
import threading
import weakref
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, cast

from asyncpar._basics.validation import is_int, is_number
from asyncpar._cache.compression import CompressOption, parse_compress
from asyncpar._cache.entries import MapMode, Reader
from asyncpar._cache.serializers import make_serializer
from asyncpar._cache.store import Store

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_LONGEST_KEY = 64  # bytes, of BLAKE2b
_SHORTEST_KEY = 16
_MAP_MODES: dict[Any, MapMode | None] = {None: None, "r": "r", "c": "c", "r+": "c", "w+": "c"}  # entries are never changed

_stores: weakref.WeakValueDictionary[Settings, Store] = weakref.WeakValueDictionary()
_opening = threading.Lock()


@dataclass(frozen=True)
class Settings:
    """The parameters of a `Memory` that decide about its entries, as it was given them."""

    location: str | None
    mmap_mode: str | None = None
    compress: CompressOption = False
    durable: bool = False
    key: bytes | None = field(default=None, repr=False)
    serializer: Any = "pickle"
    verify: str = "auto"

    def check(self) -> None:
        """Raises ValueError or TypeError for what is wrong, and UnsafeCacheError for a location that is not safe."""
        map_mode(self.mmap_mode)
        make_serializer(self.serializer)
        compression = parse_compress(self.compress)
        if compression is not None and self.mmap_mode is not None:
            raise ValueError("compressed results cannot be mapped: leave out compress or mmap_mode")
        if self.verify not in ("auto", "full"):
            raise ValueError(f'verify is "auto" or "full", not {self.verify!r:.200}')
        if self.key is not None and not (isinstance(self.key, bytes) and _SHORTEST_KEY <= len(self.key) <= _LONGEST_KEY):
            raise ValueError(
                f"key must be {_SHORTEST_KEY} to {_LONGEST_KEY} secret bytes, such as those of secrets.token_bytes(32)"
            )

    def with_map_mode(self, mode: str | None) -> Settings:
        """The same, but with another `mmap_mode`."""
        changed = replace(self, mmap_mode=mode)
        changed.check()
        return changed

    def store(self) -> Store:
        """The store of these settings: the same object in the whole process.

        Raises:
            UnsafeCacheError: the location belongs to another user, or others may write to it.
        """
        assert self.location is not None, "without a location there is no store"
        with _opening:
            store = _stores.get(self)
            if store is None:
                reader = Reader(make_serializer(self.serializer), self.key, map_mode(self.mmap_mode), self.verify == "full")
                store = Store(self.location, reader, parse_compress(self.compress), durable=self.durable)
                _stores[self] = store
            return store


def map_mode(mode: Any) -> MapMode | None:
    """How entries are mapped. What a caller writes to a result must not change the entry, so all modes that allow it copy."""
    if mode not in _MAP_MODES:
        raise ValueError(f'mmap_mode is None, "r", "c", "r+" or "w+", not {mode!r:.200}')
    return _MAP_MODES[mode]


def absolute(location: object) -> str | None:
    """The location as an absolute path, since a program may change its working directory."""
    if location is None:
        return None
    try:
        return os.path.abspath(os.fsdecode(cast("str", location)))
    except TypeError:
        raise TypeError(f"location is a path or None, not {location!r:.200}") from None


def to_size(size: object, name: str) -> int | None:
    """Bytes, from a number or a text such as "10G".

    Raises:
        ValueError: it is neither.
    """
    if size is None:
        return None
    if isinstance(size, str) and (found := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", size.strip().upper())):
        return int(float(found[1]) * _UNITS[found[2]])
    if is_int(size) and (count := int(size)) >= 0:
        return count
    raise ValueError(f'{name} is a number of bytes or a text such as "10G", not {size!r:.200}')


def to_age(age: object, name: str) -> float | None:
    """Seconds, from a number or a timedelta.

    Raises:
        ValueError: it is neither, or negative.
    """
    seconds = age.total_seconds() if isinstance(age, timedelta) else age
    if seconds is None:
        return None
    if not is_number(seconds) or not seconds >= 0:
        raise ValueError(f"{name} is a number of seconds or a timedelta, not {age!r:.200}")
    return float(seconds)


def _start_again_in_a_fork() -> None:
    global _opening
    _opening = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_again_in_a_fork)
