"""Tasks that belong to an event loop rather than to a caller.

A default executor outlives the call that made it, and a stream's run must go on between two `__anext__` calls without a task
group being open across a `yield` (PEP 789). Such tasks need an owner: one *keeper* task for each event loop, which holds them
all in one task group. It is started at first use and ends with the loop: `asyncio.run` cancels whatever tasks are left, trio
cancels its system tasks when the main task ends, and either way the keeper cancels what it keeps and waits for it. A loop of
asyncio may also be closed without that: then its tasks end in `_platform/closed_loops.py`, and those that own more than
themselves are told, so that they give it back without a loop.

Guarantees: a background task never raises into the keeper (its function must deliver failures as values), sees the
context variables of whoever started it, and is awaited by the keeper in every case.
"""

from __future__ import annotations

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
    """A task that the event loop owns; anybody in that loop may cancel it or wait for its end.

    `if_lost` is called instead of that if the loop is closed while the task waits in it.
    """

    def __init__(self, if_lost: Callable[[], None] | None) -> None:
        self.if_lost = if_lost
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()

    def cancel(self) -> None:
        """Asks the task to end; returns at once."""
        self._scope.cancel()

    async def wait(self) -> None:
        """Returns when the task has ended."""
        await self._ended.wait()

    async def run(self, fn: Callable[[], Awaitable[None]], *, task_status: anyio.abc.TaskStatus[None]) -> None:
        try:
            with self._scope:
                task_status.started()
                await fn()
        finally:
            self._ended.set()


async def start_background(fn: Callable[[], Awaitable[None]], if_lost: Callable[[], None] | None = None) -> BackgroundTask:
    """Runs `fn` in a task of the event loop's own, in a copy of the current context; returns when it has begun.

    `if_lost`, which can await nothing, is called if the loop is closed before the task has ended.
    """
    see_to_closed_loops()
    reference = _keeper.get()
    keeper = None if reference is None else reference()
    if keeper is None or keeper.ended:
        keeper = _Keeper()
        _keeper.set(weakref.ref(keeper))
        _spawn(keeper)
    await keeper.ready.wait()
    task = BackgroundTask(if_lost)
    # Not `start_soon`: a task that is cancelled before its first step would never be seen to end
    await keeper.group.start(keeper.run, task, fn)
    return task


def is_own_cancellation(error: BaseException) -> bool:
    """Whether `error` cancels the task that runs now, and is not just a cancellation that a call ran into and raised."""
    if not issubclass(type(error), anyio.get_cancelled_exc_class()):
        return False
    if not _runs_on_asyncio():
        return True  # nobody but trio makes its `Cancelled`
    import asyncio

    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def wait_through(wait: Callable[[], Awaitable[None]]) -> None:
    """Awaits `wait()` to its end, whoever cancels it meanwhile and however often; a cancellation is raised then.

    A shield holds off the cancellation of scopes, but not asyncio's own `Task.cancel`: after that the waiting begins anew, so
    that `wait` must be something that can, and that ends by itself soon.
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
    """Lets any thread, and any finalizer, ask the event loop that is current now to call something soon."""

    def __init__(self) -> None:
        native: Any = anyio.lowlevel.current_token().native_token
        self._call_soon: Callable[..., Any]
        if hasattr(native, "call_soon_threadsafe"):
            self._call_soon = native.call_soon_threadsafe
        else:
            self._call_soon = native.run_sync_soon

    def call_soon(self, fn: Callable[[], object]) -> None:
        """Does nothing when the loop is gone: then so is all that it owned."""
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
        self._tasks: set[BackgroundTask] = set()

    async def keep(self) -> None:
        try:
            async with self.group:
                self.ready.set()
                await anyio.sleep_forever()
        finally:
            self.ended = True

    async def run(
        self, task: BackgroundTask, fn: Callable[[], Awaitable[None]], *, task_status: anyio.abc.TaskStatus[None]
    ) -> None:
        self._tasks.add(task)
        try:
            await task.run(fn, task_status=task_status)
        finally:
            self._tasks.discard(task)

    def lose(self) -> None:
        """The loop has been closed under all of them."""
        for task in list(self._tasks):
            if task.if_lost is not None:
                task.if_lost()


# Weakly: what is kept for a loop must not keep the loop, as the keeper does
_keeper: RunVar[weakref.ref[_Keeper] | None] = RunVar("asyncpar_keeper", None)


def _spawn(keeper: _Keeper) -> None:
    """Starts its task, which nobody but the event loop owns."""
    if _runs_on_asyncio():
        import asyncio

        loop = asyncio.get_running_loop()
        task = loop.create_task(keeper.keep(), name=f"{OWN_TASKS}keeper", context=contextvars.Context())
        watch(loop, task, keeper.lose)
    else:
        import trio

        trio.lowlevel.spawn_system_task(keeper.keep)


def current_loop() -> object:
    """What the event loop that runs now is told by: asyncio's loop, trio's token. Only for comparing: where trio is a guest in
    asyncio's loop, it is that loop.
    """
    asyncio = sys.modules.get("asyncio")
    loop: object = None if asyncio is None else asyncio._get_running_loop()
    return anyio.lowlevel.current_token().native_token if loop is None else loop  # 3 µs, for whoever is not on asyncio


def _runs_on_asyncio() -> bool:
    return hasattr(anyio.lowlevel.current_token().native_token, "call_soon_threadsafe")
