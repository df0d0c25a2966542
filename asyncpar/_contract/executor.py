"""The contract between the scheduler and an executor.

    await executor.admission.enter()            # once per run, if the executor limits how many wait
    session = executor.open(program, hints)     # once per run: takes on the function
    parcel = session.pack(batch, budget)        # synchronous, before a place is asked for; perhaps unfinished
    place = session.lease_nowait() or await session.lease()        # in turn with all other runs
    answer = await place.run(parcel)
    session.release(place)                      # in every case
    done = answer.read()                        # synchronous, when the place has its next batch already
    session.close()                             # at the end of the run
    executor.admission.let_in()                 # as above

A single call goes the same way, with a session of its own (`single_call.py`).

A *place* is where one batch runs at a time. A worker has one or more. A worker that is far away has two, so that its next batch
is there when it has finished one. Places may come and go during runs, and there may be none for a while.

What a place's `run` promises:

- It returns an `Answer`, which becomes a `BatchDone`. Failures of calls are values in it; calls without an outcome (the
  time budget was over, their worker died) are in `rest`.
- A batch that outlives its time budget comes back at the end of the call that is running then. At least one call is made.
- It raises only errors that make the whole run pointless: the function cannot be loaded, the executor is closed.
- When it is cancelled, it returns only when no call of the batch is running any more, or its `fate` says otherwise.

A place where coroutine calls run beside each other may answer in parts, so that no outcome waits for a slower call: as long as
the place `goes_on`, there are calls under way, and `go_on` returns the next part.

Most executors lend their places in the same way. `lending.py` has a pool for that, and an executor and a session that use it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from enum import Enum, auto
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol, Self, TypeVar, overload

from asyncpar._contract.admission import Admission
from asyncpar._contract.batches import Batch, BatchDone
from asyncpar._contract.single_call import make_call
from asyncpar._memory.loans import MmapMode
from asyncpar._memory.options import DEFAULT_BYTES

T = TypeVar("T")


class Program(NamedTuple):
    """The function that one run executes, and how.

    Attributes:
        fn: the user's function.
        concurrency: 0 for a plain function, else how many calls of a coroutine function one worker has under way.
        stop_on_error: once a call has failed, its worker makes no further call of the batch.
        timeout: seconds for one call; None: it may take any time.
    """

    fn: Callable[..., Any]
    concurrency: int = 0
    stop_on_error: bool = False
    timeout: float | None = None


class Hints(NamedTuple):
    """Options of the user that only some executors can use.

    Attributes:
        max_nbytes: buffers of this many bytes or more go through shared memory; None: none do.
        mmap_mode: how arguments in shared memory are mapped.
        most_workers: in how many workers coroutine calls may be under way at once, where these interleave; None: in all.
    """

    max_nbytes: int | None = None
    mmap_mode: MmapMode = "r"
    most_workers: int | None = None


DEFAULT_HINTS = Hints(DEFAULT_BYTES, "r")


class Traits(NamedTuple):
    """What an executor is like.

    Attributes:
        stops: how a call that is running can be ended. "kill": within the executor's grace. "between_calls": it goes on, but no
            further one begins. "never": the calls of its batch that have not begun may be made, too. prepares: batches are cut
            and packed ahead, while workers compute. may_rerun: the system that runs the batches may run one more than once by
            itself. round_trip: seconds from sending a batch until its answer is there, without its calls. It is a first guess;
            later the cost of batches is measured. depth: how many places one worker has. in_own_task: the executor always has
            one place, and batches run in the task that drives the run. interleaves: a worker has any number of batches of
            coroutine calls under way at once, with as many calls in all as the program's `concurrency`. Then a place is lent
            for each batch, and `places` counts workers.
    """

    stops: Literal["kill", "between_calls", "never"] = "never"
    prepares: bool = True
    may_rerun: bool = False
    round_trip: float = 0.0
    depth: int = 1
    in_own_task: bool = False
    interleaves: bool = False


class Fate(Enum):
    """What has become of a place when its batch has come back, or was cancelled."""

    FREE = auto()  # it can be lent again
    GONE = auto()  # it has ended; another may take its place
    LEFT = auto()  # the same, but a call that cannot be stopped goes on in it
    DETAINED = auto()  # such a call goes on, and no other place may replace it until the call ends


FREE = Fate.FREE  # looking up a member of an enumeration takes as long as calling a small function


class Parcel:
    """A batch, ready to be run, and the seconds that it may take. Executors that must encode it use a subclass.

    If it is `unfinished`, because encoding it or its function takes long, `finish` must be called in a thread before it runs.
    Then `refusal` is why an argument cannot be sent, if one cannot; in a map, only the call that has it fails.
    `loop_share`: how much of the event loop's time for one batch encoding it took, or would have taken there. The control law
    keeps this below 1 where it can. 0: it does not matter.
    """

    __slots__ = ("batch", "budget", "program")
    unfinished = False
    loop_share = 0.0
    refusal: BaseException | None = None

    def __init__(self, program: Program, batch: Batch, budget: float) -> None:
        self.program = program
        self.batch = batch
        self.budget = budget

    def finish(self) -> None:
        """Does the slow part. Runs in a thread."""


class Answer(Protocol):
    """What came back from a place, perhaps not decoded yet. A `BatchDone` is one."""

    @property
    def is_large(self) -> bool:
        """Whether reading it takes so long that a thread must do it."""
        ...

    @property
    def loop_share(self) -> float:
        """The same as a parcel's, for reading it; known when it has been read."""
        ...

    def read(self) -> BatchDone | None:
        """What became of the batch. None: reading it takes long after all, so a thread must do it; `is_large` is true then."""
        ...


