"""What modules need where several threads use what they hold. Nothing here relies on a global interpreter lock."""

from __future__ import annotations

import itertools
import os
import threading


class ModuleLock:
    """A lock of a module, for a few instructions at a time. A forked copy of the process finds it free: the thread that may
    have held it is not there.
    """

    def __init__(self) -> None:
        self._renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class Numbers:
    """Counts up from `first`, for a module. No two threads get the same number, which `itertools.count` does not promise."""

    def __init__(self, first: int = 0) -> None:
        self._numbers = itertools.count(first)
        self._lock = ModuleLock()

    def __next__(self) -> int:
        with self._lock:
            return next(self._numbers)
