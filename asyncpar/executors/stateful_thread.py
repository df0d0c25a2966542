"""A thread with a state: an initializer is run in it, then the calls of one place, and at its end the state is left in it.

It has one event loop, made at first need, in which an asynchronous state lives and the coroutine calls run. Without a state,
each batch of coroutine calls has an event loop of its own, so that nothing has to be closed.

Nothing can end what runs in a thread. So leaving a state may take as long as it likes, and whoever waits for the end decides
for how long.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from asyncpar._child.call_forms import Initializer
from asyncpar._child.run_batch import BatchReport
from asyncpar._child.worker_state import WorkerState
from asyncpar._platform.current_worker import CurrentWorker, enter_thread
from asyncpar._platform.nesting import enter_worker_thread
from asyncpar._platform.own_threads import OwnThread


class StatefulThread:
    """The thread of `worker`, from the moment when it is wanted. Made in the event loop that uses it."""

    def __init__(self, initializer: Initializer, worker: CurrentWorker) -> None:
        self._worker = worker
        self._state = WorkerState(initializer, worker, self._get_runner)
        self._runner: Any = None  # asyncio.Runner
        self._thread = OwnThread(f"asyncpar thread {worker.index}", self._leave)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive

    async def set_up(self) -> None:
        """Runs the initializer, and raises what it raises. An error of a worker never ends the program."""
        await self._thread.run(self._enter)

    async def run(self, fn: Callable[[], object]) -> None:
        """Calls `fn` in the thread. When cancelled, it returns at once, and leaves the thread to itself."""
        await self._thread.run(fn)

    def run_in_loop(self, calls: Coroutine[Any, Any, BatchReport]) -> BatchReport:
        """Called in the thread: awaits `calls` in its event loop."""
        from asyncpar._child.run_coroutines import run_to_end

        return run_to_end(self._get_runner(), calls)

    def end(self) -> None:
        """Ends it when nothing runs in it any more."""
        self._thread.end()

    async def wait_ended(self) -> None:
        await self._thread.wait_ended()

    def _enter(self) -> None:
        enter_worker_thread()
        enter_thread(self._worker)
        self._state.enter()

    def _leave(self) -> None:
        enter_worker_thread()
        enter_thread(self._worker)
        self._state.leave()
        if self._runner is not None:
            self._runner.close()

    def _get_runner(self) -> Any:
        if self._runner is None:
            import asyncio

            self._runner = asyncio.Runner()
        return self._runner
