"""Which worker makes the current call, for code that runs in a call: `current_worker`.

A worker process, and an interpreter, has one `CurrentWorker` for as long as it lives, and every thread in it finds that one. A
thread worker's is in the context of its calls, since its process has other threads, too. So the innermost worker is found: in a
thread worker within a worker process, it is the thread.

**Without workers.** A function that asks for its worker should be able to run with `executor="inline"`, in a test for example.
Calls in the caller's own thread or event loop are made by the worker that the caller runs in. If there is none, they find one
with index 0 and without a state. The alternative, an error as outside of calls, would make such functions impossible to debug.

Workers import this module, so it imports nothing that they do not have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, TypeVar

T = TypeVar("T")

_NOT_MADE: Final[Any] = object()


class CurrentWorker:
    """The worker that makes the current call.

    Attributes:
        executor: what kind of worker it is: "process", "thread", "interpreter", or "inline" for a call without a worker.
        index: from 0 to `max_workers - 1`. A worker keeps its index, no two workers of an executor that make calls have the
            same, and one that takes the place of another takes over its index.
    """

    __slots__ = ("_state", "executor", "index")

    executor: str
    index: int

    def __init__(self, executor: str, index: int) -> None:
        self.executor = executor
        self.index = index
        self._state: Any = None

    def keep_state(self, state: Any = _NOT_MADE) -> None:
        """Its state from now on; none: it is still to be made, or has been left."""
        self._state = state

    @property
    def state(self) -> Any:
        """What the initializer has made: what it returned or yielded, or what `__enter__` or `__aenter__` gave. None if there
        is no initializer.

        Raises:
            RuntimeError: the initializer has not made it yet, or it has been left.
        """
        if self._state is _NOT_MADE:
            raise RuntimeError(f"{self!r} has no state: its initializer has not made it yet, or it has been left")
        return self._state

    def __repr__(self) -> str:
        return f"<{self.executor} worker with index {self.index}>"


_of_process: CurrentWorker | None = None
_of_context: ContextVar[CurrentWorker | None] = ContextVar("asyncpar_current_worker", default=None)


def current_worker() -> CurrentWorker:
    """The worker that makes the current call: its `state`, its `index`, and which kind of `executor` it belongs to.

    For use in calls, and in initializers, where the state is not there yet. Calls without a worker (inline calls, and coroutine
    calls in the caller's event loop) are made by the worker that the caller runs in; if there is none, they see the index 0 and
    the state None.

    Raises:
        RuntimeError: it was called outside of calls, or in a pool that is not asyncpar's.

    >>> import anyio, asyncpar
    >>> def scale(x):
    ...     return asyncpar.current_worker().state["factor"] * x
    >>> async def main():
    ...     async with asyncpar.ThreadExecutor(2, initializer=dict, initargs=[{"factor": 10}]) as executor:
    ...         return await asyncpar.pmap(scale, range(3), executor=executor)
    >>> anyio.run(main)
    [0, 10, 20]
    """
    worker = _of_context.get() or _of_process
    if worker is None:
        raise RuntimeError(
            "current_worker() was called outside of a worker; call it in a function that pmap, run or the like calls in a "
            'ProcessExecutor, ThreadExecutor or InterpreterExecutor (or with executor="inline"), or in an initializer'
        )
    return worker


def enter_process(worker: CurrentWorker) -> None:
    """This process, or this interpreter, is a worker."""
    global _of_process
    _of_process = worker


def enter_thread(worker: CurrentWorker | None) -> None:
    """The current context, which must be the call's own, is that of a thread worker; None: of a thread of another pool."""
    _of_context.set(worker)


_CALLER: Final = CurrentWorker("inline", 0)

# The seeded call that runs now (`_child/seeded_calls.py`); it is here because calls of a map within it must not see it
seeded_call: ContextVar[Any] = ContextVar("asyncpar_seeded_call", default=None)


@contextmanager
def in_callers_thread() -> Iterator[None]:
    """For calls without a worker of their own."""
    has_worker = _of_context.get() is not None or _of_process is not None
    of_worker = None if has_worker else _of_context.set(_CALLER)
    of_seed = None if seeded_call.get() is None else seeded_call.set(None)
    try:
        yield
    finally:
        if of_worker is not None:
            _of_context.reset(of_worker)
        if of_seed is not None:
            seeded_call.reset(of_seed)


def call_in_callers_thread(function: Callable[..., T], arguments: Iterable[Any], keywords: Mapping[str, Any]) -> T:
    """The same for one call, mostly without a context manager, which would cost more than a short call."""
    if seeded_call.get() is not None:
        with in_callers_thread():
            return function(*arguments, **keywords)
    if _of_context.get() is not None or _of_process is not None:
        return function(*arguments, **keywords)
    token = _of_context.set(_CALLER)
    try:
        return function(*arguments, **keywords)
    finally:
        _of_context.reset(token)
