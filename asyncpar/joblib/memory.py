"""joblib's module `memory`: asyncpar's cache. A folder is the only place for results."""

from __future__ import annotations

from typing import Any

from asyncpar._cache.cached import CachedCoroutineFunction as AsyncMemorizedFunc
from asyncpar._cache.cached import CachedFunction as MemorizedFunc
from asyncpar._cache.memory import Memory as Memory
from asyncpar._cache.memory import expires_after as expires_after
from asyncpar._cache.shelved import MemorizedResult as MemorizedResult
from asyncpar.joblib._store_backends import StoreBackendBase
from asyncpar.joblib.logger import Logger as Logger
from asyncpar.joblib.logger import format_time as format_time
from asyncpar.joblib.logger import pformat as pformat

__all__ = [
    "AsyncMemorizedFunc",
    "JobLibCollisionWarning",
    "Logger",
    "MemorizedFunc",
    "MemorizedResult",
    "Memory",
    "expires_after",
    "format_time",
    "pformat",
    "register_store_backend",
]


class JobLibCollisionWarning(UserWarning):
    """joblib's, for two functions of one name. asyncpar keeps them apart by their code, and gives no such warning."""


def register_store_backend(backend_name: str, backend: type[StoreBackendBase]) -> None:
    """Accepts the registration, so that packages that register a store can be imported. `Memory` refuses to use one.

    Raises:
        ValueError: the name is not a text.
        TypeError: it is not a class that is derived from `StoreBackendBase`.
    """
    if not isinstance(backend_name, str):
        raise ValueError(f"Store backend name should be a string, not {backend_name!r:.200}")
    checked: Any = backend
    if not isinstance(checked, type) or not issubclass(checked, StoreBackendBase):
        raise TypeError(f"a store backend should inherit StoreBackendBase, and {backend!r:.200} does not")
