"""Calls in workers that see context variables of their caller, with `contextvars=`.

    ProcessExecutor(contextvars=[request_id])    parent: at the beginning of a run, reads the variables' values
    InContext(f, variables, values)              travels once to each worker, instead of `f`, pickled with it
    taken_apart(…)                               worker: makes a context of them, once for each program

Each batch of plain calls runs in a copy of that context, which is nothing beside a batch. Each coroutine call runs in a copy of
its own (`_basics/own_context.py`). So what calls set is gone with their batch, and no later run sees it.

The context has what the worker's own context has (what an initializer has set, say), with one exception: a variable that is
carried has the caller's value, and none if the caller has not set it.

How the variables themselves travel is described in `_wire/context_variables.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextvars import Context, ContextVar, copy_context
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


def taken_apart(function: Any) -> tuple[Callable[..., Any], Context | None]:
    """The function to call, and the context to copy for each batch, or coroutine call; None: the worker's own."""
    return (function.function, function.context()) if type(function) is InContext else (function, None)


def in_copy_of(context: Context | None) -> Callable[..., Any]:
    """Calls what it is given: in a copy of the context, or, if there is none, in the current one."""
    return _call if context is None else context.copy().run


def _call(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    return function(*arguments, **keywords)
