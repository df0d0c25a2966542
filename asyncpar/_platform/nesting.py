"""How deep in workers the current code runs: 0 in the user's program, 1 in a call, 2 in a call of a map in a call, and so on.

A map inside a call must not multiply processes, so the default executor depends on the depth. The depth of a worker process is
that of its parent, plus one. In a thread worker, the depth is in the context of the call. Workers import this module, so it
imports nothing that they do not have.
"""

import sys
from contextvars import Context, ContextVar, copy_context

_process_depth = 0
_thread_depth: ContextVar[int] = ContextVar("asyncpar_thread_depth", default=0)


def depth() -> int:
    """How many workers are around the current code."""
    return _process_depth + _thread_depth.get()


def enter_worker_process(depth: int) -> None:
    """This process is a worker at this depth."""
    global _process_depth
    _process_depth = depth


def context_of_a_thread() -> Context:
    """A copy of the current context for a call in another thread, in which no event loop runs."""
    context = copy_context()
    sniffio = sys.modules.get("sniffio")  # where an event loop says which library it belongs to, if anybody asks
    if sniffio is not None:
        context.run(sniffio.current_async_library_cvar.set, None)
    return context


def context_of_a_pool_worker(depth: int) -> Context:
    """For a call in a worker of a pool that is not ours, here or in another process, at this depth.

    The process may be a fork of one in whose main thread an event loop ran.
    """
    context = context_of_a_thread()
    sniffio = sys.modules.get("sniffio")
    if sniffio is not None:
        sniffio.thread_local.name = None
    context.run(_thread_depth.set, depth - _process_depth)
    return context


def enter_worker_thread() -> None:
    """The current context, which must be the call's own, is that of a thread worker."""
    _thread_depth.set(_thread_depth.get() + 1)
