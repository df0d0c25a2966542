"""Runs one batch of coroutine calls in a worker, several at once, in an event loop of the worker's own.

It and `event_loop.py`, which runs many batches beside each other, are the only modules on the child's side that need asyncio.
Only a worker that was sent a coroutine function imports them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import Context
from typing import Any, TypeVar

from asyncpar._basics.own_context import OwnContexts
from asyncpar._child.control import BEGAN, POSITION, SPAN, STOP, ControlPage
from asyncpar._child.protocol import CallInterrupted
from asyncpar._child.run_batch import MOST_ERRORS, BatchReport
from asyncpar.errors import OverdueCallError

T = TypeVar("T")


def make_runner() -> asyncio.Runner:
    """A runner of an event loop: uvloop's, where that is installed and works. (It does not in interpreters.)"""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=new_event_loop)


def run_to_end(runner: asyncio.Runner, coroutine: Coroutine[Any, Any, T]) -> T:
    """What the coroutine returns, whatever calls do to the event loop.

    If one stops it, or has a task that raises SystemExit, the loop is run again, and all that was under way goes on.
    """
    loop = runner.get_loop()
    main = loop.create_task(coroutine)
    while not main.done():
        try:
            runner.run(wait_until_done(main))
        except CallInterrupted:
            raise
        except BaseException:
            if loop.is_closed():
                raise
    return main.result()


async def wait_until_done(future: asyncio.Future[Any]) -> None:
    """Returns when the future, or task, is done. It goes on even if a call cancels all the tasks that it finds."""
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            continue


async def run_coroutines(
    fn: Callable[..., Awaitable[Any]],
    columns: Sequence[Sequence[Any]],
    control: ControlPage,
    budget: float,
    *,
    concurrency: int,
    context: Context | None = None,
    stop_on_error: bool = False,
    timeout: float | None = None,
    leave: Callable[[int], bool] | None = None,
) -> BatchReport:
    """Like `run_batch`, for a coroutine function: at most `concurrency` calls are under way at once.

    Each is made in a copy of the context; None: of the one in which this is awaited.

    After a stop, no further call starts. After the end of the budget, no further call starts once there was a first one. Calls
    under way are awaited. A call that takes longer than `timeout` seconds is cancelled. Its error must still be completed with
    what only the parent knows. BEGAN on the control page is when a call last began or ended, which shows that the event loop
    is running.
    """
    worker_pid = os.getpid()
    deadline = time.monotonic() + budget
    rows = enumerate(zip(*columns, strict=True))
    values: dict[int, Any] = {}
    errors: dict[int, BaseException] = {}
    seconds: dict[int, float] = {}
    contexts = OwnContexts(context)

    async def lane() -> None:
        for position, arguments in rows:
            began = time.monotonic()
            if control[STOP] or (values and began >= deadline) or (stop_on_error and errors) or len(errors) >= MOST_ERRORS:
                return
            if values and leave is not None and leave(len(values)):
                return
            control[BEGAN] = began
            values[position] = None
            limit = asyncio.timeout(timeout)
            try:
                async with limit:
                    values[position] = await contexts.call(fn, *arguments)
            except BaseException as error:
                errors[position] = OverdueCallError("", seconds=timeout or 0.0) if limit.expired() else error
            if os.getpid() != worker_pid:  # the call has forked, and this is the copy, in which asyncio cannot go on
                os._exit(0)
            control[BEGAN] = ended = time.monotonic()
            seconds[position] = ended - began

    control[SPAN] = len(columns[0])  # any of them may be under way when the worker dies
    control[POSITION] = 0
    lanes = [asyncio.create_task(lane()) for _ in range(min(concurrency, len(columns[0])))]
    await _wait_for_lanes(lanes, control)
    order = range(len(values))  # calls start in order, so those that were run are a prefix
    return BatchReport([values[p] for p in order], errors, [(1, seconds[p]) for p in order])


async def _wait_for_lanes(lanes: Sequence[asyncio.Task[None]], control: ControlPage) -> None:
    """A call may cancel all the tasks that it finds, also this one. Only a cancellation that comes with a stop is heeded."""
    is_cancelled = False
    while not all(lane.done() for lane in lanes):
        try:
            await asyncio.wait(lanes)
        except asyncio.CancelledError:
            is_cancelled = is_cancelled or bool(control[STOP])
            if is_cancelled:
                for lane in lanes:
                    lane.cancel()
    if is_cancelled:
        raise asyncio.CancelledError
