"""Lending: a pool of places, lent in turn to all the runs that share an executor.

A place is started when a run waits and fewer than `size` exist. Idle places are lent last-in-first-out, because the most recent
one is the warmest. A place that comes back goes directly to the run that has waited longest. So a run that leases a place
for each batch cannot starve another: between two of its batches the queue moves.

The size may change at any time. If there are then too many places, idle ones are let go at once and lent ones when they come
back; with a size of 0 all runs wait.

Some places may be held by something that shares them among many runs (`Sharing`). If it waits for one more, it waits in the
same queue. But it does not press: what it holds already would otherwise have to be given up for its own sake.

# started == len(idle) + lent + starting + detained
# waiters is not empty  =>  idle is empty and started >= size
"""

from __future__ import annotations

import weakref
from abc import abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, Self, TypeVar

import anyio

from asyncpar._contract.admission import WhenFull, make_admission
from asyncpar._contract.batches import Batch
from asyncpar._contract.executor import FREE, Executor, Fate, Hints, Parcel, Place, Program, Session
from asyncpar._platform.background import current_loop
from asyncpar.errors import ExecutorUnavailableError

P = TypeVar("P", bound=Place)


class Sharing(Protocol):
    """Holds places of a pool, and shares each among many runs.

    Attributes:
        room: how many places could be shared by one more run.
        waiting_tasks: how many tasks wait for that.
    """

    @property
    def room(self) -> int: ...
    @property
    def waiting_tasks(self) -> int: ...
    def make_way(self) -> None:
        """Gives back a place soon: a run waits for one that it has for itself."""


class Pool(Generic[P]):
    """Up to `size` places.

    Args:
        start: makes a place, at first need.
        owner: the name of the executor in messages.
        drop: called with each usable place that is not lent again because there are too many, or because the pool is closed.
    """

    def __init__(
        self, start: Callable[[], Awaitable[P]], size: int, owner: str, drop: Callable[[P], object] = lambda place: None
    ) -> None:
        self.size = size
        self.idle: list[P] = []  # the warmest last
        self.started = 0
        self.closed = False
        self.moved: Callable[[], object] = _nothing  # called when a place has become free, or one task fewer waits
        self.sharing: Sharing | None = None
        self.give_back: Callable[[P], None] = self.release  # for a place whose taker was cancelled; an executor may set its own
        self._start = start
        self._drop = drop
        self._owner = owner
        self._why_closed = "is closed; keep its `async with` open for as long as it is used"
        self._waiters: deque[_Waiter[P]] = deque()
        self._watchers: list[Callable[[], object]] = []
        self._loop: weakref.ref[object] | None = None  # to the event loop that it belongs to

    @property
    def has_waiters(self) -> bool:
        return bool(self._waiters)

    @property
    def waiting(self) -> int:
        """How many tasks wait for a place, or for a share of one."""
        return self.pressing + (0 if self.sharing is None else self.sharing.waiting_tasks)

    @property
    def pressing(self) -> int:
        """How many tasks wait for a place that they will have for themselves."""
        return sum([waiter.presses for waiter in self._waiters])

    @property
    def free(self) -> int:
        """How many places, or shares, can be had without waiting; 0 while tasks wait."""
        if self._waiters:
            return 0
        shares = 0 if self.sharing is None else self.sharing.room
        return max(0, self.size - self.started + len(self.idle)) + shares

    def lease_nowait(self) -> P | None:
        """An idle place, if there is one."""
        if self.closed:
            self.refuse_if_closed()
        return self.idle.pop() if self.idle else None

    async def lease(self, *, presses: bool = True) -> P:
        """A place, in turn. `presses`: it is not for sharing."""
        place = self.lease_nowait()
        if place is not None:
            return place
        if self.started < self.size and not self._waiters:
            self.started += 1
            return await self._start_counted()
        waiter: _Waiter[P] = _Waiter(presses)
        self._waiters.append(waiter)
        if presses and self.sharing is not None:
            self.sharing.make_way()
        try:
            await waiter.event.wait()
        except BaseException:  # cancelled: perhaps just after it got its turn, which then goes to the next
            if waiter in self._waiters:
                self._waiters.remove(waiter)
                self.moved()
            elif waiter.place is not None:
                self.give_back(waiter.place)
            elif waiter.may_start:
                self.forget_one()
            raise
        self.refuse_if_closed()
        return waiter.place if waiter.place is not None else await self._start_counted()

    async def _start_counted(self) -> P:
        try:
            return await self._start()
        except BaseException:
            self.forget_one()
            raise

    def release(self, place: P) -> None:
        """Takes back a place, as its fate says."""
        if place.fate is not FREE:
            if place.fate is not Fate.DETAINED:
                self.forget_one()
        elif self.closed or self.started > self.size:
            self.forget_one()
            self._drop(place)
        else:
            if self._waiters:
                self._waiters.popleft().wake(place=place)
            else:
                self.idle.append(place)
            self.moved()

    def forget_one(self) -> None:
        """A place that was lent or detained no longer exists."""
        self.started -= 1
        self._let_waiters_start()

    def let_idle_go(self) -> list[P]:
        """Forgets all idle places, and returns them."""
        idle = self.idle[:]
        self.idle.clear()
        self.started -= len(idle)
        self._let_waiters_start()
        return idle

    def resize(self, size: int) -> None:
        """Allows `size` places from now on. Surplus places go: idle ones now, lent ones when they come back."""
        if size == self.size:
            return
        self.size = size
        too_many = self.idle[: max(0, min(len(self.idle), self.started - size))]
        del self.idle[: len(too_many)]
        self.started -= len(too_many)
        self._let_waiters_start()
        for place in too_many:
            self._drop(place)
        for changed in self._watchers[:]:
            changed()

    def watch(self, changed: Callable[[], object]) -> Callable[[], None]:
        """Calls `changed` after each change of the size. The function that it returns ends that."""
        self._watchers.append(changed)
        return lambda: self._watchers.remove(changed)

    def close(self, why: str | None = None) -> None:
        """Stops lending. `why` completes a message: "this ProcessExecutor …"."""
        if why is not None:
            self._why_closed = why
        self.closed = True
        while self._waiters:
            self._waiters.popleft().wake()
        for place in self.let_idle_go():
            self._drop(place)

    def forget_waiters(self) -> None:
        """For an event loop that is gone, or not ours: no task in it can be woken."""
        self._waiters.clear()
        self.moved = _nothing

    def refuse_if_closed(self) -> None:
        """Raises ExecutorUnavailableError once it is closed."""
        if self.closed:
            raise ExecutorUnavailableError(f"this {self._owner} {self._why_closed}")

    def bind_to_loop(self) -> None:
        """Raises ExecutorUnavailableError in another event loop than the first, and once it is closed."""
        if self.closed:
            self.refuse_if_closed()
        loop = current_loop()
        if self._loop is None:
            self._loop = weakref.ref(loop)
        elif self._loop() is not loop:
            raise ExecutorUnavailableError(
                f"this {self._owner} belongs to another event loop; make one in each event loop that needs one"
            )

    def _let_waiters_start(self) -> None:
        while self._waiters and self.started < self.size:
            self.started += 1
            self._waiters.popleft().wake(may_start=True)
        self.moved()


