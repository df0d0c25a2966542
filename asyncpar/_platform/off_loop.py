"""Runs work of our own that takes too long for the event loop in a thread: pickling and unpickling large objects.

It has its own limiter, because the user's calls may occupy all of the event loop's default threads.

A run waits for the work here. The garbage collector may also run here, and find objects of that same run. So no finalizer may
wait for the end of a run in such a thread. It can ask `is_off_loop`.
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
    """Calls `fn` in a thread and returns its result. A cancellation waits until `fn` has returned."""
    limiter = _limiter.get()
    if limiter is None:
        limiter = anyio.CapacityLimiter(_THREADS)
        _limiter.set(limiter)
    return await anyio.to_thread.run_sync(_run_marked, fn, limiter=limiter)


def is_off_loop() -> bool:
    """Whether the current thread is doing such work now."""
    return getattr(_thread, "works", False)


def _run_marked(fn: Callable[[], T]) -> T:
    _thread.works = True
    try:
        return fn()
    finally:
        _thread.works = False
