"""Objects that are bound to the process that made them, but that pickle would accept.

Pickle itself refuses most such objects: locks, sockets, binary files, memory maps, generators, and what multiprocessing passes
to its children only while it starts them. These are the exceptions:

- **An end of a Pipe** is pickled as the number of its descriptor. In another process that number means something else, perhaps
  the socket that connects a worker to its parent.
- **A text file that is open for writing** becomes a copy of the file's content, and what is written to the copy is lost. (A
  file that is only read becomes a copy, too, but that is as good as the file.)
- **A NamedTemporaryFile** becomes a copy that deletes the original's file when it is no longer used.

Nothing is imported for this: an object of a module can only be here if the module is loaded.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pickle import PicklingError
from typing import Any, NoReturn


def reducer_of_bound(kind: type) -> Callable[[Any], Any] | None:
    """The reducer for objects of type `kind`, if they are bound to their process."""
    for module, name, reducer in _BOUND:
        if module in sys.modules:
            base = getattr(sys.modules[module], name, None)  # a module that is still being loaded may not have it yet
            if base is not None and issubclass(kind, base):
                return reducer
    return None


def reduce_text_file(file: io.TextIOWrapper, reduce_readable: Callable[[Any], Any]) -> Any:
    is_found_there = file is sys.stdout or file is sys.stderr
    if not is_found_there and "+" in str(getattr(file, "mode", "")):
        raise PicklingError(
            "what another process writes to a copy of an open file does not reach the file; send the name of the file, and "
            "open it there"
        )
    return reduce_readable(file)


def _refuse_connection(_: object) -> NoReturn:
    raise PicklingError(
        "the other process would use its number for a descriptor of its own; use a multiprocessing.Manager().Queue() "
        "instead, or let the call return its data"
    )


def _refuse_temporary_file(_: object) -> NoReturn:
    raise PicklingError("the copy would delete the file; send its name, and open it there")


_BOUND: list[tuple[str, str, Callable[[Any], Any]]] = [
    ("multiprocessing.connection", "_ConnectionBase", _refuse_connection),
    ("tempfile", "_TemporaryFileWrapper", _refuse_temporary_file),
]
