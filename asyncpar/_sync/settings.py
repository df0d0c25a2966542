"""The context's settings for `Parallel` calls in it.

Settings live in a context variable, so that asyncio tasks and threads do not see each other's. Calls in workers do not see
their caller's either, although threads inherit its context: settings hold for the depth in workers at which they were made.

An explicit argument goes before the context's setting, and that before the default. `UNSET` distinguishes an argument that was
not given from one that is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from asyncpar._basics.validation import UNSET
from asyncpar._contract.executor import Hints
from asyncpar._memory.loans import MmapMode
from asyncpar._memory.options import DEFAULT_MAX_NBYTES, check_mmap_mode, resolve_max_nbytes
from asyncpar._platform.nesting import depth

Prefer: TypeAlias = Literal["processes", "threads"] | None
Require: TypeAlias = Literal["sharedmem"] | None

_MMAP_SYNONYMS: dict[str, MmapMode] = {"w+": "r+"}  # joblib makes a file; asyncpar makes none


@dataclass(frozen=True, slots=True)
class Settings:
    """A context's settings for `Parallel` calls in it; it does not set what is UNSET."""

    backend: Any = None
    n_jobs: Any = UNSET
    verbose: Any = UNSET
    temp_folder: str | None = None
    max_nbytes: Any = UNSET
    mmap_mode: Any = UNSET
    prefer: Prefer = None
    require: Require = None
    inner_max_num_threads: int | None = None
    backend_params: Mapping[str, Any] = field(default_factory=dict)
    depth: int = 0


NO_SETTINGS = Settings()
_settings: ContextVar[Settings | None] = ContextVar("asyncpar_settings", default=None)


def set_settings(settings: Settings | None) -> Settings | None:
    """Puts these settings into the context; returns those that it had."""
    before = _settings.get()
    _settings.set(settings)
    return before


def current_settings() -> Settings:
    """The context's settings, if they were made at this depth in workers."""
    settings = _settings.get()
    return settings if settings is not None and settings.depth == depth() else NO_SETTINGS


def make_hints(temp_folder: str | None, max_nbytes: Any, mmap_mode: Any) -> Hints:
    """Checks how large arrays are to reach workers. joblib puts its files into `temp_folder`; asyncpar has none.

    Raises:
        ValueError: the size is not valid, or the mode is unknown.
    """
    settings = current_settings()
    max_nbytes = next((value for value in (max_nbytes, settings.max_nbytes) if value is not UNSET), DEFAULT_MAX_NBYTES)
    mmap_mode = next((value for value in (mmap_mode, settings.mmap_mode) if value is not UNSET), "r")
    return Hints(resolve_max_nbytes(max_nbytes), check_mmap_mode(mmap_mode, _MMAP_SYNONYMS))


def check_prefer_and_require(prefer: object, require: object) -> None:
    """Raises ValueError, naming the valid values, and also if the two contradict each other."""
    if prefer not in ("processes", "threads", None):
        raise ValueError(f"prefer={prefer} is not a valid backend hint: it must be 'processes', 'threads' or None")
    if require not in ("sharedmem", None):
        raise ValueError(f"require={require} is not a valid backend constraint: it must be 'sharedmem' or None")
    if prefer == "processes" and require == "sharedmem":
        raise ValueError(
            "prefer == 'processes' and require == 'sharedmem' are inconsistent settings: processes share no memory"
        )
