"""What an engine is to its executor.

    await engine.start()                         # once, unless it needs no start
    sent = engine.wrap(parts)                    # perhaps in a thread
    task = await engine.submit(work)             # starts `run_in_pool` in some worker, and returns a handle
    answer = await engine.result(task)           # or an error of the engine; calls never raise into it
    fate = engine.cancel(task, ended)            # instead, if the waiting task has been cancelled, …
    await engine.wait_for_end(task)              # … and then
    await engine.close()

Each task is a batch, as parts: bytes, and references to data that the engine keeps. What is kept is put there once (`put`), and
each reference to it becomes the data itself on the way to the worker. An engine that cannot do that has `keeps_data` false.

What goes wrong with a task is one of these things. The engine took it not at all (`NotSent`). A worker died with it
(`is_loss`). Data that it refers to is gone with the workers that held it, and nobody is to blame (`is_data_loss`). It was lost
because of another task (`is_disturbance`). One of its calls was overdue, and its worker was ended for that (`Overdue`). Any
other error ends the run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import anyio

from asyncpar._child.pool_main import PoolAnswer
from asyncpar._contract.batches import Batch
from asyncpar._contract.executor import Fate
from asyncpar._memory.buffers import Buffer
from asyncpar._memory.loans import MmapMode


class NotSent(Exception):
    """The engine was already broken when a task was to be sent."""


class Work(NamedTuple):
    """A batch as it is sent: the arguments of `run_in_pool`, and how it is to be treated.

    Attributes:
        program: the parts of the message with the program, or None if the worker is to ask for it.
        mode: how the calls see data that the engine keeps.
        depth: of the calls, as `_platform/nesting.py` counts it.
        parts: of the message with the calls.
        is_suspect: it may have killed a worker.
        timeout: for each of its calls, if the engine can end one.
    """

    program_id: int
    program: Sequence[Any] | None
    mode: MmapMode
    depth: int
    parts: Sequence[Any]
    is_suspect: bool
    timeout: float | None


class Overdue(Exception):
    """The worker was ended, because the call at this position took longer than its timeout."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


class Engine(ABC):
    """One way of running tasks.

    Attributes:
        name: what it is called in messages: "the {name}".
        workers: how many tasks can run at once, now. 0 is allowed.
        changed: to be called, in the event loop, when `workers` has changed after the start. The executor sets it.
        generation: how often it was rebuilt.
        losses_are_shared: a worker that dies takes along tasks that do not run in it, or that do not run yet. Then it is not
            known which one is to blame until one of them has run alone. Otherwise, the engine tells suspects from tasks that
            were disturbed, and gives a suspect that is sent again a worker to itself.
        keeps_data: `put` works.
    """

    name = "engine"
    workers = 1
    changed: Callable[[], object] = staticmethod(lambda: None)
    generation = 0
    losses_are_shared = True
    keeps_data = False

    async def start(self) -> None:  # noqa: B027 - an engine may be there already
        """Connects to it. If it is cancelled or fails, `close` undoes what it has begun.

        Raises:
            ExecutorUnavailableError: it is not there.
        """

    async def live(self) -> None:
        """Does what has to be done from time to time, until it is cancelled. Begins before `start`."""
        await anyio.sleep_forever()

    async def close(self) -> None:  # noqa: B027 - nor does each have to end
        """Ends what belongs to us. Also called if `start` was not, or has failed."""

    def let_go(self) -> None:  # noqa: B027 - as above
        """The same where nothing can be awaited, since the event loop has been closed."""

    async def put(self, data: Buffer) -> Any:
        """Gives data to the engine to keep; returns a reference. The data goes when nothing refers to it any more."""
        raise NotImplementedError("an engine that keeps data overrides this")

    def wrap(self, parts: Sequence[Any]) -> list[Any]:
        """The parts in a form that travels. Runs in a thread if the bytes among them are many."""
        return list(parts)

    @abstractmethod
    async def submit(self, work: Work) -> Any:
        """Starts `run_in_pool` with it in some worker; returns a handle that can be hashed.

        Raises:
            NotSent: it is broken.
            ExecutorUnavailableError: it takes no tasks any more.
        """

    @abstractmethod
    async def result(self, task: Any) -> PoolAnswer:
        """Waits for the answer. If it is cancelled, it leaves the task alone."""

    @abstractmethod
    def cancel(self, task: Any, ended: Callable[[], object]) -> Fate:
        """Nobody waits for the task any more. Returns what becomes of its place.

        FREE: it certainly does not run any more. LEFT: it may, and nobody tells when it ends. DETAINED: it does, and `ended`
        will be called when it has ended, in any thread.
        """

    async def wait_for_end(self, task: Any) -> None:  # noqa: B027 - mostly, there is nothing to wait for
        """Returns when a task that `cancel` has ended is not running any more. May be called again if it is cancelled."""

    @abstractmethod
    def is_loss(self, error: BaseException) -> bool:
        """Whether `result` raised it because a worker died."""

    def is_data_loss(self, error: BaseException) -> bool:
        """Whether `result` raised it because data is gone that the task refers to."""
        return False

    def is_disturbance(self, error: BaseException) -> bool:
        """Whether `result` raised it because another task was to blame, or was cancelled."""
        return False

    async def rebuild(self, generation: int, error: Exception, suspect: Batch | None) -> None:  # noqa: B027 - as above
        """A worker died. Makes the engine usable again, unless that has been done since `generation`, or is not needed.

        Raises:
            ExecutorUnavailableError: that is impossible; the message names the suspect, if there is one.
        """
