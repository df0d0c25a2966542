"""Notes on exceptions: what asyncpar adds to an error of the user's.

Many calls may raise one and the same object (`raise FULL`, where that is an instance in a module), in many runs, and it lives
on. So a run has one note on an object, that of the call which raised it last, and there are never more than a few of all runs.
Runs in a call of another run have their own: each says where it was.

The classes of users may forbid attributes, as frozen dataclasses do, have an `add_note` that raises, or `__notes__` that are no
list. None of these is called or changed, and an exception that takes no note goes without.
"""

from __future__ import annotations

from typing import Any

_ATTRIBUTES: Any = vars(BaseException)["__dict__"]  # a class may forbid to ask an object for its own
_MOST_NOTES = 8  # as many levels of maps in maps as anybody has; a guess


def add_note(error: BaseException, text: str, run: int | None = None) -> None:
    """Adds the note "asyncpar: `text`", in place of an earlier one of the same run or of the same words."""
    if getattr(type(error), "__notes__", None) is not None:  # something of the class's own
        return
    notes: Any = _ATTRIBUTES.__get__(error).setdefault("__notes__", [])
    if type(notes) is not list:
        return
    note = _Note(f"asyncpar: {text}")
    note.run = run
    ours = [place for place, other in enumerate(notes) if type(other) is _Note]
    for place in ours:
        if notes[place] == note or (run is not None and notes[place].run == run):
            notes[place] = note
            return
    if len(ours) == _MOST_NOTES:
        del notes[ours[0]]
    notes.append(note)


class _Note(str):
    """A note that knows the number of its run. It travels as a plain text."""

    __slots__ = ("run",)
    run: int | None

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)
