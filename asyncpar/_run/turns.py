"""Turns: how many places a run may hold at once, of an executor whose number of places may change meanwhile."""

from __future__ import annotations

from collections import deque

import anyio


class Turns:
    """A semaphore whose limit may change; first come, first served.

    Where the limit has become lower than the number of turns that are held, nobody gets one until enough have come back.

    # held <= limit, unless that has been lowered since
    # waiters is not empty  =>  held >= limit
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0
        self._waiters: deque[anyio.Event] = deque()

    async def acquire(self) -> None:
        if self.held < self._limit and not self._waiters:
            self.held += 1
            return
        turn = anyio.Event()
        self._waiters.append(turn)
        try:
            await turn.wait()
        except BaseException:  # cancelled: perhaps just when it had been given the turn
            if turn.is_set():
                self.release()
            else:
                self._waiters.remove(turn)
            raise

    def release(self) -> None:
        self.held -= 1
        self._give()

    def resize(self, limit: int) -> None:
        self._limit = limit
        self._give()

    def _give(self) -> None:
        while self._waiters and self.held < self._limit:
            self.held += 1
            self._waiters.popleft().set()
