"""The control page: a few numbers that a worker and its parent both see, without a word being sent.

The worker writes where it is; the parent writes that it should stop. Each number is one aligned double, stored by one
instruction, so that neither side ever reads half of one. In a process the page is shared memory; a thread uses a plain
list with the same places.
"""

import mmap
import os
import sys
import time
from collections.abc import MutableSequence
from typing import TypeAlias

POSITION = 0  # of the call that is running, in its batch; before the first, one of the two states below
BEGAN = 1  # when that call began, on the monotonic clock
STOP = 2  # 1 when no further call is to be started
SPAN = 3  # how many calls from POSITION on are under way or will be before the page is touched again
PID = 4  # of the worker, once it has begun

NOT_RECEIVED = -1.0  # set by the parent: the worker has not seen the batch
RECEIVED = -2.0  # set by the worker: it has, and is reading it or writing its answer

ControlPage: TypeAlias = "MutableSequence[float] | memoryview[float]"


def make_nameless_file(length: int) -> int:
    """A descriptor of a fresh file that has no name anywhere, so that nobody need remove it."""
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
    """Gives the page back; `page` cannot be used any more."""
    mapping = page.obj
    page.release()
    assert isinstance(mapping, mmap.mmap)  # what `map_page` made the view of
    mapping.close()


def seconds_left(page: ControlPage, timeout: float) -> float:
    """After how many seconds, at the earliest, a call will have run for longer than `timeout`; not positive: one has.

    The position is read first: the worker writes when a call began before it writes which one it is, so that a call is never
    taken for as old as the one before it.
    """
    if page[POSITION] < 0:
        return timeout
    return page[BEGAN] + timeout - time.monotonic()


def private_page() -> list[float]:
    """A page for a worker that lives in the parent's own memory."""
    return [RECEIVED, 0.0, 0.0, 0.0]
