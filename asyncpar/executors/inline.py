"""The inline executor runs every call in the task that awaits the run, one after another, for debugging.

A breakpoint, a profiler or a plain traceback then shows the caller's own stack. The event loop stands still during a batch, and
turns once between batches.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import Any

import anyio
import anyio.lowlevel

from asyncpar._basics.own_context import OwnContexts
from asyncpar._child.control import private_page
from asyncpar._child.run_batch import MOST_ERRORS, BatchReport, run_batch
from asyncpar._contract.batches import BatchDone, fail_overdue, timed_out
from asyncpar._contract.executor import Parcel, Place, Traits
from asyncpar._contract.lending import PooledExecutor
from asyncpar._platform.background import is_own_cancellation
from asyncpar._platform.current_worker import in_callers_thread

_TOO_LATE = object()


class InlinePlace(Place):
    """Runs calls in the current task; coroutine calls are awaited one by one.

    The event loop turns before each batch, unless calls of the last one have let it turn.
    """

    _has_turned = False

    async def run(self, parcel: Parcel) -> BatchDone:
        if not self._has_turned:
            await anyio.lowlevel.checkpoint()
        program, batch = parcel.program, parcel.batch
        with in_callers_thread():
            if program.concurrency:
                contexts = OwnContexts()
                report = await _await_calls(parcel, contexts)
                self._has_turned = contexts.let_others_run
            else:
                report = _make_calls(parcel)
        return BatchDone(batch, *report, "the caller's task", batch.rest(len(report.values)))


class InlineExecutor(PooledExecutor[InlinePlace]):
    """Runs every call in the caller's own task, for debugging.

    >>> import anyio, asyncpar
    >>> async def main():
    ...     return await asyncpar.pmap(abs, [-1, 2], executor="inline")
    >>> anyio.run(main)
    [1, 2]
    """

    traits = Traits(stops="between_calls", prepares=False, in_own_task=True)

    def __init__(self) -> None:
        super().__init__(1)

    async def start_place(self) -> InlinePlace:
        return InlinePlace()


def _make_calls(parcel: Parcel) -> BatchReport:
    """Runs a batch. A call that takes too long cannot be stopped, and fails when it returns."""
    program, batch, timeout = parcel.program, parcel.batch, parcel.program.timeout
    # KeyboardInterrupt is left out: here it is the program's own
    catch = (Exception, SystemExit, GeneratorExit, anyio.get_cancelled_exc_class())
    singly = timeout is not None
    report = run_batch(program.fn, batch.columns, private_page(), parcel.budget, program.stop_on_error, catch, singly=singly)
    if timeout is not None:
        fail_overdue(batch, *report, timeout)
    return report


async def _await_calls(parcel: Parcel, contexts: OwnContexts) -> BatchReport:
    report = BatchReport([], {}, [])
    deadline = time.monotonic() + parcel.budget
    fn, timeout = parcel.program.fn, parcel.program.timeout
    for position, arguments in enumerate(zip(*parcel.batch.columns, strict=True)):
        began = time.monotonic()
        try:
            call = contexts.call(fn, *arguments)
            value = await (call if timeout is None else _await_in_time(call, timeout))
            if value is _TOO_LATE:
                assert timeout is not None, "only a call with a timeout can be too late"
                report.errors[position] = timed_out(parcel.batch, position, timeout)
                value = None
            report.values.append(value)
        except BaseException as error:
            # A call may run into a cancellation that is not ours: it awaited a task that other code had cancelled
            caught = (Exception, SystemExit, anyio.get_cancelled_exc_class())
            if not issubclass(type(error), caught) or is_own_cancellation(error):
                raise
            report.errors[position] = error
            report.values.append(None)
        now = time.monotonic()
        report.timings.append((1, now - began))
        if now >= deadline or len(report.errors) == (1 if parcel.program.stop_on_error else MOST_ERRORS):
            break
    return report


async def _await_in_time(call: Awaitable[Any], timeout: float) -> Any:
    """The value of a call, or `_TOO_LATE` if it had to be cancelled."""
    with anyio.move_on_after(timeout):
        return await call
    return _TOO_LATE
