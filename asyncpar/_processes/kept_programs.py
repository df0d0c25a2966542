"""Programs that stay with the workers when the run or the call that sent them is over, so that the next need not send them again.

Which program it is must be certain, because a worker that has the wrong one would silently call the wrong function:

- **An importable function** is what its module says. It is recognised by its identity, and kept alive by its program. If the
  module is reloaded, other workers are forked (`reloading.py`), which know no program.
- **Any other function** (of a script, a closure, a `functools.partial`) is recognised by its pickle. It is pickled for each call,
  because a global that it uses may have changed, and only sent if the pickle is new. This is for single calls only: a map
  sends its function once anyway, and begins with a fresh one. Large pickles are not kept.

Both tables are small, and what was used least recently makes way: workers forget it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from asyncpar._child.protocol import ProgramOptions
from asyncpar._processes.parcel import SentProgram

_MOST_IMPORTABLE = 64  # a name costs a worker a hundred bytes; a run of an importable function saves 10 µs by this
_MOST_BY_VALUE = 16  # a guess: a service calls few functions of its main script
_LARGEST_BY_VALUE = 1 << 14  # bytes


class KeptPrograms:
    """The programs of one executor.

    Args:
        make: pickles a function.
        forget: called with each program that makes way.
    """

    def __init__(
        self, make: Callable[[Callable[..., Any], ProgramOptions], SentProgram], forget: Callable[[SentProgram], object]
    ) -> None:
        self._make = make
        self._forget = forget
        self._importable: dict[Hashable, SentProgram] = {}  # {(id of its function, which it holds, and its options): program}
        self._by_value: dict[Hashable, SentProgram] = {}  # {(its pickle, its options): program}; the newest use last, in both

    def importable(self, fn: Callable[..., Any], options: ProgramOptions) -> SentProgram:
        """The program of a function that workers can import."""
        key = id(fn), options
        kept = self._importable.pop(key, None)
        if kept is None:
            kept = self._make(fn, options)
            self._make_room(self._importable, _MOST_IMPORTABLE)
        self._importable[key] = kept
        return kept

    def by_value(self, sent: SentProgram) -> SentProgram | None:
        """The kept program with the same pickle, which is `sent` itself from now on if there was none; None: too large."""
        if sent.encoded is None or sent.is_large or sent.weight > _LARGEST_BY_VALUE:
            return None
        key = sent.encoded[0][0], sent.options
        kept = self._by_value.pop(key, None)
        if kept is None:
            kept = sent
            self._make_room(self._by_value, _MOST_BY_VALUE)
        self._by_value[key] = kept
        return kept

    def _make_room(self, kept: dict[Hashable, SentProgram], most: int) -> None:
        while len(kept) >= most:
            self._forget(kept.pop(next(iter(kept))))
