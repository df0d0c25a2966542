"""joblib's classes of backends. Those of joblib's own say which of asyncpar's executors they stand for. Those that others
derive run in an adapter.

    LokyBackend, MultiprocessingBackend      processes
    ThreadingBackend                         threads
    SequentialBackend                        the caller's thread
    a class that is derived from any of them, or from ParallelBackendBase, and registered: its own `submit`

joblib calls a backend's methods in the order `configure`, `start_call`, `submit` again and again, `stop_call`, `terminate`.
`BackendPool` does that. It is a pool of `concurrent.futures`, in which `FuturesExecutor` runs batches. So one scheduler pulls
and hands out everything, and a backend sees only batches. Where it has workers on other machines, asyncpar must be there.
"""

from __future__ import annotations

import threading
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor as StandardExecutor
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from asyncpar._platform.cpus import resolve_n_jobs
from asyncpar._sync.backends import Backend, BackendObject, find_backend
from asyncpar._sync.pool_executor import PoolExecutor

_OUR_NAMES = {"idle_worker_timeout": "idle_timeout"}
_OF_MAPS = frozenset({"temp_folder", "max_nbytes", "mmap_mode", "verbose"})  # what joblib's backends get for maps of arrays


class ParallelBackendBase(BackendObject, metaclass=ABCMeta):
    """What joblib's backends have in common. Derive from it, implement `effective_n_jobs` and `submit`, and register it."""

    stands_for: ClassVar[str] = "other"  # the kind of executor
    supports_inner_max_num_threads = False
    supports_retrieve_callback = False
    uses_threads = False

    def __init__(
        self, nesting_level: int | None = None, inner_max_num_threads: int | None = None, **backend_kwargs: Any
    ) -> None:
        self.nesting_level = nesting_level
        self.inner_max_num_threads = inner_max_num_threads
        self.backend_kwargs = backend_kwargs
        self.parallel: Any = None

    @property
    def supports_return_generator(self) -> bool:
        """Any backend does here."""
        return True

    @property
    def supports_timeout(self) -> bool:
        """Whether `retrieve_result` may be given a timeout."""
        return self.supports_retrieve_callback

    @abstractmethod
    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many batches run at once, if the user has asked for `n_jobs`."""

    def submit(self, func: Any, callback: Any = None) -> Any:
        """Begins a batch, which is called without arguments and returns a list. Calls `callback` with what has come of it."""
        return self.apply_async(func, callback)

    def apply_async(self, func: Any, callback: Any = None) -> Any:
        """The older name of `submit`."""
        raise NotImplementedError(f"{type(self).__name__} has neither `submit` nor `apply_async`")

    def retrieve_result_callback(self, out: Any) -> Any:
        """The result, from what the callback was given."""
        return out.result()

    def retrieve_result(self, out: Any, timeout: float | None = None) -> Any:
        """Waits for what `submit` has returned."""
        return out.get(timeout=timeout) if self.supports_timeout else out.get()

    def configure(
        self, n_jobs: int | None = 1, parallel: Any = None, prefer: Any = None, require: Any = None, **kwargs: Any
    ) -> int:
        """Called before anything is submitted; returns how many batches run at once."""
        self.parallel = parallel
        return self.effective_n_jobs(n_jobs)

    def start_call(self) -> None:
        """A call begins."""

    def stop_call(self) -> None:
        """It has ended."""

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """What is running is not wanted any more."""

    def terminate(self) -> None:
        """Nothing more will be submitted."""

    def compute_batch_size(self) -> int:
        """asyncpar finds the size of batches by itself."""
        return 1

    def batch_completed(self, batch_size: int, duration: float) -> None:
        """A batch took so many seconds."""

    def get_nested_backend(self) -> tuple[ParallelBackendBase, int | None]:
        """What a `Parallel` in a task uses: threads, and a loop below that."""
        level = (self.nesting_level or 0) + 1
        return (SequentialBackend if level > 1 else ThreadingBackend)(nesting_level=level), None

    @contextmanager
    def retrieval_context(self) -> Iterator[None]:
        """Around the collecting of results."""
        yield

    @staticmethod
    def in_main_thread() -> bool:
        return threading.current_thread() is threading.main_thread()

    def found(self, n_jobs: int, inner_max_num_threads: int | None, params: Mapping[str, Any]) -> Backend:
        """See `BackendObject`."""
        if type(self) in BACKENDS.values():
            inner = inner_max_num_threads or self.inner_max_num_threads
            return replace(find_backend(self.stands_for, n_jobs, inner, {**self.backend_kwargs, **params}), of=self)
        from asyncpar.executors.futures import FuturesExecutor

        if inner_max_num_threads is not None:
            raise AssertionError(f"inner_max_num_threads is to be given to {type(self).__name__} when it is made")
        make_pool = partial(BackendPool, self, n_jobs, params)
        return Backend(type(self).__name__, "other", lambda: FuturesExecutor(make_pool), of=self)


class AutoBatchingMixin:
    """Finds good sizes for batches, which asyncpar does anyway."""

    def reset_batch_stats(self) -> None:
        """There are none."""


class PoolManagerMixin:
    """A backend whose tasks run in a pool with `apply_async`, as multiprocessing has it."""

    _pool: Any = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many workers the pool has."""
        return _workers(n_jobs)

    def submit(self, func: Any, callback: Any = None) -> Any:
        """Begins a batch in the pool."""
        return self._get_pool().apply_async(func, (), callback=callback, error_callback=callback)

    def terminate(self) -> None:
        """Ends the pool."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()
            pool.terminate()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Ends the pool, and all that runs in it."""
        self.terminate()

    def _get_pool(self) -> Any:
        return self._pool


