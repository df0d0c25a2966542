"""`PoolExecutor`: a `concurrent.futures.Executor` over asyncpar's executors, for code that takes one.

What it has beyond the pools of the standard library: `cancel` of a future stops its call also when that is running, and a
worker that dies costs only its own call. The executor runs in the portal's event loop; `dispatcher.py` has the calls.

**`WorkerDiedError` is no `BrokenExecutor`.** That class says that the pool cannot be used any more, and code that catches it
makes a new pool. This one goes on with a fresh worker, and all its other calls are unharmed.

At the end of the program, what has been submitted is finished, as with the pools of the standard library, and the workers end.
"""

from __future__ import annotations

import atexit
import itertools
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor as StandardExecutor
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, ParamSpec, TypeVar

from asyncpar._basics.validation import is_int, is_positive_int
from asyncpar._contract.executor import Executor
from asyncpar._sync.dispatcher import Dispatcher
from asyncpar._sync.portal import current_portal
from asyncpar.executors import NAMES

P = ParamSpec("P")
T = TypeVar("T")


class PoolExecutor(StandardExecutor):
    """A `concurrent.futures.Executor` whose running calls can be cancelled, and which survives workers that die.

    It can be given to whatever takes such a pool, such as `loop.run_in_executor` or dask's `scheduler=`. Leaving its `with`
    finishes what has been submitted and ends the workers.

    Args:
        max_workers: how many workers there may be; None: as many as processors.
        executor: "process", "thread" or "interpreter", or an `Executor` that is not used in any event loop of your own. One
            that is given is not closed here.
        options: further arguments of `ProcessExecutor`, `ThreadExecutor` or `InterpreterExecutor`, such as `initializer`.

    Raises:
        ValueError: `executor` is none of these, or an option is out of range.
        TypeError: there is no such option.

    >>> import asyncpar
    >>> with asyncpar.PoolExecutor(2) as pool:
    ...     future = pool.submit(pow, 2, 10)
    ...     list(pool.map(abs, [-1, 2])), future.result()
    ([1, 2], 1024)
    """

    def __init__(self, max_workers: int | None = None, *, executor: str | Executor = "process", **options: Any) -> None:
        made = _make(max_workers, executor, options)
        self._max_workers = made.workers  # what dask looks at
        self._submitting = threading.Lock()
        self._is_shut_down = False
        self._dispatcher = Dispatcher(current_portal(), made, owned=made is not executor)
        self._finalizer = weakref.finalize(self, self._dispatcher.shut_down, cancel_waiting=False)
        self._finalizer.atexit = False
        _pools.add(self)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """The future of the call `fn(*args, **kwargs)`, which runs in a worker. Its `cancel()` also stops a running call.

        A call whose worker dies has a `WorkerDiedError`, and other calls are not affected. With an executor of processes, `fn`
        may also be a coroutine function, which runs in an event loop of its worker.

        Raises:
            RuntimeError: the pool has been shut down, or belongs to the process that this one was forked from.
        """
        with self._submitting:
            if self._is_shut_down:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if not self._dispatcher.portal.usable:
                raise RuntimeError("this PoolExecutor belongs to another process, or the program is ending; make a new one")
            return self._dispatcher.submit(fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """The results of `fn` on every item, in order: what `concurrent.futures.Executor.map` of Python 3.14 does.

        Calls are submitted at once. Closing the iterator stops them. `pmap` and `asyncpar.map` pull lazily and find a chunk
        size by themselves.

        Args:
            fn: the function.
            iterables: several are zipped.
            timeout: seconds from now until the last result is taken; None: any time.
            chunksize: how many calls are sent to a worker together.
            buffersize: how many chunks are submitted ahead of the one whose results are taken; None: all.

        Raises:
            TimeoutError: a result was not there in time.
        """
        if not is_positive_int(chunksize):
            raise ValueError(f"chunksize must be >= 1, not {chunksize!r}")
        if buffersize is not None and not is_int(buffersize):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        deadline = None if timeout is None else time.monotonic() + timeout
        rows = zip(*iterables, strict=False)
        if chunksize == 1:
            submitted = (self.submit(fn, *row) for row in rows)
            futures = deque(itertools.islice(submitted, buffersize))
            return _results(futures, submitted, deadline)
        chunks = iter(lambda: list(itertools.islice(rows, chunksize)), [])
        submitted_chunks = (self.submit(partial(_call_each, fn), chunk) for chunk in chunks)
        chunk_futures = deque(itertools.islice(submitted_chunks, buffersize))
        return (result for results in _results(chunk_futures, submitted_chunks, deadline) for result in results)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls, finishes those that were submitted, and ends the workers.

        Args:
            wait: whether to wait for all that.
            cancel_futures: whether calls that have not begun are cancelled.
        """
        with self._submitting:
            self._is_shut_down = True
        self._finalizer.detach()
        self._dispatcher.shut_down(cancel_waiting=cancel_futures)
        if wait:
            self._dispatcher.wait_ended()


def _make(max_workers: int | None, executor: Any, options: dict[str, Any]) -> Executor:
    if isinstance(executor, Executor):
        if max_workers is not None or options:
            raise TypeError(
                "an executor that is given has its workers and options already; give PoolExecutor only the executor"
            )
        if executor.traits.in_own_task:
            raise ValueError(
                "calls of a PoolExecutor run beside the code that submits them, which an inline executor cannot do"
            )
        return executor
    if executor == "process":
        from asyncpar.executors.process import ProcessExecutor

        return ProcessExecutor(max_workers, **options)
    if executor == "thread":
        from asyncpar.executors.thread import ThreadExecutor

        return ThreadExecutor(max_workers, **options)
    if executor == "interpreter":
        from asyncpar.executors.interpreter import InterpreterExecutor

        return InterpreterExecutor(max_workers, **options)
    known = ", ".join(repr(name) for name in NAMES if name != "inline")
    raise ValueError(f"executor must be one of {known}, or an Executor, not {executor!r:.200}")


def _call_each(fn: Callable[..., T], rows: Iterable[tuple[Any, ...]]) -> list[T]:
    return [fn(*row) for row in rows]


def _results(futures: deque[Future[T]], more: Iterator[Future[T]], deadline: float | None) -> Generator[T, None, None]:
    """The results of futures, each of which is replaced by one more. Those that are left are cancelled."""
    try:
        while futures:
            futures.extend(itertools.islice(more, 1))
            left = None if deadline is None else deadline - time.monotonic()
            yield _result_of(futures.popleft(), left)
    finally:
        for future in futures:
            future.cancel()


def _result_of(future: Future[T], timeout: float | None) -> T:
    """The result; no reference to it is kept."""
    try:
        try:
            return future.result(timeout)
        finally:
            future.cancel()  # if it did not come in time
    finally:
        del future


_pools: weakref.WeakSet[PoolExecutor] = weakref.WeakSet()


def _finish_all() -> None:
    """Called before the program ends, while threads can still be started."""
    for pool in list(_pools):
        pool.shutdown()


_register: Any = getattr(threading, "_register_atexit", atexit.register)  # where it is missing, some threads cannot be started
with suppress(RuntimeError):  # the program is ending already
    _register(_finish_all)
