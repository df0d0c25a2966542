"""Pausing Python's garbage collector while many objects are read.

Reading makes no garbage that the collector would find, but each few hundred new containers make it look again at all young
ones, and now and then at all old ones. That takes as long as reading a list of records itself does, and three times as long
before Python 3.14.

The collector is the whole program's, and user code runs meanwhile: in other threads, where reading imports a module, and in
methods such as `__setstate__`. So it is paused by a high threshold, which limits how much garbage such methods leave, and not
by `gc.disable()`. Then `gc.disable()`, `gc.enable()` and other thresholds that somebody sets during a pause stay as they are.
"""

from __future__ import annotations

import gc
import os
import threading

_PAUSED = 65_521  # new containers; a prime, which nobody else sets
_changing = threading.Lock()
_pauses = 0  # that have begun and not ended, in all threads
_thresholds: tuple[int, ...] = ()  # from before


class CollectorPaused:
    """A context manager: the collector hardly runs within it."""

    def __enter__(self) -> None:
        global _pauses, _thresholds
        with _changing:
            if not _pauses:
                _thresholds = gc.get_threshold()
                if 0 < _thresholds[0] < _PAUSED:
                    gc.set_threshold(_PAUSED)
            _pauses += 1

    def __exit__(self, *_: object) -> None:
        global _pauses
        with _changing:
            if _pauses:  # else this is a forked copy of the thread
                _pauses -= 1
                if not _pauses:
                    _resume()


def _resume() -> None:
    if gc.get_threshold()[0] == _PAUSED:
        gc.set_threshold(*_thresholds)


def _resume_in_copy() -> None:
    """In a forked copy of this process: the threads that read are not there, and the lock may be held by one of them."""
    global _changing, _pauses
    _changing = threading.Lock()
    if _pauses:
        _pauses = 0
        _resume()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_resume_in_copy)
