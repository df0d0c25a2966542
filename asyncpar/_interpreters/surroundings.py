"""What a program has to know that has interpreters.

**Forks.** While an interpreter lives, `os.fork` gives a child that dies of a segmentation fault before it runs any code
(cpython#139759). So do multiprocessing's "fork" method and a subprocess with `preexec_fn`. Nothing that is called before a fork
can refuse it; there is a warning.

**The end of the program.** Python waits for a thread that runs Python code in an interpreter, forever if that code does. So at
exit all interpreters are told to end. A call in a C function that waits (`time.sleep`) is left to itself, which the end of the
program survives. A C function that computes keeps its interpreter's lock, and Python itself waits for that lock at its end, and
crashes after it. So we wait for it before. Nor must Python's end meet an interpreter that is being closed, which may wait for
threads that calls have left: when two threads close the same interpreter, one of them hangs.
"""

from __future__ import annotations

import atexit
import os
import select
import sys
import time
import warnings
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from asyncpar.errors import ExecutorUnavailableError

if TYPE_CHECKING:
    from asyncpar._interpreters.life import Interpreter

_EXIT_SECONDS = 0.5  # that running calls have for ending when the program ends
_LOOK_SECONDS = 0.1

_living: set[Interpreter] = set()


def refuse_unless_supported() -> None:
    """Raises `ExecutorUnavailableError` if this Python has no interpreters, and says what to use instead."""
    if not hasattr(select, "poll"):
        raise ExecutorUnavailableError(f'interpreters need poll(), which {sys.platform} does not have; use executor="thread"')
    try:
        interpreters: Any = import_module("concurrent.interpreters")
    except ImportError:
        raise ExecutorUnavailableError(
            f"interpreters need CPython 3.14 or newer, and this is {sys.implementation.name} "
            f'{sys.version_info.major}.{sys.version_info.minor}; use executor="process", or executor="thread"'
        ) from None
    if interpreters.get_current() != interpreters.get_main():  # it has no daemon threads, in which the others would live
        raise ExecutorUnavailableError('an interpreter cannot have interpreters of its own; use executor="inline"')


def note_birth(interpreter: Interpreter) -> None:
    _watch()
    _living.add(interpreter)


def note_end(interpreter: Interpreter) -> None:
    _living.discard(interpreter)


@cache
def _watch() -> None:
    """Once in a program that has an interpreter."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_warn_of_fork)
    atexit.register(_end_all)  # which is after the end of all threads that are not daemons, and may use interpreters


def _warn_of_fork() -> None:
    if _living:
        warnings.warn(
            "this process forks while an interpreter of an InterpreterExecutor lives, and the child will crash "
            "(cpython#139759); close the executor before, start processes by multiprocessing's 'spawn' or 'forkserver', or by "
            'subprocess without preexec_fn, or use executor="process"',
            RuntimeWarning,
            stacklevel=3,
        )


def _end_all() -> None:
    """Called when the program ends."""
    interpreters = _living.copy()
    for interpreter in interpreters:
        interpreter.end()
    deadline = time.monotonic() + _EXIT_SECONDS
    for interpreter in interpreters:
        interpreter.join(deadline - time.monotonic())
        while interpreter.is_alive and (interpreter.is_closing or not interpreter.lets_go):
            interpreter.join(_LOOK_SECONDS)
            deadline = time.monotonic() + _EXIT_SECONDS  # when the C function returns, its call has this time for ending, too
        interpreter.join(deadline - time.monotonic())
    if any(interpreter.is_alive for interpreter in interpreters):
        warnings.filterwarnings("ignore", "remaining subinterpreters", RuntimeWarning)  # there is nothing to be done about it
