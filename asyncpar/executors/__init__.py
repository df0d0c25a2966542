"""Executors: what runs batches. A file for each kind; this one knows them by name, and keeps the default ones.

With a name instead of an object, a run uses the event loop's own executor of that name. It is made at first use, kept warm, and
closed with the loop.

The doors (`_map`, `_sync`) import from here. Executors import the contract, and nothing of the scheduler.

What must never break: see `_contract`. Also, no executor leaves anything behind when its `async with` or its event loop ends.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any, cast

from anyio.lowlevel import RunVar

from asyncpar._basics.hints import instead_of_executor, meant_executor_name
from asyncpar._contract.executor import Executor as Executor
from asyncpar._contract.lending import PooledExecutor as PooledExecutor
from asyncpar._platform.cpus import cpu_count
from asyncpar._platform.gil import has_gil
from asyncpar._platform.nesting import depth
from asyncpar._wire.unfinished import is_importing

if TYPE_CHECKING:
    from concurrent.futures import Executor as ForeignPool

    from asyncpar._contract.batches import Batch as Batch
    from asyncpar._contract.batches import BatchDone as BatchDone
    from asyncpar._contract.batches import nothing_done as nothing_done
    from asyncpar._contract.batches import timed_out as timed_out
    from asyncpar._contract.executor import Answer as Answer
    from asyncpar._contract.executor import Fate as Fate
    from asyncpar._contract.executor import Hints as Hints
    from asyncpar._contract.executor import Parcel as Parcel
    from asyncpar._contract.executor import Place as Place
    from asyncpar._contract.executor import Program as Program
    from asyncpar._contract.executor import Session as Session
    from asyncpar._contract.executor import Traits as Traits
    from asyncpar._contract.lending import Pool as Pool
    from asyncpar._contract.lending import PooledSession as PooledSession
    from asyncpar._contract.running import BatchReport as BatchReport
    from asyncpar._contract.running import batch_done as batch_done
    from asyncpar._contract.running import make_calls as make_calls

NAMES = ("process", "thread", "interpreter", "inline", "dask", "ray")

_defaults: RunVar[dict[str, PooledExecutor[Any]] | None] = RunVar("asyncpar_default_executors", None)


def default_name() -> str:
    """Where plain functions run by default: in processes, or in threads if Python has no GIL.

    In a call of another map, which already has a worker to itself, they run in threads. In a call of a map there, they run in
    the caller's own task. The same holds in a worker that imports a module which maps something: threads that import anything
    from it would wait for that import.
    """
    if levels := depth():
        return "thread" if levels == 1 and not is_importing() else "inline"
    return "process" if has_gil() else "thread"


def is_foreign_pool(value: object) -> bool:
    """Whether it is a `concurrent.futures.Executor`; if that module is not imported, nothing is."""
    futures = sys.modules.get("concurrent.futures")
    return futures is not None and isinstance(value, futures.Executor)


def workers_of(pool: ForeignPool) -> int:
    """How many workers a pool has, if it says so."""
    return getattr(pool, "_max_workers", None) or cpu_count()


def check_executor(executor: object) -> str | Executor | ForeignPool | None:
    """Refuses everything except a name, an executor or a pool that can be used as one.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
        TypeError: something else.
        ExecutorUnavailableError: this Python does not have it.
    """
    if executor is None or isinstance(executor, Executor):
        return executor
    if is_foreign_pool(executor):
        return cast("ForeignPool", executor)
    if not isinstance(executor, str):
        instead = instead_of_executor(executor)
        raise TypeError(
            f"executor must be a name, an Executor, a concurrent.futures pool or None, not {executor!r:.200}{instead}"
        )
    if executor not in NAMES:
        known = ", ".join(map(repr, NAMES))
        meant = meant_executor_name(executor, NAMES)
        raise ValueError(f"unknown executor {executor!r}; known are {known}, or an Executor object{meant}")
    refuse_unless_available(executor)
    return executor


def refuse_unless_available(name: str) -> None:
    """Raises ExecutorUnavailableError if this Python does not have the executor of that name, or what it needs."""
    if name == "interpreter":
        from asyncpar._interpreters.surroundings import refuse_unless_supported

        refuse_unless_supported()
    elif name == "dask":
        from asyncpar.executors.dask import load_distributed

        load_distributed()
    elif name == "ray":
        from asyncpar._engines.ray_connection import load_ray

        load_ray()


def find_executor(executor: Any, n_jobs: int | None = None) -> Executor:
    """The executor that a checked `executor=` stands for in the current event loop."""
    if isinstance(executor, Executor):
        return executor
    if is_foreign_pool(executor):
        from asyncpar.executors.futures import executor_over

        return executor_over(executor)
    return default_executor(executor or default_name(), n_jobs)


def in_callers_loop(concurrency: int) -> Executor:
    """A new executor that awaits up to `concurrency` calls of a coroutine function in the caller's event loop."""
    from asyncpar.executors.coroutine import CoroutineExecutor

    return CoroutineExecutor(concurrency)


def default_executor(name: str, n_jobs: int | None) -> Executor:
    """The event loop's own executor of that name, with room for at least `n_jobs` workers."""
    if name == "inline":
        return make_executor(name)
    executors = _defaults.get()
    if executors is None:
        executors = {}
        _defaults.set(executors)
    executor = executors.get(name)
    if executor is None or executor.closed:
        executor = executors[name] = make_executor(name)
    if n_jobs is not None:
        executor.grow(n_jobs)
    return executor


def make_executor(name: str, **params: Any) -> PooledExecutor[Any]:
    """A new one of that name. `params`: of a cluster's executor."""
    if name == "process":
        from asyncpar.executors.process import ProcessExecutor

        return ProcessExecutor()
    if name == "thread":
        from asyncpar.executors.thread import ThreadExecutor

        return ThreadExecutor()
    if name == "interpreter":
        from asyncpar.executors.interpreter import InterpreterExecutor

        return InterpreterExecutor()
    if name == "dask":
        from asyncpar.executors.dask import DaskExecutor

        return DaskExecutor(**params)
    if name == "ray":
        from asyncpar.executors.ray import RayExecutor

        return RayExecutor(**params)
    from asyncpar.executors.inline import InlineExecutor

    return InlineExecutor()


_SHOWN = {  # the contract, for authors of executors: {name: its module}
    "Answer": "executor",
    "Batch": "batches",
    "BatchDone": "batches",
    "BatchReport": "running",
    "Executor": "executor",
    "Fate": "executor",
    "Hints": "executor",
    "Parcel": "executor",
    "Place": "executor",
    "Pool": "lending",
    "PooledExecutor": "lending",
    "PooledSession": "lending",
    "Program": "executor",
    "Session": "executor",
    "Traits": "executor",
    "batch_done": "running",
    "make_calls": "running",
    "nothing_done": "batches",
    "timed_out": "batches",
}


def __getattr__(name: str) -> Any:
    home = _SHOWN.get(name)
    if home is None:
        raise AttributeError(f"module 'asyncpar.executors' has no attribute {name!r}")
    return getattr(importlib.import_module(f"asyncpar._contract.{home}"), name)
