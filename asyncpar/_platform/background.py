"""Tasks that belong to an event loop rather than to a caller.

A default executor outlives the call that made it, and a stream's run must go on between two `__anext__` calls without a task
group being open across a `yield` (PEP 789). Such tasks need an owner: one *keeper* task for each event loop, which holds them
all in one task group. It is started at first use and ends with the loop: `asyncio.run` cancels all remaining tasks, and trio
cancels its system tasks when the main task ends. Either way, the keeper cancels its tasks and waits for them. An asyncio loop
may also be closed without that. Then `_platform/closed_loops.py` ends its tasks, and calls those that own resources, so that
they release them without a loop.

Guarantees: a background task never raises into the keeper (its function must deliver failures as values), sees the
context variables of the code that started it, and is always awaited by the keeper.
"""

from __future__ import annotations

import contextlib
import contextvars
import sys
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.abc
from anyio.lowlevel import RunVar

from asyncpar._platform.closed_loops import OWN_TASKS, see_to_closed_loops, watch


class BackgroundTask:
    """A task that the event loop owns. Any code in that loop may cancel it or wait for its end.

    If the loop is closed while the task waits in it, `if_lost` is called instead.
    """

    def __init__(self, if_lost: Callable[[], None] | None) -> None:
        self.if_lost = if_lost
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    def cancel(self) -> None:
        """Asks the task to end, and returns at once."""
        self._scope.cancel()

    def lose(self) -> None:
        """It will not go on."""
        if self.if_lost is not None:
            self.if_lost()
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
            self._ended.set()

    async def wait(self) -> None:
        """Returns when the task has ended."""
        await self._ended.wait()

    async def run(self, fn: Callable[[], Awaitable[None]]) -> None:
        try:
            with self._scope:
                await fn()
        finally:
            self._ended.set()


async def start_background(fn: Callable[[], Awaitable[None]], if_lost: Callable[[], None] | None = None) -> BackgroundTask:
    """Runs `fn` in a task that the event loop owns, in a copy of the current context. Returns when it is sure to begin, or
    to be lost.

    `if_lost` is called if the loop is closed before the task has ended. It cannot await anything.
    """
    see_to_closed_loops()
    reference = _keeper.get()
    keeper = None if reference is None else reference()
    if keeper is None or keeper.ended:
        keeper = _Keeper()
        _keeper.set(weakref.ref(keeper))
        _spawn(keeper)
    task = BackgroundTask(if_lost)
    keeper.tasks.add(task)  # the loop may be closed before it has begun
    try:
        await keeper.ready.wait()
        # Not `group.start`: in asyncio, a caller that is cancelled in it may wait for ever for a task that never began
        keeper.group.start_soon(keeper.run, task, fn)
    except BaseException:
        keeper.tasks.discard(task)
        raise
    return task


def is_own_cancellation(error: BaseException) -> bool:
    """Whether `error` cancels the current task, and is not just a cancellation that a call ran into and raised."""
    if not issubclass(type(error), anyio.get_cancelled_exc_class()):
        return False
    if not runs_on_asyncio():
        return True  # only trio can make its `Cancelled`
    import asyncio

    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def wait_through(wait: Callable[[], Awaitable[None]]) -> None:
    """Awaits `wait()` to its end, however often it is cancelled meanwhile, and then raises the cancellation.

    A shield stops the cancellation of scopes, but not asyncio's own `Task.cancel`. After that, `wait` is called again, so it
    must be possible to call it again, and it must end soon by itself.
    """
    cancellation: BaseException | None = None
    with anyio.CancelScope(shield=True):
        while True:
            try:
                await wait()
                break
            except BaseException as error:
                if not is_own_cancellation(error):
                    raise
                cancellation = error
    if cancellation is not None:
        raise cancellation


class LoopHandle:
    """Lets any thread, and any finalizer, ask the event loop that runs now to call a function soon."""

    def __init__(self) -> None:
        native: Any = anyio.lowlevel.current_token().native_token
        self._call_soon: Callable[..., Any]
        if hasattr(native, "call_soon_threadsafe"):
            self._call_soon = native.call_soon_threadsafe
        else:
            self._call_soon = native.run_sync_soon

    def call_soon(self, fn: Callable[[], object]) -> None:
        """Does nothing when the loop is gone, since everything that it owned is gone too."""
        try:
            self._call_soon(fn)
        except RuntimeError:  # asyncio: closed; trio's RunFinishedError is one too
            return


class _Keeper:
    """The owner of an event loop's background tasks."""

    def __init__(self) -> None:
        self.ready = anyio.Event()
        self.group = anyio.create_task_group()
        self.ended = False
        self.tasks: set[BackgroundTask] = set()

    async def keep(self) -> None:
        try:
            async with self.group:
                self.ready.set()
                await anyio.sleep_forever()
        finally:
            self.ended = True
            self.lose()  # those that were cancelled before their first step, which asyncio then leaves out

    async def run(self, task: BackgroundTask, fn: Callable[[], Awaitable[None]]) -> None:
        try:
            await task.run(fn)
        finally:
            self.tasks.discard(task)

    def lose(self) -> None:
        """The loop has been closed while the tasks were waiting in it, or before they could begin."""
        for task in list(self.tasks):
            task.lose()


# Weakly: an object that is kept for a loop must not keep the loop alive, as the keeper does
_keeper: RunVar[weakref.ref[_Keeper] | None] = RunVar("asyncpar_keeper", None)


def _spawn(keeper: _Keeper) -> None:
    """Starts the keeper's task, which only the event loop owns."""
    if runs_on_asyncio():
        import asyncio

        loop = asyncio.get_running_loop()
        task = loop.create_task(keeper.keep(), name=f"{OWN_TASKS}keeper", context=contextvars.Context())
        watch(loop, task, keeper.lose)
    else:
        import trio

        trio.lowlevel.spawn_system_task(keeper.keep)


def current_loop() -> object:
    """An object that identifies the event loop that runs now: asyncio's loop, or trio's token. Use it only for comparing: if
    trio is a guest in asyncio's loop, it is that loop.
    """
    asyncio = sys.modules.get("asyncio")
    loop: object = None if asyncio is None else asyncio._get_running_loop()
    return anyio.lowlevel.current_token().native_token if loop is None else loop  # 3 µs, but only if not on asyncio


def runs_on_asyncio() -> bool:
    """Whether the event loop that runs now is asyncio's."""
    return hasattr(anyio.lowlevel.current_token().native_token, "call_soon_threadsafe")
