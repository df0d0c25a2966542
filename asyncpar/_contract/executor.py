"""The contract between the scheduler and whatever runs batches, and the FIFO lending that all executors share.

    function = executor.adopt(program)          # once per run: pickles the function where that is needed
    parcel = function.pack(batch, budget)       # synchronous; before a worker is asked for; perhaps unfinished
    async with executor.lease() as worker:      # FIFO among all runs that share the executor
        answer = await worker.run(parcel)
    done = answer.read()                        # synchronous; when the worker has its next batch already
    function.discard()                          # at the end of the run

What a worker's `run` promises:

- It returns an `Answer`, which becomes a `BatchDone`. Failures of calls are values in it; calls without an outcome (the
  time budget was over, their worker died) are in `rest`.
- A batch that outlives its time budget comes back at the end of the call that is running then. At least one call is made.
- It raises only what makes the whole run pointless: the function cannot be loaded, the executor is closed.
- When it is cancelled, it returns only when no call of the batch is running any more (threads: when none will be started
  any more); afterwards `usable` says whether the worker can be lent again.

Lending: workers are started when somebody waits and fewer than `capacity` exist, lent last-in-first-out (the most recent
one is the warmest), and handed directly to whoever has waited longest. So a run that leases one worker for each batch cannot
starve another: between two of its batches the queue moves.

# started == len(idle) + lent + starting <= capacity
# waiters is not empty  =>  idle is empty and started == capacity
"""

from __future__ import annotations

import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

import anyio

from asyncpar._contract.batches import Batch, BatchDone
from asyncpar._memory.loans import MmapMode
from asyncpar._platform.background import current_loop
from asyncpar.errors import ExecutorUnavailableError


class Program(NamedTuple):
    """What one run executes: a function, and how.

    `concurrency` is 0 for a plain function, else how many calls of a coroutine function one worker has under way.
    `stop_on_error`: a worker makes no further call of a batch in which one has failed. `timeout`: seconds for one call.
    `max_nbytes`, `mmap_mode`: from how many bytes on buffers go through shared memory, and how arguments there are mapped.
    """

    fn: Callable[..., Any]
    concurrency: int = 0
    stop_on_error: bool = False
    timeout: float | None = None
    max_nbytes: int | None = None
    mmap_mode: MmapMode = "r"

    def adopted_by(self, executor: Executor[Any]) -> AdoptedFunction:
        return executor.adopt(self)


class Adoptable(Protocol):
    """What a run executes: a `Program`, or several."""

    def adopted_by(self, executor: Executor[Any]) -> AdoptedFunction:
        """It in the form in which `executor` needs it."""
        ...


class Parcel:
    """A batch, ready to be run, and the seconds that it may take. Executors that must encode it use a subclass.

    If it is `unfinished`, because encoding it or its function takes long, `finish` is to be called in a thread before it is
    run.
    """

    __slots__ = ("batch", "budget", "program")
    unfinished = False

    def __init__(self, program: Program, batch: Batch, budget: float) -> None:
        self.program = program
        self.batch = batch
        self.budget = budget

    def finish(self) -> None:
        """Does what takes long. Runs in a thread."""


class Answer(Protocol):
    """What a worker gave back, perhaps not decoded yet."""

    @property
    def is_large(self) -> bool:
        """Whether reading it takes so long that it is to be done in a thread."""
        ...

    def read(self) -> BatchDone: ...


class AdoptedFunction:
    """The program of one run, in the form in which its executor needs it.

    `zero_copy_hits`: buffers that were in shared memory already when they were to be sent.
    """

    def __init__(self, program: Program) -> None:
        self.program = program

    @property
    def zero_copy_hits(self) -> int:
        return 0

    def pack(self, batch: Batch, budget: float) -> Parcel:
        """The batch, ready for any worker of this executor; `budget`: seconds after which it is to come back, done or not."""
        return Parcel(self.program, batch, budget)

    def discard(self) -> None:
        """The run is over: workers may forget the function."""


class Worker(ABC):
    """Runs one batch at a time.

    `usable`: it can be lent again. `abandoned`: a call that cannot be stopped goes on in it. `detained`: it keeps its place
    until then, which is freed by whoever sees that call end.
    """

    usable = True
    abandoned = False
    detained = False

    @abstractmethod
    async def run(self, parcel: Any) -> Answer: ...


W = TypeVar("W", bound=Worker)


