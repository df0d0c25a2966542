"""The window: how many items may be pulled from the source and not yet handed to the consumer. It bounds memory.

# pulled - handed <= size()

Where the user says how many batches may be ahead, as in `Parallel(pre_dispatch=...)`, the window counts calls at first, and
batches once calls have proved short (`BatchesWindow`). To count calls throughout was tried: eight calls of a microsecond leave
two workers nothing to do most of the time, and each call costs a round trip.
"""

from __future__ import annotations

import sys

import anyio

from asyncpar._run.batching import LEAST_SECONDS, BatchSizer
from asyncpar._run.sources import Source

BATCHES = 4  # for each worker: one running, one next, two waiting for an earlier one; a guess


class Window:
    """Counts items in and out.

    Args:
        fixed: its size; None: chosen from the batch size and the number of workers.
        workers: how many the run may hold.
        pulled: items that have been pulled already.
    """

    handed = 0
    opened: anyio.Event | None = None  # set while the pump waits for it
    most_batches = sys.maxsize  # that may be under way at once
    at_least = 0  # its size, where we choose it

    def __init__(self, fixed: int | None, sizer: BatchSizer, workers: int, pulled: int) -> None:
        self.workers = workers
        self.pulled = pulled
        self._fixed = fixed
        self._sizer = sizer

    def size(self) -> int:
        """How many items the window can hold now."""
        if self._fixed is not None:
            return self._fixed
        return max(max(self.workers, 1) * max(BATCHES * self._sizer.size, self._sizer.least_ahead), self.at_least)

    def room(self) -> int:
        """How many more items may be pulled; 0 or less: none."""
        return self.size() - self.pulled + self.handed

    def next_batch(self) -> int:
        """How many calls the next batch should have, so that the window holds two for each worker."""
        if self._fixed is None:
            return self._sizer.size
        return min(self._sizer.size, max(1, self._fixed // max(1, 2 * self.workers)))

    def has_room_for_batch(self) -> bool:
        return self.room() >= self.next_batch()

    def look(self) -> None:
        """Wakes the task that waits for room, if there is some now."""
        if self.opened is not None and self.room() >= 1:
            self.opened.set()

    async def wait_for_room(self) -> int:
        """Waits until there is room; returns how much. For one task at a time."""
        while (room := self.room()) < 1:
            self.opened = anyio.Event()
            await self.opened.wait()
            self.opened = None
        return room


class BatchesWindow(Window):
    """Has room for a number of batches. A batch is one call, unless calls are short: then it is those of about a millisecond.

    So a run never has more work ahead of it than as many calls, or as many milliseconds, as there may be batches. A call is as
    long as pulling or making it takes, whichever takes longer, so calls that come slowly are counted one by one.

    Args:
        batches: how many may be pulled and not yet handed.
    """

    def __init__(self, batches: int, sizer: BatchSizer, workers: int, source: Source) -> None:
        super().__init__(batches, sizer, workers, source.stored)
        self.most_batches = self._batches = batches
        self._source = source

    def size(self) -> int:
        return self._batches * self._calls_of_one()

    def next_batch(self) -> int:
        return max(self._calls_of_one(), super().next_batch())

    def _calls_of_one(self) -> int:
        """How many calls count as one batch."""
        seconds = self._sizer.seconds_per_call
        if seconds is None:
            return 1
        return max(1, min(self._sizer.size, int(LEAST_SECONDS / max(seconds, self._source.seconds_per_item))))
