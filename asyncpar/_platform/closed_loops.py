"""What to do when asyncio's event loop is closed while our objects still live in it.

`asyncio.run` cancels all tasks and waits for them before it closes its loop. Programs that close a loop by hand, with
`loop.close()` after `loop.run_until_complete(...)`, seldom do so. Nothing can be awaited in that loop any more, so our objects
in it have to end without it.

An object of ours is referenced by a timer of the loop that is never due. Closing a loop drops its timers, both in asyncio and
in uvloop. So that object ends with the loop, and its finalizer runs within `close()`. For a loop that does not drop its timers,
the next use of asyncpar in another loop checks whether it is closed.

The finalizer calls `lost`, which ends processes. Then it ends our tasks quietly, because the owner of the loop believes that it
was closed in good order. Python reports a task that is dropped while it waits ("Task was destroyed but it is pending"), and the
errors that its `finally` blocks raise without a loop. We recognise our tasks by their names, which anyio makes from their
functions. Users' tasks are left to asyncio.

Refused: replacing the loop's `close` by our own, which runs the loop until our tasks have ended. It would run all other tasks
as well, and code that has stored `loop.close` before would bypass it.
"""

from __future__ import annotations

import contextlib
import contextvars
import sys
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anyio.lowlevel

if TYPE_CHECKING:
    import asyncio

OWN_TASKS = "asyncpar."  # their names begin with this
_STARTED_BY_USERS = f"{OWN_TASKS}_map.pmap."  # as in `group.start_soon(pmap, f, xs)`
_NEVER = 1e9  # seconds until a timer is due; uvloop accepts no more than a hundred years
_MOST_AWAITS = 10  # in the `finally` blocks of one coroutine

_watched: set[weakref.finalize[Any, Any]] = set()


def watch(loop: asyncio.AbstractEventLoop, owner: asyncio.Task[None], lost: Callable[[], None]) -> None:
    """Calls `lost`, and ends our tasks, if the loop is closed before `owner`, one of them, has ended. Keeps `owner` alive."""
    hook = _Hook()
    timer = weakref.ref(loop.call_later(_NEVER, id, hook, context=contextvars.Context()))  # which keeps the hook
    finalizer = weakref.finalize(hook, _end, loop, owner, lost)
    finalizer.atexit = False  # at the end of the program everything ends anyway
    _watched.add(finalizer)

    def forget(_: object) -> None:
        finalizer.detach()
        _watched.discard(finalizer)
        handle = timer()
        if handle is not None:
            handle.cancel()

    owner.add_done_callback(forget, context=contextvars.Context())


def see_to_closed_loops() -> None:
    """Cleans up after loops that have been closed, if that has not been done yet."""
    for finalizer in _watched.copy():
        watched = finalizer.peek()
        if watched is None:
            _watched.discard(finalizer)
        elif watched[2][0].is_closed():
            finalizer()


class _Hook:
    """Referenced by a timer."""


def _end(loop: asyncio.AbstractEventLoop, owner: asyncio.Task[None], lost: Callable[[], None]) -> None:
    import asyncio

    if not loop.is_closed():  # other code has cancelled all timers of a loop that goes on
        watch(loop, owner, lost)
        return
    running = asyncio._get_running_loop()  # the loop may be closed in a coroutine of another one, which must not be used here
    asyncio._set_running_loop(None)
    try:
        lost()
        # anyio's state for each loop, and for each task until its done callback, would keep the loop in memory, too. For the
        # tasks that ended last, that callback is no longer called
        states: Any = getattr(sys.modules["anyio._backends._asyncio"], "_task_states", weakref.WeakKeyDictionary())
        known = (reference() for reference in states.keyrefs())
        for task in {owner, *asyncio.all_tasks(loop), *known}:  # in a forked copy, asyncio does not know them
            if task is not None and task.get_loop() is loop and _is_own(task):
                _end_quietly(task)
                states.pop(task, None)
        getattr(anyio.lowlevel, "_run_vars", {}).pop(loop, None)
    finally:
        asyncio._set_running_loop(running)


def _is_own(task: asyncio.Task[Any]) -> bool:
    name = task.get_name()
    return name.startswith(OWN_TASKS) and not name.startswith(_STARTED_BY_USERS)


def _end_quietly(task: Any) -> None:
    task._log_destroy_pending = False
    coroutine = task.get_coro()
    for _ in range(_MOST_AWAITS):  # a coroutine that awaits something as it ends needs another `close`
        with contextlib.suppress(Exception):
            coroutine.close()
            break
    for callback, context in task._callbacks or ():  # anyio's threads end with the task that has started them
        with contextlib.suppress(Exception):
            context.run(callback, task)
