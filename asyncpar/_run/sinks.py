"""Where a run's results go: a list if they are awaited as a whole, a buffer if they are iterated over."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import anyio

from asyncpar._contract.batches import BatchDone
from asyncpar._run.outcomes import OnError, values_by_policy


class _Order:
    """Gives finished batches back in input order, each as soon as all earlier ones are there; or, unordered, at once.

    Where an error ends the results (`ends_at_error`), nothing that comes after it in the input is given out, though it may be
    there already: a user who counts results would take it for the result of another item.
    """

    def __init__(self, *, ordered: bool, ends_at_error: bool) -> None:
        self._ordered = ordered
        self._ends_at_error = ends_at_error
        self._early: dict[int, BatchDone] = {}  # {index of the first call: batch that waits for an earlier one}
        self._next_index = 0

    def release(self, done: BatchDone) -> list[BatchDone]:
        """What can be given out now that `done` is there."""
        if not self._ordered:
            return [done]
        if done.batch.start != self._next_index:
            self._early[done.batch.start] = done
            return []
        released: list[BatchDone] = []
        following: BatchDone | None = done
        while following is not None:
            released.append(following)
            if following.errors and self._ends_at_error:
                break
            self._next_index += len(following.values)
            following = self._early.pop(self._next_index, None) if self._early else None
        return released


class ListSink:
    """Keeps everything until the end. What it has counts as handed, because it is the user's list already."""

    keeps_all = True

    def __init__(self, *, ordered: bool, on_error: OnError) -> None:
        self._order = _Order(ordered=ordered, ends_at_error=on_error == "raise")
        self._on_error: OnError = on_error
        self.values: list[Any] = []

    def put(self, done: BatchDone) -> int:
        if done.values:
            for released in self._order.release(done):
                self.values += values_by_policy(released, self._on_error)
        return len(done.values)


class StreamSink:
    """Holds finished batches until the consumer takes them, in input order or as they finish."""

    keeps_all = False

    def __init__(self, *, ordered: bool, ends_at_error: bool) -> None:
        self._order = _Order(ordered=ordered, ends_at_error=ends_at_error)
        self._ready: deque[BatchDone] = deque()
        self._changed: anyio.Event | None = None
        self.ended = False
        self.error: BaseException | None = None

    def put(self, done: BatchDone) -> int:
        if done.values:
            self._ready.extend(self._order.release(done))
            self._wake()
        return 0

    def end(self, error: BaseException | None) -> None:
        """Nothing more will come. The consumer gets `error` once it has taken what is ready. Only the first call counts."""
        if not self.ended:
            self.error = error
            self.ended = True
            self._wake()

    def take(self, enough: int) -> list[BatchDone]:
        """The next finished batches, as many as have `enough` items, or all that there are."""
        taken: list[BatchDone] = []
        while self._ready and enough > 0:
            done = self._ready.popleft()
            taken.append(done)
            enough -= len(done.values)
        return taken

    async def wait(self) -> None:
        """Returns when something has been put, or the run has ended."""
        if not self._ready and not self.ended:
            self._changed = anyio.Event()
            await self._changed.wait()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()


class HandOverSink:
    """Gives values to `hand_over` as soon as they may be handed out; it passes them to another thread."""

    keeps_all = False

    def __init__(self, *, ordered: bool, on_error: OnError, hand_over: Callable[[list[Any]], object]) -> None:
        self._order = _Order(ordered=ordered, ends_at_error=on_error == "raise")
        self._on_error: OnError = on_error
        self._hand_over = hand_over

    def put(self, done: BatchDone) -> int:
        skipped = 0
        if done.values:
            for released in self._order.release(done):
                values = values_by_policy(released, self._on_error)
                skipped += len(released.values) - len(values)
                if values:
                    self._hand_over(values)
        return skipped
