"""The inner loop: runs the calls of one batch, wherever a batch is run.

Every nanosecond here is paid once for every call of every user, so the control page is written once for a *stride* of calls. A
stride is one call as long as calls take 10 µs or more, and grows for shorter ones until it takes about that long. After a crash
the calls of one stride are suspect. If each call has to be known by itself (it has a timeout, or its worker has a limit), a
stride is always one call.

# Guarantees

- **The results are those of `[fn(*row) for row in zip(*columns)]`**, for a prefix of the rows, whatever the calls raise and how
  often: nothing is lost, shifted or made up. The rows come from one iterator, which is advanced only for a call that is made at
  once. A position is the number of outcomes so far. Our own code is outside the `try` that catches what calls raise.
- **A stride ends in time.** Short calls may be followed by long ones. So the clock is read twice in a stride (once in a stride
  of at most four calls), and a stride that takes too long ends there. So a batch makes at most half a stride of calls beyond
  its budget, or of long calls that another worker should have made. Near the end of a run, when other workers would have
  nothing else to do, it is at most eight calls. The shortest calls take a third longer there.
- **A stride grows only from calls that were made.** An error ends the stride, and its remaining calls do not count.
- **A batch comes back after `MOST_ERRORS` errors**, because each of them keeps the parent's event loop busy for a while.
- **The rows may end early.** The owner of a thread empties its first column, and then no further call is made, not even in the
  current stride.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, NamedTuple

from asyncpar._child.control import BEGAN, POSITION, SPAN, STOP, ControlPage
from asyncpar._child.unawaited import refuse_unawaited
from asyncpar._platform.own_imports import import_own

_STRIDE_SECONDS = 10e-6  # the page and the clock cost 0.25 µs a stride, or 2.5 %; each further look at the clock 0.15 µs
MOST_ERRORS = 250  # of a batch: packing, reading and noting one takes 50 µs, which the time budget does not include
_MOST_CALLS = 256  # in a stride: as many of the shortest possible calls take that long
_MOST_NEAR_END = 8  # between two looks at the clock


class BatchReport(NamedTuple):
    """The outcomes of the calls of a batch that were run: a prefix of the batch, or all of it unless it was stopped.

    By position, `values` has None where `errors` has the exception. `timings` are pairs of (calls, seconds), in order.
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
    near_end: bool = False,
    leave: Callable[[int], bool] | None = None,
    report: BatchReport | None = None,
) -> BatchReport:
    """Calls `fn` on each row of `columns` until all are done, `budget` seconds are over, or `control` or an error stops it.

    Args:
        catch: the exceptions to catch; all others pass through.
        singly: a stride is always one call.
        near_end: the run has little else to do, so long calls should come back soon, for other workers to make.
        leave: called after each stride with the number of calls made; if it returns true, no more calls are made.
        report: filled and returned; a thread's owner looks at it while the batch runs.
    """
    total = len(columns[0])
    report = report or BatchReport([], {}, [])
    values, errors, timings = report
    single = len(columns) == 1
    rows = iter(columns[0]) if single else zip(*columns, strict=False)  # the first ends the others
    stride = 1
    began = time.monotonic()
    deadline = began + budget
    while (position := len(values)) < total and began < deadline and not control[STOP]:
        if timings and not singly:
            made, seconds = timings[-1]
            if made != stride or not _STRIDE_SECONDS / 2 < seconds < _STRIDE_SECONDS * 2:
                stride = _next_stride(made, seconds)
        control[BEGAN] = began  # before the position: a reader that sees the call also sees when it began
        control[POSITION] = position
        control[SPAN] = stride
        left, piece = stride, stride if stride <= 4 else max(stride // 2, 4)  # powers of two: pieces make up a stride
        if near_end:
            piece = min(piece, _MOST_NEAR_END)
        now, late = began, began + 2 * _STRIDE_SECONDS
        while left > 0 and now < late:
            calls = islice(rows, piece)
            left -= piece
            try:
                if single:  # extend() with a map is no faster, and treats a StopIteration of a call as the end
                    for item in calls:
                        values.append(fn(item))
                else:
                    for arguments in calls:
                        values.append(fn(*arguments))
            except catch as error:
                if issubclass(type(error), MemoryError):  # its frames keep alive what filled the memory
                    import_own("asyncpar._wire.tracebacks").clear_frames(error)
                errors[len(values)] = error
                values.append(None)
                left = 0
                if stop_on_error or len(errors) == MOST_ERRORS:
                    total = len(values)
            now = time.monotonic()
        timings.append((len(values) - position, now - began))
        if leave is not None and leave(len(values)):
            break
        began = now
    if values and hasattr(type(values[0]), "__await__"):
        refuse_unawaited(values, errors)
    return report


def _next_stride(calls: int, seconds: float) -> int:
    """A power of two, for a stride that takes about as long as it should. `calls` were made in `seconds`."""
    if seconds * 2 < _STRIDE_SECONDS:
        calls *= 2
    elif seconds > _STRIDE_SECONDS * 2:
        calls = int(calls * _STRIDE_SECONDS / seconds)
    return 1 << min(max(calls, 1), _MOST_CALLS).bit_length() - 1
