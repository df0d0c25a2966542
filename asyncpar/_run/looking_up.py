"""Looks up the calls of a map in the cache, many at a time, without holding the event loop.

Reading a small entry takes some microseconds, and handing work to a thread ten times as long. So a few small calls are looked
up in the event loop, as long as nothing turns out to be large; all else in a thread, a stretch at a time. A stretch ends by the
clock, because some keys take long (those of large arrays), and a run that is cancelled waits for the end of a stretch.

Looking up never raises. A call that has no key, or whose validation raises, counts as one without a key. Its worker asks the
twin itself, which raises the same, so that it is an error of that call like any other.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from asyncpar._cache.cached import report_found, shelf_of
from asyncpar._cache.entries import Found
from asyncpar._cache.keys import are_small
from asyncpar._cache.shelf import Shelf
from asyncpar._cache.store import READ_AT_ONCE
from asyncpar._child.keyed_calls import TwinCall, twin_call
from asyncpar._platform.off_loop import run_off_loop
from asyncpar._wire.pace import nap

Row = tuple[Any, ...]

FEW = 16  # calls that the event loop looks up itself: some 200 µs
_STRETCH_SECONDS = 5e-3
_PIECE = 16  # calls between two looks at the clock


class Looked(NamedTuple):
    """What looking up a call has brought. Without a key there is no shelf either, and nothing is found."""

    shelf: Shelf | None = None
    key: bytes = b""
    found: Found | None = None


class Wanted(NamedTuple):
    """A result that has been kept since some time, and needs no validation; `calls`: how many want it."""

    shelf: Shelf
    key: bytes
    since: float
    calls: int


_WITHOUT_KEY = Looked()


async def look_up(function: Callable[..., Any], rows: Sequence[Row]) -> list[Looked]:
    """Looks up the calls `function(*row)`."""
    looked = _small_ones(function, rows) if len(rows) <= FEW else []
    while len(looked) < len(rows):
        looked += await run_off_loop(partial(_stretch, function, rows, len(looked)))
    return looked


def _small_ones(function: Callable[..., Any], rows: Sequence[Row]) -> list[Looked]:
    """The first of the calls, as many as the event loop can look up."""
    looked: list[Looked] = []
    for row in rows:
        call = twin_call(function, row)
        one = _WITHOUT_KEY if call is None else _if_small(call)
        if one is None:
            break
        looked.append(one)
    return looked


def _if_small(call: TwinCall) -> Looked | None:
    """What looking up a call brings; None if that takes too long for the event loop."""
    shelf = shelf_of(call.twin)
    if not (shelf.store.is_local and shelf.keyer.identity.is_known and are_small(*call.arguments)):
        return None
    return _without_raising(_small, call, shelf)


def _small(call: TwinCall, shelf: Shelf) -> Looked | None:
    store, arguments = shelf.store, call.arguments
    key = shelf.key(*arguments)
    fd = store.open(shelf.folder, key)
    if fd is None:
        return Looked(shelf, key, shelf.checked(None, arguments))
    if os.fstat(fd).st_size > READ_AT_ONCE:
        os.close(fd)
        return None
    return Looked(shelf, key, shelf.checked(store.read_open(fd, shelf.folder, key), arguments))


def _stretch(function: Callable[..., Any], rows: Sequence[Row], begin: int) -> list[Looked]:
    """The calls from `begin` on, as many as there is time for. Runs in a thread."""
    looked: list[Looked] = []
    deadline = time.monotonic() + _STRETCH_SECONDS
    for position in range(begin, len(rows)):
        call = twin_call(function, rows[position])
        one = None if call is None else _without_raising(_any, call, shelf_of(call.twin))
        looked.append(one or _WITHOUT_KEY)
        if position % _PIECE == 0 and time.monotonic() > deadline:
            break
    return looked


def _any(call: TwinCall, shelf: Shelf) -> Looked:
    key = shelf.key(*call.arguments, nap)
    return Looked(shelf, key, shelf.look_up(key, call.arguments, breathe=True))


def _without_raising(look_up_one: Callable[[TwinCall, Shelf], Looked | None], call: TwinCall, shelf: Shelf) -> Looked | None:
    try:
        looked = look_up_one(call, shelf)
    except KeyboardInterrupt:  # the program's own
        raise
    except BaseException:
        return _WITHOUT_KEY
    if looked is not None and looked.found is not None:
        report_found(call.twin, looked.found)
    return looked


async def look_again(wanted: Sequence[Wanted]) -> list[list[Found]]:
    """Reads each result once for each call, so that no two have one object; fewer times if it is not there (any more)."""
    found: list[list[Found]] = [[] for _ in wanted]
    position = 0
    while position < len(wanted):
        position = await run_off_loop(partial(_read, wanted, found, position))
    return found


def _read(wanted: Sequence[Wanted], found: list[list[Found]], begin: int) -> int:
    """From `begin` on, as long as there is time. Returns where to go on. Runs in a thread."""
    deadline = time.monotonic() + _STRETCH_SECONDS
    for position in range(begin, len(wanted)):
        shelf, key, since, calls = wanted[position]
        while len(found[position]) < calls:
            one = shelf.look_again(key, since, breathe=True)
            if one is None:
                break
            found[position].append(one)
            if time.monotonic() > deadline:
                return position
    return len(wanted)
