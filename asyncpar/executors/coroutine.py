"""Coroutine functions in the caller's own event loop: a worker is a place among `concurrency` calls under way."""

from __future__ import annotations

from asyncpar._contract.executor import Executor
from asyncpar.executors.inline import InlineWorker


class CoroutineExecutor(Executor[InlineWorker]):
    """Awaits up to `concurrency` calls at once in the event loop of the caller; one executor serves one run.

    Each call runs in a task of its run, so cancelling the run cancels the calls that are under way.
    """

    prepares = False

    def __init__(self, concurrency: int) -> None:
        super().__init__(capacity=concurrency)

    async def _start_worker(self) -> InlineWorker:
        return InlineWorker()
