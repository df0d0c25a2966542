"""Other people's pools: any `concurrent.futures.Executor` runs the batches.

A pool that is a `ThreadPoolExecutor` shares this program's memory, and nothing is pickled. Any other pool gets tasks of bytes.
One task is one batch, run by `_child/pool_main.py`. Errors of calls come back inside its result, so that the pool never sees
them. There are two places for each worker, so that the next batch is there when a worker has finished one.

Such a pool cannot end a call that is running. A run that is cancelled takes back the batches that the pool has not handed to
its workers (a `ProcessPoolExecutor` hands them out one ahead), and leaves the others to themselves. Their places are lent again
when they have ended.

When one worker of a pool of processes dies, most pools are broken, and all that was under way in them is lost. It is not known
then which call is to blame, so suspects run alone. Each batch that was lost runs again with nothing beside it. If the pool
breaks again, that batch is to blame, and its calls run one by one. The call that breaks the pool now fails with
`WorkerDiedError`, and no other does. That needs a new pool each time, from the function that `FuturesExecutor` was given. A
pool that was given as an object cannot be replaced, and the run ends. A new pool is tried out with a task of our own, so that
no call is blamed for a pool whose workers cannot start.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import Executor as ForeignPool
from functools import partial
from typing import Any

import anyio
from anyio.lowlevel import RunVar

from asyncpar._basics.locking import Numbers
from asyncpar._basics.validation import is_positive_int, to_count
from asyncpar._child.pool_main import UNKNOWN, PoolAnswer, run_in_pool
from asyncpar._child.protocol import FAILED
from asyncpar._contract.admission import WhenFull
from asyncpar._contract.batches import Batch, BatchDone, fail_overdue, nothing_done
from asyncpar._contract.executor import Answer, Fate, Hints, Place, Program, Session, Traits
from asyncpar._contract.lending import Pool, PooledExecutor, PooledSession
from asyncpar._memory.loans import NOWHERE
from asyncpar._platform.background import LoopHandle
from asyncpar._platform.nesting import context_of_a_thread, depth
from asyncpar._platform.off_loop import run_off_loop
from asyncpar._processes.parcel import PickledProgram, ProcessAnswer, ProcessParcel, SentProgram, unpack_failure
from asyncpar._wire.frames import Frame, weigh
from asyncpar._wire.pace import IN_LOOP_BYTES
from asyncpar.errors import ExecutorUnavailableError, WorkerDiedError
from asyncpar.executors import workers_of
from asyncpar.executors.thread import ThreadPlace

_SMALL_PROGRAM = 1 << 14  # up to this many bytes, a function is sent with every batch instead of on request; a guess

_program_ids = Numbers(int.from_bytes(os.urandom(6), "big") << 16)  # workers may serve other programs as well


class FuturesExecutor(PooledExecutor[Place]):
    """Runs calls in a pool that is a `concurrent.futures.Executor`: of threads, processes or interpreters, loky's, mpi4py's, ….

    The pool's owner shuts it down. If `pool` is a function that makes pools, each pool that it makes is shut down here, and a
    broken one is replaced: a call that kills its worker then fails alone, with a `WorkerDiedError`. A run whose pool cannot be
    replaced ends with `ExecutorUnavailableError`.

    A call that is running cannot be ended. When a run is cancelled, or a call outlives its timeout in a thread, the call is
    left to itself, and counted as abandoned. In other pools, a call that takes too long fails when it returns. A coroutine call
    that takes too long is cancelled.

    Args:
        pool: the pool, or a function without arguments that makes one. It is called at once.
        max_pending, when_full: limit what waits for a worker, as in `ProcessExecutor`.
        workers: how many workers the pool has. None: its own number (`_max_workers`), or as many as there are processors.

    Raises:
        TypeError: `pool` is neither.
        ValueError: `workers` is not a positive number.

    >>> import anyio, math, asyncpar
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> async def main():
    ...     async with asyncpar.FuturesExecutor(lambda: ThreadPoolExecutor(2)) as executor:
    ...         return await asyncpar.pmap(math.sqrt, [4, 9], executor=executor)
    >>> anyio.run(main)
    [2.0, 3.0]
    """

    def __init__(
        self,
        pool: ForeignPool | Callable[[], ForeignPool],
        workers: int | None = None,
        *,
        max_pending: int | None = None,
        when_full: WhenFull = "wait",
    ) -> None:
        if workers is not None and not is_positive_int(workers):
            raise ValueError(f"workers must be a number of workers, 1 or more, or None, not {workers!r}")
        self._make = None if isinstance(pool, ForeignPool) else pool
        self.foreign_pool = pool if isinstance(pool, ForeignPool) else _made_by(pool)
        self._shares_memory = _shares_memory(self.foreign_pool)
        self.traits = Traits(stops="between_calls") if self._shares_memory else Traits(stops="never", depth=2)
        if workers is None:
            workers = workers_of(self.foreign_pool)
        super().__init__(to_count(workers) * self.traits.depth, max_pending=max_pending, when_full=when_full)
        self._replacing = anyio.Lock()
        self._changing = threading.Lock()  # replacing the pool, or ending it
        self._gate = _Gate()
        self.under_way: dict[Future[PoolAnswer], ProcessParcel] = {}  # in the pool

    def open(self, program: Program, hints: Hints) -> Session:
        if self._shares_memory:
            return super().open(program, hints)
        self.pool.bind_to_loop()
        return _PickledSession(program, self.pool)

    async def start_place(self) -> Place:
        if self._shares_memory:
            return ThreadPlace(self._run_in_thread, self.pool.forget_one, is_replaceable=False)
        return _PoolPlace(self, self._gate)

    async def shut_down(self) -> None:
        if self._make is not None:
            await run_off_loop(self._shut_down_pool)

    def _shut_down_pool(self) -> None:
        """Waits for the pool's end, unless calls in its threads are left to themselves, or are about to be."""
        with self._changing:
            self.foreign_pool.shutdown(wait=not self._shares_memory or not self.pool.started)

    async def _run_in_thread(self, fn: Callable[[], None]) -> None:
        pool = self.foreign_pool
        try:
            await result_of(self.submit(pool, context_of_a_thread().run, fn))
        except (NotSent, BrokenExecutor) as error:
            raise ExecutorUnavailableError(f"the {type(pool).__name__} is broken: {error}") from error
        except CancelledError as error:
            raise _was_shut_down(pool) from error

    def submit(self, pool: ForeignPool, fn: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Starts a task in the pool.

        Raises:
            ExecutorUnavailableError: the pool has been shut down.
            NotSent: it is broken.
        """
        try:
            return pool.submit(fn, *arguments)
        except BrokenExecutor as error:
            raise NotSent(str(error)) from error
        except RuntimeError as error:
            raise ExecutorUnavailableError(f"the {type(pool).__name__} takes no calls: {error}") from error

    async def replace(self, broken: ForeignPool, error: Exception, suspect: Batch | None) -> None:
        """Replaces a broken pool by a new one, unless another task has done so.

        Raises:
            ExecutorUnavailableError: no function makes pools, or the new pool is broken from the start.
        """
        if self._make is None:
            raise _is_broken(broken, error, suspect) from error
        async with self._replacing:
            if self.foreign_pool is broken:
                await run_off_loop(partial(self._renew, broken))
                await self._try_out(self.foreign_pool)

    def _renew(self, broken: ForeignPool) -> None:
        """Runs in a thread. The task that waits for it may be cancelled; the pool is kept even so, and shut down at the end."""
        with self._changing:
            broken.shutdown(wait=True)
            if self.foreign_pool is broken and not self.pool.closed:
                self.foreign_pool = _made_by(self._make)

    async def _try_out(self, pool: ForeignPool) -> None:
        """Tries the pool out: no call is to blame if it breaks before it has run any."""
        try:
            await result_of(self.submit(pool, os.getpid))
        except (NotSent, BrokenExecutor) as error:
            raise ExecutorUnavailableError(
                f"a new {type(pool).__name__} is broken before it has run a call ({error}); its initializer may fail, or its "
                "workers may be unable to start"
            ) from error


class NotSent(Exception):
    """The pool was already broken when a task was to be sent."""


class _PickledSession(PickledProgram, PooledSession[Place]):
    def __init__(self, program: Program, pool: Pool[Place]) -> None:
        self.pool = pool
        options = program.concurrency, program.stop_on_error, program.timeout, NOWHERE, None
        PickledProgram.__init__(self, program, SentProgram(program.fn, options, next(_program_ids), None), None)

    def take_in(self, brought: list[Any]) -> None:
        """Nothing is defined later on, since it is not known which worker has it."""


class _PoolPlace(Place):
    """A place in a pool that shares no memory with us."""

    def __init__(self, executor: FuturesExecutor, gate: _Gate) -> None:
        self._executor = executor
        self._gate = gate

    async def run(self, parcel: ProcessParcel) -> Answer:
        batch = parcel.batch
        await self._gate.enter(alone=batch.deaths > 0)
        try:
            pool = self._executor.foreign_pool
            is_alone = batch.deaths > 0 and not self._gate.detained
            try:
                return await self._run_in(pool, parcel)
            except NotSent as error:
                await self._executor.replace(pool, error, self._first_under_way(parcel.program))
                return nothing_done(batch, (batch,), type(pool).__name__)
            except BrokenExecutor as error:
                await self._executor.replace(pool, error, batch)
                return _lost(batch, pool, error, is_alone=is_alone)
        finally:
            self._gate.leave()

    def _first_under_way(self, program: Program) -> Batch | None:
        """The first batch of the run that the pool has not answered yet: what broke the pool, as far as is known."""
        return next((parcel.batch for parcel in self._executor.under_way.values() if parcel.program is program), None)

    async def _run_in(self, pool: ForeignPool, parcel: ProcessParcel) -> Answer:
        is_small = parcel.sent.weight < _SMALL_PROGRAM
        answer, sent_bytes = await self._ask(pool, parcel, with_program=is_small)
        if answer[0] == UNKNOWN:
            answer, sent_bytes = await self._ask(pool, parcel, with_program=True)
        kind, payload, buffers, who = answer
        frame = Frame(kind, payload, [memoryview(buffer) for buffer in buffers])
        if kind == FAILED:
            raise unpack_failure(frame)
        program = parcel.program
        timeout = None if program.concurrency else program.timeout
        return _PoolAnswer(frame, parcel, who, sent_bytes + weigh(frame)[0], timeout)

    async def _ask(self, pool: ForeignPool, parcel: ProcessParcel, *, with_program: bool) -> tuple[PoolAnswer, int]:
        frame = parcel.frame(pickles_read=0 if with_program else 1, news=None)
        weight, _ = weigh(frame)
        buffers = await run_off_loop(partial(_copied, frame)) if weight > IN_LOOP_BYTES else _copied(frame)
        future: Future[PoolAnswer] = self._executor.submit(
            pool, run_in_pool, parcel.sent.program_id, with_program, depth() + 1, bytes(frame.payload), buffers
        )
        self._executor.under_way[future] = parcel
        try:
            return await result_of(future), weight
        except CancelledError as error:
            raise _was_shut_down(pool) from error
        except anyio.get_cancelled_exc_class():
            if not future.cancel() and not future.done():
                self.fate = Fate.DETAINED
                self._gate.detained += 1
                loop = LoopHandle()
                future.add_done_callback(lambda _: loop.call_soon(self._end_detention))
            raise
        finally:
            del self._executor.under_way[future]

    def _end_detention(self) -> None:
        self._gate.detained -= 1
        self._executor.pool.forget_one()


class _PoolAnswer(ProcessAnswer):
    """What came back from a pool. Its calls were not timed from outside."""

    __slots__ = ("_timeout",)

    def __init__(self, frame: Frame, parcel: ProcessParcel, who: str, inline_bytes: int, timeout: float | None) -> None:
        super().__init__(frame, parcel, who, inline_bytes, 0)
        self._timeout = timeout

    def read(self) -> BatchDone | None:
        done = super().read()
        if done is not None and self._timeout is not None:
            fail_overdue(done.batch, done.values, done.errors, done.timings, self._timeout)
        return done


async def result_of(future: Future[Any]) -> Any:
    """Waits for the result; when cancelled, it leaves the task alone."""
    ended, loop = anyio.Event(), LoopHandle()
    future.add_done_callback(lambda _: loop.call_soon(ended.set))
    await ended.wait()
    return future.result()


class _Gate:
    """Many batches may be inside, or one that is alone. `detained`: batches left to themselves, which no task waits for."""

    detained = 0

    def __init__(self) -> None:
        self._inside = 0
        self._is_taken = False  # by one that is alone
        self._wait_for_solitude = 0  # how many; they would wait forever if other batches kept coming in
        self._moved: anyio.Event | None = None

    async def enter(self, *, alone: bool) -> None:
        self._wait_for_solitude += alone
        try:
            while self._is_taken or (self._inside if alone else self._wait_for_solitude):
                if self._moved is None:
                    self._moved = anyio.Event()
                await self._moved.wait()
        finally:
            self._wait_for_solitude -= alone
            if alone:
                self._move()
        self._inside += 1
        self._is_taken = alone

    def leave(self) -> None:
        self._inside -= 1
        self._is_taken = False
        self._move()

    def _move(self) -> None:
        if self._moved is not None:
            self._moved.set()
            self._moved = None


def _lost(batch: Batch, pool: ForeignPool, error: BrokenExecutor, *, is_alone: bool) -> BatchDone:
    """What becomes of a batch whose pool broke. `is_alone`: nothing else was under way."""
    name, deaths = type(pool).__name__, batch.deaths + 1
    if is_alone and len(batch) == 1:
        message = f"a worker of the {name} died while it ran {batch.describe(0)}: {error}"
        died = WorkerDiedError(message, batch.start, batch.item(0))
        return BatchDone(batch, [None], {0: died}, ((1, 0.0),), name)
    if not is_alone:
        return nothing_done(batch, [batch.part(0, len(batch), deaths=deaths, again=True)], name)
    singles = [batch.part(position, position + 1, deaths=deaths, again=True) for position in range(len(batch))]
    return nothing_done(batch, singles, name)


def _is_broken(pool: ForeignPool, error: Exception, suspect: Batch | None) -> ExecutorUnavailableError:
    name, perhaps = type(pool).__name__, ""
    if suspect is not None:
        others = f", or one of the {len(suspect) - 1} after it" if len(suspect) > 1 else ""
        perhaps = f", since a worker of it died, perhaps while it ran {suspect.describe(0)}{others}"
    return ExecutorUnavailableError(
        f"the {name} is broken{perhaps} ({error}); give FuturesExecutor a function that makes a pool, such as "
        f"FuturesExecutor(lambda: {name}(4)), and it will replace broken ones"
    )


def _was_shut_down(pool: ForeignPool) -> ExecutorUnavailableError:
    return ExecutorUnavailableError(f"the {type(pool).__name__} was shut down while this run was using it")


def _copied(frame: Frame) -> list[bytearray]:
    """The buffers in a form that every pool can send and that is writable at the other end."""
    return [bytearray(memoryview(buffer)) for buffer in frame.buffers]  # type: ignore[arg-type]  # none is in shared memory


def _made_by(make: Any) -> ForeignPool:
    pool = make() if callable(make) else None
    if not isinstance(pool, ForeignPool):
        raise TypeError(
            f"FuturesExecutor takes a concurrent.futures.Executor, or a function that makes one, not {make!r:.200}"
            + (f", which made {pool!r:.200}" if callable(make) else "")
        )
    return pool


def _shares_memory(pool: ForeignPool) -> bool:
    """Whether its workers are threads of this interpreter, or it says that they see the program's memory."""
    import concurrent.futures

    interpreters = getattr(concurrent.futures, "InterpreterPoolExecutor", None)  # a subclass of that of threads
    if isinstance(pool, ThreadPoolExecutor):
        return not (interpreters is not None and isinstance(pool, interpreters))
    return bool(getattr(pool, "shares_memory", False))


_shared: RunVar[weakref.WeakValueDictionary[int, FuturesExecutor] | None] = RunVar("asyncpar_foreign_pools", None)


def executor_over(pool: ForeignPool) -> FuturesExecutor:
    """The event loop's executor over this pool: all runs that use the pool at the same time share it."""
    executors = _shared.get()
    if executors is None:
        executors = weakref.WeakValueDictionary()
        _shared.set(executors)
    executor = executors.get(id(pool))
    if executor is None or executor.foreign_pool is not pool:
        executor = executors[id(pool)] = FuturesExecutor(pool)
    return executor