class _Own(ParallelBackendBase):
    """A backend of joblib's own. What is derived from it has its methods called; then calls run in workers of its own."""

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        return _workers(n_jobs)

    def configure(
        self, n_jobs: int | None = 1, parallel: Any = None, prefer: Any = None, require: Any = None, **kwargs: Any
    ) -> int:
        workers = super().configure(n_jobs, parallel, prefer, require)
        options = {"inner_max_num_threads": self.inner_max_num_threads, **self.backend_kwargs, **kwargs}
        known = {_OUR_NAMES.get(name, name): value for name, value in options.items() if name not in _OF_MAPS}
        self._workers = PoolExecutor(workers, executor=self.stands_for, **known)
        return workers

    def submit(self, func: Any, callback: Any = None) -> Any:
        future = self._workers.submit(func)
        future.add_done_callback(callback)
        return future

    def retrieve_result(self, out: Any, timeout: float | None = None) -> Any:
        return out.result(timeout)

    def terminate(self) -> None:
        self._workers.shutdown()


class LokyBackend(AutoBatchingMixin, _Own):
    """Processes."""

    stands_for = "process"


class ThreadingBackend(_Own):
    """Threads."""

    stands_for = "thread"
    supports_sharedmem = True
    uses_threads = True


class MultiprocessingBackend(PoolManagerMixin, AutoBatchingMixin, ParallelBackendBase):
    """Processes. What is derived from it has a pool of joblib's (`pool.py`), which others replace by theirs."""

    stands_for = "process"
    supports_retrieve_callback = True
    supports_inner_max_num_threads = True

    def configure(
        self, n_jobs: int | None = 1, parallel: Any = None, prefer: Any = None, require: Any = None, **kwargs: Any
    ) -> int:
        from asyncpar.joblib.pool import MemmappingPool

        workers = super().configure(n_jobs, parallel, prefer, require)
        self._pool = MemmappingPool(workers, **kwargs)
        return workers

    def retrieve_result_callback(self, out: Any) -> Any:
        """A pool gives the result itself, or the error."""
        if isinstance(out, BaseException):
            raise out
        return out


class SequentialBackend(ParallelBackendBase):
    """The caller's thread."""

    stands_for = "inline"
    supports_retrieve_callback = True
    supports_sharedmem = True
    uses_threads = True

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """One, whatever was asked for."""
        return min(_workers(n_jobs), 1)

    def submit(self, func: Any, callback: Any = None) -> Any:
        """Makes the calls at once."""
        future: Future[Any] = Future()
        try:
            future.set_result(func())
        except BaseException as error:  # whoever takes the result raises it
            future.set_exception(error)
        callback(future)
        return future


