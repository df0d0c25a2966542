"""Something that runs in the portal while a thread waits for it, and how it ends when that thread does not wait to the end.

A `PortalRun` has one coroutine function, `main`, which runs in the portal's loop in a copy of the starter's context. It ends
once, in whatever way, and then says so to everybody who waits. Guarantees:

- **It is over only when `main` has ended**, also if the waiting thread was interrupted: Ctrl-C cancels, waits for the end,
  which takes no longer than an executor's grace, and is raised only then.
- **Nobody waits for ever.** `main` that the end of the portal cancels is over, too, with an error that says so. The portal's
  own thread cannot wait for itself, and is told so.
- **Finalizers may cancel.** One that runs in the portal's thread, or in a thread that the run waits for, does not wait.

A flag says that it is over, and messages only wake the thread that waits. (An interrupt may come just after a message has been
taken out of its queue, or in the middle of a `threading.Event`'s `wait`, whose lock it leaves held; a `SimpleQueue` is safe.)
"""

from __future__ import annotations

import queue
from collections.abc import Awaitable, Callable
from typing import Any

from asyncpar._platform.background import is_own_cancellation
from asyncpar._platform.off_loop import is_off_loop
from asyncpar._sync.portal import Portal, Task, current_portal
from asyncpar.errors import ExecutorUnavailableError


class PortalRun:
    """Runs `main` in the portal.

    Args:
        what: the name of the caller in messages.
        main: the coroutine function.
        ended: called in the portal's thread when it is over.
    """

    def __init__(self, what: str, main: Callable[[], Awaitable[Any]], ended: Callable[[], object] = lambda: None) -> None:
        self.is_over = False
        self.portal: Portal = current_portal()
        self._what = what
        self._main = main
        self._ended = ended
        self._value: Any = None
        self._error: BaseException | None = None
        self._over: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._task = Task(self.portal, self._serve)

    def start(self) -> None:
        """Starts it; returns at once.

        Raises:
            RuntimeError: the current thread is the portal's own.
            ExecutorUnavailableError: the portal has been closed.
        """
        if self.portal.is_here:
            raise RuntimeError(
                f"{self._what} was called in asyncpar's own event loop, which cannot wait for itself; in a coroutine function, "
                "write `await asyncpar.run(...)` or `await asyncpar.pmap(...)`"
            )
        try:
            self._task.start()
        except RuntimeError as error:
            raise ExecutorUnavailableError(f"{self._what} cannot run any more: the program is ending") from error

    def wait(self) -> Any:
        """Waits for the end, and returns what `main` has returned, or raises what it raised."""
        try:
            while not self.is_over:
                self._over.get()
        except BaseException:
            self.end()
            raise
        return self.result()

    def result(self) -> Any:
        """What came of it, once it is over. To be called once: an error is not kept."""
        error, self._error = self._error, None
        if error is not None:
            raise error
        return self._value

    def cancel(self) -> None:
        """Asks it to end, and returns at once. Any thread may call it, also before `start`."""
        self._task.cancel()

    def end(self) -> None:
        """Cancels it, and returns when it is over, if this thread may wait for that. An interrupt meanwhile is raised then."""
        if self.is_over:
            return
        if not self.portal.usable or self.portal.is_here or is_off_loop():
            self._task.cancel()
        else:
            self._cancel_and_wait()

    def _cancel_and_wait(self) -> None:
        interrupts: list[KeyboardInterrupt] = []
        while not self.is_over:
            try:
                self._task.cancel()
                self._over.get()
            except KeyboardInterrupt as error:
                interrupts.append(error)
        for interrupt in interrupts[-1:]:
            raise interrupt

    async def _serve(self) -> None:
        self._error = ExecutorUnavailableError(f"{self._what} was ended before its result was there")
        try:
            self._value = await self._main()
            self._error = None
        except BaseException as error:
            if is_own_cancellation(error):
                raise
            self._error = error
        finally:
            self.is_over = True
            self._ended()
            self._over.put(None)
