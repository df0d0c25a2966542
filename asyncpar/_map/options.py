"""The options of a run: their names, their defaults, and what is refused.

`pmap` documents them. They are declared only here, except for their types as keyword arguments, which type checkers need in a
form of their own.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from asyncpar._basics.hints import unknown_options
from asyncpar._basics.validation import MOST, check_timeout, is_int, is_positive_int, to_count, to_seconds
from asyncpar._contract.executor import DEFAULT_HINTS, Hints
from asyncpar._memory.loans import MmapMode
from asyncpar._memory.options import DEFAULT_BYTES, DEFAULT_MAX_NBYTES, check_mmap_mode, resolve_max_nbytes
from asyncpar._platform.cpus import resolve_n_jobs
from asyncpar._run.batching import BatchSize
from asyncpar._run.outcomes import ON_ERROR, OnError
from asyncpar._run.progress import Progress, check_progress
from asyncpar._run.retrying import ErrorTypes, RetryPolicy
from asyncpar.executors import check_executor

if TYPE_CHECKING:
    from asyncpar._cache.memory import Memory


class RunOptions:
    """Options, ready for use: those that were given have been checked, the others are the defaults below.

    Raises:
        TypeError, ValueError: the message names the option, its value and the valid values; or the option that may be meant.
    """

    executor: Any = None
    n_jobs: int | None = None
    ordered: bool = True
    batch_size: BatchSize = "auto"
    buffersize: int | None = None
    timeout: float | None = None
    retries: int = 0
    retry_on: ErrorTypes = Exception
    retry_wait: float = 0.0
    on_error: OnError = "raise"
    concurrency: int | None = None
    rate: float | None = None
    burst: float | None = None
    max_nbytes: int | str | None = DEFAULT_MAX_NBYTES
    mmap_mode: MmapMode = "r"
    progress: Progress = None
    cache: Memory | None = None
    seed: int | None = None

    def __init__(self, **given: Any) -> None:
        for name, value in given.items():
            check = _CHECKS.get(name)
            if check is None:
                raise unknown_options([name for name in given if name not in _CHECKS], OPTION_NAMES)
            setattr(self, name, check(value))

    def but(self, **changes: Any) -> RunOptions:
        """The same options except for these, which need no check."""
        changed = RunOptions.__new__(RunOptions)
        changed.__dict__ = {**self.__dict__, **changes}
        return changed

    def hints(self) -> Hints:
        """The options that only some executors can use."""
        if self.max_nbytes is DEFAULT_MAX_NBYTES and self.mmap_mode == "r" and self.n_jobs is None:
            return DEFAULT_HINTS
        max_nbytes = DEFAULT_BYTES if isinstance(self.max_nbytes, str) else self.max_nbytes
        return Hints(max_nbytes, self.mmap_mode, self.n_jobs)

    def retrying(self) -> RetryPolicy | None:
        """The options about calls that fail."""
        return RetryPolicy(self.retries, self.retry_on, self.retry_wait) if self.retries else None


def _check_n_jobs(n_jobs: Any) -> int | None:
    if n_jobs is None:
        return None
    if not (is_int(n_jobs) and operator.index(n_jobs)):
        raise ValueError(f"n_jobs must be a positive number of workers, a negative one (-1 is all) or None, not {n_jobs!r}")
    return resolve_n_jobs(n_jobs)


def _check_batch_size(batch_size: Any) -> BatchSize:
    if batch_size == "auto":
        return "auto"
    if not is_positive_int(batch_size):
        raise ValueError(f'batch_size must be "auto" or a number of calls, 1 or more, not {batch_size!r}')
    return to_count(batch_size)


def _check_count(name: str, of_what: str, count: Any) -> int | None:
    if count is None:
        return None
    if not is_positive_int(count):
        raise ValueError(f"{name} must be a number of {of_what}, 1 or more, or None, not {count!r}")
    return to_count(count)


def _check_rate(rate: Any) -> float | None:
    if rate is None:
        return None
    per_second = to_seconds(rate)
    if not 0 < per_second < inf:
        raise ValueError(f"rate must be a number of calls per second, more than 0, or None, not {rate!r:.200}")
    return min(max(per_second, 1 / MOST), MOST)


def _check_burst(burst: Any) -> float | None:
    if burst is None:
        return None
    calls = to_seconds(burst)
    if not 1 <= calls < inf:
        raise ValueError(f"burst must be a number of calls that may begin at once, 1 or more, or None, not {burst!r:.200}")
    return min(calls, MOST)


def _check_retries(retries: Any) -> int:
    if not is_int(retries) or operator.index(retries) < 0:
        raise ValueError(f"retries must be a number of further attempts, 0 or more, not {retries!r:.200}")
    return to_count(retries)


def _check_retry_on(retry_on: Any) -> ErrorTypes:
    kinds = retry_on if isinstance(retry_on, tuple) else (retry_on,)
    if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
        raise TypeError(f"retry_on must be an exception class or a tuple of them, not {retry_on!r}")
    checked: ErrorTypes = retry_on
    return checked


def _check_retry_wait(retry_wait: Any) -> float:
    wait = to_seconds(retry_wait)
    if not 0 <= wait < inf:
        raise ValueError(f"retry_wait must be a number of seconds, 0 or more, not {retry_wait!r:.200}")
    return wait


def _check_on_error(on_error: Any) -> OnError:
    for known in ON_ERROR:
        if on_error == known:
            return known
    raise ValueError(f"on_error must be one of {', '.join(map(repr, ON_ERROR))}, not {on_error!r}")


def _check_max_nbytes(max_nbytes: Any) -> int | str | None:
    return max_nbytes if max_nbytes is DEFAULT_MAX_NBYTES else resolve_max_nbytes(max_nbytes)


def _check_cache(cache: Any) -> Memory | None:
    if cache is None:
        return None
    from asyncpar._cache.memory import Memory

    if not isinstance(cache, Memory):
        raise TypeError(f"cache must be an asyncpar.Memory, such as Memory('a folder'), or None, not {cache!r:.200}")
    return cache


def _check_seed(seed: Any) -> int | None:
    if seed is None:
        return None
    if not is_int(seed) or operator.index(seed) < 0:
        raise ValueError(f"seed must be an integer, 0 or more, or None, not {seed!r:.200}")
    return operator.index(seed)


_CHECKS: dict[str, Callable[[Any], Any]] = {  # {option: checks its value and returns the one to use}
    "executor": check_executor,
    "n_jobs": _check_n_jobs,
    "ordered": bool,
    "batch_size": _check_batch_size,
    "buffersize": partial(_check_count, "buffersize", "items"),
    "timeout": partial(check_timeout, of_what="call"),
    "retries": _check_retries,
    "retry_on": _check_retry_on,
    "retry_wait": _check_retry_wait,
    "on_error": _check_on_error,
    "concurrency": partial(_check_count, "concurrency", "calls"),
    "rate": _check_rate,
    "burst": _check_burst,
    "max_nbytes": _check_max_nbytes,
    "mmap_mode": check_mmap_mode,
    "progress": check_progress,
    "cache": _check_cache,
    "seed": _check_seed,
}
OPTION_NAMES = tuple(_CHECKS)


def signature_of_map() -> inspect.Signature:
    """The signature of `pmap` with its options, for `help` and the like."""
    kind = inspect.Parameter
    named = [kind(name, kind.KEYWORD_ONLY, default=getattr(RunOptions, name)) for name in OPTION_NAMES]
    return inspect.Signature([kind("fn", kind.POSITIONAL_ONLY), kind("iterables", kind.VAR_POSITIONAL), *named])


class _CommonOptions(TypedDict, total=False):
    executor: Any
    n_jobs: int | None
    ordered: bool
    batch_size: BatchSize
    buffersize: int | None
    timeout: float | None
    retries: int
    retry_on: ErrorTypes
    retry_wait: float
    concurrency: int | None
    rate: float | None
    burst: float | None
    max_nbytes: int | str | None
    mmap_mode: MmapMode
    progress: Progress
    cache: Memory | None
    seed: int | None


class Options(_CommonOptions, total=False):
    """The keyword arguments of `pmap` where errors are raised or skipped."""

    on_error: Literal["raise", "skip"]


class ReturnOptions(_CommonOptions):
    """The keyword arguments of `pmap` where errors are returned among the results."""

    on_error: Literal["return"]
