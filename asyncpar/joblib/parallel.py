"""joblib's module `parallel`: asyncpar's `Parallel` and its like, and what code finds that looks inside joblib's.

`Parallel` here is asyncpar's own, with the attributes of joblib's that subclasses and progress bars use. The best known recipe
for a progress bar replaces `BatchCompletionCallBack` in this module by a subclass that counts. So when a call begins, and that
class is not the original any more, one is made for each batch of tasks that have finished, and called.
"""

from __future__ import annotations

import multiprocessing as mp  # noqa: F401 - code asks whether it is there
import time
from collections import ChainMap
from collections.abc import Callable, Iterable
from multiprocessing import TimeoutError as TimeoutError  # noqa: A004 - joblib's name
from typing import Any

from asyncpar._basics.validation import UNSET
from asyncpar._platform.cpus import cpu_count as cpu_count
from asyncpar._platform.nesting import depth
from asyncpar._sync import config as _own_config
from asyncpar._sync import parallel as _own
from asyncpar._sync.backends import Backend, choose_backend, find_backend, registered
from asyncpar._sync.config import effective_n_jobs as effective_n_jobs
from asyncpar._sync.config import register_parallel_backend as register_parallel_backend
from asyncpar._sync.parallel import delayed as delayed
from asyncpar._sync.parallel import wrap_non_picklable_objects as wrap_non_picklable_objects
from asyncpar._sync.settings import current_settings
from asyncpar.joblib._parallel_backends import BACKENDS as _BACKENDS
from asyncpar.joblib._parallel_backends import AutoBatchingMixin as AutoBatchingMixin
from asyncpar.joblib._parallel_backends import BatchedCalls as BatchedCalls
from asyncpar.joblib._parallel_backends import FallbackToBackend as FallbackToBackend
from asyncpar.joblib._parallel_backends import LokyBackend as LokyBackend
from asyncpar.joblib._parallel_backends import MultiprocessingBackend as MultiprocessingBackend
from asyncpar.joblib._parallel_backends import ParallelBackendBase as ParallelBackendBase
from asyncpar.joblib._parallel_backends import SequentialBackend as SequentialBackend
from asyncpar.joblib._parallel_backends import ThreadingBackend as ThreadingBackend
from asyncpar.joblib.logger import Logger as Logger
from asyncpar.joblib.logger import short_format_time as short_format_time

BACKENDS = ChainMap[str, Any](registered, _BACKENDS)
DEFAULT_BACKEND = DEFAULT_PROCESS_BACKEND = "loky"
DEFAULT_THREAD_BACKEND = "threading"
MAYBE_AVAILABLE_BACKENDS = frozenset({"multiprocessing", "loky"})
VALID_BACKEND_HINTS = ("processes", "threads", None)
VALID_BACKEND_CONSTRAINTS = ("sharedmem", None)


class BatchCompletionCallBack:
    """Is called when a batch of tasks has finished. Replace it here, or its `__call__`, to count them.

    Attributes:
        batch_size: how many tasks have finished.
        parallel: whose they are.
    """

    def __init__(self, dispatch_timestamp: float, batch_size: int, parallel: Parallel) -> None:
        self.dispatch_timestamp = dispatch_timestamp
        self.batch_size = batch_size
        self.parallel = parallel

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """asyncpar itself has counted them already."""


_ORIGINAL = BatchCompletionCallBack, BatchCompletionCallBack.__call__


class Parallel(_own.Parallel[Any]):
    __doc__ = _own.Parallel.__doc__

    _original_iterator = None  # of tasks that have not been dispatched; nobody else dispatches them here

    @property
    def _backend(self) -> ParallelBackendBase:
        """What the calls would run in now."""
        return _as_object(self._asked[0], self._choose()[0])

    def _effective_n_jobs(self) -> int:
        return self.n_jobs

    def dispatch_next(self) -> None:
        """Nothing: asyncpar pulls tasks by itself."""

    def _told_of_batches(self) -> Callable[[int], object] | None:
        if (BatchCompletionCallBack, BatchCompletionCallBack.__call__) == _ORIGINAL:
            return None
        began = time.time()
        return lambda tasks: BatchCompletionCallBack(began, tasks, self)(None)

    def __call__(self, iterable: Iterable[Any]) -> Any:
        with self._backend.retrieval_context():
            return super().__call__(iterable)


class parallel_config(_own_config.parallel_config):
    __doc__ = _own_config.parallel_config.__doc__

    def __enter__(self) -> dict[str, Any]:
        """The settings; the backend as an object of joblib's classes."""
        return {**super().__enter__(), "backend": _backend_of_context()}


class parallel_backend(_own_config.parallel_backend):
    __doc__ = _own_config.parallel_backend.__doc__

    def __enter__(self) -> tuple[Any, int]:
        """The backend, as an object of joblib's classes, and the number of workers that was asked for."""
        return _backend_of_context(), super().__enter__()[1]


def get_active_backend(prefer: Any = None, require: Any = None, verbose: int = 0) -> tuple[ParallelBackendBase, int]:
    """What a `Parallel` without arguments would run in here, and the number of workers that was asked for."""
    backend, _ = choose_backend(None, None, prefer, require, None, {})
    found = _as_object(None, backend)
    n_jobs = current_settings().n_jobs
    return found, found.default_n_jobs if n_jobs is None or n_jobs is UNSET else n_jobs


def _backend_of_context() -> ParallelBackendBase:
    return _as_object(None, find_backend(current_settings().backend or DEFAULT_BACKEND, 1, None, {}))


def _as_object(asked: Any, found: Backend) -> ParallelBackendBase:
    """The backend that was asked for, or that the context says, if that is what was found; else what stands for it."""
    if isinstance(found.of, ParallelBackendBase):
        return found.of
    name = current_settings().backend if asked is None else asked
    kind = _BACKENDS.get(name) if isinstance(name, str) else None
    if kind is None or kind.stands_for != found.kind:
        kind = next((kind for kind in _BACKENDS.values() if kind.stands_for == found.kind), LokyBackend)
    return kind(nesting_level=depth())
