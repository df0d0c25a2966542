"""The interpreter executor: subinterpreters of this process, each with a lock of its own (CPython 3.14).

They run Python code in parallel, like processes, but are started in milliseconds without any helper, live in this process, and
are shown large arguments where they lie. Modules with C code that is made for one interpreter, numpy among them, cannot be
loaded in them.

This file keeps the pool. The mechanisms are in `_interpreters` (how one lives, runs a batch and is stopped), `_processes` (what
is sent), and `_child/interpreter_main.py` (the other side).

A worker is told to end, and ends when nothing runs in it any more. It says so in the event loop, and nothing waits for that but
`aclose`, for a moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from contextvars import ContextVar
from typing import Any

import anyio

from asyncpar._basics.validation import to_seconds
from asyncpar._child.call_forms import Initializer
from asyncpar._contract.admission import WhenFull
from asyncpar._contract.executor import FREE, Fate, Traits
from asyncpar._contract.life import LEFT_OPEN, Life
from asyncpar._interpreters.surroundings import refuse_unless_supported
from asyncpar._interpreters.worker import InterpreterWorker
from asyncpar._memory.loans import NOWHERE
from asyncpar._platform.cpus import resolve_max_workers
from asyncpar._processes.frame_worker import check_initializer
from asyncpar._processes.sessions import FrameExecutor
from asyncpar._wire.codec import OUT_OF_BAND_BYTES
from asyncpar._wire.views import ViewPlacer


class InterpreterExecutor(FrameExecutor[InterpreterWorker]):
    """Runs calls in up to `max_workers` interpreters of this process (default: as many as processors). Needs CPython 3.14.

    Python code runs in parallel, as in processes, but in this process: an interpreter starts in some ten milliseconds, and sees
    large arguments where they lie. It imports modules for itself. Modules whose C code can be loaded only once in a process
    (numpy, pandas, uvloop, …) cannot be imported there; a call that tries gets an ImportError that says so. Arrays arrive as
    `memoryview`. Working directory and environment are those of the process.

    Cancelling a run interrupts its calls. Code that catches the exception is interrupted again; a call in C code is interrupted
    when it returns to Python, and until then left to itself.

    While an interpreter lives, the process must not fork: the child would crash. There is a warning. `ProcessExecutor` and
    `subprocess` do not fork it.

    Args:
        max_workers: how many interpreters there may be at once.
        initializer: called with `initargs` in each new interpreter, before its first call, as in `ProcessExecutor`. Leaving the
            state may take 0.2 seconds.
        initargs: arguments of the initializer.
        contextvars: context variables whose values go to workers. In each call, they have the values that they had where its
            run began, which are pickled with the function. Those that have none there have none in the call. What calls set
            reaches no other run. Each must be an attribute of a module, or of the script.
        idle_timeout: seconds after which an interpreter without work is closed.
        max_pending, when_full: limit what waits for an interpreter, as in `ProcessExecutor`.

    Raises:
        ExecutorUnavailableError: this Python has no interpreters.
        ValueError: an argument is out of range.

    >>> import anyio, math, asyncpar
    >>> async def main():
    ...     async with asyncpar.InterpreterExecutor(2) as executor:
    ...         return await asyncpar.pmap(math.factorial, range(5), executor=executor)
    >>> anyio.run(main)
    [1, 1, 2, 6, 24]

    >>> def scale(x):
    ...     return asyncpar.current_worker().state * x
    >>> async def main():
    ...     async with asyncpar.InterpreterExecutor(2, initializer=int, initargs=["10"]) as executor:
    ...         return await asyncpar.pmap(scale, range(3), executor=executor)
    >>> anyio.run(main)
    [0, 10, 20]
    """

    traits = Traits(stops="kill")

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        contextvars: Collection[ContextVar[Any]] = (),
        idle_timeout: float = 30,
        max_pending: int | None = None,
        when_full: WhenFull = "wait",
    ) -> None:
        refuse_unless_supported()
        check_initializer(initializer, initargs, idle_timeout)
        super().__init__(
            resolve_max_workers(max_workers), contextvars=contextvars, max_pending=max_pending, when_full=when_full
        )
        self._initializer = None if initializer is None else Initializer(initializer, tuple(initargs))
        self._idle_timeout = to_seconds(idle_timeout)
        self._life = Life(self.pool, self._see_to_idle, self._end_everything, self._end_without_loop)

    def make_placer(self, threshold: int) -> ViewPlacer:
        return ViewPlacer(NOWHERE if threshold == NOWHERE else OUT_OF_BAND_BYTES)  # to show less would cost more than a copy

    async def start_place(self) -> InterpreterWorker:
        await self._life.begin()
        worker = InterpreterWorker(self._generation, self._note_end)
        self.enlist(worker)
        await worker.set_up(self._initializer)
        return worker

    def _note_end(self, worker: InterpreterWorker) -> None:
        self._workers.discard(worker)
        if worker.fate is Fate.DETAINED:
            self.pool.forget_one()

    def release(self, worker: InterpreterWorker) -> None:
        if worker.fate is FREE:
            if worker.generation != self._generation:
                worker.hang_up()
            worker.idle_since = time.monotonic()
        self.pool.release(worker)

    def drop_place(self, place: InterpreterWorker) -> None:
        place.hang_up()

    def part_with_old_code(self) -> None:
        for worker in self.pool.let_idle_go():
            worker.hang_up()

    async def _see_to_idle(self) -> None:
        """Retires interpreters that have been idle for long."""
        while True:
            oldest = self.pool.idle[0].idle_since if self.pool.idle else time.monotonic()
            with anyio.move_on_after(max(oldest + self._idle_timeout - time.monotonic(), 0)):  # perhaps endless
                await anyio.sleep_forever()
            self._retire_idle()

    def _retire_idle(self) -> None:
        expired = time.monotonic() - self._idle_timeout
        while self.pool.idle and self.pool.idle[0].idle_since <= expired:
            self.pool.idle.pop(0).hang_up()
            self.pool.forget_one()

    async def shut_down(self) -> None:
        await self._life.end()

    async def _end_everything(self) -> None:
        self.pool.close()
        workers = list(self._workers)
        for worker in workers:
            worker.hang_up()
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as group:
                for worker in workers:
                    group.start_soon(worker.end)

    def _end_without_loop(self) -> None:
        """Called when the event loop has been closed: nothing can be awaited in it any more."""
        self._life.forget(LEFT_OPEN)
        for worker in self._workers:
            worker.let_go()
        self._workers.clear()
