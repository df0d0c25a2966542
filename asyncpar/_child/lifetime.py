"""How long a worker process lives: for a number of calls, and for as long as it stays within its memory limit.

Memory is limited in two ways. The kernel refuses allocations that would take the worker's data beyond the cap, so that the call
that asked for it gets a MemoryError (on Linux; RLIMIT_DATA counts heap and private mappings, but not memory that is shared or
only reserved). And a worker that holds more than the cap after a call, because something leaks or an allocation bypassed the
limit, is replaced. Shared memory is not counted.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path

_PAGE = os.sysconf("SC_PAGESIZE") if hasattr(os, "sysconf") else 4096
_LOOK_SECONDS = 0.5e-3  # checking the memory takes 10 µs; in this time, a call hardly fills more than a megabyte


class Lifetime:
    """Says when a worker has to end: after `max_calls` calls, or when it holds more than `max_memory` bytes; None: never."""

    def __init__(self, max_calls: int | None, max_memory: int | None) -> None:
        self._calls_left = max_calls
        self._max_memory = max_memory
        self._next_look = 0.0
        self._libraries = _library_bytes() if max_memory is not None else 0
        if max_memory is not None:
            _limit_data(max_memory)

    @property
    def limited(self) -> bool:
        return self._calls_left is not None or self._max_memory is not None

    def is_over(self, calls: int) -> bool:
        """Whether the worker has to end once it has made `calls` calls of the current batch."""
        if self._calls_left is not None and calls >= self._calls_left:
            return True
        if self._max_memory is None or (now := time.monotonic()) < self._next_look:
            return False
        self._next_look = now + _LOOK_SECONDS
        return _own_bytes(self._libraries) > self._max_memory

    def end_batch(self, calls: int) -> bool:
        """The batch is done, after `calls` calls. Returns whether the worker has to end."""
        self._next_look = 0.0
        over = self.is_over(calls)
        if self._calls_left is not None:
            self._calls_left -= calls
        return over


def _limit_data(limit: int) -> None:
    if sys.platform != "linux":
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _own_bytes(libraries: int) -> int:
    """The memory of this process now, without shared memory. If the system does not say, the most that it ever held."""
    try:
        resident, shared = _resident_and_shared()
        return resident - max(0, shared - libraries)
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _library_bytes() -> int:
    """Memory that is shared in a fresh worker: the code of the interpreter and of libraries, but no shared memory of ours."""
    try:
        return _resident_and_shared()[1]
    except OSError:
        return 0


def _resident_and_shared() -> tuple[int, int]:
    _, resident, shared, *_ = Path("/proc/self/statm").read_bytes().split()
    return int(resident) * _PAGE, int(shared) * _PAGE
