"""`rate=` in a run: a batch has no more calls than there are tokens, and a slot that finds none ends.

A batch is cut when it has tokens, and is sent when it has a place, in whatever worker that is; it is then that its calls begin,
if all of them begin at once. So they must: where calls of a batch wait for each other (in the caller's own task), or for those
of another batch (in the event loop of a worker), a batch is one call. In other workers it has as many as one worker may have
under way.

When there is no token, one task of the run's group waits until one is due, or, if all are promised to batches that wait for a
place, until some are spent. Then it starts a slot. It exists only while something waits for it.

A call that is found in the cache needs no token. Calls that come back undone need new ones, although perhaps they have not
begun: then the rate is somewhat lower.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic  # an event loop's own clock may be one that stands still while a task runs

import anyio
import anyio.abc

from asyncpar._run.token_bucket import TokenBucket

LATENESS = 0.02  # seconds by which a timer of a busy event loop may be late without making the run slower; a guess
TICK = 1e-3  # seconds; timers of event loops are no finer


class RateLimit:
    """The tokens of one run.

    Args:
        rate: how many calls may begin in a second.
        burst: how many may begin at once; None: one, and those of `LATENESS`.
        most_at_once: how many calls of a batch begin at once.
    """

    def __init__(self, rate: float, burst: float | None, most_at_once: int) -> None:
        self._bucket = TokenBucket(rate, 1 + LATENESS * rate if burst is None else burst)
        self._most_at_once = most_at_once
        self._group: anyio.abc.TaskGroup | None = None
        self._go_on: Callable[[], object]
        self._spent: anyio.Event | None = None  # a task waits for it, or until a token is due

    def serve(self, group: anyio.abc.TaskGroup, go_on: Callable[[], object]) -> None:
        """From now on, `go_on` is called when there is a token again, after there was none for the next batch."""
        self._group = group
        self._go_on = go_on

    def next_batch(self) -> int:
        """How many calls the next batch may have now."""
        tokens = self._bucket.tokens(monotonic())
        if not tokens and self._spent is None:
            assert self._group is not None, "the bucket is full before a run has slots"
            self._group.start_soon(self._wait)
            self._spent = anyio.Event()
        return min(tokens, self._most_at_once)

    def promise(self, calls: int) -> None:
        """A batch of that many has been cut."""
        self._bucket.promise(calls)

    def spend(self, calls: int) -> None:
        """A batch of that many is sent now."""
        self._bucket.spend(calls, monotonic())
        if self._spent is not None:
            self._spent.set()

    async def _wait(self) -> None:
        while not self._bucket.tokens(monotonic()):
            self._spent = anyio.Event()
            with anyio.move_on_after(max(self._bucket.due() - monotonic(), TICK)):
                await self._spent.wait()
        self._spent = None
        self._go_on()
