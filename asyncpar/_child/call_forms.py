"""What is sent instead of the user's function where a row of columns is not all that it is called with: functions of columns
that make the calls of a batch of explicit calls, and the initializer of a worker.

Calls with only positional arguments need none of these: their function is called with a row of the columns.
"""

from collections.abc import Callable, Iterable
from typing import Any

from asyncpar._basics.forms import Form


class KeywordCall(Form):
    """Calls with keyword arguments: `names` are the names of the last columns."""

    __slots__ = ("names",)

    def __init__(self, function: Callable[..., Any], names: tuple[str, ...]) -> None:
        super().__init__(function)
        self.names = names

    def __call__(self, *arguments: Any) -> Any:
        positional = len(arguments) - len(self.names)
        return self.function(*arguments[:positional], **dict(zip(self.names, arguments[positional:], strict=True)))


class BareCall(Form):
    """Calls without arguments. There is one column, which gives the batch its length; its values are ignored."""

    __slots__ = ()

    def __call__(self, _: object) -> Any:
        return self.function()


def make_call(function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Calls of any functions: the columns are the functions, their arguments, and their keyword arguments."""
    return function(*arguments, **keywords)


def refuse_as_initializer(initializer: object, initargs: object) -> None:
    """Raises TypeError unless they can be the initializer of a worker (or None), and its arguments."""
    if initializer is not None and not callable(initializer):
        raise TypeError(
            f"initializer must be callable, not {initializer!r}; workers call it with initargs, so pass the function itself"
            ", and not what it returns"
        )
    if not isinstance(initargs, Iterable):
        raise TypeError(f"initargs must be a tuple of the arguments of initializer, not {initargs!r}")


class Initializer:
    """An executor's initializer with its arguments."""

    __slots__ = ("arguments", "function")

    def __init__(self, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self.function = function
        self.arguments = arguments

    def __call__(self) -> object:
        return self.function(*self.arguments)

    def __repr__(self) -> str:
        return f"{self.function!r}, the initializer,"
