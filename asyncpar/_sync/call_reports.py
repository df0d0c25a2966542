"""Reports how far one `Parallel` call is: to a bar, the user's function, `print_progress`, or the reader of `verbose`.

Every call has its own report, so that several threads may call one `Parallel` at once. The `Parallel` has only the two counts
that joblib's users read; they are those of the call that reported last. `print_progress` takes no arguments, so the call that
it is to print about is in a context variable meanwhile.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Protocol, Self

from asyncpar._run.progress import Meter, Progress, open_meter
from asyncpar._run.statistics import Statistics
from asyncpar._sync.reporting import TO_STDOUT, is_due, progress_line


class Counted(Protocol):
    """What is used of a `Parallel` here."""

    verbose: float
    n_completed_tasks: int
    n_dispatched_tasks: int

    def _print(self, message: str) -> None: ...


class CallReports:
    """Reports how far one call is, and its end. A context manager around the call.

    Args:
        progress: what the user has asked for.
        override: called instead of printing lines.
        told: called with how many tasks have finished since the last time.
    """

    def __init__(
        self,
        parallel: Counted,
        progress: Progress,
        override: Callable[[], object] | None,
        told: Callable[[int], object] | None = None,
    ) -> None:
        self._parallel = parallel
        self._progress: Progress = progress
        self._override = override
        self._told = told
        self._already_told = 0
        self._meter: Meter | None = None
        self._began = time.monotonic()
        self._reports = 0
        self._total: int | None = None  # how many tasks the call has, once that is known
        self._finished = False
        self.wanted = bool(parallel.verbose > 0 or progress or override is not None or told is not None)
        self.count(0, 0)

    def __enter__(self) -> Self:
        self._meter = open_meter(self._progress)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._meter is not None:
            self._meter.close()
        if kind is None and self.wanted:
            self._finished = True
            self._tell()

    def report(self, statistics: Statistics, dispatched: int, total: int | None) -> None:
        """Some calls have finished."""
        self.count(statistics.finished, dispatched)
        self._total = total
        if self._meter is not None:
            self._meter.update(statistics, total)
        self._reports += 1
        self._tell()

    def report_inline(self, done: int) -> None:
        """The same, if the calls are a loop."""
        seconds = time.monotonic() - self._began
        self.report(Statistics(done, done, 0, done, 1, done, 1, 1, seconds, seconds), done, None)

    def count(self, completed: int, dispatched: int) -> None:
        """Counts the tasks that are done, without a report."""
        self._completed = completed
        self._parallel.n_dispatched_tasks = dispatched
        self._parallel.n_completed_tasks = completed

    def print_if_due(self) -> None:
        """The line that `verbose` asks for now, if any."""
        verbose = self._parallel.verbose
        if is_due(self._reports, self._completed, self._total, verbose, finished=self._finished):
            seconds = time.monotonic() - self._began
            self.print(progress_line(self._completed, self._total, seconds, finished=self._finished))

    def print(self, message: str) -> None:
        self._parallel._print(message)

    def _tell(self) -> None:
        if self._told is not None and (tasks := self._completed - self._already_told):
            self._already_told = self._completed
            self._told(tasks)
        if self._override is None:
            self.print_if_due()
            return
        before = _telling.set(self)
        try:
            self._override()
        finally:
            _telling.reset(before)


def print_line(line: str, verbose: float) -> None:
    stream = sys.stderr if verbose < TO_STDOUT else sys.stdout
    if stream is not None:  # as in a program without a console
        stream.write(f"{line}\n")


_telling: ContextVar[CallReports | None] = ContextVar("asyncpar_telling", default=None)


def print_current() -> None:
    """Prints about the call whose `print_progress` runs now, if there is one."""
    reports = _telling.get()
    if reports is not None:
        reports.print_if_due()
