"""Work of our own that takes too long for the event loop, in a thread: pickling and reading large things.

A limiter of our own: the event loop's default threads may all be taken by calls of the user's.

What runs here, a run waits for. The garbage collector may run here too, and find what belongs to that very run, so that no
finalizer may wait for a run's end in such a thread: `is_off_loop` tells it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

T = TypeVar("T")

_THREADS = 4  # pickling holds the GIL, so that more would not be faster

_limiter: RunVar[anyio.CapacityLimiter | None] = RunVar("asyncpar_off_loop", None)
_thread = threading.local()


async def run_off_loop(fn: Callable[[], T]) -> T:
    """What `fn` returns, from a thread. A cancellation waits for its end."""
    limiter = _limiter.get()
    if limiter is None:
        limiter = anyio.CapacityLimiter(_THREADS)
        _limiter.set(limiter)
    return await anyio.to_thread.run_sync(_run_marked, fn, limiter=limiter)


def is_off_loop() -> bool:
    """Whether the current thread does such work now."""
    return getattr(_thread, "works", False)


def _run_marked(fn: Callable[[], T]) -> T:
    _thread.works = True
    try:
        return fn()
    finally:
        _thread.works = False
