"""loky's errors, and its pool."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from asyncpar._sync.pool_executor import PoolExecutor
from asyncpar.errors import WorkerDiedError
from asyncpar.errors import WorkerDiedError as TerminatedWorkerError

__all__ = ["BrokenProcessPool", "ProcessPoolExecutor", "ShutdownExecutorError", "TerminatedWorkerError"]

BrokenProcessPool = WorkerDiedError  # what code catches that expects a worker to die
ShutdownExecutorError = RuntimeError  # what `submit` raises after `shutdown`


class ProcessPoolExecutor(PoolExecutor):
    """asyncpar's pool with the parameters of loky's.

    Args:
        max_workers: how many workers there may be; None: as many as processors.
        timeout: seconds after which a worker without work exits; None: as with asyncpar.
        initializer, initargs: as in `ProcessExecutor`.
        others: accepted for loky's sake.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        job_reducers: Any = None,
        result_reducers: Any = None,
        timeout: float | None = None,
        context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        **others: Any,
    ) -> None:
        idle: dict[str, Any] = {} if timeout is None else {"idle_timeout": timeout}
        super().__init__(max_workers, initializer=initializer, initargs=initargs, **idle)
