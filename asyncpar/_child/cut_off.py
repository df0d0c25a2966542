"""Cuts off the leaving of an interpreter's state that takes too long.

A worker process would be killed. In an interpreter, another thread first cancels what waits in the event loop, if anything
does, and then raises `CallInterrupted` in what runs, again and again, until it has ended. C code is interrupted when it returns
to Python.

The interrupter cannot do this. Its socket has ended by then, which is a request to interrupt everything at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from asyncpar._child.interrupter import AGAIN_MS, exception_setter
from asyncpar._child.protocol import CallInterrupted

_AGAIN_SECONDS = AGAIN_MS / 1000


def call_in_time(fn: Callable[[], object], seconds: float, cancel: Callable[[], bool]) -> None:
    """Calls `fn`, and interrupts it after that time. `cancel` cancels what it awaits, if it awaits anything."""
    target, ended, striking = threading.get_ident(), threading.Event(), threading.RLock()
    strike: Any = None

    def watch() -> None:
        nonlocal strike
        if ended.wait(seconds) or (cancel() and ended.wait(_AGAIN_SECONDS)):
            return
        strike = exception_setter(target, CallInterrupted)
        while not ended.wait(_AGAIN_SECONDS):
            with striking:
                if not ended.is_set():
                    strike(CallInterrupted)

    watcher = threading.Thread(target=watch, name="asyncpar cut-off")
    watcher.start()
    begun = False
    while True:
        try:
            if not begun:
                begun = True
                fn()
            with striking:
                ended.set()
            watcher.join()
            if strike is not None:
                strike(None)  # takes back one that is on its way
            return
        except CallInterrupted:  # it may have hit between getting the lock and entering the block
            with suppress(RuntimeError):  # it has not
                striking.release()
