"""The error of a `Parallel` call whose task took too long, in a module of its own: multiprocessing takes 10 ms to import."""

from __future__ import annotations

import multiprocessing

from asyncpar.errors import CallTimeoutError


class ParallelTimeoutError(CallTimeoutError, multiprocessing.TimeoutError):
    """A `CallTimeoutError` that code which catches joblib's error also catches."""

    __module__ = "asyncpar._sync.timeouts"


def as_parallel_timeout(error: CallTimeoutError) -> ParallelTimeoutError:
    """The same error, so that `except multiprocessing.TimeoutError` catches it."""
    converted = ParallelTimeoutError(str(error), error.index, error.item, error.seconds)
    converted.__cause__ = error.__cause__
    for note in getattr(error, "__notes__", ()):
        converted.add_note(note)
    return converted
