"""Limits the threads that numerical libraries start, while calls run in threads of this program.

A worker process gets such limits through its environment, before it loads a library. The libraries of this program are loaded
already, so threadpoolctl tells them. It finds the libraries in what the process has loaded, which takes 0.2 ms, and is asked
again when modules have been imported since.

Most BLAS libraries have one limit for the whole process. OpenMP, and OpenBLAS if it is built on it, have one for each thread:

- The first batch that begins notes what a library of the first kind had, and the last that ends restores it. If batches of
  several executors run at the same time, the lowest of their limits holds for all. threadpoolctl lets only one thread set such
  limits, the first that does, and ignores all others. So batches take turns, and each takes that right from whoever has it.
- For the second kind, each batch sets the limit in its own thread, and restores it there, because threads are shared with other
  code.

A limit only lowers. As in worker processes, a library whose own variable is in the environment (`OMP_NUM_THREADS`, …) is left
alone, since the user has set its limit there. A library that a call loads is limited from the next batch on.

# limits.total() == batches that run now
# noted is empty  <=>  limits is empty, or there was no library of the first kind to limit
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from asyncpar._basics.locking import ModuleLock
from asyncpar.errors import ExecutorUnavailableError

_VARIABLES = {  # {threadpoolctl's name of a library: the variable with which users limit it}
    "openmp": "OMP_NUM_THREADS",
    "openblas": "OPENBLAS_NUM_THREADS",
    "mkl": "MKL_NUM_THREADS",
    "blis": "BLIS_NUM_THREADS",
}

_changing = ModuleLock()  # for all of these
_limits: Counter[int] = Counter()  # {limit: batches with that limit that run now}
_noted: dict[str, tuple[Any, int]] = {}  # {path of a library of the first kind: it, and how many threads it had}
_found: tuple[int, list[Any]] = (0, [])  # how many modules there were when the libraries were searched for; the libraries


class InnerThreads:
    """The limit of one executor.

    Raises:
        ExecutorUnavailableError: threadpoolctl is not installed.
    """

    def __init__(self, limit: int) -> None:
        _import_threadpoolctl()
        self._limit = limit

    def run(self, fn: Callable[[], None]) -> None:
        """Calls `fn`, in the current thread, while the limit holds."""
        with _changing:
            libraries = [library for library in _libraries() if not _is_limited_by_user(library)]
        of_thread = [library for library in libraries if _has_limits_of_threads(library)]
        with _lowered_here(of_thread, self._limit):
            _begin([library for library in libraries if library not in of_thread], self._limit)
            try:
                fn()
            finally:
                _end(self._limit)


def _import_threadpoolctl() -> Any:
    try:
        import threadpoolctl
    except ImportError:
        raise ExecutorUnavailableError(
            "inner_max_num_threads needs threadpoolctl where calls run in threads: pip install 'asyncpar[threads]'"
        ) from None
    return threadpoolctl


def _libraries() -> list[Any]:
    global _found
    modules = len(sys.modules)
    if _found[0] != modules:
        _found = modules, _import_threadpoolctl().ThreadpoolController().lib_controllers
    return _found[1]


def _is_limited_by_user(library: Any) -> bool:
    return _VARIABLES.get(library.internal_api, "") in os.environ


def _has_limits_of_threads(library: Any) -> bool:
    is_openblas = library.internal_api == "openblas"
    return bool(library.user_api == "openmp" or (is_openblas and library.threading_layer == "openmp"))


@contextmanager
def _lowered_here(libraries: list[Any], limit: int) -> Iterator[None]:
    """Lowers the limits of the current thread."""
    before = [(library, count) for library in libraries if (count := library.get_num_threads()) is not None]
    for library, count in before:
        library.set_num_threads(min(limit, count))
    try:
        yield
    finally:
        for library, count in before:
            library.set_num_threads(count)


def _begin(libraries: list[Any], limit: int) -> None:
    with _changing:
        _limits[limit] += 1
        for library in libraries:
            if library.filepath not in _noted:
                count = library.get_num_threads()
                if count is not None:  # it is a build without threads
                    _noted[library.filepath] = library, count
        _set_all()


def _end(limit: int) -> None:
    with _changing:
        if limit in _limits:  # else this is a forked copy of the thread
            _limits[limit] -= 1
            if not _limits[limit]:
                del _limits[limit]
        _set_all()
        if not _limits:
            _noted.clear()


def _set_all() -> None:
    """Each library gets the lowest limit, or what it had."""
    for library, count in _noted.values():
        let_go = getattr(library, "clear_controlling_thread", _nothing)  # only OpenBLAS has an owner
        let_go(force=True)
        library.set_num_threads(min([count, *_limits]))
        let_go(force=True)


def _nothing(*, force: bool) -> None:
    """There is nothing to let go of."""


def _forget_in_copy() -> None:
    """In a forked copy of this process: the threads whose batches would end are not there. It keeps the limits that it has."""
    _limits.clear()
    _noted.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_copy)
