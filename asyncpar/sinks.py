"""Where a run's results go: a list for whoever awaits the whole, a buffer for whoever iterates."""

from __future__ import annotations

from collections import deque
from itertools import chain
from typing import Any

import anyio

from asyncpar.outcomes import BatchDone, OnError, values_by_policy


class ListSink:
    """Keeps everything until the end. What it has counts as handed, for it is the user's list already."""

    keeps_all = True

    def __init__(self, *, ordered: bool, on_error: OnError) -> None:
        self._ordered = ordered
        self._on_error: OnError = on_error
        self._pieces: list[tuple[int, list[Any]]] = []  # (index of the first call, values), as they finish

    def put(self, done: BatchDone) -> int:
        self._pieces.append((done.batch.start, values_by_policy(done, self._on_error)))
        return len(done.values)

    def values(self) -> list[Any]:
        if self._ordered:
            self._pieces.sort(key=lambda piece: piece[0])
        if len(self._pieces) == 1:
            return self._pieces[0][1]
        return list(chain.from_iterable(values for _, values in self._pieces))


class StreamSink:
    """Holds finished batches until the consumer takes them, in input order or as they finish."""

    keeps_all = False

    def __init__(self, *, ordered: bool) -> None:
        self._ordered = ordered
        self._ready: deque[BatchDone] = deque()
        self._early: dict[int, BatchDone] = {}  # {index of the first call: batch that waits for an earlier one}
        self._next_index = 0
        self._changed: anyio.Event | None = None
        self.ended = False
        self.error: BaseException | None = None

    def put(self, done: BatchDone) -> int:
        if not done.values:
            return 0
        if self._ordered:
            self._early[done.batch.start] = done
            while (following := self._early.pop(self._next_index, None)) is not None:
                self._next_index += len(following.values)
                self._ready.append(following)
        else:
            self._ready.append(done)
        self._wake()
        return 0

    def end(self, error: BaseException | None) -> None:
        """No more will come; `error` is raised to the consumer once it has taken what is ready."""
        self.error = error
        self.ended = True
        self._wake()

    def take(self) -> BatchDone | None:
        return self._ready.popleft() if self._ready else None

    async def wait(self) -> None:
        """Returns when something has been put, or the run has ended."""
        if not self._ready and not self.ended:
            self._changed = anyio.Event()
            await self._changed.wait()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
