"""Lets those that may have killed a worker run alone."""

from __future__ import annotations

import anyio


class Gate:
    """Many batches may be inside, or one that is alone. `detained`: batches left to themselves, which no task waits for."""

    detained = 0

    def __init__(self) -> None:
        self._inside = 0
        self._is_taken = False  # by one that is alone
        self._wait_for_solitude = 0  # how many; they would wait forever if other batches kept coming in
        self._moved: anyio.Event | None = None

    async def enter(self, *, alone: bool) -> None:
        self._wait_for_solitude += alone
        try:
            while self._is_taken or (self._inside if alone else self._wait_for_solitude):
                if self._moved is None:
                    self._moved = anyio.Event()
                await self._moved.wait()
        finally:
            self._wait_for_solitude -= alone
            if alone:
                self._move()
        self._inside += 1
        self._is_taken = alone

    def leave(self) -> None:
        self._inside -= 1
        self._is_taken = False
        self._move()

    def _move(self) -> None:
        if self._moved is not None:
            self._moved.set()
            self._moved = None
