"""What to do when asyncio's event loop is closed while something of ours still lives in it.

`asyncio.run` cancels all tasks and waits for them before it closes its loop. Who closes a loop by hand, `loop.close()` after
`loop.run_until_complete(...)`, seldom does so, and nothing can be awaited in that loop any more: then what belongs to it has
to end without it.

An object of ours hangs on a timer of the loop that is never due. Closing a loop drops its timers, in asyncio as in uvloop; so
the end of that object is the end of the loop, and its finalizer runs within `close()`. For a loop that does not do so, whoever
uses asyncpar next in another loop looks whether it is closed.

Then `lost` is called, which ends processes, and our tasks are ended, quietly: they are what is left of a loop that was closed
in good order as far as its owner knows. A task that is dropped while it waits is reported ("Task was destroyed but it is
pending"), and so is what its `finally` blocks run into when there is no loop. Our tasks are told by their names, which anyio
makes of their functions; those of the user's are asyncio's affair.

Refused: a `close` of our own in place of the loop's, which runs the loop until our tasks have ended. It would run everybody
else's as well, and it is passed by where somebody has taken hold of `loop.close` before.
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

OWN_TASKS = "asyncpar."  # what their names begin with
_STARTED_BY_USERS = f"{OWN_TASKS}_map.pmap."  # as in `group.start_soon(pmap, f, xs)`
_NEVER = 1e9  # seconds until a timer is due; uvloop takes no more than a hundred years
_MOST_AWAITS = 10  # in the `finally` blocks of one coroutine

_watched: set[weakref.finalize[Any, Any]] = set()


def watch(loop: asyncio.AbstractEventLoop, owner: asyncio.Task[None], lost: Callable[[], None]) -> None:
    """Calls `lost`, and ends our tasks, if the loop is closed before `owner`, one of them, has ended; keeps that one alive."""
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
    """Does for loops that have been closed what has not been done by then."""
    for finalizer in list(_watched):
        watched = finalizer.peek()
        if watched is None:
            _watched.discard(finalizer)
        elif watched[2][0].is_closed():
            finalizer()


class _Hook:
    """Hangs on a timer."""


def _end(loop: asyncio.AbstractEventLoop, owner: asyncio.Task[None], lost: Callable[[], None]) -> None:
    import asyncio

    if not loop.is_closed():  # somebody cancels all timers of a loop that goes on
        watch(loop, owner, lost)
        return
    running = asyncio._get_running_loop()  # it may be closed in a coroutine of another, which is not to take part
    asyncio._set_running_loop(None)
    try:
        lost()
        # What anyio keeps would keep the loop in memory, too: for each loop, and for each task until a callback says that it is
        # done, which is no longer called for those that ended last
        states: Any = getattr(sys.modules["anyio._backends._asyncio"], "_task_states", weakref.WeakKeyDictionary())
        known = (reference() for reference in states.keyrefs())
        for task in {owner, *asyncio.all_tasks(loop), *known}:  # in a forked copy, asyncio knows none
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
    for _ in range(_MOST_AWAITS):  # one that awaits something as it ends goes on from there
        with contextlib.suppress(Exception):
            coroutine.close()
            break
    for callback, context in task._callbacks or ():  # threads of anyio's, which end with the task that has started them
        with contextlib.suppress(Exception):
            context.run(callback, task)
