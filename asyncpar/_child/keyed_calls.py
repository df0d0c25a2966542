"""Calls of cached functions in a map: the parent has made their keys and found nothing, so they are computed here, and kept.

The parent sends a `KeyedCall` instead of the function. Its calls have two columns more than the function has arguments: the
keys, and whether each call has been begun before.

- What is large once it is stored does not travel. The worker answers `KEPT`, and the parent reads or maps the entry. Where the
  worker is the parent itself (threads, coroutines, inline), the value is there already.
- A call that has been begun before waits for nobody: whoever holds its claim may be the earlier attempt, in a thread that never
  ends. It answers with its value in any case: the parent may have asked again because it did not find the entry, as where the
  disks of two machines are not the same.
- A call without a key (the parent could not make it) goes to the twin, which raises what the parent has run into.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from asyncpar._basics.forms import Form
from asyncpar._cache.cached import CachedCoroutineFunction, CachedFunction, acompute, compute, shelf_of, twin_of
from asyncpar._cache.flights import Landing
from asyncpar._cache.shelf import Arguments, Shelf
from asyncpar._child.call_forms import BareCall, KeywordCall, make_call

_LARGE = 1 << 16  # bytes on disk from which on reading them is quicker than sending them; a guess


class _Kept:
    """Stands for a result that the parent is to read."""

    def __reduce__(self) -> str:
        return "KEPT"


KEPT = _Kept()


class TwinCall(NamedTuple):
    """A call of a twin, whatever its form."""

    twin: CachedFunction[..., Any]
    arguments: Arguments


def twin_call(function: Callable[..., Any], row: tuple[Any, ...]) -> TwinCall | None:
    """The call that `function(*row)` makes, if it is one of a twin."""
    args: tuple[Any, ...] = row
    kwargs: dict[str, Any] = {}
    if isinstance(function, KeywordCall):
        positional = len(row) - len(function.names)
        args, kwargs = row[:positional], dict(zip(function.names, row[positional:], strict=True))
        function = function.function
    elif isinstance(function, BareCall):
        args, function = (), function.function
    elif function is make_call:
        function, args, kwargs = row
    found = twin_of(function)
    return None if found is None else TwinCall(found[0], ((*found[1], *args), kwargs))


def may_call_twins(function: Callable[..., Any]) -> bool:
    """Whether some calls of a function, or of a form of calls, may be of twins."""
    if isinstance(function, KeywordCall | BareCall):
        function = function.function
    return function is make_call or twin_of(function) is not None


class KeyedCall(Form):
    """What is called instead of a twin, or of a form of calls that may be of twins."""

    _has_travelled = False  # to a worker that has no memory in common with the parent

    def __getstate__(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"_has_travelled": True}, {"function": self.function}

    def __call__(self, *row: Any) -> Any:
        arguments, (key, is_again) = row[:-2], row[-2:]
        call = twin_call(self.function, arguments)
        if key is None or call is None:
            return self.function(*arguments)
        return self._answer(compute(call.twin, key, call.arguments, alone=is_again), shelf_of(call.twin), is_again)

    def _answer(self, landing: Landing, shelf: Shelf, is_again: bool) -> Any:
        """The result, or what stands for it. With `mmap_mode`, the parent maps whatever has been kept."""
        least = _LARGE if shelf.store.reader.map_mode is None else 1
        return KEPT if self._has_travelled and landing.size >= least and not is_again else landing.value


class KeyedCoroutineCall(KeyedCall):
    """The same for a coroutine function."""

    async def __call__(self, *row: Any) -> Any:
        arguments, (key, is_again) = row[:-2], row[-2:]
        call = twin_call(self.function, arguments)
        if key is None or call is None:
            return await self.function(*arguments)
        return self._answer(await acompute(call.twin, key, call.arguments, alone=is_again), shelf_of(call.twin), is_again)


def keyed(function: Callable[..., Any]) -> KeyedCall:
    """What is sent instead of a function."""
    return (KeyedCoroutineCall if isinstance(function, CachedCoroutineFunction) else KeyedCall)(function)
