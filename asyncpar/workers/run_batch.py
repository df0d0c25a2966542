"""The inner loop: runs the calls of one batch, wherever a batch is run.

Every nanosecond here is paid once for every call of every user, so the control page is touched and the clock is read
once for a *stride* of calls. A stride is one call as long as calls take 10 µs or more, and grows for shorter ones until
it takes about that long; whoever stops the batch waits for one stride, and after a crash the calls of one stride are suspect.
Where each call has to be known for itself (it has a timeout, or its worker has a limit), a stride is one call always.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, NamedTuple

from asyncpar.workers.control import BEGAN, POSITION, SPAN, STOP, ControlPage

_STRIDE_SECONDS = 10e-6  # the page and the clock cost 0.25 µs a stride: 2.5 % of the shortest


class BatchReport(NamedTuple):
    """What became of the calls of a batch that were run: a prefix of it, all of it unless it was stopped.

    `values` has None where `errors` has the exception, by position. `timings` are runs of (calls, seconds), in order.
    """

    values: list[Any]
    errors: dict[int, BaseException]
    timings: list[tuple[int, float]]


def run_batch(
    fn: Callable[..., Any],
    columns: Sequence[Sequence[Any]],
    control: ControlPage,
    budget: float,
    stop_on_error: bool = False,
    catch: type[BaseException] | tuple[type[BaseException], ...] = BaseException,
    *,
    singly: bool = False,
    leave: Callable[[int], bool] | None = None,
    report: BatchReport | None = None,
) -> BatchReport:
    """Calls `fn` on each row of `columns` until all are done, `budget` seconds are over, `control` says stop, or an error does.

    Args:
        catch: exceptions outside are the caller's affair and pass through.
        singly: a stride is one call.
        leave: asked after each of them, with the number of calls made, whether to make no more.
        report: filled and returned; a thread's owner looks at it while the batch runs.
    """
    total = len(columns[0])
    report = report or BatchReport([], {}, [])
    values, errors, timings = report
    single = len(columns) == 1
    rows = iter(columns[0]) if single else zip(*columns, strict=True)
    stride = 1
    began = time.monotonic()
    deadline = began + budget
    while (position := len(values)) < total and began < deadline and not control[STOP]:
        control[BEGAN] = began  # before the position: who sees a call there sees that it has not been running for long
        control[POSITION] = position
        control[SPAN] = stride
        try:
            if single:  # extend() with a map is no quicker, and takes a StopIteration of a call for the end
                for item in islice(rows, stride):
                    values.append(fn(item))
            else:
                for arguments in islice(rows, stride):
                    values.append(fn(*arguments))
        except catch as error:
            if isinstance(error, MemoryError):  # its frames hold what there was no more room for
                traceback.clear_frames(error.__traceback__)
            errors[len(values)] = error
            values.append(None)
            if stop_on_error:
                total = len(values)
        now = time.monotonic()
        timings.append((len(values) - position, now - began))
        if not singly:
            stride = _next_stride(stride, len(values) - position, now - began)
        elif leave is not None and leave(len(values)):
            break
        began = now
    return report


def _next_stride(stride: int, calls: int, seconds: float) -> int:
    if seconds * 2 < _STRIDE_SECONDS:
        return stride * 2
    if seconds > _STRIDE_SECONDS * 2:
        return max(1, int(calls * _STRIDE_SECONDS / seconds))
    return stride
