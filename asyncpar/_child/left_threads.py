"""Ends the threads that calls have left running in an interpreter, when it ends.

Python waits for them before it closes an interpreter, and before the program ends; not even Ctrl-C interrupts that wait. A
process worker would be killed. Here, they have a while for coming to their end. Then `SystemExit`, which ends a thread
silently, is raised in them a few times. What this does not end is in C code, or catches everything.

It is the work of one more thread, because meanwhile Python's own exit tells the idle threads of pools to end.
"""

from __future__ import annotations

import threading
import time

from asyncpar._child.interrupter import exception_setter

_OWN_SECONDS = 0.5  # that they have; a guess
_AGAIN_SECONDS = 0.02
_MOST_STRIKES = 50


def end_left_threads() -> None:
    """Called when the last call has been made."""
    if _left():
        threading.Thread(target=_end, name="asyncpar end of threads").start()


def _end() -> None:
    struck_from = time.monotonic() + _OWN_SECONDS
    strikes = 0
    while strikes < _MOST_STRIKES and (left := _left()):
        if time.monotonic() >= struck_from:
            strikes += 1
            for thread in left:
                exception_setter(thread.ident or 0, SystemExit)(SystemExit)
        left[0].join(_AGAIN_SECONDS)


def _left() -> list[threading.Thread]:
    """The threads that `threading` has started: neither the one that makes the calls, nor the program's main thread, which
    enters the interpreter at the end of the program.
    """
    ours = (threading.main_thread(), threading.current_thread())
    return [thread for thread in threading.enumerate() if thread not in ours and not isinstance(thread, threading._DummyThread)]
