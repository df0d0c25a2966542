"""What is bound to the process that made it, and yet would be pickled without a word.

Most of that pickle refuses by itself: locks, sockets, binary files, memory maps, generators, and what multiprocessing hands
to its children only while it starts them. These are the exceptions:

- **An end of a Pipe** is pickled as the number of its descriptor. In another process that number stands for something else,
  perhaps for the very socket over which a worker hears from its parent.
- **A text file that is open for writing** becomes a copy of what the file holds; what is written to it is lost. (One that is
  only read is a copy, too, and as good as the file.)
- **A NamedTemporaryFile** becomes a copy that deletes the original's file when it is no longer used.

Nothing is imported for this: an object of a module can only be here if that module is.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pickle import PicklingError
from typing import Any, NoReturn


def reducer_of_bound(kind: type) -> Callable[[Any], Any] | None:
    """What takes objects of type `kind` apart, if they are bound to their process."""
    for module, name, reducer in _BOUND:
        if module in sys.modules:
            base = getattr(sys.modules[module], name, None)  # which a module that is still being loaded may not have yet
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
