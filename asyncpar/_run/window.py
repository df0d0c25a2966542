"""The window: how many items may be pulled from the source and not yet handed to the consumer. It bounds memory.

# pulled - handed <= size()
"""

from __future__ import annotations

import anyio

from asyncpar._run.batching import BatchSizer

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

    def __init__(self, fixed: int | None, sizer: BatchSizer, workers: int, pulled: int) -> None:
        self.workers = workers
        self.pulled = pulled
        self._fixed = fixed
        self._sizer = sizer

    def size(self) -> int:
        """How many items the window can hold now."""
        return BATCHES * max(self.workers, 1) * self._sizer.size if self._fixed is None else self._fixed

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
