"""asyncpar: the parallel map for asyncio and trio.

Names are loaded when they are first used, so that `import asyncpar` costs next to nothing and a worker process that imports
asyncpar stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncpar.config import effective_n_jobs as effective_n_jobs
    from asyncpar.config import parallel_backend as parallel_backend
    from asyncpar.config import parallel_config as parallel_config
    from asyncpar.config import register_parallel_backend as register_parallel_backend
    from asyncpar.cpus import cpu_count as cpu_count
    from asyncpar.errors import AsyncparError as AsyncparError
    from asyncpar.errors import CallTimeoutError as CallTimeoutError
    from asyncpar.errors import ConsumedError as ConsumedError
    from asyncpar.errors import ExecutorUnavailableError as ExecutorUnavailableError
    from asyncpar.errors import PicklingError as PicklingError
    from asyncpar.errors import RemoteError as RemoteError
    from asyncpar.errors import RemoteTraceback as RemoteTraceback
    from asyncpar.errors import WorkerDiedError as WorkerDiedError
    from asyncpar.executors.base import Executor as Executor
    from asyncpar.executors.inline import InlineExecutor as InlineExecutor
    from asyncpar.executors.process import ProcessExecutor as ProcessExecutor
    from asyncpar.executors.thread import ThreadExecutor as ThreadExecutor
    from asyncpar.outcomes import Outcome as Outcome
    from asyncpar.parallel import Parallel as Parallel
    from asyncpar.parallel import delayed as delayed
    from asyncpar.parallel import wrap_non_picklable_objects as wrap_non_picklable_objects
    from asyncpar.parallel_map import ParallelMap as ParallelMap
    from asyncpar.parallel_map import pmap as pmap
    from asyncpar.statistics import Statistics as Statistics

__version__ = "0.1.0"

_HOMES = {
    "AsyncparError": "errors",
    "CallTimeoutError": "errors",
    "ConsumedError": "errors",
    "Executor": "executors.base",
    "ExecutorUnavailableError": "errors",
    "InlineExecutor": "executors.inline",
    "Outcome": "outcomes",
    "Parallel": "parallel",
    "ParallelMap": "parallel_map",
    "PicklingError": "errors",
    "ProcessExecutor": "executors.process",
    "RemoteError": "errors",
    "RemoteTraceback": "errors",
    "Statistics": "statistics",
    "ThreadExecutor": "executors.thread",
    "WorkerDiedError": "errors",
    "cpu_count": "cpus",
    "delayed": "parallel",
    "effective_n_jobs": "config",
    "parallel_backend": "config",
    "parallel_config": "config",
    "pmap": "parallel_map",
    "register_parallel_backend": "config",
    "wrap_non_picklable_objects": "parallel",
}

__all__ = [
    "AsyncparError",
    "CallTimeoutError",
    "ConsumedError",
    "Executor",
    "ExecutorUnavailableError",
    "InlineExecutor",
    "Outcome",
    "Parallel",
    "ParallelMap",
    "PicklingError",
    "ProcessExecutor",
    "RemoteError",
    "RemoteTraceback",
    "Statistics",
    "ThreadExecutor",
    "WorkerDiedError",
    "cpu_count",
    "delayed",
    "effective_n_jobs",
    "parallel_backend",
    "parallel_config",
    "pmap",
    "register_parallel_backend",
    "wrap_non_picklable_objects",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'asyncpar' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"asyncpar.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
