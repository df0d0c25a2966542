"""Threads that make calls for one owner and for nobody else, where a call must run in the very thread in which something was
set up: a connection of sqlite3, or an event loop.

Such a thread waits for the next function, calls it, and reports to the event loop that asked for it. When it is told to end,
it first does what it is doing, then calls `at_end`, and ends. It is a daemon, because a call that does not end must not hold up
the program. At the end of the program, all threads that are left are told to end, and have a moment for it.

Other calls run in anyio's threads, which are shared and have no state.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable
from functools import cache, partial
from queue import SimpleQueue

import anyio

from asyncpar._platform.background import LoopHandle
from asyncpar._platform.nesting import context_of_a_thread

_EXIT_SECONDS = 0.5  # that they have when the program ends; a guess

_living: set[OwnThread] = set()


class OwnThread:
    """Made in the event loop that uses it. `at_end` is called in the thread, as the last thing."""

    def __init__(self, name: str, at_end: Callable[[], object]) -> None:
        self._jobs: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._at_end = at_end
        self._loop = LoopHandle()
        self._ended = anyio.Event()
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)
        _see_to_the_end()
        _living.add(self)
        try:
            self._thread.start()
        except BaseException:  # there are too many
            _living.discard(self)
            raise

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    async def run(self, fn: Callable[[], object]) -> None:
        """Calls `fn` in the thread, in a copy of this context. When cancelled, it returns at once, and `fn` goes on."""
        ended, errors = anyio.Event(), list[BaseException]()

        def call() -> None:
            try:
                fn()
            except BaseException as error:
                errors.append(error)
            self._loop.call_soon(ended.set)

        self._jobs.put(partial(context_of_a_thread().run, call))
        await ended.wait()
        if errors:
            raise errors.pop()

    def end(self) -> None:
        """It ends when it has done what it has been asked for until now. May be called anywhere, and several times."""
        self._jobs.put(None)

    async def wait_ended(self) -> None:
        await self._ended.wait()

    def join(self, seconds: float) -> None:
        """Waits for its end. Not for use in an event loop."""
        self._thread.join(max(seconds, 0))

    def _live(self) -> None:
        try:
            while (job := self._jobs.get()) is not None:
                job()
                del job  # it holds what was called, and with what
            self._at_end()
        finally:
            _living.discard(self)
            self._loop.call_soon(self._ended.set)


@cache
def _see_to_the_end() -> None:
    """Once in a program that has such threads."""
    atexit.register(_end_all)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_living.clear)  # a forked copy has none of them


def _end_all() -> None:
    threads = list(_living)
    for thread in threads:
        thread.end()
    deadline = time.monotonic() + _EXIT_SECONDS
    for thread in threads:
        thread.join(deadline - time.monotonic())
