"""`run`: one call, awaited, where `pmap` would be a map. How it is made is in `_contract/single_call.py`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

from asyncpar._basics.coroutine_functions import is_coroutine_function
from asyncpar._contract.single_call import make_call
from asyncpar.executors import check_executor, find_executor, in_callers_loop

T = TypeVar("T")


@overload
async def run(
    fn: Callable[..., Awaitable[T]], /, *args: Any, executor: Any = None, timeout: float | None = None, **kwargs: Any
) -> T: ...
@overload
async def run(fn: Callable[..., T], /, *args: Any, executor: Any = None, timeout: float | None = None, **kwargs: Any) -> T: ...
async def run(fn: Callable[..., Any], /, *args: Any, executor: Any = None, timeout: float | None = None, **kwargs: Any) -> Any:
    """What `fn(*args, **kwargs)` returns, called in a worker: a single call, where `pmap` makes many.

    A plain function runs in the executor, a coroutine function in the caller's event loop unless an executor is named. The call
    takes its turn with all calls and maps that share the executor. What it raises is raised here, with the worker's traceback
    as `__cause__` and a note that shows the call. When the `await` has ended, in whatever way, the call is not running any more
    (a thread that was cancelled, or is out of time, goes on until its call returns). Ending one call disturbs no other.

    Args:
        fn: a function, or a coroutine function.
        args: its arguments.
        executor: a name, an `Executor` or a `concurrent.futures.Executor`, as for `pmap`. Executors have this as a method.
        timeout: seconds that the call may take, counted from its beginning in the worker; None: any time. See `pmap`.
        kwargs: its keyword arguments. One that is called `timeout` or `executor` needs a `functools.partial`.

    Raises:
        TypeError, ValueError: an argument of `run` is refused.
        CallTimeoutError: the call took longer than `timeout`.
        WorkerDiedError: a worker process died while it was running the call.
        PicklingError: the function or an argument cannot be sent, or the result cannot be sent back.
        ExecutorSaturatedError: too many calls are waiting, and the executor was told to refuse more.
        ExecutorUnavailableError: the executor is closed, belongs to another event loop, or cannot start a worker.

    >>> import anyio, asyncpar
    >>> async def main():
    ...     return await asyncpar.run(divmod, 7, 3, timeout=60)
    >>> anyio.run(main)
    (2, 1)
    """
    checked = check_executor(executor)
    if checked is None and callable(fn) and is_coroutine_function(fn):
        return await make_call(in_callers_loop(1), fn, args, kwargs, timeout)
    return await make_call(find_executor(checked), fn, args, kwargs, timeout)
