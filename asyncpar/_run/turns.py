"""Turns: how many places of its executor a run may hold at once. The executor's number of places may change meanwhile."""

from __future__ import annotations

from collections import deque

import anyio


class Turns:
    """A semaphore whose limit may change; first come, first served.

    If the limit has become lower than the number of turns that are held, no turn is given until enough have come back.

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
        except BaseException:  # cancelled: perhaps just after it was given the turn
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
