"""The one background event loop that serves synchronous callers.

A daemon thread runs it: asyncio, on uvloop where that is installed. It is started at first use and lives until the program
    ends. It keeps executors with a name, so that they stay warm from one synchronous call to the next.

# Guarantees

- **It never waits for a caller.** Callers wait for it, each in its own thread. So it does not matter whether an event loop runs
    in that thread already, or which one.
- **A task ends whatever becomes of its caller.** Any thread, and any finalizer, may cancel a `Task`.
- **A fork is like a fresh program.** The child has no thread of ours, so it starts a portal of its own when it needs one. The
    old one stays there untouched: closing its loop would change what the parent's selector waits for.
- **It ends quietly.** At interpreter exit, once all threads that are not daemons have ended, runs are cancelled and executors
  closed, within a few seconds. Threads that call functions are daemons, because the portal's thread is: a call that does not
  end keeps no program from ending.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import os
import queue
import sys
import threading
from collections.abc import Awaitable, Callable, Hashable

import anyio

from asyncpar._contract.executor import Executor
from asyncpar.errors import ExecutorUnavailableError

_EXIT_SECONDS = 5.0  # far beyond the grace of workers; only an overloaded machine gets here


class Portal:
    """A thread with an event loop in it. `executors` are those that it keeps warm, and `spare` is one that its owner has left
    for the next one with that key; only the loop uses them.
    """

    def __init__(self) -> None:
        self.executors: dict[Hashable, Executor] = {}
        self.spare: tuple[Hashable, Executor] | None = None
        self._pid = os.getpid()
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself holds them only weakly
        self._scopes: set[anyio.CancelScope] = set()
        self._stop: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._began: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        try:
            self._thread = threading.Thread(target=self._run, name="asyncpar portal", daemon=True)
            self._thread.start()
        except RuntimeError as error:  # also in an interpreter, which allows no such threads
            raise ExecutorUnavailableError(
                f"the thread that serves synchronous calls could not be started: {error}; use n_jobs=1, which needs no thread, "
                "or call Parallel before the program ends (some releases of Python start no thread in an atexit callback)"
            ) from error
        failure = self._began.get()
        if failure is not None:
            raise ExecutorUnavailableError(f"the event loop for synchronous calls could not be started: {failure}") from failure

    @property
    def is_foreign(self) -> bool:
        """Whether it runs in the process that this one was forked from."""
        return self._pid != os.getpid()

    @property
    def usable(self) -> bool:
        """Whether it runs, and in this process."""
        return not self.is_foreign and self._thread.is_alive()

    @property
    def is_here(self) -> bool:
        """Whether the current thread is the portal's, which must not wait for itself."""
        return threading.current_thread() is self._thread

    def call(self, fn: Callable[[], object]) -> None:
        """Makes the loop call `fn` soon.

        Raises:
            RuntimeError: the portal has been closed.
        """
        self._loop.call_soon_threadsafe(fn)

    def call_soon(self, fn: Callable[[], object]) -> None:
        """The same, but does nothing when the portal is closed or belongs to another process."""
        if self.is_foreign:
            return
        try:
            self.call(fn)
        except RuntimeError:  # closed
            return

    def close(self) -> None:
        """Cancels all tasks, closes all executors, and waits for the end."""
        if not self.is_foreign:
            self.call_soon(self._stop.set)
            self._thread.join(_EXIT_SECONDS)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(self._serve())
        except BaseException as error:
            self._began.put(error)  # if it never began; otherwise nothing listens any more

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._began.put(None)
        await self._stop.wait()
        for scope in self._scopes:
            scope.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def begin(self, task: Task) -> None:
        """Called in the loop."""
        running = self._loop.create_task(task.run(), context=task.context)
        self._tasks.add(running)
        running.add_done_callback(self._tasks.discard)

    def enter_scope(self, scope: anyio.CancelScope) -> None:
        self._scopes.add(scope)
        if self._stop.is_set():
            scope.cancel()

    def leave_scope(self, scope: anyio.CancelScope) -> None:
        self._scopes.discard(scope)


class Task:
    """Runs `main` in a portal's loop, in a copy of the maker's context. `main` must deliver its failures itself.

    It is made first and started later, so that a caller that is interrupted just as it starts has something to cancel.
    """

    def __init__(self, portal: Portal, main: Callable[[], Awaitable[None]]) -> None:
        self._portal = portal
        self._main = main
        self._scope: anyio.CancelScope | None = None
        self._begun = False
        self._cancelled = False
        self.context = contextvars.copy_context()
        sniffio = sys.modules.get("sniffio")
        if sniffio is not None:  # the caller's event loop does not matter here
            self.context.run(sniffio.current_async_library_cvar.set, None)

    def start(self) -> None:
        """Starts it; returns at once.

        Raises:
            RuntimeError: the portal has been closed.
        """
        self._portal.call(self.begin)

    def cancel(self) -> None:
        """Asks it to end; returns at once. Any thread may call it.

        A task that has not been started begins nevertheless, and finds itself cancelled: so `main` can always report its end.
        """
        self._portal.call_soon(self._cancel)

    async def run(self) -> None:
        with anyio.CancelScope() as scope:
            self._scope = scope
            self._portal.enter_scope(scope)
            if self._cancelled:
                scope.cancel()
            try:
                await self._main()
            finally:
                self._portal.leave_scope(scope)

    def begin(self) -> None:
        """Starts it, if it has not been started. Called in the loop."""
        if not self._begun:
            self._begun = True
            self._portal.begin(self)

    def _cancel(self) -> None:
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()
        self.begin()


def current_portal() -> Portal:
    """This process's portal, started if necessary."""
    global _current
    portal = _current
    if portal is None or not portal.usable:
        with _starting:
            if _current is None or not _current.usable:
                _current = Portal()
            portal = _current
    return portal


def running_portal() -> Portal | None:
    """This process's portal, if it has been started."""
    return _current if _current is not None and _current.usable else None


def close_portal() -> None:
    """Ends the portal, if there is one; the next synchronous call starts another."""
    global _current
    portal, _current = _current, None
    if portal is not None:
        portal.close()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    try:
        import uvloop
    except ImportError:  # no build for this interpreter
        return None
    return uvloop.new_event_loop


def _begin_anew_after_fork() -> None:
    global _current, _starting
    if _current is not None:
        _left_behind.append(_current)
    _current = None
    _starting = threading.Lock()  # another thread may have held it at the fork


_current: Portal | None = None
_starting = threading.Lock()
_left_behind: list[Portal] = []  # by forks

atexit.register(close_portal)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew_after_fork)
