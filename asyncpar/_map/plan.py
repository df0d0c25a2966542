"""What `pmap` was asked for: its options, their validation, and the run that they become."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from types import BuiltinFunctionType, FunctionType
from typing import Any, Literal, TypedDict

from asyncpar._basics.hints import not_callable
from asyncpar._basics.validation import check_timeout, is_int, is_positive_int, to_count, to_seconds
from asyncpar._contract.executor import Executor, Program
from asyncpar._memory.loans import MmapMode
from asyncpar._memory.options import DEFAULT_BYTES, DEFAULT_MAX_NBYTES, check_mmap_mode, resolve_max_nbytes
from asyncpar._platform.cpus import resolve_n_jobs
from asyncpar._run.batching import BatchSize, make_sizer
from asyncpar._run.outcomes import ON_ERROR, OnError
from asyncpar._run.progress import Progress, check_progress, open_meter
from asyncpar._run.retrying import ErrorTypes, RetryPolicy
from asyncpar._run.scheduler import Run, Sink
from asyncpar._run.sources import Source, open_source
from asyncpar.executors import check_executor, default_executor, default_name

DEFAULT_CONCURRENCY = 100  # as many as an HTTP client's pool has connections, by habit; a guess


class _CommonOptions(TypedDict, total=False):
    executor: str | Executor[Any] | None
    n_jobs: int | None
    ordered: bool
    batch_size: BatchSize
    buffersize: int | None
    timeout: float | None
    retries: int
    retry_on: ErrorTypes
    retry_wait: float
    concurrency: int | None
    max_nbytes: int | str | None
    mmap_mode: MmapMode
    progress: Progress


class Options(_CommonOptions, total=False):
    """The keyword arguments of `pmap` where errors are raised or skipped."""

    on_error: Literal["raise", "skip"]


class ReturnOptions(_CommonOptions):
    """The keyword arguments of `pmap` where errors stand in the results."""

    on_error: Literal["return"]


def make_plan(
    fn: Callable[..., Any],
    iterables: Sequence[Any],
    *,
    executor: str | Executor[Any] | None,
    n_jobs: int | None,
    ordered: bool,
    batch_size: BatchSize,
    buffersize: int | None,
    timeout: float | None,
    retries: int,
    retry_on: ErrorTypes,
    retry_wait: float,
    on_error: OnError,
    concurrency: int | None,
    max_nbytes: int | str | None,
    mmap_mode: MmapMode,
    progress: Progress,
) -> Plan:
    """Checks everything that can be checked before a worker starts; see `pmap` for the parameters and errors."""
    if not callable(fn):
        raise not_callable(fn, iterables)
    if not iterables:
        raise TypeError("pmap needs at least one iterable to map over")
    _check_options(executor, n_jobs, batch_size, buffersize, on_error, concurrency)
    check_progress(progress)
    if timeout is not None or retries != 0 or retry_wait != 0 or retry_on is not Exception:  # a microsecond, if need be
        timeout = check_timeout(timeout, "call")
        retries, retry_wait = _check_retries(retries, retry_on, retry_wait)
    is_coroutine = _is_coroutine_function(fn)
    if concurrency is not None and not is_coroutine:
        raise ValueError(f"concurrency is for coroutine functions, and {fn!r} is not one; n_jobs limits the workers")
    return Plan(
        program=Program(
            fn,
            (DEFAULT_CONCURRENCY if concurrency is None else to_count(concurrency)) if is_coroutine else 0,
            on_error == "raise" and not retries,
            timeout,
            DEFAULT_BYTES if max_nbytes is DEFAULT_MAX_NBYTES else resolve_max_nbytes(max_nbytes),
            mmap_mode if mmap_mode == "r" else check_mmap_mode(mmap_mode),
        ),
        source=open_source(iterables),
        executor=executor,
        n_jobs=None if n_jobs is None else resolve_n_jobs(n_jobs),
        ordered=ordered,
        batch_size=batch_size if batch_size == "auto" else to_count(batch_size),
        window=None if buffersize is None else to_count(buffersize),
        on_error=on_error,
        retrying=RetryPolicy(retries, retry_on, retry_wait) if retries else None,
        progress=progress,
    )


@dataclass(slots=True)
class Plan:
    """A checked request; it becomes a run in the event loop where it is consumed."""

    program: Program
    source: Source
    executor: str | Executor[Any] | None
    n_jobs: int | None
    ordered: bool
    batch_size: BatchSize
    window: int | None
    on_error: OnError
    retrying: RetryPolicy | None
    progress: Progress

    def make_run(self, sink: Sink, *, errors_are_values: bool = False) -> Run:
        """A run that feeds `sink`, on the executor of the current event loop if none was given as an object."""
        program = self.program
        if errors_are_values:
            program = program._replace(stop_on_error=False)
        in_loop = program.concurrency > 0 and self.executor is None
        executor = self._resolve_executor(in_loop)
        limit = executor.capacity if self.n_jobs is None else min(self.n_jobs, executor.capacity)
        sizer = make_sizer(1 if in_loop else self.batch_size, program.concurrency or 1, self.source.remaining, limit)
        stop_on_error = self.on_error == "raise" and not errors_are_values
        return Run(
            program,
            self.source,
            executor,
            sizer,
            sink,
            limit=limit,
            window=self.window,
            stop_on_error=stop_on_error,
            retrying=self.retrying,
            meter=open_meter(self.progress),
        )

    def _resolve_executor(self, in_loop: bool) -> Executor[Any]:
        if in_loop:
            from asyncpar.executors.coroutine import CoroutineExecutor

            return CoroutineExecutor(self.program.concurrency)
        if isinstance(self.executor, Executor):
            return self.executor
        return default_executor(self.executor or default_name(), self.n_jobs)


def _is_coroutine_function(fn: Callable[..., Any]) -> bool:
    if isinstance(fn, BuiltinFunctionType):  # a microsecond, not ten
        return False
    if isinstance(fn, FunctionType) and not fn.__dict__:  # nothing marks it, so its code says it all: 2 µs less
        return bool(fn.__code__.co_flags & inspect.CO_COROUTINE)
    return inspect.iscoroutinefunction(fn) or (
        not isinstance(fn, FunctionType) and inspect.iscoroutinefunction(type(fn).__call__)
    )


def _check_options(
    executor: object, n_jobs: object, batch_size: object, buffersize: object, on_error: object, concurrency: object
) -> None:
    check_executor(executor)
    if n_jobs is not None and not (is_int(n_jobs) and operator.index(n_jobs)):
        raise ValueError(f"n_jobs must be a positive number of workers, a negative one (-1 is all) or None, not {n_jobs!r}")
    if batch_size != "auto" and not is_positive_int(batch_size):
        raise ValueError(f'batch_size must be "auto" or a number of calls, 1 or more, not {batch_size!r}')
    if buffersize is not None and not is_positive_int(buffersize):
        raise ValueError(f"buffersize must be a number of items, 1 or more, or None, not {buffersize!r}")
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error must be one of {', '.join(map(repr, ON_ERROR))}, not {on_error!r}")
    if concurrency is not None and not is_positive_int(concurrency):
        raise ValueError(f"concurrency must be a number of calls, 1 or more, or None, not {concurrency!r}")


def _check_retries(retries: Any, retry_on: object, retry_wait: Any) -> tuple[int, float]:
    """Both numbers as what is counted with."""
    if not is_int(retries) or operator.index(retries) < 0:
        raise ValueError(f"retries must be a number of further attempts, 0 or more, not {retries!r:.200}")
    wait = to_seconds(retry_wait)
    if not 0 <= wait < inf:
        raise ValueError(f"retry_wait must be a number of seconds, 0 or more, not {retry_wait!r:.200}")
    kinds = retry_on if isinstance(retry_on, tuple) else (retry_on,)
    if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
        raise TypeError(f"retry_on must be an exception class or a tuple of such, not {retry_on!r}")
    return to_count(retries), wait