def _nothing() -> None:
    """There is no limit to what waits."""


class _Waiter(Generic[P]):
    """A task in the queue. It is woken with a place, with permission to start one, or with neither if the executor closes."""

    def __init__(self, presses: bool) -> None:
        self.presses = presses
        self.event = anyio.Event()
        self.place: P | None = None
        self.may_start = False

    def wake(self, *, place: P | None = None, may_start: bool = False) -> None:
        self.place = place
        self.may_start = may_start
        self.event.set()


class PooledSession(Session, Generic[P]):
    """A session whose places come from a pool."""

    def __init__(self, program: Program, pool: Pool[P]) -> None:
        self.program = program
        self.pool = pool

    def pack(self, batch: Batch, budget: float) -> Parcel:
        return Parcel(self.program, batch, budget)

    def lease_nowait(self) -> P | None:
        return self.pool.lease_nowait()

    async def lease(self) -> P:
        return await self.pool.lease()

    @property
    def is_contended(self) -> bool:
        return self.pool.has_waiters

    def release(self, place: P) -> None:
        self.pool.release(place)


class PooledExecutor(Executor, Generic[P]):
    """An executor of up to `size` places in a pool. A subclass says how a place is started, and how all end.

    `max_pending`: how many calls may wait for a place; `when_full`: whether one more waits outside or is refused. See
    `admission.py`.
    """

    def __init__(self, size: int, *, max_pending: int | None = None, when_full: WhenFull = "wait") -> None:
        owner = type(self).__name__
        self.pool: Pool[P] = Pool(self.start_place, size, owner, self.drop_place)
        self.admission = make_admission(self.pool, max_pending, when_full, owner)

    @abstractmethod
    async def start_place(self) -> P:
        """A new place, ready to run."""

    def drop_place(self, place: P) -> None:
        """Called with a usable place that is not lent any more: there are too many, or the executor closes."""

    async def shut_down(self) -> None:
        """Ends all places, lent ones included, and everything else that belongs to the executor."""

    @property
    def places(self) -> int:
        return self.pool.size

    @property
    def closed(self) -> bool:
        return self.pool.closed

    def watch(self, changed: Callable[[], object]) -> Callable[[], None]:
        return self.pool.watch(changed)

    def grow(self, size: int) -> None:
        """Allows at least `size` places."""
        if size > self.pool.size:
            self.pool.resize(size)

    def open(self, program: Program, hints: Hints) -> Session:
        self.pool.bind_to_loop()
        return PooledSession(program, self.pool)

    async def aclose(self) -> None:
        self.pool.close()
        with anyio.CancelScope(shield=True):
            await self.shut_down()

    async def __aenter__(self) -> Self:
        self.pool.refuse_if_closed()
        return self
