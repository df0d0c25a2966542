"""Refuses plain functions that return coroutines, as `lambda x: fetch(x)` does. Their calls fail with a hint at what to write.

Nothing shows that a function is such a one before it is called. What it returns is not a result, but work that nothing will do:
in threads a list of coroutines that are never awaited, in processes something that cannot be pickled. A batch is judged by its
first value, which costs a tenth of a microsecond, once for all its calls.

Refused: awaiting such coroutines. The code should show whether `fetch` runs in the caller's event loop.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any


def is_unawaited(value: object) -> bool:
    """Whether it is a coroutine, judged by its type: an object's own `__class__` might do anything."""
    kind = type(value)
    return hasattr(kind, "__await__") and issubclass(kind, Coroutine)


def refuse_unawaited(values: list[Any], errors: dict[int, BaseException]) -> None:
    """Replaces each coroutine among the results of some calls by a TypeError, and closes the coroutine."""
    for position, value in enumerate(values):
        if is_unawaited(value):
            errors[position] = refusal(value)
            values[position] = None


def refusal(coroutine: Any) -> TypeError:
    """The error for a call that returned a coroutine. Closes it, so that Python does not warn that it was never awaited."""
    name = getattr(coroutine, "__name__", type(coroutine).__name__)
    coroutine.close()
    return TypeError(
        f"the function is a plain one, but returned a coroutine ({name}), which nobody awaits; pass pmap a coroutine function: "
        f"{name} itself, functools.partial({name}, …), or `async def call(item): return await {name}(item)` "
        f"(in a call of Parallel, asyncio.run({name}(item)) gives the result)"
    )
