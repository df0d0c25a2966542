"""`call`: one call, for code that is not async. It blocks until the result is there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

from asyncpar._basics.coroutine_functions import is_coroutine_function
from asyncpar._basics.hints import not_a_function
from asyncpar._basics.validation import check_timeout
from asyncpar._child.unawaited import is_unawaited, refusal
from asyncpar._contract.single_call import make_call
from asyncpar._platform.current_worker import call_in_callers_thread
from asyncpar._sync.doors import find_in_portal, is_inline, name_here, timed
from asyncpar._sync.portal_run import PortalRun
from asyncpar._wire.unfinished import hold_unfinished_modules
from asyncpar.executors import check_executor, in_callers_loop

T = TypeVar("T")


@overload
def call(
    fn: Callable[..., Awaitable[T]], /, *args: Any, executor: Any = None, timeout: float | None = None, **kwargs: Any
) -> T: ...
@overload
def call(fn: Callable[..., T], /, *args: Any, executor: Any = None, timeout: float | None = None, **kwargs: Any) -> T: ...
def call(fn: Callable[..., Any], /, *args: Any, executor: Any = None, timeout: float | None = None, **kwargs: Any) -> Any:
    """What `fn(*args, **kwargs)` returns, called in a worker: `run` for code that is not async. It blocks until then.

    The call runs in an event loop of asyncpar's own, in another thread, so it does not matter whether one runs in this thread.
    Executors with a name are kept there until the program ends. Ctrl-C ends the call, and is raised when it has ended.

    Args:
        fn: a function, or a coroutine function, which runs in asyncpar's own event loop unless an executor is named.
        args: its arguments.
        executor: as for `run`. "inline" calls the function here, in this thread.
        timeout: seconds that the call may take, counted from its beginning in the worker; None: any time. See `pmap`.
        kwargs: its keyword arguments. One that is called `timeout` or `executor` needs a `functools.partial`.

    Raises:
        RuntimeError: it was called in asyncpar's own event loop, by a coroutine function.
        BaseException: the errors of `run`.

    >>> import asyncpar
    >>> asyncpar.call(pow, 2, 10, timeout=60)
    1024
    """
    if not callable(fn):
        raise not_a_function(fn)
    seconds = check_timeout(timeout, of_what="call")
    where = check_executor(executor)
    in_loop = where is None and is_coroutine_function(fn)
    if not in_loop:
        where = name_here(where)
        if is_inline(where) and not is_coroutine_function(fn):
            return _call_here(timed(fn, seconds), args, kwargs)

    async def main() -> Any:
        found = in_callers_loop(1) if in_loop else find_in_portal(where)
        return await make_call(found, fn, args, kwargs, seconds)

    unfinished = hold_unfinished_modules(fn)
    try:
        run = PortalRun("asyncpar.call", main)
        run.start()
        return run.wait()
    finally:
        if unfinished is not None:
            unfinished.release()


def _call_here(fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    value = call_in_callers_thread(fn, args, kwargs)
    if is_unawaited(value):
        raise refusal(value)
    return value
