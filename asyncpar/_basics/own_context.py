"""Awaiting a call in a context of its own, without a task of its own.

Several coroutine calls are made one after another in one task. What one of them sets in a context variable must not be seen
by the next one, just as if each had a task. A task for each would cost several microseconds. Instead, each step of the call,
from one suspension to the next, is made in a copy of the task's context. The task stays the current one, so time limits and
cancellation work as always.
"""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Generator
from contextvars import Context, copy_context
from types import CoroutineType
from typing import Any, TypeVar

T = TypeVar("T")


class OwnContexts:
    """Awaits calls, each in a copy of a context; None: of the task's.

    `let_others_run`: a call was suspended, so the event loop has turned.
    """

    __slots__ = ("_copy", "let_others_run")

    def __init__(self, context: Context | None = None) -> None:
        self._copy = copy_context if context is None else context.copy
        self.let_others_run = False

    @types.coroutine
    def call(self, fn: Callable[..., Awaitable[T]], *arguments: Any) -> Generator[Any, Any, T]:
        """The value of `await fn(*arguments)`. What the call sets in context variables is gone with it."""
        run = self._copy().run
        awaitable = run(fn, *arguments)
        call = awaitable if type(awaitable) is CoroutineType else _await(awaitable)
        step: Callable[[Any], Any] = call.send
        argument: Any = None
        while True:
            try:
                awaited = run(step, argument)
            except StopIteration as end:
                value: T = end.value
                return value
            except BaseException:
                argument = None  # it would refer to itself, by its traceback and this frame
                raise
            self.let_others_run = True
            try:
                argument = yield awaited
                step = call.send
            except GeneratorExit:
                run(call.close)
                raise
            except BaseException as error:
                step, argument = call.throw, error


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable
