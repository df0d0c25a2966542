"""The calls of one `PoolExecutor`, from `submit` to the future's end.

They run in the portal's loop, and everything here happens in its thread unless it says otherwise. Calls begin in the order in
which they were submitted, two for each place of the executor: the second is packed and waits, so that its worker has it at
once. All others wait with nothing pickled.

    # begun <= max(1, 2 * places)

**Futures.** In `concurrent.futures`, a future that is running cannot be cancelled. Ours can. So for its base class a
`CallFuture` is pending until its call has ended. Then `cancel` works by itself, in any thread and without a race, and the call
only has to be stopped here. Code that waits for the future with `wait` or `as_completed` is told when that has happened.

**The end.** After `shut_down`, what has been submitted is finished. Then the executor is closed, if it belongs to the pool, and
whoever waits for that is told. The `PoolExecutor` itself is not needed for any of this, so it may be garbage-collected.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from asyncpar._contract.executor import Executor
from asyncpar._contract.single_call import make_call
from asyncpar._platform.background import is_own_cancellation, wait_through
from asyncpar._sync.portal import Portal, Task
from asyncpar.errors import ExecutorUnavailableError

T = TypeVar("T")


class CallFuture(Future[T]):
    """The future of a call. `cancel` also stops a call that is running."""

    def __init__(self, notice: Callable[[CallFuture[Any]], object]) -> None:
        super().__init__()
        self._notice = notice
        self.has_begun = False

    def cancel(self) -> bool:
        """Cancels the call, and stops it if it is running. False if it has ended already.

        The future is cancelled at once. A running call is stopped as the executor does it: a process is killed if the call does
        not end within the grace, and a thread is left to its call. `wait` and `as_completed` count the future as done then.
        """
        if not super().cancel():
            return False
        self._notice(self)
        return True

    def running(self) -> bool:
        """Whether the call has begun, or is about to, and has not ended."""
        return self.has_begun and not self.done()


class Dispatcher:
    """Runs calls in `executor`, which is closed at the end if it is `owned`."""

    def __init__(self, portal: Portal, executor: Executor, *, owned: bool) -> None:
        self.portal = portal
        self._executor = executor
        self._owned = owned
        self._tasks: dict[CallFuture[Any], Task] = {}  # of the calls that have not ended
        self._waiting: deque[CallFuture[Any]] = deque()  # those that have not begun, and some that were cancelled
        self._begun = 0
        self._is_shut_down = self._is_closing = False
        self._over: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stop_watching: Callable[[], None] | None = None

    # Any thread

    def submit(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> CallFuture[Any]:
        """The future of a new call, which sees the context variables of the current thread.

        Raises:
            RuntimeError: the portal has been closed.
        """
        future: CallFuture[Any] = CallFuture(self._notice_cancelled)
        task = Task(self.portal, partial(self._make, future, fn, args, kwargs))
        self.portal.call(partial(self._add, future, task))
        return future

    def shut_down(self, *, cancel_waiting: bool) -> None:
        """Finishes what has been submitted, and then ends; returns at once."""
        self.portal.call_soon(partial(self._shut_down, cancel_waiting))

    def wait_ended(self) -> None:
        """Waits for that end."""
        if self.portal.usable:
            self._over.get()
            self._over.put(None)  # for the next who waits

    def _notice_cancelled(self, future: CallFuture[Any]) -> None:
        self.portal.call_soon(partial(self._stop, future))

    # The portal's thread

    def _add(self, future: CallFuture[Any], task: Task) -> None:
        if self._stop_watching is None:
            self._stop_watching = self._executor.watch(self._begin_some)
        self._tasks[future] = task
        self._waiting.append(future)
        self._begin_some()

    def _begin_some(self) -> None:
        while self._waiting and self._begun < max(1, 2 * self._executor.places):
            future = self._waiting.popleft()
            task = self._tasks.get(future)
            if task is not None:  # else it was cancelled
                self._begun += 1
                future.has_begun = True
                task.begin()

    async def _make(
        self, future: CallFuture[Any], fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        error: BaseException | None = ExecutorUnavailableError("the program ended before the result was there")
        value = None
        try:
            value = await make_call(self._executor, fn, args, kwargs, None)
            error = None
        except BaseException as failure:
            if is_own_cancellation(failure):
                raise
            error = failure
        finally:
            self._begun -= 1
            self._end(future, value, error)
            del future, fn, args, kwargs, value, error  # the traceback of an error must not keep them alive
            self._begin_some()

    def _end(self, future: CallFuture[Any], value: Any, error: BaseException | None) -> None:
        del self._tasks[future]
        if future.set_running_or_notify_cancel():
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)
        self._see_whether_over()

    def _stop(self, future: CallFuture[Any]) -> None:
        """The future has been cancelled."""
        task = self._tasks.get(future)
        if task is None:  # it has ended
            return
        if future.has_begun:
            task.cancel()
        else:
            self._end(future, None, None)

    def _shut_down(self, cancel_waiting: bool) -> None:
        self._is_shut_down = True
        if cancel_waiting:
            waiting, self._waiting = self._waiting, deque()
            for future in waiting:
                future.cancel()
        self._see_whether_over()

    def _see_whether_over(self) -> None:
        if self._is_shut_down and not self._tasks and not self._is_closing:
            self._is_closing = True
            Task(self.portal, self._close).start()

    async def _close(self) -> None:
        try:
            if self._stop_watching is not None:
                self._stop_watching()
            if self._owned:
                await wait_through(self._executor.aclose)
        finally:
            self._over.put(None)
