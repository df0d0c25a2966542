"""Calls that have failed and wait until they are tried again."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from heapq import heappop, heappush

import anyio
import anyio.abc

from asyncpar._contract.batches import Batch


class PutOff:
    """Batches whose time has not come. While there are any, one task of `group` gives each to `bring_back` when it is due."""

    def __init__(self, group: anyio.abc.TaskGroup, bring_back: Callable[[Batch], None]) -> None:
        self._group = group
        self._bring_back = bring_back
        self._waiting: list[tuple[float, int, Batch]] = []  # a heap: (when its time comes, a number, the batch)
        self._numbers = itertools.count()
        self._sooner: anyio.Event | None = None  # the task waits for it, or until the first batch is due

    @property
    def calls(self) -> int:
        """How many calls wait."""
        return sum(len(batch) for _, _, batch in self._waiting)

    def add(self, batch: Batch, seconds: float) -> None:
        heappush(self._waiting, (anyio.current_time() + seconds, next(self._numbers), batch))
        if self._sooner is None:
            self._group.start_soon(self._watch)
            self._sooner = anyio.Event()
        else:
            self._sooner.set()

    async def _watch(self) -> None:
        while self._waiting:
            self._sooner = anyio.Event()
            with anyio.CancelScope(deadline=self._waiting[0][0]):
                await self._sooner.wait()
            now = anyio.current_time()
            while self._waiting and self._waiting[0][0] <= now:
                self._bring_back(heappop(self._waiting)[2])
        self._sooner = None
