"""How deep in workers the current code runs: 0 in the user's program, 1 in a call, 2 in a call of a map in a call, and so on.

A map inside a call must not multiply processes, so what executor is the default depends on the depth. A worker process takes
its depth over from its parent, plus one; in a thread worker the depth is in the context of the call. This module is imported
by workers and imports nothing that they do not have.
"""

from contextvars import ContextVar

_process_depth = 0
_thread_depth: ContextVar[int] = ContextVar("asyncpar_thread_depth", default=0)


def depth() -> int:
    """How many workers are around the current code."""
    return _process_depth + _thread_depth.get()


def enter_worker_process(depth: int) -> None:
    """This process is a worker, so many deep."""
    global _process_depth
    _process_depth = depth


def enter_pool_worker(depth: int) -> None:
    """The current thread is a worker of somebody else's pool, here or in another process, so many deep."""
    _thread_depth.set(depth - _process_depth)


def enter_worker_thread() -> None:
    """The current context, which must be the call's own, is that of a thread worker."""
    _thread_depth.set(_thread_depth.get() + 1)
