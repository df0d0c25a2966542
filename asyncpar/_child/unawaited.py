"""A plain function that returns coroutines, as `lambda x: fetch(x)` does: its calls fail, and say what to write instead.

Before it is called, nothing shows that a function is such a one. What it returns is no result, but work that nobody will do: in
threads a list of coroutines that were never awaited, in processes something that cannot be pickled. A batch is judged by its
first value, which costs a tenth of a microsecond, once for all its calls. To await such coroutines was refused: whether `fetch`
runs in the caller's event loop is to be seen from what is written.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any


def is_unawaited(value: object) -> bool:
    """By its class: an object's own `__class__` might do anything."""
    kind = type(value)
    return hasattr(kind, "__await__") and issubclass(kind, Coroutine)


def refuse_unawaited(values: list[Any], errors: dict[int, BaseException]) -> None:
    """Puts a TypeError in the place of each coroutine among the results of some calls, and closes the coroutine."""
    for position, value in enumerate(values):
        if is_unawaited(value):
            errors[position] = refusal(value)
            values[position] = None


def refusal(coroutine: Any) -> TypeError:
    """The error for a call that returned it. Closes it, so that nobody warns that it was never awaited."""
    name = getattr(coroutine, "__name__", type(coroutine).__name__)
    coroutine.close()
    return TypeError(
        f"the function is a plain one, but returned a coroutine ({name}), which nobody awaits; pass pmap a coroutine function: "
        f"{name} itself, functools.partial({name}, …), or `async def call(item): return await {name}(item)` "
        f"(in a call of Parallel, asyncio.run({name}(item)) gives the result)"
    )
