"""Sessions of coroutine calls: they lend seats in the event loops of workers (`event_loops.py`), one for each batch."""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from asyncpar._child.protocol import BESIDE
from asyncpar._contract.batches import nothing_done
from asyncpar._contract.executor import Answer, Place, Session
from asyncpar._platform.background import wait_through
from asyncpar._wire.frames import Frame

if TYPE_CHECKING:
    from asyncpar._contract.batches import Batch
    from asyncpar._processes.event_loops import EventLoops, Host
    from asyncpar._processes.parcel import ProcessParcel


SINGLE_CALLS = 100  # of one coroutine function that are under way in a worker, where nobody says how many may be; a guess

_NOTHING = Frame(BESIDE, b"")


class Seats:
    """The seats of one session: at most `concurrency` calls in a host.

    Args:
        most_hosts: in how many hosts it may have calls at once; None: in all.
    """

    def __init__(self, loops: EventLoops, concurrency: int, most_hosts: int | None) -> None:
        self.loops = loops
        self.coming = 0  # hosts that it has asked for
        self.next_calls = 1  # of the batch that will be sent next, as far as is known
        self._concurrency = concurrency
        self._most_hosts = most_hosts
        self._loads: dict[Host, int] = {}  # {host: calls of this session that are there}
        self._waiters: deque[_Waiter] = deque()

    @property
    def waiting_tasks(self) -> int:
        return len(self._waiters)

    def lease_nowait(self) -> Seat | None:
        """A seat, unless another task waits for one, or another worker should be asked to help."""
        if self._waiters:
            return None
        host = self._roomiest()
        if host is None or (host.load and self._may_bring()):
            return None
        return Seat(self, host)

    async def lease(self) -> Seat:
        """A seat, in turn."""
        if self._may_bring():
            await self.loops.bring(self)
        has_turn = not self._waiters
        while not has_turn or (host := self._roomiest()) is None:
            waiter = _Waiter()
            if has_turn:  # there was no room after all
                self._waiters.appendleft(waiter)
            else:
                self._waiters.append(waiter)
            await self._wait(waiter)
            has_turn = True
            if self._roomiest() is None and self._may_bring():
                try:
                    await self.loops.bring(self)
                except BaseException:  # cancelled: the next one looks
                    self.wake()
                    raise
        self.wake()  # there may be room for another one
        return Seat(self, host)

    async def _wait(self, waiter: _Waiter) -> None:
        """Waits until a task in the queue is woken. Raises why no worker can be started, if that is told."""
        self.loops.waiting.add(self)
        try:
            await waiter.event.wait()
        except BaseException:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            else:  # cancelled just after it got its turn, which then goes to the next
                self.wake()
            raise
        finally:
            if not self._waiters:
                self.loops.waiting.discard(self)
            self.loops.pool.moved()
        if waiter.error is not None:
            raise waiter.error

    def wake(self) -> None:
        """The task that has waited longest looks again."""
        if self._waiters:
            self._waiters.popleft().event.set()

    def fail(self, error: BaseException) -> None:
        """No worker can be started: the task that has waited longest is told."""
        if self._waiters:
            waiter = self._waiters.popleft()
            waiter.error = error
            waiter.event.set()

    def enter(self, host: Host, calls: int) -> None:
        self._loads[host] = self._loads.get(host, 0) + calls
        host.load += calls

    def leave(self, host: Host, calls: int) -> None:
        """So many calls have ended."""
        if not calls:
            return
        host.load -= calls
        self._loads[host] -= calls
        if not self._loads[host]:
            del self._loads[host]
        self.wake()

    def _roomiest(self) -> Host | None:
        """The least busy host in which there is room for the next batch."""
        loads, calls = self._loads, self.next_calls
        most = max(self._concurrency, 2 * calls) if calls > 1 else self._concurrency  # a batch of several calls is a short one
        found = None
        for host in self.loops.hosts:
            load = loads.get(host, 0)
            if (
                host.has_room
                and (not load or load + calls <= most)
                and (load or self._most_hosts is None or len(loads) < self._most_hosts)
                and (found is None or host.load < found.load)
            ):
                found = host
        return found

    def _may_bring(self) -> bool:
        loops, most = self.loops, self._most_hosts
        return loops.may_bring() and (most is None or len(self._loads) + self.coming < most)


