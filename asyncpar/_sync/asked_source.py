"""A source whose iterables another thread pulls: the one that consumes the results, or one that does that for it.

The portal's event loop never touches a user's iterable, which could hold the loop, or even wait for it. The consumer's thread
pulls instead, between two results of a map. So an iterable is only ever used in the thread that iterates over the map, which
is what a database cursor, say, insists on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import anyio

from asyncpar._run.segments import Segment, Segments
from asyncpar._run.sources import Columns, PumpedSource


class Pulled(NamedTuple):
    """What came out of the user's iterables."""

    segments: Sequence[Segment]
    calls: int
    exhausted: bool
    error: BaseException | None = None
    seconds: float = 0.0  # that the iterables took for them, if that was measured


class AskedSource(PumpedSource):
    """`ask(count)` tells the other thread to pull so many items, and it makes the event loop call `deliver`.

    `length` is how many items there are in all, if that is known.
    """

    needs_closing = False
    most_at_once = sys.maxsize

    def __init__(self, ask: Callable[[int], object], length: int | None) -> None:
        self._ask = ask
        self._length = length
        self._segments = Segments()
        self._pulled = 0
        self._delivered: anyio.Event | None = None
        self._pumped_out = False
        self._recent_calls = self._recent_seconds = 0.0  # pulled; older ones count ever less

    def deliver(self, pulled: Pulled) -> None:
        for segment in pulled.segments:
            self._segments.add(segment)
        self._pulled += pulled.calls
        self._pumped_out = pulled.exhausted
        self.exhausted = pulled.exhausted and not self._segments.calls
        self.error = pulled.error
        self._recent_calls = self._recent_calls / 2 + pulled.calls
        self._recent_seconds = self._recent_seconds / 2 + pulled.seconds
        self.seconds_per_item = self._recent_seconds / max(self._recent_calls, 1.0)
        if self._delivered is not None:
            self._delivered.set()

    @property
    def stored(self) -> int:
        return self._segments.calls

    @property
    def remaining(self) -> int | None:
        if self._pumped_out:
            return self._segments.calls
        return None if self._length is None else self._length - self._pulled + self._segments.calls

    @property
    def all_functions(self) -> list[Any] | None:
        """Those of all calls, if all are there."""
        return self._segments.functions if self._pumped_out else None

    async def pump(self, count: int) -> int:
        before = self._pulled
        while self._pulled == before and not self._pumped_out:
            self._delivered = anyio.Event()
            self._ask(count)
            await self._delivered.wait()
        return self._pulled - before

    def take(self, count: int) -> Columns:
        taken = self._segments.take(count)
        if taken is None:
            return ()
        self.function = taken.function
        self.exhausted = self._pumped_out and not self._segments.calls
        return taken.columns
