"""Admission: how many calls and maps may wait for the places of a pool, and what becomes of one more.

Without a limit, everything that asks for a place waits for it in one queue, first in, first out (`lending.py`), with its
arguments pickled. With a limit, whatever would wait beyond it either waits outside, in a second queue and with nothing pickled
yet, or is refused at once. So a service that gets more requests than it can serve says so, and does not collect them.

A call is admitted, packed, and then takes a place or joins the queue, all without awaiting anything. Only large arguments are
packed in a thread. Such a call counts meanwhile (`packing`), and so does one that has been let in and not resumed yet.

A map is admitted once, when it begins. Its batches then wait their turn like calls, and count like calls, but a map that has
begun is not refused in the middle.

# in the queue + packing + entering <= most + free places   (when something is admitted)
"""

from __future__ import annotations

from collections import deque
from typing import Any, Literal, TypeAlias

import anyio

from asyncpar._basics.validation import is_int, to_count
from asyncpar.errors import ExecutorSaturatedError

WhenFull: TypeAlias = Literal["wait", "raise"]


class Admission:
    """The door of a pool.

    Args:
        pool: has the queue and the places, and calls `let_in` each time that one of them has moved.
        most: how many may wait in the queue.
        when_full: what becomes of one more.
        owner: the name of the executor in messages.
    """

    def __init__(self, pool: Any, most: int, when_full: WhenFull, owner: str) -> None:
        self.packing = 0  # calls that are being packed in a thread
        self._pool = pool
        self._most = most
        self._when_full = when_full
        self._owner = owner
        self._entering = 0
        self._outside: deque[anyio.Event] = deque()
        pool.moved = self.let_in

    async def enter(self) -> None:
        """Returns when there is room. Whatever has entered calls `let_in` at its end: it may not have taken a place.

        Raises:
            ExecutorSaturatedError: there is none, and it is not to be waited for.
            ExecutorUnavailableError: the executor is closed, or belongs to another event loop.
        """
        self._pool.bind_to_loop()
        if not self._outside and not self._is_full():
            return
        if self._when_full == "raise":
            raise ExecutorSaturatedError(
                f"{self._most} calls are already waiting for a place in this {self._owner}, as many as its max_pending allows; "
                'try again later, or use when_full="wait"'
            )
        turn = anyio.Event()
        self._outside.append(turn)
        try:
            await turn.wait()
        except BaseException:  # cancelled: perhaps just after it was let in, and then the next is
            if turn in self._outside:
                self._outside.remove(turn)
            else:
                self._entering -= 1
                self.let_in()
            raise
        self._entering -= 1

    def let_in(self) -> None:
        """Lets in as many of those outside as there is room for; all of them once the pool is closed, which tells them so."""
        while self._outside and (self._pool.closed or not self._is_full()):
            self._entering += 1
            self._outside.popleft().set()

    def _is_full(self) -> bool:
        pool = self._pool
        return bool(pool.waiting + self.packing + self._entering >= self._most + pool.free)


def make_admission(pool: Any, max_pending: Any, when_full: Any, owner: str) -> Admission | None:
    """The door with these options of an executor, or None if all may wait.

    Raises:
        ValueError: an option is out of range.
    """
    if when_full not in ("wait", "raise"):
        raise ValueError(f"when_full must be 'wait' or 'raise', not {when_full!r:.200}")
    if max_pending is None:
        return None
    if not is_int(max_pending) or max_pending < 0:
        raise ValueError(f"max_pending must be a number of calls that may wait, 0 or more, or None, not {max_pending!r:.200}")
    return Admission(pool, to_count(max_pending), when_full, owner)
