"""Calls in workers that see context variables of their caller, with `contextvars=`.

    ProcessExecutor(contextvars=[request_id])    parent: at the beginning of a run, reads the variables' values
    InContext(f, variables, values)              travels once to each worker, instead of `f`, pickled with it
    taken_apart(…)                               worker: makes a context of them, once for each program

Each batch of plain calls runs in a copy of that context, which is nothing beside a batch. Each coroutine call runs in a copy of
its own, for 0.8 µs more. So what calls set is gone with their batch, and no later run sees it.

The context has what the worker's own context has (what an initializer has set, say), with one exception: a variable that is
carried has the caller's value, and none if the caller has not set it.

How the variables themselves travel is described in `_wire/context_variables.py`.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Generator, Iterator, Sequence
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import Any

from asyncpar._basics.forms import Form

_CONSTANTS = (str, bytes, int, float, bool, type(None))  # the types of most values; others that cannot be changed are rare


class InContext(Form):
    """Calls of `function` in which the `variables` have these values; those that have none here are not set."""

    __slots__ = ("values", "variables")

    def __init__(
        self, function: Callable[..., Any], variables: Sequence[ContextVar[Any]], values: list[tuple[ContextVar[Any], Any]]
    ) -> None:
        super().__init__(function)
        self.variables = variables
        self.values = values

    @property
    def has_constants_only(self) -> bool:
        """Whether no call can change a value in place."""
        return all(type(value) in _CONSTANTS for _, value in self.values)

    def own_parts(self) -> Iterator[tuple[str, object, str]]:
        for variable in self.variables:  # with its default
            yield f"the context variable {variable.name!r}", variable, variable.name
        for variable, value in self.values:
            yield f"the value of the context variable {variable.name!r}", value, f"{variable.name}.get()"

    def context(self) -> Context:
        """The worker's own, with their values for the variables."""
        context = Context()
        for variable, value in copy_context().items():
            if variable not in self.variables:
                context.run(variable.set, value)
        for variable, value in self.values:
            context.run(variable.set, value)
        return context


def taken_apart(function: Any, *, awaits: bool) -> tuple[Callable[..., Any], Context | None]:
    """The function to call, and the context to copy for each batch; None: the worker's own, or the function sees to it itself.

    `awaits`: it is a coroutine function.
    """
    if type(function) is not InContext:
        return function, None
    context = function.context()
    return (_CoroutineInContext(function.function, context), None) if awaits else (function.function, context)


def in_copy_of(context: Context | None) -> Callable[..., Any]:
    """Calls what it is given: in a copy of the context, or, if there is none, in the current one."""
    return _call if context is None else context.copy().run


def _call(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    return function(*arguments, **keywords)


class _CoroutineInContext(Form):
    """Coroutine calls, each in its own copy of the context. They run in the task that awaits them, whose context is another."""

    __slots__ = ("context",)

    def __init__(self, function: Callable[..., Any], context: Context) -> None:
        super().__init__(function)
        self.context = context

    async def __call__(self, *row: Any) -> Any:
        context = self.context.copy()
        return await _step_by_step(context, context.run(self.function, *row).__await__())


@types.coroutine
def _step_by_step(context: Context, steps: Any) -> Generator[Any, Any, Any]:
    """Awaits `steps`, each of them in the context. A task of its own for each call would cost ten times as much."""
    go_on: Callable[[], Any] = partial(next, steps)
    while True:
        try:
            awaited = context.run(go_on)
        except StopIteration as end:
            return end.value
        finally:
            del go_on  # an error that was thrown in and comes out again would refer to itself
        try:
            sent = yield awaited
        except BaseException as error:
            if not hasattr(steps, "throw"):  # a plain iterator
                raise
            go_on = partial(steps.throw, error)
        else:
            go_on = partial(next, steps) if sent is None else partial(steps.send, sent)
