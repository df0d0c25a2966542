"""Ray: the batches run on a cluster of Ray.

A cluster is an engine (`_engines`). This file makes one of Ray's core API: actors make the batches (`_engines/ray_crew.py`),
over the connection of this process (`_engines/ray_connection.py`). It imports ray only when an executor is made.

# What is special to it

- **Any event loop.** Ray's references have futures of `concurrent.futures`, which tell any event loop of their results. So it
  works on trio, too.
- **Retries** of Ray are off. What is lost runs again through us, since we know who is to blame.
- **Cancelling** ends what runs: its actor is killed. So does a timeout; the worker finds out by itself that a call is overdue.
- **Capacity** is the cluster's number of processors, as workers report it when they come alive.
- **Data** is put into the object store of this machine, once, and workers map it. What comes back is copied out of it, so that
  results can be changed, and stay when Ray ends.
"""

from __future__ import annotations

import importlib
import threading
import uuid
from collections.abc import Callable, Collection, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any

import anyio

from asyncpar._child.pool_main import Box, PoolAnswer
from asyncpar._child.ray_worker import Message
from asyncpar._contract.admission import WhenFull
from asyncpar._contract.executor import FREE, Fate, Traits
from asyncpar._engines.engine import Engine, Overdue, Work
from asyncpar._engines.executor import ConnectedExecutor
from asyncpar._engines.placing import boxed
from asyncpar._engines.ray_connection import connect, disconnect, load_ray
from asyncpar._engines.ray_crew import DEPTH, Crew, Died, Disturbed, NodeDied, Task
from asyncpar._memory.buffers import Buffer
from asyncpar._platform.background import wait_through
from asyncpar._platform.cpus import cpu_count
from asyncpar._platform.off_loop import run_off_loop
from asyncpar._wire.pace import IN_LOOP_BYTES, Breaths, copy
from asyncpar.errors import ExecutorUnavailableError

_IDLE_SECONDS = 3.0  # after which processors of a cluster are given back; a worker starts in 0.2 to 0.5 s


class RayExecutor(ConnectedExecutor):
    """Runs calls in the workers of a Ray cluster: `pip install asyncpar[ray]`.

    The workers need asyncpar, in the same version. There is one for each processor, which is an actor of Ray. They are started
    when runs need them, more of them when the cluster grows, and they give the processors of a cluster back when they have been
    idle for three seconds.

    A call is made once, unless its worker is lost; then it is made again. A call that kills its worker twice fails with
    `WorkerDiedError`, and no other does. When a run is cancelled, or a call outlives its timeout, its worker is killed, and
    another one takes its place. Large arguments are put into Ray's object store once and arrive read-only, unless `mmap_mode`
    asks for copies. What calls print goes to Ray's log files.

    Args:
        address: of a cluster that this machine belongs to, such as "10.0.0.1:6379", or "auto" for the one that runs here. None:
            if the program has connected to Ray by itself, that connection, which is left open; otherwise a Ray of its own, with
            a worker for each processor, which listens only on the loopback interface and ends with the executor.
        contextvars: context variables whose values go to workers, as in `ProcessExecutor`.
        max_pending, when_full: limit what waits for a worker, as in `ProcessExecutor`.

    Raises:
        ExecutorUnavailableError: `ray` is not installed. Later: there is no cluster, or no worker can start.
        TypeError: `address` is not a text.
    """

    traits = Traits(stops="kill", round_trip=0.001, depth=DEPTH)

    def __init__(
        self,
        address: str | None = None,
        *,
        contextvars: Collection[ContextVar[Any]] = (),
        max_pending: int | None = None,
        when_full: WhenFull = "wait",
    ) -> None:
        super().__init__(_Ray(address), contextvars=contextvars, max_pending=max_pending, when_full=when_full)


