"""A source whose iterables another thread pulls: the one that consumes the map.

The portal's event loop never touches a user's iterable, which could hold the loop, or even wait for it. The thread that
consumes the results pulls instead, between two of them. So a source is only ever used in the thread that iterates over the map,
which is what a database cursor, say, insists on.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable

import anyio

from asyncpar._run.sources import Columns, PumpedSource


class AskedSource(PumpedSource):
    """`ask(count)` tells the other thread to pull so many items, and it makes the event loop call `deliver`.

    `length` is how many items there are in all, if that is known.
    """

    needs_closing = False
    most_at_once = sys.maxsize

    def __init__(self, ask: Callable[[int], object], length: int | None) -> None:
        self._ask = ask
        self._pieces: deque[Columns] = deque()
        self._length = length
        self._stored = self._pulled = 0
        self._delivered: anyio.Event | None = None
        self._pumped_out = False

    def deliver(self, columns: Columns, error: BaseException | None, *, is_last: bool) -> None:
        if columns:
            self._pieces.append(columns)
            self._stored += len(columns[0])
            self._pulled += len(columns[0])
        self.error = error
        self._pumped_out = is_last
        self.exhausted = is_last and not self._stored
        if self._delivered is not None:
            self._delivered.set()

    @property
    def stored(self) -> int:
        return self._stored

    @property
    def remaining(self) -> int | None:
        if self._pumped_out:
            return self._stored
        return None if self._length is None else self._length - self._pulled + self._stored

    async def pump(self, count: int) -> int:
        before = self._pulled
        while self._pulled == before and not self._pumped_out:
            self._delivered = anyio.Event()
            self._ask(count)
            await self._delivered.wait()
        return self._pulled - before

    def take(self, count: int) -> Columns:
        columns = self._take_of_first(count)
        while columns and len(columns[0]) < count and self._pieces and type(columns[0]) is list:
            more = self._take_of_first(count - len(columns[0]))
            columns = tuple([[*column, *rest] for column, rest in zip(columns, more, strict=True)])
        self.exhausted = self._pumped_out and not self._stored
        return columns

    def _take_of_first(self, count: int) -> Columns:
        if not self._pieces:
            return ()
        columns = self._pieces.popleft()
        if len(columns[0]) > count:
            self._pieces.appendleft(tuple([column[count:] for column in columns]))
            columns = tuple([column[:count] for column in columns])
        self._stored -= len(columns[0])
        return columns
