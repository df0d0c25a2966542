"""joblib's module of places for results. Here they are folders only (`_cache/store.py`), and these names are for `except` and
`issubclass`.
"""

from __future__ import annotations

from abc import ABCMeta
from os import replace as concurrency_safe_rename

from asyncpar.errors import CacheWarning as CacheWarning

__all__ = ["CacheWarning", "FileSystemStoreBackend", "StoreBackendBase", "StoreBackendMixin", "concurrency_safe_rename"]


class StoreBackendBase(metaclass=ABCMeta):  # noqa: B024 - joblib's name for what others derive from
    """What joblib's stores are derived from."""


class StoreBackendMixin:
    """What joblib's stores that have files have in common."""


class FileSystemStoreBackend(StoreBackendBase, StoreBackendMixin):
    """A folder."""