class Executor(ABC, Generic[W]):
    """Owns workers and lends them. An async context manager: leaving it stops its workers and waits for their end (a thread in
    a call that was abandoned goes on until that call ends).

    An executor belongs to the event loop in which it is first used.
    """

    capacity: int  # how many workers there may be
    prepares = True  # batches are cut and packed ahead, while the workers compute
    clock: Callable[[], float] = staticmethod(time.monotonic)  # seconds, by which round trips are measured

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._idle: list[W] = []
        self._started = 0
        self._waiters: deque[_Waiter[W]] = deque()
        self._closed = False
        self._why_closed = "is closed; keep its `async with` open for as long as it is used"
        self._loop: weakref.ref[object] | None = None  # to the event loop that it belongs to

    def adopt(self, program: Program) -> AdoptedFunction:
        """Takes on the function of a run.

        Raises:
            PicklingError: the function cannot be sent to this executor's workers.
        """
        self._bind_to_loop()
        return AdoptedFunction(program)

    def lease(self) -> Lease[W]:
        """Lends a worker for the length of an `async with`."""
        return Lease(self)

    @property
    def closed(self) -> bool:
        """Whether it has been closed for good."""
        return self._closed

    def grow(self, capacity: int) -> None:
        """Allows at least `capacity` workers."""
        self.capacity = max(self.capacity, capacity)
        self._let_waiters_start()

    @abstractmethod
    async def _start_worker(self) -> W:
        """A new worker, ready to run."""

    async def _shut_down(self) -> None:
        """Ends all workers, those that are lent included, and whatever else belongs to the executor."""

    async def aclose(self) -> None:
        """Stops all workers, busy ones included, and waits for their end. A second time it waits for the same end."""
        self._refuse_from_now_on()
        with anyio.CancelScope(shield=True):
            await self._shut_down()

    def _refuse_from_now_on(self) -> None:
        self._closed = True
        while self._waiters:
            self._waiters.popleft().wake()
        self._idle.clear()

    async def __aenter__(self) -> Self:
        self._refuse_if_closed()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    # Lending

    def _borrow_nowait(self) -> W | None:
        self._refuse_if_closed()
        return self._idle.pop() if self._idle else None

    async def _borrow(self) -> W:
        if self._started < self.capacity and not self._waiters:
            self._started += 1
            return await self._start_counted()
        waiter: _Waiter[W] = _Waiter()
        self._waiters.append(waiter)
        try:
            await waiter.event.wait()
        except BaseException:  # cancelled: perhaps just when its turn had come, which then goes to the next
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif waiter.worker is not None:
                self._take_back(waiter.worker)
            elif waiter.may_start:
                self._forget_worker()
            raise
        self._refuse_if_closed()
        return waiter.worker if waiter.worker is not None else await self._start_counted()

    async def _start_counted(self) -> W:
        try:
            return await self._start_worker()
        except BaseException:
            self._forget_worker()
            raise

    def _take_back(self, worker: W) -> None:
        if worker.detained:
            return
        if not worker.usable or self._closed or self._started > self.capacity:
            self._forget_worker()
        elif self._waiters:
            self._waiters.popleft().wake(worker=worker)
        else:
            self._shelve(worker)

    def _shelve(self, worker: W) -> None:
        """Keeps a worker for which there is no use now."""
        self._idle.append(worker)

    def _forget_worker(self) -> None:
        self._started -= 1
        self._let_waiters_start()

    def _let_waiters_start(self) -> None:
        while self._waiters and self._started < self.capacity:
            self._started += 1
            self._waiters.popleft().wake(may_start=True)

    def _bind_to_loop(self) -> None:
        self._refuse_if_closed()
        loop = current_loop()
        if self._loop is None:
            self._loop = weakref.ref(loop)
        elif self._loop() is not loop:
            raise ExecutorUnavailableError(
                f"this {type(self).__name__} belongs to another event loop; make one in each event loop that needs one"
            )

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ExecutorUnavailableError(f"this {type(self).__name__} {self._why_closed}")


class Lease(Generic[W]):
    """`async with executor.lease() as worker`: waits in line for a worker, and gives it back."""

    __slots__ = ("_executor", "_worker")

    def __init__(self, executor: Executor[W]) -> None:
        self._executor = executor
        self._worker: W | None = None

    async def __aenter__(self) -> W:
        worker = self._executor._borrow_nowait()
        if worker is None:
            worker = await self._executor._borrow()
        self._worker = worker
        return worker

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._worker is not None
        self._executor._take_back(self._worker)


class _Waiter(Generic[W]):
    """Somebody in line: woken with a worker, with leave to start one, or with neither because the executor closes."""

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.worker: W | None = None
        self.may_start = False

    def wake(self, *, worker: W | None = None, may_start: bool = False) -> None:
        self.worker = worker
        self.may_start = may_start
        self.event.set()
