"""The control page: a few numbers that a worker and its parent both see, without any message.

The worker writes which call it is running, and the parent writes that the worker should stop. Each number is one aligned
double, stored by one instruction, so that neither side ever reads half of one. For a process the page is shared memory. A
thread uses a plain list with the same indices.

A worker process whose event loop has many calls under way writes each of them into a *lane*, which is a number on the rest of
the page. So it is known which calls were running when it died.
"""

import mmap
import os
import sys
import time
from collections.abc import MutableSequence
from typing import TypeAlias

POSITION = 0  # of the call that is running, in its batch; before the first call, one of the two states below
BEGAN = 1  # when that call began, on the monotonic clock
STOP = 2  # 1 if no further call is to be started
SPAN = 3  # how many calls from POSITION on are under way, or will be before the page is written again
PID = 4  # of the worker, once it has started
STRIKES = 5  # how often an interpreter's calls have been interrupted (`interrupter.py`)
NUMBERS = 6  # how many there are, without the lanes
UNNOTED = 6  # how many calls are running that have found no lane
FIRST_LANE = 8

NOT_RECEIVED = -1.0  # set by the parent: the worker has not seen the batch
RECEIVED = -2.0  # set by the worker: it has seen the batch, and is reading it or writing its answer

_POSITIONS = 1 << 20  # more than a batch has calls

ControlPage: TypeAlias = "MutableSequence[float] | memoryview[float]"


def make_nameless_file(length: int) -> int:
    """A descriptor of a new file without a name, which nobody has to remove."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("asyncpar")
    else:
        import tempfile

        with tempfile.TemporaryFile(prefix="asyncpar-") as file:
            descriptor = os.dup(file.fileno())
    try:
        os.ftruncate(descriptor, length)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def map_page(descriptor: int) -> "memoryview[float]":
    """The page as doubles, for as long as the view lives."""
    page = memoryview(mmap.mmap(descriptor, mmap.PAGESIZE)).cast("d")
    page[POSITION] = NOT_RECEIVED
    return page


def unmap_page(page: "memoryview[float]") -> None:
    """Unmaps the page. `page` cannot be used any more."""
    mapping = page.obj
    page.release()
    assert isinstance(mapping, mmap.mmap)  # what `map_page` made the view of
    mapping.close()


def seconds_left(page: ControlPage, timeout: float) -> float:
    """After how many seconds, at the earliest, a call will have run for longer than `timeout`. Zero or less: one has.

    The position is read first. The worker writes when a call began before it writes which call it is, so a call is never
    assumed to be as old as the call before it.
    """
    if page[POSITION] < 0:
        return timeout
    return page[BEGAN] + timeout - time.monotonic()


def lane_entry(ticket: int, position: int) -> float:
    """What stands in a lane while the call at that position of a batch is running; 0 where none is."""
    return float(ticket * _POSITIONS + position + 1)


def running_calls(page: "memoryview[float]") -> list[tuple[int, int]] | None:
    """The calls that stand in lanes, as (ticket, position); None if there are others, too."""
    if page[UNNOTED]:
        return None
    return [divmod(int(entry) - 1, _POSITIONS) for entry in page[FIRST_LANE:] if entry]


def private_page() -> list[float]:
    """A page for a worker that lives in the parent's own memory."""
    return [RECEIVED, 0.0, 0.0, 0.0]
