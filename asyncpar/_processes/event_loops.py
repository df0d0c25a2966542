"""The parent's side of workers' event loops (`_child/event_loop.py`): which workers have one at work, and what is in them.

A worker makes plain calls for one run at a time, and that run leases it. Coroutine calls wait most of the time, so they share:
a worker that makes them is a *host*, of any number of batches of any number of runs. The runs do not wait for each other. Each
has at most `concurrency` calls in a host.

    session.lease → Seat(host) → host.send → … → host reads the channel → seat.take → session

A host has a task of its own, which leases the worker from the pool like any run, reads the channel, and gives the worker back
when no batch has been there for a moment. It gives way sooner if runs wait for workers in the pool: when it has had the worker
for about as long as a batch of plain calls takes, it takes no more batches, and leaves when those that it has are done. So
coroutine calls and plain calls go on in turn.

When a worker dies, all the calls that were running in it are suspects. Each is run again in a worker that it has for itself
(`Seat._run_alone`), and then the one that kills its worker is known. The same is done if a loop is held up for so long that
calls become overdue, or cannot begin; a call that may take longer by its own timeout is not to blame. If it is held up while a
batch is cancelled, it is killed after the grace, and the calls of other batches are run again.

# Invariants:
#   a seat is in host.seats from the moment that its batch is sent until its last answer is there
#   hosts that take batches + hosts that are coming <= the pool's size
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING

import anyio
import anyio.abc
import anyio.lowlevel

from asyncpar._child.control import BEGAN, NOT_RECEIVED, POSITION
from asyncpar._child.protocol import BESIDE, CANCEL, LAST, PART
from asyncpar._contract.batches import BatchDone, nothing_done, timed_out
from asyncpar._contract.executor import FREE
from asyncpar._contract.lending import Pool
from asyncpar._memory.buffers import Buffer
from asyncpar._platform.background import BackgroundTask, start_background
from asyncpar._processes.verdicts import judge_interleaved
from asyncpar._processes.worker import ProcessWorker
from asyncpar._wire.frames import Frame, to_parts
from asyncpar.errors import ExecutorUnavailableError

if TYPE_CHECKING:
    from asyncpar._processes.parcel import ProcessParcel
    from asyncpar._processes.seats import Seat, Seats

MOST_BATCHES = 1 << 15  # in one host; their tickets have 16 bits
_CLOSED = "the executor was closed while this run was using it"
_TERM_SECONDS = 0.1  # the longest that a batch of plain calls takes, if it can be cut
_LINGER_SECONDS = 0.2  # that a host keeps its worker without any batch, so that not every call makes a new one; a guess


class EventLoops:
    """The hosts of one executor.

    Args:
        release: gives a worker back.
    """

    def __init__(self, pool: Pool[ProcessWorker], release: Callable[[ProcessWorker], None]) -> None:
        self.hosts: list[Host] = []
        self.waiting: set[Seats] = set()  # sessions in which tasks wait for a seat
        self.pool = pool
        self.release = release
        self._coming = 0
        self._tasks: set[BackgroundTask] = set()
        pool.sharing = self

    def open_hosts(self) -> list[Host]:
        """Those that take batches."""
        return [host for host in self.hosts if host.is_open]

    def may_bring(self) -> bool:
        """Whether there could be one more host."""
        return len(self.open_hosts()) + self._coming < self.pool.size

    @property
    def room(self) -> int:
        """How many hosts could take one more call."""
        return len(self.open_hosts())

    @property
    def waiting_tasks(self) -> int:
        """How many tasks wait for a seat."""
        return sum([seats.waiting_tasks for seats in self.waiting])

    def make_way(self) -> None:
        """Runs wait for workers of their own: as many hosts give way, the least busy ones, and others if one takes long."""
        staying = sorted([host for host in self.hosts if not host.gives_way], key=lambda host: host.load)
        leaving = [host for host in self.hosts if host.gives_way and not host.overstays]
        for host in staying[: max(0, self.pool.pressing - len(leaving))]:
            host.give_way()

    def part_with_old_code(self, generation: int) -> None:
        """Modules have been reloaded: hosts whose workers have the old ones leave."""
        for host in self.open_hosts():
            if host.worker.generation != generation:
                host.leave()

    async def bring(self, seats: Seats) -> None:
        """Sees to one more host. If its worker cannot be started, the session that asked for it is told."""
        self._coming += 1
        seats.coming += 1
        try:
            task = await start_background(partial(self._live, seats))
        except BaseException:
            self._coming -= 1
            seats.coming -= 1
            self._wake_all()  # others have waited for it
            raise
        self._tasks = {task for task in self._tasks if not task.has_ended} | {task}

    async def _live(self, seats: Seats) -> None:
        host = None
        try:
            try:
                worker = await self.pool.lease(presses=False)
            finally:
                self._coming -= 1
                seats.coming -= 1
            host = Host(worker, self.make_way)
            await host.serve(partial(self._welcome, host))
        except Exception as error:  # given to the session that asked for the host: this task is nobody's
            seats.fail(error)
        finally:
            try:
                if host is not None:
                    await host.end()
            finally:
                if host is not None:
                    self.hosts = [other for other in self.hosts if other is not host]
                    self.release(host.worker)
                self._wake_all()

    def _welcome(self, host: Host) -> None:
        """A new host has begun."""
        self.hosts.append(host)
        self._wake_all()
        self.make_way()  # there may be runs that have waited since before its worker was free

    def _wake_all(self) -> None:
        """There is one host more, or less."""
        for seats in list(self.waiting):
            seats.wake()
        self.pool.moved()

    async def wait_ended(self) -> None:
        """Returns when the hosts' tasks have ended, once the pool and the workers have."""
        for task in list(self._tasks):
            await task.wait()