class SeatedSession(Session):
    """A session whose places are seats."""

    seats: Seats

    def lease_nowait(self) -> Seat | None:
        return self.seats.lease_nowait()

    async def lease(self) -> Seat:
        return await self.seats.lease()

    def release(self, place: Seat) -> None:
        """Its host knows already that its calls have ended."""


class _Waiter:
    """A task that waits for a seat."""

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.error: BaseException | None = None


class Seat(Place):
    """A place for one batch in an event loop."""

    ticket = 0  # by which the host knows it
    batch: Batch

    def __init__(self, seats: Seats, host: Host) -> None:
        self._seats = seats
        self._host = host
        self._parcel: ProcessParcel
        self._sent: Frame
        self._since = 0.0  # when something was last heard of the batch
        self._calls = 0  # under way
        self._answers: deque[Answer | BaseException] = deque()
        self._has_answer: anyio.Event | None = None
        self._has_ended = True
        self._reported: set[int] = set()  # positions of calls whose outcomes have come

    @property
    def open_positions(self) -> list[int]:
        """Of the calls without an outcome."""
        return [position for position in range(len(self.batch)) if position not in self._reported]

    @property
    def timeout(self) -> float | None:
        """Of its calls."""
        return self._parcel.program.timeout

    async def run(self, parcel: ProcessParcel) -> Answer:
        self.batch = batch = parcel.batch
        if batch.alone or batch.deaths:
            return await self._run_alone(parcel)
        if not self._host.is_open:  # since it was leased
            return nothing_done(batch, (batch,), self._host.worker.name)
        self._parcel = parcel
        self._since = time.monotonic()
        self._sent = self._host.send(self, parcel)
        self._has_ended = False
        self._calls = len(batch)
        self._seats.enter(self._host, self._calls)
        return await self.go_on()

    async def _run_alone(self, parcel: ProcessParcel) -> Answer:
        """In a worker of its own."""
        loops = self._seats.loops
        worker = await loops.pool.lease()
        try:
            return await worker.run(parcel)
        finally:
            loops.release(worker)

    async def go_on(self) -> Answer:
        timeout = self.timeout
        try:
            if self._answers:  # what has been taken in may have been much, and so may this be
                await anyio.lowlevel.checkpoint()
            while not self._answers:
                self._has_answer = anyio.Event()
                if timeout is None:
                    await self._has_answer.wait()
                elif (left := self._host.seconds_left(self._since, timeout)) > 0:
                    with anyio.move_on_after(left):
                        await self._has_answer.wait()
                else:
                    await self._host.end_overdue(timeout)
                    await self._has_answer.wait()
        except BaseException:
            await self.stop()
            raise
        answer = self._answers.popleft()
        self.goes_on = bool(self._answers) or not self._has_ended
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def stop(self) -> None:
        """Cancels the calls, and returns when none of them is running."""
        self.goes_on = False
        if self._has_ended:
            return
        self._host.cancel(self)
        await wait_through(partial(self._wait_until, anyio.current_time() + self._host.worker.grace))

    async def _wait_until(self, deadline: float) -> None:
        """Waits for the end of the calls; kills their worker if they have not ended by then."""
        with anyio.CancelScope(deadline=deadline):
            await self._wait_ended()
        if not self._has_ended:
            await self._host.end_stuck()
            await self._wait_ended()

    async def _wait_ended(self) -> None:
        while not self._has_ended:
            self._has_answer = anyio.Event()
            await self._has_answer.wait()

    # What its host tells it

    def take(self, frame: Frame, *, is_last: bool) -> None:
        """A frame of the worker."""
        self._since = time.monotonic()
        worker, parcel = self._host.worker, self._parcel
        try:
            answer = worker.to_answer(parcel, self._sent, frame)
        except BaseException as error:  # the program could not be taken on
            self.finish(error)
            return
        self._sent = _NOTHING  # its bytes have been counted
        if is_last:
            self.finish(answer)
            return
        positions = answer.positions()
        self._reported.update(positions)
        self._note(len(positions))
        self._tell(answer)

    def finish(self, answer: Answer | BaseException) -> None:
        """What became of all calls that have had no outcome so far, or why the run cannot go on."""
        self._has_ended = True
        self._note(self._calls)
        self._tell(answer)

    def _note(self, ended: int) -> None:
        self._calls -= ended
        self._seats.leave(self._host, ended)

    def _tell(self, answer: Answer | BaseException) -> None:
        self._answers.append(answer)
        if self._has_answer is not None:
            self._has_answer.set()