BACKENDS: dict[str, type[ParallelBackendBase]] = {
    "loky": LokyBackend,
    "multiprocessing": MultiprocessingBackend,
    "threading": ThreadingBackend,
    "sequential": SequentialBackend,
}


class FallbackToBackend(Exception):
    """Raised by `configure`: another backend is to be used."""

    def __init__(self, backend: ParallelBackendBase) -> None:
        super().__init__(backend)
        self.backend = backend


class BatchedCalls:
    """A batch: it is called without arguments, and returns the results of its calls."""

    def __init__(self, items: Any, *_: object) -> None:
        self.items = list(items)

    def __call__(self) -> list[Any]:
        return [function(*arguments, **keywords) for function, arguments, keywords in self.items]

    def __len__(self) -> int:
        return len(self.items)


class BackendPool(StandardExecutor):
    """A pool over a backend that somebody has derived.

    The backend's `submit` is called in a thread of the pool's own, because it may block, or make the call itself. Where results
    do not come with the callback, a thread for each of them waits.
    """

    def __init__(self, backend: ParallelBackendBase, n_jobs: int, params: Mapping[str, Any]) -> None:
        from asyncpar.joblib.parallel import Parallel

        self._backend = backend
        self.shares_memory = backend.supports_sharedmem
        self._under_way: set[Future[Any]] = set()
        self._caller = ThreadPoolExecutor(1, "asyncpar joblib backend")
        try:
            configure = partial(self._configure, n_jobs=n_jobs, parallel=Parallel(n_jobs), **params)
            self._max_workers = self._caller.submit(configure).result()
        except BaseException:
            self._caller.shutdown()
            raise

    def _configure(self, **arguments: Any) -> int:
        try:
            workers = self._backend.configure(**arguments)
        except FallbackToBackend as fallback:
            self._backend = fallback.backend
            workers = self._backend.configure(**arguments)
        try:
            self._backend.start_call()
        except BaseException:
            self._backend.terminate()
            raise
        return workers

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The future of the call."""
        future: Future[Any] = Future()
        self._caller.submit(self._send, future, BatchedCalls([(fn, args, kwargs)]))
        return future

    def _send(self, future: Future[Any], batch: BatchedCalls) -> None:
        if not future.set_running_or_notify_cancel():
            return
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        try:
            if self._backend.supports_retrieve_callback:
                self._backend.submit(batch, callback=partial(_settle, future, self._backend.retrieve_result_callback))
            else:
                job = self._backend.submit(batch, callback=_ignore)
                arguments = future, self._backend.retrieve_result, job
                threading.Thread(target=_settle, args=arguments, name="asyncpar joblib backend", daemon=True).start()
        except BaseException as error:
            with suppress(InvalidStateError):  # it has called back before
                future.set_exception(error)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Ends the backend.

        Raises:
            Exception: the backend's own error, if that is waited for.
        """
        try:
            end = self._caller.submit(self._end)
        except RuntimeError:  # it has been shut down before
            return
        self._caller.shutdown(wait=wait)
        if wait:
            end.result()

    def _end(self) -> None:
        try:
            if self._under_way:
                self._backend.abort_everything(ensure_ready=False)
            self._backend.stop_call()
        finally:
            self._backend.terminate()


def _settle(future: Future[Any], retrieve: Callable[[Any], list[Any]], out: Any) -> None:
    """What a backend says first counts. An error here would end the thread in which a pool calls back."""
    with suppress(InvalidStateError):
        try:
            (value,) = retrieve(out)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(value)


def _ignore(_: object) -> None:
    """The callback of a batch whose result is waited for."""


def _workers(n_jobs: int | None) -> int:
    if n_jobs == 0:
        raise ValueError("n_jobs == 0 in Parallel has no meaning")
    return 1 if n_jobs is None else resolve_n_jobs(n_jobs)
