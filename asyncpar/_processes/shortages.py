"""What the system may be short of when a worker is to start, and the remedies."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from asyncpar.errors import ExecutorUnavailableError

A_PROCESS = "a worker process"
SHORTAGES = {
    errno.EMFILE: "raise the limit of open files (ulimit -n), close some, or use fewer workers (max_workers=)",
    errno.ENFILE: "the whole system has too many files open: close some, or use fewer workers (max_workers=)",
    errno.EAGAIN: "raise the limit of processes (ulimit -u, or that of the container), or use fewer workers (max_workers=)",
    errno.ENOMEM: "free some memory, or use fewer workers (max_workers=)",
}


@contextlib.contextmanager
def explained_shortage(worker: str) -> Iterator[None]:
    """Turns the system's refusals into errors that say so and name the remedy. `worker`: what is being started."""
    try:
        yield
    except ConnectionError:  # not a shortage, but the end of the zygote
        raise
    except OSError as error:
        raise ExecutorUnavailableError(describe_failed_start(worker, error.errno or 0)) from error


def describe_failed_start(worker: str, code: int) -> str:
    """Says in an error message why there is no worker, from an errno."""
    remedy = SHORTAGES.get(code)
    return f"{worker} could not be started: {os.strerror(code)}" + (f"; {remedy}" if remedy else "")
