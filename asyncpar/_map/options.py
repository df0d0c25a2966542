"""The options of a run: what they are called, what they are when nothing is said, and what is refused.

`pmap` documents them. They are declared here and nowhere else, but for their types as keyword arguments, which type checkers
need in a form of their own.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import inf
from typing import Any, Literal, TypedDict

from asyncpar._basics.hints import unknown_options
from asyncpar._basics.validation import check_timeout, is_int, is_positive_int, to_count, to_seconds
from asyncpar._contract.executor import Hints
from asyncpar._memory.loans import MmapMode
from asyncpar._memory.options import DEFAULT_BYTES, DEFAULT_MAX_NBYTES, check_mmap_mode, resolve_max_nbytes
from asyncpar._platform.cpus import resolve_n_jobs
from asyncpar._run.batching import BatchSize
from asyncpar._run.outcomes import ON_ERROR, OnError
from asyncpar._run.progress import Progress, check_progress
from asyncpar._run.retrying import ErrorTypes, RetryPolicy
from asyncpar.executors import check_executor


@dataclass(slots=True, kw_only=True)
class RunOptions:
    """As they were given until `check` has been called, and then as they are used."""

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
    max_nbytes: int | str | None = DEFAULT_MAX_NBYTES
    mmap_mode: MmapMode = "r"
    progress: Progress = None

    def check(self) -> None:
        """Refuses what cannot be.

        Raises:
            TypeError, ValueError: the message names the option, what it was, and the valid values.
        """
        self.executor = check_executor(self.executor)
        if self.n_jobs is not None:
            if not (is_int(self.n_jobs) and operator.index(self.n_jobs)):
                raise ValueError(
                    f"n_jobs must be a positive number of workers, a negative one (-1 is all) or None, not {self.n_jobs!r}"
                )
            self.n_jobs = resolve_n_jobs(self.n_jobs)
        if self.batch_size != "auto":
            if not is_positive_int(self.batch_size):
                raise ValueError(f'batch_size must be "auto" or a number of calls, 1 or more, not {self.batch_size!r}')
            self.batch_size = to_count(self.batch_size)
        self.buffersize = _check_count("buffersize", "items", self.buffersize)
        self.concurrency = _check_count("concurrency", "calls", self.concurrency)
        if self.on_error not in ON_ERROR:
            raise ValueError(f"on_error must be one of {', '.join(map(repr, ON_ERROR))}, not {self.on_error!r}")
        if self.progress is not None:
            check_progress(self.progress)
        if self.timeout is not None:
            self.timeout = check_timeout(self.timeout, "call")
        if self.retries != 0 or self.retry_wait != 0 or self.retry_on is not Exception:
            self._check_retries()

    def _check_retries(self) -> None:
        retries, wait = self.retries, to_seconds(self.retry_wait)
        if not is_int(retries) or operator.index(retries) < 0:
            raise ValueError(f"retries must be a number of further attempts, 0 or more, not {retries!r:.200}")
        if not 0 <= wait < inf:
            raise ValueError(f"retry_wait must be a number of seconds, 0 or more, not {self.retry_wait!r:.200}")
        kinds = self.retry_on if isinstance(self.retry_on, tuple) else (self.retry_on,)
        if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
            raise TypeError(f"retry_on must be an exception class or a tuple of such, not {self.retry_on!r}")
        self.retries, self.retry_wait = to_count(retries), wait

    def hints(self) -> Hints:
        """What they say about shared memory, checked."""
        max_nbytes = DEFAULT_BYTES if self.max_nbytes is DEFAULT_MAX_NBYTES else resolve_max_nbytes(self.max_nbytes)
        return Hints(max_nbytes, self.mmap_mode if self.mmap_mode == "r" else check_mmap_mode(self.mmap_mode))

    def retrying(self) -> RetryPolicy | None:
        """What they say about calls that fail."""
        return RetryPolicy(self.retries, self.retry_on, self.retry_wait) if self.retries else None


def _check_count(name: str, of_what: str, count: Any) -> int | None:
    if count is None:
        return None
    if not is_positive_int(count):
        raise ValueError(f"{name} must be a number of {of_what}, 1 or more, or None, not {count!r}")
    return to_count(count)


def read_options(given: Mapping[str, Any]) -> RunOptions:
    """The options, checked.

    Raises:
        TypeError: there is no such option; the message says which one may be meant.
    """
    try:
        options = RunOptions(**given)
    except TypeError:
        raise unknown_options([name for name in given if name not in OPTION_NAMES], OPTION_NAMES) from None
    options.check()
    return options


OPTION_NAMES = tuple(option.name for option in fields(RunOptions))


def signature_of_map() -> inspect.Signature:
    """That of `pmap` with its options, for `help` and the like."""
    kind = inspect.Parameter
    named = [kind(option.name, kind.KEYWORD_ONLY, default=option.default) for option in fields(RunOptions)]
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
    max_nbytes: int | str | None
    mmap_mode: MmapMode
    progress: Progress


class Options(_CommonOptions, total=False):
    """The keyword arguments of `pmap` where errors are raised or skipped."""

    on_error: Literal["raise", "skip"]


class ReturnOptions(_CommonOptions):
    """The keyword arguments of `pmap` where errors stand in the results."""

    on_error: Literal["return"]
