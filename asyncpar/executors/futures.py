"""Other people's pools: any `concurrent.futures.Executor` runs the batches.

A pool that is a `ThreadPoolExecutor` shares this program's memory, and nothing is pickled. Any other pool gets tasks of bytes.
One task is one batch, run by `_child/pool_main.py`, and `_engines` does what all engines have in common. Errors of calls come
back inside its result, so that the pool never sees them.

Such a pool cannot end a call that is running. A run that is cancelled takes back the batches that the pool has not handed to
its workers (a `ProcessPoolExecutor` hands them out one ahead), and leaves the others to themselves. Their places are lent again
when they have ended.

When one worker of a pool of processes dies, most pools are broken, and all that was under way in them is lost. Suspects then
run alone (`_engines/place.py`), and break the pool once more. That needs a new pool each time, from the function that
`FuturesExecutor` was given. A pool that was given as an object cannot be replaced, and the run ends. A new pool is tried out
with a task of our own, so that no call is blamed for a pool whose workers cannot start.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import Executor as ForeignPool
from functools import partial
from typing import Any

import anyio
from anyio.lowlevel import RunVar

from asyncpar._basics.validation import is_positive_int, to_count
from asyncpar._child.pool_main import PoolAnswer, run_in_pool
from asyncpar._contract.admission import WhenFull
from asyncpar._contract.batches import Batch
from asyncpar._contract.executor import FREE, Fate, Hints, Place, Program, Session, Traits
from asyncpar._contract.lending import PooledSession
from asyncpar._engines.engine import Engine, NotSent, Work
from asyncpar._engines.executor import EngineExecutor
from asyncpar._platform.background import LoopHandle
from asyncpar._platform.nesting import context_of_a_thread
from asyncpar._platform.off_loop import run_off_loop
from asyncpar.errors import ExecutorUnavailableError
from asyncpar.executors import workers_of
from asyncpar.executors.thread import ThreadPlace


class FuturesExecutor(EngineExecutor):
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
        engine = PoolEngine(pool, workers)
        self._shares_memory = _shares_memory(engine.pool)
        if self._shares_memory:
            self.traits = Traits(stops="between_calls")
        super().__init__(engine, max_pending=max_pending, when_full=when_full)
        self._pool_engine = engine

    @property
    def foreign_pool(self) -> ForeignPool:
        """The pool of others in which the calls run now."""
        return self._pool_engine.pool

    def open(self, program: Program, hints: Hints) -> Session:
        if self._shares_memory:
            self.pool.bind_to_loop()
            return PooledSession(program, self.pool)
        return super().open(program, hints)

    async def start_place(self) -> Place:
        if self._shares_memory:
            return ThreadPlace(self._run_in_thread, self.pool.forget_one, is_replaceable=False)
        return await super().start_place()

    async def shut_down(self) -> None:
        """Waits for the pool's end, unless calls in its threads are left to themselves, or are about to be."""
        self._pool_engine.waits_for_end = not self._shares_memory or not self.pool.started
        await self._pool_engine.close()

    async def _run_in_thread(self, fn: Callable[[], None]) -> None:
        pool = self.foreign_pool
        try:
            await result_of(start_task(pool, context_of_a_thread().run, fn))
        except (NotSent, BrokenExecutor) as error:
            raise ExecutorUnavailableError(f"the {type(pool).__name__} is broken: {error}") from error
        except CancelledError as error:
            raise _was_shut_down(pool) from error


class PoolEngine(Engine):
    """A pool of others as an engine.

    Attributes:
        pool: the pool, which is another one after it has been replaced.
        waits_for_end: whether closing it waits for the end of the tasks in it.
    """

    waits_for_end = True

    def __init__(self, pool: ForeignPool | Callable[[], ForeignPool], workers: int | None) -> None:
        self._make = None if isinstance(pool, ForeignPool) else pool
        self.pool = pool if isinstance(pool, ForeignPool) else _made_by(pool)
        self.name = type(self.pool).__name__
        self.workers = to_count(workers_of(self.pool) if workers is None else workers)
        self._replacing = anyio.Lock()
        self._changing = threading.Lock()  # replacing the pool, or ending it
        self._is_closed = False

    def wrap(self, parts: Sequence[Any]) -> list[Any]:
        """In a form that every pool can send and that is writable at the other end."""
        return [part if type(part) is bytes else bytearray(part) for part in parts]

    async def submit(self, work: Work) -> Future[PoolAnswer]:
        return start_task(self.pool, run_in_pool, work.program_id, work.program, work.mode, work.depth, work.parts)

    async def result(self, task: Future[PoolAnswer]) -> PoolAnswer:
        try:
            answer: PoolAnswer = await result_of(task)
        except CancelledError as error:
            raise _was_shut_down(self.pool) from error
        return answer

    def cancel(self, task: Future[PoolAnswer], ended: Callable[[], object]) -> Fate:
        if task.cancel() or task.done():
            return FREE
        task.add_done_callback(lambda _: ended())
        return Fate.DETAINED

    def is_loss(self, error: BaseException) -> bool:
        return isinstance(error, BrokenExecutor)

    async def rebuild(self, generation: int, error: Exception, suspect: Batch | None) -> None:
        """Replaces a broken pool by a new one.

        Raises:
            ExecutorUnavailableError: no function makes pools, or the new pool is broken from the start.
        """
        if self._make is None:
            raise _is_broken(self.pool, error, suspect) from error
        async with self._replacing:
            if self.generation == generation:
                await run_off_loop(partial(self._renew, self.pool))
                await self._try_out(self.pool)

    def _renew(self, broken: ForeignPool) -> None:
        """Runs in a thread. The task that waits for it may be cancelled; the pool is kept even so, and shut down at the end."""
        with self._changing:
            broken.shutdown(wait=True)
            if self.pool is broken and not self._is_closed:
                self.pool = _made_by(self._make)
                self.generation += 1

    async def _try_out(self, pool: ForeignPool) -> None:
        """Tries the pool out: no call is to blame if it breaks before it has run any."""
        try:
            await result_of(start_task(pool, os.getpid))
        except (NotSent, BrokenExecutor) as error:
            raise ExecutorUnavailableError(
                f"a new {type(pool).__name__} is broken before it has run a call ({error}); its initializer may fail, or its "
                "workers may be unable to start"
            ) from error

    async def close(self) -> None:
        if self._make is not None:
            await run_off_loop(self._shut_down)

    def _shut_down(self) -> None:
        with self._changing:
            self._is_closed = True
            self.pool.shutdown(wait=self.waits_for_end)


def start_task(pool: ForeignPool, fn: Callable[..., Any], *arguments: Any) -> Future[Any]:
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


async def result_of(future: Future[Any]) -> Any:
    """Waits for the result; when cancelled, it leaves the task alone."""
    ended, loop = anyio.Event(), LoopHandle()
    future.add_done_callback(lambda _: loop.call_soon(ended.set))
    await ended.wait()
    return future.result()


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
