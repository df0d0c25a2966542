"""asyncpar: the parallel map for asyncio and trio.

Names are loaded when they are first used, so that `import asyncpar` costs next to nothing and a worker process that imports
asyncpar stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncpar._cache.memory import Memory as Memory
    from asyncpar._cache.memory import expires_after as expires_after
    from asyncpar._cache.parts import register_hasher as register_hasher
    from asyncpar._cache.persist import dump as dump
    from asyncpar._cache.persist import hash as hash  # noqa: A004 - joblib's name
    from asyncpar._cache.persist import load as load
    from asyncpar._cache.shelved import MemorizedResult as MemorizedResult
    from asyncpar._child.seeded_calls import CurrentCall as CurrentCall
    from asyncpar._child.seeded_calls import current_call as current_call
    from asyncpar._contract.executor import Executor as Executor
    from asyncpar._map.pmap import ParallelMap as ParallelMap
    from asyncpar._map.pmap import pmap as pmap
    from asyncpar._map.run import run as run
    from asyncpar._platform.cpus import cpu_count as cpu_count
    from asyncpar._platform.current_worker import CurrentWorker as CurrentWorker
    from asyncpar._platform.current_worker import current_worker as current_worker
    from asyncpar._run.outcomes import Outcome as Outcome
    from asyncpar._run.statistics import Statistics as Statistics
    from asyncpar._sync.blocking_map import map as map  # noqa: A004 - what else should it be called
    from asyncpar._sync.call import call as call
    from asyncpar._sync.config import effective_n_jobs as effective_n_jobs
    from asyncpar._sync.config import parallel_backend as parallel_backend
    from asyncpar._sync.config import parallel_config as parallel_config
    from asyncpar._sync.config import register_parallel_backend as register_parallel_backend
    from asyncpar._sync.parallel import Parallel as Parallel
    from asyncpar._sync.parallel import delayed as delayed
    from asyncpar._sync.parallel import wrap_non_picklable_objects as wrap_non_picklable_objects
    from asyncpar._sync.pool_executor import PoolExecutor as PoolExecutor
    from asyncpar.errors import AsyncparError as AsyncparError
    from asyncpar.errors import CacheWarning as CacheWarning
    from asyncpar.errors import CallTimeoutError as CallTimeoutError
    from asyncpar.errors import ConsumedError as ConsumedError
    from asyncpar.errors import ExecutorSaturatedError as ExecutorSaturatedError
    from asyncpar.errors import ExecutorUnavailableError as ExecutorUnavailableError
    from asyncpar.errors import PicklingError as PicklingError
    from asyncpar.errors import RemoteError as RemoteError
    from asyncpar.errors import RemoteTraceback as RemoteTraceback
    from asyncpar.errors import UnsafeCacheError as UnsafeCacheError
    from asyncpar.errors import WorkerDiedError as WorkerDiedError
    from asyncpar.executors.dask import DaskExecutor as DaskExecutor
    from asyncpar.executors.futures import FuturesExecutor as FuturesExecutor
    from asyncpar.executors.inline import InlineExecutor as InlineExecutor
    from asyncpar.executors.interpreter import InterpreterExecutor as InterpreterExecutor
    from asyncpar.executors.process import ProcessExecutor as ProcessExecutor
    from asyncpar.executors.ray import RayExecutor as RayExecutor
    from asyncpar.executors.thread import ThreadExecutor as ThreadExecutor

__version__ = "0.1.0"

_HOMES = {
    "AsyncparError": "errors",
    "CacheWarning": "errors",
    "CallTimeoutError": "errors",
    "ConsumedError": "errors",
    "CurrentCall": "_child.seeded_calls",
    "CurrentWorker": "_platform.current_worker",
    "DaskExecutor": "executors.dask",
    "Executor": "_contract.executor",
    "ExecutorSaturatedError": "errors",
    "ExecutorUnavailableError": "errors",
    "FuturesExecutor": "executors.futures",
    "InlineExecutor": "executors.inline",
    "InterpreterExecutor": "executors.interpreter",
    "MemorizedResult": "_cache.shelved",
    "Memory": "_cache.memory",
    "Outcome": "_run.outcomes",
    "Parallel": "_sync.parallel",
    "ParallelMap": "_map.pmap",
    "PicklingError": "errors",
    "PoolExecutor": "_sync.pool_executor",
    "ProcessExecutor": "executors.process",
    "RayExecutor": "executors.ray",
    "RemoteError": "errors",
    "RemoteTraceback": "errors",
    "Statistics": "_run.statistics",
    "ThreadExecutor": "executors.thread",
    "UnsafeCacheError": "errors",
    "WorkerDiedError": "errors",
    "call": "_sync.call",
    "cpu_count": "_platform.cpus",
    "current_call": "_child.seeded_calls",
    "current_worker": "_platform.current_worker",
    "delayed": "_sync.parallel",
    "dump": "_cache.persist",
    "effective_n_jobs": "_sync.config",
    "expires_after": "_cache.memory",
    "hash": "_cache.persist",
    "load": "_cache.persist",
    "map": "_sync.blocking_map",
    "parallel_backend": "_sync.config",
    "parallel_config": "_sync.config",
    "pmap": "_map.pmap",
    "register_hasher": "_cache.parts",
    "register_parallel_backend": "_sync.config",
    "run": "_map.run",
    "wrap_non_picklable_objects": "_sync.parallel",
}

__all__ = [
    "AsyncparError",
    "CacheWarning",
    "CallTimeoutError",
    "ConsumedError",
    "CurrentCall",
    "CurrentWorker",
    "DaskExecutor",
    "Executor",
    "ExecutorSaturatedError",
    "ExecutorUnavailableError",
    "FuturesExecutor",
    "InlineExecutor",
    "InterpreterExecutor",
    "MemorizedResult",
    "Memory",
    "Outcome",
    "Parallel",
    "ParallelMap",
    "PicklingError",
    "PoolExecutor",
    "ProcessExecutor",
    "RayExecutor",
    "RemoteError",
    "RemoteTraceback",
    "Statistics",
    "ThreadExecutor",
    "UnsafeCacheError",
    "WorkerDiedError",
    "call",
    "cpu_count",
    "current_call",
    "current_worker",
    "delayed",
    "dump",
    "effective_n_jobs",
    "expires_after",
    "hash",
    "load",
    "map",
    "parallel_backend",
    "parallel_config",
    "pmap",
    "register_hasher",
    "register_parallel_backend",
    "run",
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
