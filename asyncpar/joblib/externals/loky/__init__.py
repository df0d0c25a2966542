"""loky's names, as joblib has them: its pool of processes is asyncpar's."""

from __future__ import annotations

from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION, CancelledError, Future, as_completed, wait
from concurrent.futures import TimeoutError as TimeoutError  # noqa: A004 - loky's name

from asyncpar._platform.cpus import cpu_count
from asyncpar._sync.parallel import wrap_non_picklable_objects
from asyncpar.joblib.externals.loky.process_executor import BrokenProcessPool, ProcessPoolExecutor
from asyncpar.joblib.externals.loky.reusable_executor import get_reusable_executor

__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "BrokenProcessPool",
    "CancelledError",
    "Future",
    "ProcessPoolExecutor",
    "TimeoutError",
    "as_completed",
    "cpu_count",
    "get_reusable_executor",
    "set_loky_pickler",
    "wait",
    "wrap_non_picklable_objects",
]


def set_loky_pickler(loky_pickler: str | None = None) -> None:
    """Nothing: asyncpar pickles by name what it can, and with cloudpickle what it must."""
