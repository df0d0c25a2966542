"""Coroutine functions in the caller's own event loop, with a place for each call that may be under way."""

from __future__ import annotations

from asyncpar._contract.executor import Traits
from asyncpar._contract.lending import PooledExecutor
from asyncpar.executors.inline import InlinePlace


class CoroutineExecutor(PooledExecutor[InlinePlace]):
    """Awaits up to `concurrency` calls at once in the event loop of the caller; one executor serves one run.

    Each call runs in a task of its run, so cancelling the run cancels the calls that are under way.
    """

    traits = Traits(stops="kill", prepares=False)  # each call is cancelled

    async def start_place(self) -> InlinePlace:
        return InlinePlace()