class Host:
    """A worker whose event loop has batches under way.

    Attributes:
        load: how many calls that are.
        gives_way: it takes batches only until its term is over.
        overstays: it was to leave, and its calls have kept it for a whole term more.

    Args:
        overstayed: called when that happens.
    """

    overstays = False
    _term_ends = 0.0  # once it gives way

    def __init__(self, worker: ProcessWorker, overstayed: Callable[[], object]) -> None:
        self.worker = worker
        self._overstayed = overstayed
        self.is_open = True  # takes more batches
        self.gives_way = False
        self.load = 0
        self.seats: dict[int, Seat] = {}  # {ticket: seat}
        self._retires = False  # the worker has reached its limits
        self._calls_left = worker.max_calls  # that it may be sent; what is more would come back
        self._began = self._idle_since = time.monotonic()
        self._reading: anyio.CancelScope | None = None
        self._group: anyio.abc.TaskGroup | None = None
        self._free_tickets: list[int] = []  # a heap
        self._outbox: list[Buffer] = []  # what waits until the socket has taken what `_write` sends
        self._writes = False
        self._has_ended = False  # the worker, before its time
        self._failure: BaseException | None = None  # why it cannot be understood any more
        self._was_killed = False  # by us, for a batch that could not be cancelled
        self._overdue: float | None = None  # the timeout that a call has outlived, if the worker was killed for that

    @property
    def has_room(self) -> bool:
        """Whether it takes one more batch."""
        return self.is_open and len(self.seats) < MOST_BATCHES

    # The task of the host

    async def serve(self, begun: Callable[[], None]) -> None:
        """Reads the channel until the host has left. `begun` is called when batches may come."""
        async with anyio.create_task_group() as self._group:
            begun()
            try:
                await self._read()
            except EOFError:
                self._has_ended = True
            except Exception as error:  # an answer cannot be mapped, say; what its batch has come to is not known
                self._has_ended = True
                self._failure = error
            self._group.cancel_scope.cancel()  # there is nothing more to write
        if self._has_ended:
            await self._bury()
        elif self._retires:
            await self.worker.retire()

    async def _read(self) -> None:
        channel = self.worker.channel
        while not self._has_ended:
            began = time.monotonic()
            with anyio.move_on_after(self._patience(began)) as self._reading:
                while self.is_open or self.seats:
                    self._dispatch(await channel.receive())
            if self.gives_way:
                self._look_at_term()
            if not self.seats and (not self.is_open or self._idle_since <= began):
                self.is_open = False
                return

    def _patience(self, now: float) -> float:
        """For how many seconds it need not look at the time."""
        if not self.gives_way or self.overstays:
            return _LINGER_SECONDS
        due = self._term_ends if self.is_open else self._term_ends + _TERM_SECONDS
        return max(0.0, min(_LINGER_SECONDS, due - now))

    def _look_at_term(self) -> None:
        now = time.monotonic()
        if now >= self._term_ends:
            self.is_open = False
        if now >= self._term_ends + _TERM_SECONDS and self.seats and not self.overstays:
            self.overstays = True
            self._overstayed()

    def _dispatch(self, frame: Frame) -> None:
        ticket = frame.ticket
        seat = self.seats[ticket]
        if is_last := frame.kind != PART:
            del self.seats[ticket]
            heappush(self._free_tickets, ticket)
            if not self.seats:
                self._idle_since = time.monotonic()
                self.is_open &= not self.gives_way
            if frame.kind == LAST:
                self._retires = True
                self.is_open = False
        self.worker.note_answer()
        seat.take(frame, is_last=is_last)

    def give_way(self) -> None:
        """Leaves at the end of its term, or when it has nothing more to do."""
        now = time.monotonic()
        self.gives_way = True
        self._term_ends = max(self._began + _TERM_SECONDS, now)
        has_served = self._idle_since > self._began
        if now >= self._term_ends or (has_served and not self.seats):
            self.is_open = False
        if self._reading is not None:
            self._reading.cancel()  # it looks at the time again

    def leave(self) -> None:
        """Takes no more batches, and gives the worker back when those that are there are done."""
        self.give_way()
        self.is_open = False

    async def end(self) -> None:
        """Its task ends. If that is before its time, because the event loop ends, so do the worker and all batches."""
        self.is_open = False
        if not self.seats:
            return
        self._has_ended = True
        try:
            await self.worker.kill()
        finally:
            self._fail_all(ExecutorUnavailableError(_CLOSED))

    # Batches

    def send(self, seat: Seat, parcel: ProcessParcel) -> Frame:
        """Sends the batch of a seat; returns the frame."""
        frame = self.worker.to_frame(parcel)
        if not self.seats:
            self.worker.page[POSITION] = NOT_RECEIVED
        ticket = heappop(self._free_tickets) if self._free_tickets else len(self.seats) + 1
        self.seats[ticket] = seat
        seat.ticket = ticket
        if self._calls_left is not None:
            self._calls_left -= len(parcel.batch)
            self.is_open = self.is_open and self._calls_left > 0
        frame = frame._replace(kind=BESIDE, ticket=ticket)
        self._post(frame)
        return frame

    def cancel(self, seat: Seat) -> None:
        """Asks for the end of a batch. There will be an answer."""
        self._post(Frame(CANCEL, b"", (), seat.ticket))

    def _post(self, frame: Frame) -> None:
        channel = self.worker.channel
        try:
            if self._writes:
                self._outbox += to_parts(frame)
                return
            self._outbox = channel.send_at_once(frame)
        except EOFError:  # it has died, which the reader sees, too
            return
        if self._outbox:
            assert self._group is not None
            self._writes = True
            self._group.start_soon(self._write)

    async def _write(self) -> None:
        """Sends what the socket did not take at once, and what is posted meanwhile."""
        with suppress(EOFError):  # the reader sees it, too
            while self._outbox:
                parts, self._outbox = self._outbox, []
                await self.worker.channel.send_rest(parts)
            self._writes = False

    # The end of its worker

    def seconds_left(self, since: float, timeout: float) -> float:
        """After how many seconds the loop is known to be held up, if no call begins or ends until then."""
        if self._has_ended:  # the page may be gone, and the seat is told soon
            return inf
        return max(self.worker.page[BEGAN], since) + timeout + self.worker.grace - time.monotonic()

    async def end_overdue(self, timeout: float) -> None:
        """Kills the worker, whose loop is held up so that a call has outlived its timeout, or could not begin."""
        self._overdue = timeout
        await self._kill()

    async def end_stuck(self) -> None:
        """Kills the worker, which does not end a batch that was cancelled."""
        self._was_killed = True
        await self._kill()

    async def _kill(self) -> None:
        self.is_open = False
        self._has_ended = True
        if self._reading is not None:
            self._reading.cancel()
        await self.worker.kill()

    async def _bury(self) -> None:
        """The worker has ended: tells the seats."""
        worker = self.worker
        self.is_open = False
        if self._failure is not None:
            await worker.kill()
            self._fail_all(self._failure)
            return
        was_hung_up = worker.fate is not FREE and not self._was_killed and self._overdue is None
        await worker.see_end()
        if was_hung_up:
            self._fail_all(ExecutorUnavailableError(_CLOSED))
            return
        seats, self.seats = self.seats, {}
        running = worker.last_running
        if running is None:  # more than there are lanes
            running = [(ticket, position) for ticket, seat in seats.items() for position in seat.open_positions]
        has_read = worker.last_seen.position != NOT_RECEIVED
        suspects = len(running) if has_read and not self._was_killed else None
        for ticket, seat in seats.items():
            seat.finish(self._verdict_on(seat, [position for other, position in running if other == ticket], suspects))

    def _fail_all(self, error: BaseException) -> None:
        seats, self.seats = self.seats, {}
        for seat in seats.values():
            seat.finish(error)

    def _verdict_on(self, seat: Seat, running: list[int], suspects: int | None) -> BatchDone:
        worker, batch = self.worker, seat.batch
        overdue, timeout = self._overdue, seat.timeout
        may_blame = overdue is None or (timeout is not None and timeout <= overdue)
        culprit, again = judge_interleaved(batch, seat.open_positions, running, suspects, may_blame=may_blame)
        if culprit is None:
            return nothing_done(batch, again, worker.name)
        if overdue is None or timeout is None:
            return worker.fail_one(batch, culprit, again, worker.death_of(batch, culprit), 0.0)
        return worker.fail_one(batch, culprit, again, timed_out(batch, culprit, timeout), timeout)
