"""Pausing Python's garbage collector while many objects are read.

Reading makes no garbage that the collector would find, but each few hundred new containers make it look again at all young
ones, and now and then at all old ones. That takes as long as reading a list of records itself does, and three times as long
before Python 3.14.

The collector is the whole program's. It is paused for the time of one message, in the event loop for a millisecond. If another
thread calls `gc.disable()` in just that moment, the end of the pause undoes it.
"""

from __future__ import annotations

import gc
import threading

_changing = threading.Lock()
_pauses = 0  # that have begun and not ended, in all threads
_was_enabled = False


class CollectorPaused:
    """A context manager: the collector does not run within it."""

    def __enter__(self) -> None:
        global _pauses, _was_enabled
        with _changing:
            if not _pauses:
                _was_enabled = gc.isenabled()
                gc.disable()
            _pauses += 1

    def __exit__(self, *_: object) -> None:
        global _pauses
        with _changing:
            _pauses -= 1
            if not _pauses and _was_enabled:
                gc.enable()
