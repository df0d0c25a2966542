"""Functions of columns that make the calls of a batch of explicit calls. They are sent to workers once, instead of the user's
function.

Calls with only positional arguments need none of these: their function is called with a row of the columns.
"""

from collections.abc import Callable
from typing import Any


class KeywordCall:
    """Calls with keyword arguments: `names` are the names of the last columns."""

    __slots__ = ("function", "names")

    def __init__(self, function: Callable[..., Any], names: tuple[str, ...]) -> None:
        self.function = function
        self.names = names

    def __call__(self, *arguments: Any) -> Any:
        positional = len(arguments) - len(self.names)
        return self.function(*arguments[:positional], **dict(zip(self.names, arguments[positional:], strict=True)))

    def __repr__(self) -> str:
        return repr(self.function)


class BareCall:
    """Calls without arguments. There is one column, which gives the batch its length; its values are ignored."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, _: object) -> Any:
        return self.function()

    def __repr__(self) -> str:
        return repr(self.function)


class MixedCall:
    """Calls of several functions: the columns are the index of the function, the arguments, and the keyword arguments."""

    __slots__ = ("functions",)

    def __init__(self, functions: tuple[Callable[..., Any], ...]) -> None:
        self.functions = functions

    def __call__(self, place: int, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        return self.functions[place](*arguments, **keywords)

    def __repr__(self) -> str:
        return f"one of {len(self.functions)} functions"