class _Ray(Engine):
    name = "Ray cluster"
    losses_are_shared = False
    keeps_data = True

    def __init__(self, address: str | None) -> None:
        if address is not None and not isinstance(address, str):
            raise TypeError(f"RayExecutor takes the address of a cluster, or None, not {address!r:.200}")
        self._ray = load_ray()
        self._address = address
        self._connection: Any = None
        self._crew: Crew | None = None
        self._has_crew = anyio.Event()
        self._is_own = False  # the Ray: nobody else wants its processors

    # Start and end

    async def start(self) -> None:
        ray = self._ray
        await wait_through(partial(run_off_loop, _Once(self._connect)))
        self._is_own = self._connection is not None and self._connection.address is None
        resources: dict[str, float] = await run_off_loop(ray.cluster_resources)
        processors = int(resources.get("CPU", 0))
        self._crew = Crew(ray, processors, cpu_count() if self._is_own else None, self._follow_crew)
        self._follow_crew()
        self._has_crew.set()

    def _connect(self) -> None:
        self._connection = connect(self._ray, self._address)

    def _follow_crew(self) -> None:
        assert self._crew is not None, "it is the crew that calls"
        self.workers = max(1, self._crew.processors, self._crew.alive)
        self.changed()

    async def live(self) -> None:
        """Ends runs that have lost Ray, and gives back the processors of a cluster after a while without tasks."""
        await self._has_crew.wait()
        assert self._crew is not None, "it has been made"
        async with anyio.create_task_group() as group:
            group.start_soon(self._crew.notice_disconnection)
            if not self._is_own:
                group.start_soon(self._crew.dismiss_idle, _IDLE_SECONDS)

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        try:
            if self._crew is not None:
                await self._crew.close()
        finally:
            if connection is not None:
                await run_off_loop(partial(disconnect, connection))

    def let_go(self) -> None:
        connection, self._connection = self._connection, None
        try:
            if self._crew is not None:
                self._crew.let_go()
        finally:
            disconnect(connection)

    # Tasks

    async def put(self, data: Buffer) -> Any:
        return await run_off_loop(partial(self._ray.put, Box(data, is_kept=True)))

    def wrap(self, parts: Sequence[Any]) -> list[Any]:
        return boxed(parts, self._ray.ObjectRef)

    async def submit(self, work: Work) -> Task:
        crew, ray = self._crew, self._ray
        assert crew is not None, "it has been started"
        program = work.program or ()
        all_parts = [*program, *work.parts]
        kept = [part for part in all_parts if isinstance(part, ray.ObjectRef)]
        sent = [None if isinstance(part, ray.ObjectRef) else part for part in all_parts]
        word = f"asyncpar-{uuid.uuid4().hex}"
        message: Any = Message(work.program_id, work.mode, work.depth, len(program), sent, work.timeout, word)
        if sum([part.data.nbytes for part in sent if type(part) is Box]) > IN_LOOP_BYTES:
            message = await run_off_loop(partial(ray.put, message))
        task = await crew.start_task(lambda actor: actor.run.remote(message, *kept), word, alone=work.is_suspect)
        task.timeout = work.timeout
        return task

    async def result(self, task: Task) -> PoolAnswer:
        await task.over.wait()
        error = task.error
        if error is None:
            kind, payload, buffers, who = task.answer
            if sum([buffer.data.nbytes for buffer in buffers]) > IN_LOOP_BYTES:
                return kind, payload.data, await run_off_loop(partial(_copies, buffers)), who
            return kind, payload.data, [bytearray(buffer.data) for buffer in buffers], who
        if task.timeout is not None and self.is_loss(error):
            position = await run_off_loop(partial(_take_word, task.word))
            if position is not None:
                raise Overdue(int(position)) from error
            if task.is_alone and task.seconds > task.timeout:  # it is one call, which has let no thread of its worker run
                raise Overdue(0) from error
        is_foreseen = self.is_loss(error) or self.is_data_loss(error) or self.is_disturbance(error)
        if is_foreseen or isinstance(error, ExecutorUnavailableError):
            raise error
        raise ExecutorUnavailableError(f"the Ray cluster did not run a batch: {error!r:.500}") from error

    def cancel(self, task: Task, ended: Callable[[], object]) -> Fate:
        if self._crew is not None:
            self._crew.cancel(task)
        return FREE

    async def wait_for_end(self, task: Task) -> None:
        if self._crew is not None:
            await self._crew.wait_for_end(task)

    def is_loss(self, error: BaseException) -> bool:
        return isinstance(error, Died)

    def is_data_loss(self, error: BaseException) -> bool:
        return isinstance(error, (NodeDied, self._ray.exceptions.ObjectLostError))

    def is_disturbance(self, error: BaseException) -> bool:
        return isinstance(error, Disturbed)


class _Once:
    """Calls `fn` in the first thread that asks for it; the others wait for that.

    asyncio's own cancellation leaves a thread that connects to itself, and what it makes has to be ended nevertheless.
    """

    def __init__(self, fn: Callable[[], None]) -> None:
        self._fn: Callable[[], None] | None = fn
        self._calling = threading.Lock()

    def __call__(self) -> None:
        with self._calling:
            fn, self._fn = self._fn, None
            if fn is not None:
                fn()


def _take_word(word: str) -> bytes | None:
    """What a worker has left, which is at most read once."""
    internal_kv: Any = importlib.import_module("ray.experimental.internal_kv")
    position: bytes | None = internal_kv._internal_kv_get(word)
    if position is not None:
        internal_kv._internal_kv_del(word)
    return position


def _copies(boxes: Sequence[Box]) -> list[Buffer]:
    pace = Breaths()
    return [copy(box.data, pace) for box in boxes]