class Place(ABC):
    """Where one batch runs at a time.

    Attributes:
        fate: what has become of it, once `run` has returned or raised.
        goes_on: only some of the outcomes have come, and `go_on` is to be awaited.
    """

    fate = FREE
    goes_on = False

    @abstractmethod
    async def run(self, parcel: Any) -> Answer:
        """Makes the calls of the parcel's batch; see above for what it promises."""

    async def go_on(self) -> Answer:
        """The next part of the answer. The promises of `run` hold for it, too."""
        raise NotImplementedError("a place that goes on overrides this")

    async def stop(self) -> None:  # noqa: B027 - most places have nothing to end
        """Ends the calls that are still under way, as a cancellation of `go_on` would."""


class Session(ABC):
    """One run's use of an executor."""

    @abstractmethod
    def pack(self, batch: Batch, budget: float) -> Parcel:
        """The batch, ready for any place of the executor; `budget`: seconds after which it is to come back, done or not."""

    def lease_nowait(self) -> Place | None:
        """A place, if one is free and no other run has waited for longer."""
        return None

    @abstractmethod
    async def lease(self) -> Place:
        """A place, in turn with all the runs that share the executor."""

    @abstractmethod
    def release(self, place: Any) -> None:
        """Gives back a place; its fate says whether it can be lent again."""

    @property
    def is_contended(self) -> bool:
        """Whether others wait for a place."""
        return False

    def counters(self) -> Mapping[str, int]:
        """What the executor has counted in this run. `Statistics` shows those that are fields of it."""
        return {}

    def close(self) -> None:  # noqa: B027 - most sessions have nothing to forget
        """Called when the run is over: workers may forget its function."""


class Executor(ABC):
    """Has places where batches run. An async context manager: leaving it stops its workers and waits for their end (a thread
    in a call that was abandoned goes on until that call ends).

    An executor belongs to the event loop in which it is first used.
    """

    traits = Traits()
    admission: Admission | None = None  # limits how many calls wait for a place, if anything does

    @property
    @abstractmethod
    def places(self) -> int:
        """How many batches may be under way at once, now. 0 is allowed: runs wait until there are some."""

    @property
    def workers(self) -> int:
        """How many workers have these places."""
        return self.places // self.traits.depth

    def watch(self, changed: Callable[[], object]) -> Callable[[], None]:
        """Calls `changed`, in the event loop, each time `places` has changed. The function that it returns ends that."""
        return lambda: None

    @property
    def closed(self) -> bool:
        """Whether it has been closed for good."""
        return False

    @abstractmethod
    def open(self, program: Program, hints: Hints) -> Session:
        """Opens a session for the program of a run.

        Raises:
            PicklingError: the function cannot be sent to this executor's workers.
            ExecutorUnavailableError: the executor is closed, or belongs to another event loop.
        """

    def open_call(self, fn: Callable[..., Any], concurrency: int, timeout: float | None) -> Session:
        """Opens a session for a single call; see `open` for the errors. An executor may keep what it has sent for the next."""
        return self.open(Program(fn, concurrency, False, timeout), DEFAULT_HINTS)

    @overload
    def run(
        self, fn: Callable[..., Awaitable[T]], /, *args: Any, timeout: float | None = None, **kwargs: Any
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def run(
        self, fn: Callable[..., T], /, *args: Any, timeout: float | None = None, **kwargs: Any
    ) -> Coroutine[Any, Any, T]: ...
    def run(self, fn: Callable[..., Any], /, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """What `fn(*args, **kwargs)` returns, called by one of the executor's workers.

        The call takes its turn with all calls and maps that share the executor. What it raises is raised here, with the
        worker's traceback as `__cause__` and a note that shows the call. A cancellation ends the call, and disturbs no other:
        a process is killed if the call does not end within its grace, a coroutine call is cancelled, and a thread is left to
        its call. A call that has not been received by its worker when that worker dies is sent to another one.

        A function that can be imported, or whose pickle is small and the same as before, is sent to each worker once. Then what
        it keeps in its globals stays in the worker from call to call.

        Args:
            fn: a function, or a coroutine function, which runs in an event loop of its worker.
            args: its arguments.
            timeout: seconds that the call may take, counted from its beginning in the worker; None: any time. See `pmap`.
            kwargs: its keyword arguments. One that is called `timeout` needs a `functools.partial`.

        Raises:
            TypeError: `fn` cannot be called.
            ValueError: `timeout` is not a positive number.
            CallTimeoutError: the call took longer than that.
            WorkerDiedError: a worker process died while it was running the call.
            PicklingError: the function or an argument cannot be sent, or the result cannot be sent back.
            ExecutorSaturatedError: too many calls are waiting, and the executor was told to refuse more.
            ExecutorUnavailableError: the executor is closed, belongs to another event loop, or cannot start a worker.

        >>> import anyio, asyncpar
        >>> async def main():
        ...     async with asyncpar.ProcessExecutor(2) as executor:
        ...         return await executor.run(pow, 2, 10, timeout=60)
        >>> anyio.run(main)
        1024
        """
        return make_call(self, fn, args, kwargs, timeout)

    @abstractmethod
    async def aclose(self) -> None:
        """Stops all workers, busy ones included, and waits for their end. A second call waits for the same end."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
