"""Dask: the batches run on a cluster of `dask.distributed`.

A cluster is an engine (`_engines`). This file speaks to one, on distributed's own asyncio API: one task for each batch, and
data that is scattered once. It imports distributed only when an executor is made.

# What is special to it

- **Capacity** is the number of the workers' threads. A plugin in the scheduler tells us each change as a plain number, on a
  topic of our own, and is gone when the executor is closed, or its program. While there is no worker, a batch or two are
  submitted nevertheless: an adaptive cluster starts its first worker for a task that waits for one.
- **Deaths.** The scheduler runs a task again when its worker died, by default three times, on its own. Then it gives up all the
  tasks that were with that worker. So suspects run alone. In a cluster of our own, it gives up at once.
- **Data** that was scattered lives in the workers only, and is lost with the last one that holds it. The tasks that need it are
  cancelled then, and it is scattered again.
- **Cancelling** releases a task. If it waits, it never runs. If it runs, nobody can stop it, nor is it known when it ends.
- **The event loop.** A cluster of our own runs in a thread, because a scheduler would hold up the loop, and because nothing
  else can close it when the loop is closed without us.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import tempfile
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Collection, Sequence
from contextvars import ContextVar
from typing import Any

import anyio

from asyncpar._basics.validation import is_positive_int, to_count
from asyncpar._child.pool_main import Box, PoolAnswer, run_in_cluster
from asyncpar._contract.admission import WhenFull
from asyncpar._contract.batches import Batch
from asyncpar._contract.executor import FREE, Fate, Hints, Program, Session, Traits
from asyncpar._engines.engine import Engine, Work
from asyncpar._engines.executor import ConnectedExecutor
from asyncpar._engines.placing import boxed
from asyncpar._memory.buffers import Buffer
from asyncpar._platform.background import runs_on_asyncio
from asyncpar._platform.cpus import cpu_count
from asyncpar._platform.off_loop import run_off_loop
from asyncpar.errors import ExecutorUnavailableError

_SEND_SECONDS = 0.001  # for which our own client collects messages, instead of 10 ms
_ROUND_TRIP = 0.01  # 5 to 10 ms on one machine
_SCHEDULER_SECONDS = 1e-3  # of the scheduler's time for each batch; it was 0.7 ms
_CLOSE_SECONDS = 10.0
_RESTART_SECONDS = 20.0  # far longer than a worker takes to start, …
_START_SECONDS = 0.5  # … which is about this
_PUT_ATTEMPTS = 20
_PUT_SECONDS = 0.1  # between two of them: in this time, a scheduler notices on most networks that a worker is gone

_setting = threading.Lock()  # Dask's configuration, for a while; two threads that do so would leave it changed


class DaskExecutor(ConnectedExecutor):
    """Runs calls on the workers of a Dask cluster (`dask.distributed`). Needs asyncio: `pip install asyncpar[dask]`.

    The scheduler and the workers need asyncpar, in the same version. How many places there are follows the cluster while runs
    are on; where there is no worker, runs wait.

    A call is made at least once: Dask runs a batch again when its worker was lost, so calls should do no harm if they are made
    twice. A call that kills its worker fails with `WorkerDiedError`, and no other does. A running call cannot be ended. When a
    run is cancelled, batches that wait are taken back; one that runs goes on for up to a second, and to the end of its call.
    Large arguments are sent to the cluster once and arrive read-only, unless `mmap_mode` asks for copies.

    Args:
        client: the address of a scheduler, such as "tcp://10.0.0.1:8786", or a `distributed.Client`, which is not closed here.
            An asynchronous client of the same event loop is used as it is; of any other, only the address. None: the
            cluster that Dask's configuration names (`DASK_SCHEDULER_ADDRESS`). If it names none, a cluster of its own on this
            machine, with a worker for each processor, which listens only on the loopback interface.
        scale_to: up to how many workers an adaptive cluster may grow for a run. It grows with the work that waits in it, so
            batches for that many workers are sent there even while there are fewer. None: two for each that there is.
        contextvars: context variables whose values go to workers, as in `ProcessExecutor`.
        max_pending, when_full: limit what waits for a worker, as in `ProcessExecutor`.

    Raises:
        ValueError: `scale_to` is not a positive number.
        ExecutorUnavailableError: `distributed` is not installed. Later: there is no cluster, or the event loop is trio's.
        TypeError: `client` is something else.
    """

    traits = Traits(stops="never", may_rerun=True, round_trip=_ROUND_TRIP, depth=2)

    def __init__(
        self,
        client: Any = None,
        *,
        scale_to: int | None = None,
        contextvars: Collection[ContextVar[Any]] = (),
        max_pending: int | None = None,
        when_full: WhenFull = "wait",
    ) -> None:
        if scale_to is not None and not is_positive_int(scale_to):
            raise ValueError(f"scale_to must be a number of workers, 1 or more, or None, not {scale_to!r}")
        super().__init__(
            _Dask(client, to_count(scale_to or 1)), contextvars=contextvars, max_pending=max_pending, when_full=when_full
        )

    def _follow_workers(self) -> None:
        """Many workers get longer batches, because the scheduler takes its time for each."""
        round_trip = max(_ROUND_TRIP, _SCHEDULER_SECONDS * self.engine.workers)
        self.traits = self.traits._replace(round_trip=round_trip)
        super()._follow_workers()

    async def __aenter__(self) -> DaskExecutor:
        _refuse_trio()
        await super().__aenter__()
        return self

    def open(self, program: Program, hints: Hints) -> Session:
        _refuse_trio()
        return super().open(program, hints)


class _Dask(Engine):
    name = "Dask cluster"
    keeps_data = True

    def __init__(self, client: Any, least_workers: int) -> None:
        self._distributed = load_distributed()
        if client is not None and not isinstance(client, (str, self._distributed.Client)):
            raise TypeError(
                f"DaskExecutor takes the address of a scheduler, a distributed.Client, or None, not {client!r:.200}"
            )
        self._settings = importlib.import_module("dask").config
        self._given = client
        self.workers = self._least_workers = least_workers
        self._cancelled_error: type[Exception] = importlib.import_module("distributed.client").FutureCancelledError
        self._cluster: _LocalCluster | None = None  # of our own
        self._client: Any = None
        self._owns_client = False
        self._name = f"asyncpar-{uuid.uuid4().hex}"  # of the plugin, of its topic, and at the beginning of all keys
        self._threads = 0
        self._followed: Any = None  # the connection on which the scheduler tells the number of threads
        self._mending = anyio.Lock()
        self._lacking = anyio.Event()
        self._waiting: set[asyncio.Future[PoolAnswer | Exception]] = set()

    # Start and end

    async def start(self) -> None:
        given = self._settings.get("scheduler-address", None) if self._given is None else self._given  # as a `Client` does
        if given is None:
            self._cluster = _LocalCluster(self._distributed, self._settings)
            given = await run_off_loop(self._cluster.start)
        if isinstance(given, str):
            await self._connect(given, security=None)
            if self._cluster is not None:
                self._cluster.tell(self._client)
        elif given.status == "closed":
            raise ExecutorUnavailableError("the client that DaskExecutor was given is closed")
        elif given.asynchronous and given.loop.asyncio_loop is asyncio.get_running_loop():
            self._client = await given
        else:
            await self._connect(given.scheduler.address, security=given.security)
        await self._follow()

    async def _follow(self) -> None:
        """Has the scheduler tell how many threads its workers have, and what comes of that."""
        connection = self._client.scheduler_comm
        note = weakref.WeakMethod(self._note_threads)  # a client keeps the handlers of all topics that it ever had
        self._client.subscribe_topic(self._name, lambda event: (note() or _ignore)(event))
        await self._client.register_plugin(make_plugin(self._distributed, self._name, self._client.id))
        self._threads = sum((await self._client.nthreads()).values())
        self.workers = max(self._least_workers, self._threads)
        self._followed = connection

    async def _check_connection(self) -> None:
        """A client connects again by itself, but the scheduler has forgotten it meanwhile."""
        if self._client.status != "running":
            raise self._without_connection()
        if self._client.scheduler_comm is not self._followed:
            async with self._mending:
                if self._client.scheduler_comm is not self._followed:
                    await self._follow()
                    self.changed()

    async def _connect(self, address: str, *, security: Any) -> None:
        """A client that is cancelled meanwhile, or finds nothing, is closed like any other."""
        self._client = self._distributed.Client(address, asynchronous=True, set_as_default=False, security=security)
        self._owns_client = True
        try:
            await self._client
        except (OSError, ValueError, TypeError) as error:  # TypeError: TLS is not configured
            raise ExecutorUnavailableError(f"there is no Dask scheduler at {address}: {error}") from error
        self._client.scheduler_comm.interval = _SEND_SECONDS

    async def close(self) -> None:
        client, self._client = self._client, None
        cluster, self._cluster = self._cluster, None
        try:
            if client is not None:
                await self._leave(client)
            if self._waiting:  # for tasks that have been released
                await asyncio.wait(self._waiting, timeout=_CLOSE_SECONDS)
        finally:
            if cluster is not None:
                await run_off_loop(cluster.close)

    async def _leave(self, client: Any) -> None:
        if client.status == "running":
            with contextlib.suppress(Exception), anyio.move_on_after(_CLOSE_SECONDS):  # the scheduler may be gone
                await client.unregister_scheduler_plugin(self._name)
                client.unsubscribe_topic(self._name)
        if self._owns_client:
            with contextlib.suppress(OSError):  # in time, or with a scheduler that answers
                await client.close(_CLOSE_SECONDS)

    async def live(self) -> None:
        """Mends a cluster of our own from which workers are missing for long."""
        while True:
            await self._lacking.wait()
            self._lacking = anyio.Event()
            await anyio.sleep(_RESTART_SECONDS)
            if self._lacks_workers():
                await self.rebuild(self.generation)

    def _lacks_workers(self) -> bool:
        return self._cluster is not None and self._threads < cpu_count()

    def let_go(self) -> None:
        if self._cluster is not None:
            self._cluster.close()

    def _note_threads(self, event: tuple[float, int]) -> None:
        self._threads = event[1]
        self.workers = max(self._least_workers, self._threads)
        self.changed()
        if self._lacks_workers():
            self._lacking.set()

    # Tasks

    async def put(self, data: Buffer) -> Any:
        """Tries again if it meets a worker that has just gone."""
        failure: OSError | None = None
        is_near = self._cluster is not None  # otherwise, perhaps only the scheduler can be reached from here
        for _ in range(_PUT_ATTEMPTS):
            await self._check_connection()
            if not self._threads:  # a task that waits for a worker lets an adaptive cluster start one
                await self._client.submit(_nothing, key=f"{self._name}-{uuid.uuid4().hex}", pure=False)
            try:
                (future,) = await self._client.scatter([Box(data, is_kept=True)], hash=False, direct=is_near)
            except OSError as error:
                failure = error
                await anyio.sleep(_PUT_SECONDS)
            except Exception as error:
                raise _not_done("take data", error) from error
            else:
                return future
        raise ExecutorUnavailableError(f"the Dask cluster does not take data: {failure}") from failure

    def wrap(self, parts: Sequence[Any]) -> list[Any]:
        return boxed(parts, self._distributed.Future)

    async def submit(self, work: Work) -> Any:
        program = work.program or ()
        await self._check_connection()
        return self._client.submit(
            run_in_cluster,
            work.program_id,
            work.mode,
            work.depth,
            len(program),
            *program,
            *work.parts,
            key=f"{self._name}-{uuid.uuid4().hex}",
            pure=False,
        )

    async def result(self, task: Any) -> PoolAnswer:
        waiting = asyncio.ensure_future(_outcome_of(task))
        self._waiting.add(waiting)
        waiting.add_done_callback(self._waiting.discard)
        await asyncio.wait([waiting])  # distributed gathers results together: to cancel one would cancel all
        outcome = waiting.result()
        if isinstance(outcome, BaseException):
            if self.is_loss(outcome) or self.is_data_loss(outcome):
                raise outcome
            if isinstance(outcome, self._cancelled_error):
                raise self._without_connection() from outcome
            raise _not_done("run a batch", outcome) from outcome
        kind, payload, buffers, who = outcome
        return kind, payload.data, [buffer.shown("r") for buffer in buffers], who

    def cancel(self, task: Any, ended: Callable[[], object]) -> Fate:
        if task.done():
            return FREE
        task.release()
        return Fate.LEFT

    async def rebuild(self, generation: int, error: Exception | None = None, suspect: Batch | None = None) -> None:
        if self._cluster is None:
            return  # it is somebody else's, and goes on
        async with self._mending:
            if self.generation == generation:
                await run_off_loop(self._cluster.mend)
                self.generation += 1

    def is_loss(self, error: BaseException) -> bool:
        return isinstance(error, self._distributed.scheduler.KilledWorker)

    def is_data_loss(self, error: BaseException) -> bool:
        return isinstance(error, self._cancelled_error) and getattr(error, "reason", None) != "scheduler-connection-lost"

    def _without_connection(self) -> ExecutorUnavailableError:
        return ExecutorUnavailableError("the connection to the scheduler of the Dask cluster was lost, and with it all tasks")


async def _outcome_of(task: Any) -> PoolAnswer | Exception:
    """The result, or the error: perhaps nobody waits any more when it comes."""
    try:
        answer: PoolAnswer = await task
    except Exception as error:
        return error
    return answer


def _not_done(what: str, error: Exception) -> ExecutorUnavailableError:
    return ExecutorUnavailableError(
        f"the Dask cluster did not {what}: {error!r:.500}; its scheduler and its workers need asyncpar in the same version"
    )


def _ignore(event: object) -> None:
    """The executor is gone."""


def _nothing() -> None:
    """A task."""


def load_distributed() -> Any:
    """The module.

    Raises:
        ExecutorUnavailableError: it is not installed.
    """
    try:
        return importlib.import_module("distributed")
    except ImportError as error:
        raise ExecutorUnavailableError(
            f"the Dask executor needs the package distributed, which cannot be imported ({error}). "
            "Please install dask: pip install asyncpar[dask]"
        ) from error


def _refuse_trio() -> None:
    if not runs_on_asyncio():
        raise ExecutorUnavailableError(
            "the Dask executor needs asyncio, and this event loop is trio's; asyncpar.map and Parallel have an event loop of "
            "their own, so they can use it from a thread: await trio.to_thread.run_sync(...)"
        )


class _LocalCluster:
    """A cluster of our own: a worker process for each processor, and a scheduler in a thread. All of its methods block.

    Whoever starts it may be cancelled, and a thread that starts it goes on then. So closing it waits for that.
    """

    def __init__(self, distributed: Any, settings: Any) -> None:
        self._distributed = distributed
        self._settings = settings
        self._changing = threading.Lock()  # starting it, or closing it
        self._is_closed = False
        self._cluster: Any = None

    def start(self) -> str:
        """Returns the address."""
        with self._changing:
            if self._is_closed:
                raise ExecutorUnavailableError("the Dask cluster was closed before it was started")
            self._folder = tempfile.TemporaryDirectory(prefix="asyncpar-dask-")  # for what it writes to disk
            try:
                self._cluster = self._started()
            except Exception as error:
                self._folder.cleanup()
                raise ExecutorUnavailableError(
                    f"no Dask cluster could be started on this machine: {error}; its workers import the script, so what the "
                    'script does must stand under `if __name__ == "__main__":`; a call in a Dask worker has to give an address'
                ) from error
            address: str = self._cluster.scheduler_address
            return address

    def _started(self) -> Any:
        folder = {"temporary-directory": self._folder.name}  # a scheduler has no argument for it
        with _setting, self._settings.set(folder):
            return self._distributed.LocalCluster(
                n_workers=cpu_count(),
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address=None,
                scheduler_kwargs={
                    "allowed_failures": 0,
                    "dashboard": False,
                    "dashboard_address": "127.0.0.1:0",  # it serves HTTP nevertheless, on the usual port if none is said
                },
            )

    def tell(self, client: Any) -> None:
        """Lets a client know whose it is. At exit, distributed closes clusters first, and it would try to connect again."""
        client.cluster = self._cluster

    def mend(self) -> None:
        """Returns when all workers are there again.

        A nanny restarts its worker, unless that dies again just when it has registered: then the nanny gives up. And a call
        that kills its worker would be sent to such a new one at once.
        """
        cluster, deadline = self._cluster, time.monotonic() + _RESTART_SECONDS
        while time.monotonic() < deadline and not self._is_closed:
            nannies = dict(cluster.workers)
            for name, nanny in nannies.items():
                if nanny.status.name in ("closing", "closed", "failed"):
                    cluster.workers.pop(name, None)
            if len(cluster.workers) < cpu_count():
                cluster.scale(cpu_count())  # which starts those that are missing
                time.sleep(_START_SECONDS)
            elif all(map(self._serves, nannies.values())):
                return
            time.sleep(0.01)  # a nanny tells nobody

    def _serves(self, nanny: Any) -> bool:
        """Whether its worker runs, and both it and the scheduler know that. The scheduler is the first to know of a death."""
        process = nanny.process
        return (
            process is not None
            and process.status.name == "running"
            and process.is_alive()
            and nanny.worker_address in self._cluster.scheduler.workers
        )

    def close(self) -> None:
        with self._changing:
            if self._cluster is not None and not self._is_closed:
                try:
                    self._cluster.close(_CLOSE_SECONDS)
                finally:
                    self._folder.cleanup()
            self._is_closed = True


def make_plugin(distributed: Any, name: str, owner: str) -> Any:
    """A scheduler plugin that publishes the number of the workers' threads, each time it changes.

    It goes with its owner, the client with that id: a program may die without closing anything.
    """

    class Publisher(distributed.SchedulerPlugin):  # type: ignore[misc]  # an Any
        def __init__(self) -> None:
            self.name = name

        def add_worker(self, scheduler: Any, worker: str) -> None:
            scheduler.log_event(name, scheduler.total_nthreads)

        def remove_worker(self, scheduler: Any, worker: str, **_: Any) -> None:
            scheduler.log_event(name, scheduler.total_nthreads)

        def remove_client(self, scheduler: Any, client: str) -> None:
            if client == owner:
                scheduler.remove_plugin(name)

    return Publisher()
