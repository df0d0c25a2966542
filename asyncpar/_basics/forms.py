"""What is sent to a worker in the place of the user's function, and is to be invisible to the user."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


class Form:
    """Stands for `function` on its way to a worker; messages show that one.

    `function` is the user's, or a form that stands for it.
    """

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __repr__(self) -> str:
        return repr(self.function)

    def own_parts(self) -> Iterator[tuple[str, object, str]]:
        """What the form itself brings along, if that may be impossible to pickle: in words, the object, and the name by which
        a path to a part of it begins.
        """
        return iter(())


def users_function(function: Any) -> Any:
    """The function that a form stands for, or the function itself."""
    while issubclass(type(function), Form):  # its own `__class__` might do anything
        function = function.function
    return function
