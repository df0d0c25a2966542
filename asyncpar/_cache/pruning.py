"""Keeps a cache within its limits: entries that have not been used for longest go first.

There is no list of entries to keep up to date, so all of them are looked at: twice, and without holding more than a line for
each second in which entries were last used. The first look adds up how much was used when, the second one removes what is older
than need be. One process does it at a time, in a thread beside the calls (`pruner.py`), and only when processes have written
so much that the limit may be exceeded. It leaves a tenth of the limit free, so that it is not needed again soon.

A hit says that an entry is in use by its time of modification, at most once an hour, so the order is as coarse as that.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from asyncpar._wire.pace import nap

ROOM = 0.1  # of the limit, which is free after pruning
_TURN = 64  # entries, which take less than a millisecond
_UNFINISHED_SECONDS = 3600.0  # the age at which a file that is being written has been given up by its writer


class Limits(NamedTuple):
    """None: no limit. `age` is in seconds since an entry was last used."""

    bytes: int | None = None
    items: int | None = None
    age: float | None = None


class Usage(NamedTuple):
    items: int
    bytes: int


class EntryFile(NamedTuple):
    """An entry as its folder shows it."""

    path: str
    function: str
    used: float
    bytes: int


def entry_files(folder: str) -> Iterator[EntryFile]:
    """All entries below a cache's folder. Those that come or go meanwhile may be among them or not."""
    for function in folders(folder):
        for prefix in folders(function.path):
            if len(prefix.name) != 2:
                continue
            with contextlib.suppress(OSError), os.scandir(prefix.path) as files:
                for file in files:
                    with contextlib.suppress(OSError):
                        status = file.stat(follow_symlinks=False)
                        if not stat.S_ISREG(status.st_mode):
                            continue  # somebody else's
                        yield EntryFile(file.path, function.name, status.st_mtime, status.st_size)


def prune(folder: str, limits: Limits, *, room: float = 0.0, seen: Callable[[EntryFile], object] | None = None) -> Usage:
    """Removes what exceeds the limits, and files that were given up; returns what is left.

    Args:
        folder: the cache's folder.
        limits: what may stay.
        room: the part of the limits that is to be free if anything has to go.
        seen: is told of each entry, so that it can show progress.
    """
    used_at: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0])  # {second: [entries, bytes] that were last used in it}
    for entry in _in_turns(entry_files(folder)):
        if seen is not None:
            seen(entry)
        held = used_at[int(entry.used)]
        held[0] += 1
        held[1] += entry.bytes
    items = sum(held[0] for held in used_at.values())
    size = sum(held[1] for held in used_at.values())
    most_items = _most(limits.items, items, room)
    most_bytes = _most(limits.bytes, size, room)
    oldest = -float("inf") if limits.age is None else time.time() - limits.age
    excess = [items - most_items, size - most_bytes]
    last = -1
    for second in sorted(used_at):
        if second >= oldest and excess[0] <= 0 and excess[1] <= 0:
            break
        last = second
        excess = [excess[0] - used_at[second][0], excess[1] - used_at[second][1]]
    for entry in _in_turns(entry_files(folder)) if last >= 0 else ():
        is_over = items > most_items or size > most_bytes
        if entry.used < oldest or (is_over and int(entry.used) <= last):
            with contextlib.suppress(OSError):
                os.unlink(entry.path)
                items -= 1
                size -= entry.bytes
    _remove_unfinished(os.path.join(folder, "new"))
    return Usage(items, size)


def _in_turns(entries: Iterator[EntryFile]) -> Iterator[EntryFile]:
    """The same, and other threads get the GIL often enough for an event loop: Python by itself lets them wait for 5 ms."""
    for place, entry in enumerate(entries):
        if place % _TURN == 0:
            nap()
        yield entry


def _most(limit: int | None, now: int, room: float) -> int:
    if limit is None or now <= limit:
        return now
    return int(limit * (1 - room))


def folders(folder: str) -> list[os.DirEntry[str]]:
    """The folders in a folder."""
    try:
        with os.scandir(folder) as found:
            return [entry for entry in found if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _remove_unfinished(folder: str) -> None:
    before = time.time() - _UNFINISHED_SECONDS
    with contextlib.suppress(OSError), os.scandir(folder) as files:
        for file in files:
            with contextlib.suppress(OSError):
                if file.stat(follow_symlinks=False).st_mtime < before:
                    os.unlink(file.path)
