"""Notes that asyncpar adds to users' exceptions.

Many calls, in many runs, may raise the same object (`raise FULL`, where FULL is an instance in a module), and it lives on. So a
run has one note on an object, for the call that raised it last, and the number of notes from all runs is limited. A run inside
a call of another run has its own note: each says where the error was raised.

Users' classes may forbid attributes, as frozen dataclasses do, have an `add_note` that raises, or `__notes__` that are not a
list. None of these is called or changed. An exception that accepts no note gets none.
"""

from __future__ import annotations

from typing import Any

from asyncpar._basics.locking import ModuleLock

_ATTRIBUTES: Any = vars(BaseException)["__dict__"]  # read from here, since a class may hide its objects' `__dict__`
_changing = ModuleLock()  # event loops of several threads may get the same object
_MOST_NOTES = 8  # more levels of nested maps than any program has; a guess


def add_note(error: BaseException, text: str, run: int | None = None) -> None:
    """Adds the note "asyncpar: `text`". It replaces an earlier note of the same run or with the same text."""
    if getattr(type(error), "__notes__", None) is not None:  # the class defines it
        return
    notes: Any = _ATTRIBUTES.__get__(error).setdefault("__notes__", [])
    if type(notes) is not list:
        return
    note = _Note(f"asyncpar: {text}")
    note.run = run
    with _changing:
        _add(notes, note)


def _add(notes: list[Any], note: _Note) -> None:
    ours = [position for position, other in enumerate(notes) if type(other) is _Note]
    for position in ours:
        if notes[position] == note or (note.run is not None and notes[position].run == note.run):
            notes[position] = note
            return
    if len(ours) == _MOST_NOTES:
        del notes[ours[0]]
    notes.append(note)


class _Note(str):
    """A note that knows the number of its run. It is pickled as a plain string."""

    __slots__ = ("run",)
    run: int | None

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)
