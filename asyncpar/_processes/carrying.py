"""Which context variables of the caller go to workers, and what they are worth there. See `_child/carried_context.py`.

Not all of a context is sent, but what the user has named: most contexts hold objects that cannot be pickled (connections,
loggers of tracing libraries, the tasks of event loops), or large ones, and each run would pay for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextvars import ContextVar, copy_context
from typing import Any

from asyncpar._child.carried_context import InContext
from asyncpar._wire.context_variables import can_travel


def check_contextvars(contextvars: Any) -> tuple[ContextVar[Any], ...]:
    """The variables, each once.

    Raises:
        TypeError: there is something else among them.
        ValueError: a worker could not find one.
    """
    if isinstance(contextvars, ContextVar) or not isinstance(contextvars, Collection):
        raise TypeError(f"contextvars must be a list of ContextVar objects, not {contextvars!r:.200}")
    variables = tuple(dict.fromkeys(contextvars))
    for variable in variables:
        if not isinstance(variable, ContextVar):
            raise TypeError(f"contextvars must be a list of ContextVar objects, and {variable!r:.200} is none")
        if not can_travel(variable):
            raise ValueError(
                f"contextvars has the variable {variable.name!r}, which workers could not find, because it is not an attribute "
                "of any module; assign it to a name at the top level of a module or of the script, before the executor is made"
            )
    return variables


def carry(fn: Callable[..., Any], variables: Sequence[ContextVar[Any]]) -> InContext:
    """`fn`, with the values that the variables have in the current context."""
    context = copy_context()
    return InContext(fn, variables, [(variable, context[variable]) for variable in variables if variable in context])
