"""Where the calls of code that is not async run: what `executor=` means for `map`, `call` and `PoolExecutor`.

An executor belongs to one event loop, and these calls run in the portal's. Executors with a name are kept there, warm from one
call to the next, until the program ends. There is one for each name and depth in workers: a call in a thread that makes calls
itself must not wait for a thread that those around it have.

Inline calls do not go to the portal. They run in the caller's own thread, because that is what they are for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asyncpar._contract.executor import Executor
from asyncpar._platform.nesting import depth
from asyncpar._sync.portal import current_portal
from asyncpar.executors import default_name, find_executor, is_foreign_pool, make_executor
from asyncpar.executors.inline import InlineExecutor


def name_here(executor: Any) -> Any:
    """The checked `executor=` of a plain function, or the name that None stands for in this thread."""
    return default_name() if executor is None else executor


def is_inline(executor: Any) -> bool:
    """Whether calls are to run in the caller's thread."""
    return executor == "inline" if isinstance(executor, str) else isinstance(executor, InlineExecutor)


def find_in_portal(executor: Any, n_jobs: int | None = None) -> Executor:
    """The executor that a name, an executor or a pool stands for. Called in the portal's loop."""
    if isinstance(executor, Executor) or is_foreign_pool(executor):
        return find_executor(executor)
    kept, key = current_portal().executors, ("door", executor, depth())
    found = kept.get(key)
    if found is None or found.closed:
        found = kept[key] = make_executor(executor)
    if n_jobs is not None:
        made: Any = found
        made.grow(n_jobs)
    return found


def timed(fn: Callable[..., Any], timeout: float | None) -> Callable[..., Any]:
    """`fn`, or a function that does the same and then fails if that took too long: in this thread nothing can end it before."""
    if timeout is None:
        return fn
    import time

    from asyncpar._basics.wording import call_in_words
    from asyncpar.errors import CallTimeoutError

    def call(*arguments: Any, **keywords: Any) -> Any:
        began = time.monotonic()
        value = fn(*arguments, **keywords)
        if time.monotonic() - began > timeout:
            shown = call_in_words(fn, arguments, keywords)
            raise CallTimeoutError(f"the call {shown} took longer than its timeout of {timeout:g} s", seconds=timeout)
        return value

    return call
