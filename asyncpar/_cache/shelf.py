"""A function's part of a cache: the keys of its calls, and the results that are kept for them.

This is what everything else builds on: the cached twins of functions, and maps. It has no opinion about who computes, or in
which thread.

    key = shelf.key(args, kwargs)         no disk; may take long for large arguments (`are_small` says if it does not)
    found = shelf.look_up(key, ...)       the result, or None
    claim = shelf.claim(key)              the right to compute it; None while another process has it
    shelf.keep(key, value, seconds)       writes it down
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, NamedTuple, TypeAlias

from asyncpar._basics.wording import short_repr
from asyncpar._cache.beside import open_beside
from asyncpar._cache.entries import DamagedEntryError, Found, verify
from asyncpar._cache.inputs import FileInput
from asyncpar._cache.keys import Keyer
from asyncpar._cache.locks import Claim
from asyncpar._cache.pruning import ROOM, Limits, Usage, prune
from asyncpar._cache.store import Store
from asyncpar._cache.tally import Totals, read_tally, reset

Validate: TypeAlias = Callable[[dict[str, Any]], object]
Arguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]

_LONGEST_NAME = 60  # letters of a folder: file systems allow 255 bytes, and a letter has up to four
_WRITTEN_SHARE = 0.05  # of the size limit, written by this process, after which the size is looked at again
_TOO_MUCH = 1.1  # of the size limit, above which a call that stores waits for the pruning
_PRUNED_SHARE = 0.25  # of the age limit, after which old entries are looked for again
_FEW = 256  # entries, which are pruned in some milliseconds: the caller does that itself
_PRUNING_KEY = b"\xff" * 20


class Rules(NamedTuple):
    """For how long results are used, and how much may be kept. `age` is in seconds."""

    size: int | None = None
    age: float | None = None
    validate: Validate | None = None


class Shelf:
    """The results of one function in one store."""

    def __init__(self, store: Store, keyer: Keyer, rules: Rules) -> None:
        self.store = store
        self.keyer = keyer
        self.key = keyer.key
        self.name = folder_name(keyer.identity.module, keyer.identity.name)
        self.folder = store.folder_of(self.name)
        self._rules = rules
        self._may_grow_old = rules.age is not None or rules.validate is not None
        self._counts = store.tally.counts
        self._until_check = 0  # bytes to write before the size is looked at

    def look_up(self, key: bytes, arguments: Arguments, *, breathe: bool = False) -> Found | None:
        """The result of a call, if it is kept and still valid."""
        found = self.store.read(self.folder, key, breathe)
        if found is None or self._may_grow_old:
            return self.checked(found, arguments)
        self._counts.hits += 1
        return found

    def checked(self, found: Found | None, arguments: Arguments) -> Found | None:
        """What has been found, if it is still valid. Counts hits and misses."""
        if found is None or (self._may_grow_old and not self._is_valid(found, arguments)):
            self._counts.misses += 1
            return None
        self._counts.hits += 1
        return found

    def time_of_miss(self, key: bytes) -> float:
        """The time from which on a result is newer than what the look-up of a moment ago found; 0 if it found nothing.

        A result is as old as the beginning of its writing. So one that was being written at the look-up would seem to be older
        than that.
        """
        if not self._may_grow_old or (self.store.is_local and not self.store.has_file(self.folder, key)):
            return 0.0
        return time.time()

    def look_again(self, key: bytes, since: float, *, breathe: bool = False) -> Found | None:
        """The result that somebody else may have kept since the call was looked up, at that time. It needs no validation."""
        if not self.store.has_file(self.folder, key):  # nearly always
            return None
        found = self.store.read(self.folder, key, breathe=breathe)
        if found is None or (self._may_grow_old and found.created < since):
            return None
        return found

    def has(self, key: bytes, arguments: Arguments) -> bool:
        """Whether `look_up` would find something; the value is not read."""
        fd = self.store.open(self.folder, key)
        if fd is None:
            return False
        try:
            found = verify(FileInput(fd), self.store.reader, with_buffers=False)
        except (DamagedEntryError, OSError):
            return False
        finally:
            os.close(fd)
        return found.key == key and self._is_valid(found, arguments)

    def claim(self, key: bytes) -> Claim | None:
        """The right to compute a key; None while another process has it. `store.locks.wait` then waits for it."""
        return self.store.locks.try_claim(key)

    def keep(self, key: bytes, value: Any, seconds: float, *, breathe: bool = False) -> int:
        """Keeps a result, and returns its size on disk; 0, with a warning, if that is not possible. Then sees to the limits."""
        size = self.store.write(self.folder, key, value, seconds, breathe=breathe)
        if not size:
            return 0
        self._until_check -= size
        if self.store.tally.keep(size) or self._until_check < 0:
            self._see_to_limits()
        return size

    def metadata(self, found: Found, arguments: Arguments) -> dict[str, Any]:
        """What `cache_validation_callback` gets."""
        return {"duration": found.seconds, "time": found.created, "input_args": self.shown(arguments)}

    def shown(self, arguments: Arguments) -> dict[str, str]:
        """The arguments that count, as short texts."""
        return {name: short_repr(value) for name, value in self.keyer.shown(*arguments).items()}

    def _is_valid(self, found: Found, arguments: Arguments) -> bool:
        rules = self._rules
        if rules.age is not None and time.time() - found.created > rules.age:
            return False
        return rules.validate is None or bool(rules.validate(self.metadata(found, arguments)))

    def _see_to_limits(self) -> None:
        size, age = self._rules.size, self._rules.age
        folder = self.store.folder
        if size is not None and self._until_check < 0:
            self._until_check = int(size * _WRITTEN_SHARE)
            self.store.tally.write()  # which it may not have done for a second
            there = read_tally(folder).bytes
            if there > size:
                self._prune_soon(Limits(size, age=age))
                if there > size * _TOO_MUCH:
                    self.store.pruner.wait()
                return
        if age is not None and time.time() - _last_pruned(folder) > age * _PRUNED_SHARE:
            self._prune_soon(Limits(size, age=age))

    def _prune_soon(self, limits: Limits) -> None:
        prune = functools.partial(prune_alone, self.store, limits)
        if read_tally(self.store.folder).kept <= _FEW:
            prune()
        else:
            self.store.pruner.start(prune)


def prune_alone(store: Store, limits: Limits) -> Usage | None:
    """Prunes, unless another process does it now. Corrects the tally."""
    claim = store.locks.try_claim(_PRUNING_KEY)
    if claim is None:
        return None
    try:
        left = prune(store.folder, limits, room=ROOM)
        totals = read_tally(store.folder)
        reset(store.folder, Totals(totals.hits, totals.misses, totals.kept, left.bytes))
        _set_last_pruned(store.folder)
        return left
    finally:
        claim.release()


def folder_name(module: str, name: str) -> str:
    """The name of a function's folder: readable, and different for different functions."""
    full = f"{module}.{name}"
    tail = f"{os.path.basename(module).removesuffix('.py')}.{name}"
    readable = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in tail)
    return (
        f"{readable[-_LONGEST_NAME:].lstrip('.')}-{blake2b(full.encode('utf-8', 'surrogatepass'), digest_size=4).hexdigest()}"
    )


def _last_pruned(folder: str) -> float:
    try:
        return os.stat(os.path.join(folder, "pruned")).st_mtime
    except OSError:
        return 0.0


def _set_last_pruned(folder: str) -> None:
    with contextlib.suppress(OSError):  # then it is pruned again sooner than need be
        fd = open_beside(os.path.join(folder, "pruned"), os.O_WRONLY | os.O_CREAT)
        try:
            os.utime(fd)
        finally:
            os.close(fd)
