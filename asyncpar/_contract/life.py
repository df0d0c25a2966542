"""The life of an executor that has something to end: workers of its own, or threads with a state.

It is a task of the event loop. It begins when the first worker is wanted, does what has to be done from time to time, and ends
everything when the executor is closed or the event loop ends. So that is done even if the task that closes the executor is
cancelled. If the loop is closed while the task waits in it, nothing can be awaited any more, and the executor lets go of what
it has without that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from asyncpar._contract.lending import Pool
from asyncpar._platform.background import BackgroundTask, start_background

LEFT_OPEN = "was left open when its event loop was closed; make one in each event loop that needs one"  # why it is closed


class Life:
    """Args:
    pool: what the executor lends.
    live: goes on until it is cancelled.
    end_everything: closes the pool, and returns when nothing is left.
    end_without_loop: the same where nothing can be awaited; it calls `forget`.
    """

    def __init__(
        self,
        pool: Pool[Any],
        live: Callable[[], Awaitable[None]],
        end_everything: Callable[[], Awaitable[None]],
        end_without_loop: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._live = live
        self._end_everything = end_everything
        self._end_without_loop = end_without_loop
        self._beginning = anyio.Lock()
        self._task: BackgroundTask | None = None

    async def begin(self) -> None:
        """Begins, unless it has.

        Raises:
            ExecutorUnavailableError: the executor is closed.
        """
        async with self._beginning:
            self._pool.refuse_if_closed()
            if self._task is None:
                self._task = await start_background(self._run, self._end_without_loop)
                if self._pool.closed:  # meanwhile, by a task that found nothing to end
                    self._task.cancel()
                    self._pool.refuse_if_closed()

    async def end(self) -> None:
        """Returns when everything has ended."""
        if self._task is not None:
            self._task.cancel()
            await self._task.wait()

    def forget(self, why_closed: str) -> None:
        """Closes the pool where nothing can be awaited. If the task goes on, it has nothing to end."""
        self._pool.forget_waiters()
        self._pool.close(why_closed)
        self._task = None

    async def _run(self) -> None:
        try:
            await self._live()
        finally:
            if self._task is not None:  # otherwise the task that began this was cancelled at once, and the next begins again
                await self._end_everything()
