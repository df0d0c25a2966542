"""The loop between a source, an executor and a consumer. One `Run` is one `pmap`, from first item to last outcome.

A run has *slots*, coroutines that each repeat: cut the next batch from the source, pack it, wait for a turn, lease a worker,
await the worker, hand the outcomes to the sink. Decisions are made synchronously (`_cut`, `_conclude`, `_staff`), as plain
values; only then is anything awaited.

There are twice as many slots as the run may hold workers, so that, while workers compute, the next batch for each of them is
already cut and packed: a slot that has packed waits for its *turn*, of which there is one for each worker. Whoever has a turn
takes the foremost of the packed batches, not his own: calls that came back undone (their worker died, or their batch outlived
its time budget) are cut and packed before new ones and overtake those that wait. A call that has failed and is to be tried
again is one of them; until its time has come, it lies in `put_off` and holds up nobody.

A slot that finds nothing to do ends instead of waiting, and whatever makes work appear (room in the window, an item from the
pump, calls that came back) starts one: so no slot ever waits for an event that another one must send.

A run of one batch is one slot in the caller's own task, so that a map over one item costs little more than the round trip to
its worker. Else there is a task group with the slots and the feedback coroutine in it. Where there are several slots, the
caller's task only waits: asyncio's `Task.cancel` reaches that one task, and must not find it in a cancel scope or in the grace
of one worker while the others go on.

# Invariants:
#   pulled - handed <= window                 (memory does not grow with the input)
#   slots <= 2 * limit, turns <= limit        (the run's share of the executor)
#   len(packed) == slots that have packed and not yet taken
#   every pulled item is in exactly one of: the pump's store, again, put_off, packed, a slot's batch, the sink, handed
#
# Guarantees: when `drive` returns or raises, no slot, no pump and no call of the run is alive, and the source is closed.
"""

from __future__ import annotations

import itertools
import time
from heapq import heappop, heappush
from math import ceil
from typing import Any, Protocol

import anyio
import anyio.abc
import anyio.lowlevel

from asyncpar._contract.batches import Batch, BatchDone
from asyncpar._contract.executor import Adoptable, AdoptedFunction, Executor, Parcel
from asyncpar._platform.background import is_own_cancellation
from asyncpar._platform.off_loop import run_off_loop
from asyncpar._run.batching import BatchSizer, BatchTiming
from asyncpar._run.feedback import Feedback
from asyncpar._run.outcomes import annotate, explain_tuples, first_error, keep_program_alive, raisable, take_out
from asyncpar._run.progress import Meter
from asyncpar._run.retrying import RetryPolicy
from asyncpar._run.sources import PumpedSource, Source
from asyncpar._run.statistics import Statistics

_WINDOW_BATCHES = 4  # batches in the window for each worker: one running, one next, two waiting for an earlier one; a guess
_PUMP_PIECE = 64  # items between two turns of the event loop; 3 % at 3 µs an item

_numbers = itertools.count()  # of the runs of this program


class Sink(Protocol):
    """Takes what the scheduler has computed."""

    keeps_all: bool  # nothing is handed out before the end, so an error of the source need not wait for results

    def put(self, done: BatchDone) -> int:
        """Takes it in; returns how many items have left the window by that. For others `Run.hand` is called later."""
        ...


class Run:
    """One map: `drive()` it once, then look at `error`; `hand()` opens the window again; `statistics()` at any time.

    Args:
        limit: how many workers the run may hold at once.
        window: how many items may be pulled and not yet handed; None: chosen from the batch size.
        stop_on_error: the first call that fails for good ends the run.
        retrying: which calls that failed are run again.
        meter: told, in the event loop, each time a batch has been taken in.
    """

    # What every run begins with; as attributes of the class they cost a run of one batch nothing
    _function: AdoptedFunction | None = None
    _group: anyio.abc.TaskGroup | None = None
    _turns: anyio.Semaphore | None = None
    _feedback: Feedback | None = None
    _completed: anyio.Event | None = None
    _room_made: anyio.Event | None = None  # the pump waits for it
    _put_off_sooner: anyio.Event | None = None  # whoever brings back what was put off waits for it
    _slots = 1
    _next_index = 0
    _blocked = False  # a slot ended for want of room in the window
    _stopping = False
    _error: BaseException | None = None
    closing_error: BaseException | None = None  # what closing the source raised
    completed = False  # every item that came has an outcome in the sink
    _handed = _finished = _failed = _batches = _retried = _abandoned = 0
    _busy_seconds = 0.0
    _inline_bytes = _shared_bytes = 0

    def __init__(
        self,
        program: Adoptable,
        source: Source,
        executor: Executor[Any],
        sizer: BatchSizer,
        sink: Sink,
        *,
        limit: int,
        window: int | None,
        stop_on_error: bool = False,
        retrying: RetryPolicy | None = None,
        meter: Meter | None = None,
    ) -> None:
        self._program = program
        self._source = source
        self._executor = executor
        self._sizer = sizer
        self._sink = sink
        self._limit = limit
        self._fixed_window = window
        self._stop_on_error = stop_on_error
        self._retrying = retrying
        self._meter = meter
        self._pulled = source.stored
        self._again: list[tuple[int, Batch, int]] = []  # a heap: (index of the first call, its batch, its position there)
        self._packed: list[tuple[int, Parcel]] = []  # a heap: (index of the first call, its parcel)
        self._put_off: list[tuple[float, int, Batch]] = []  # a heap: (when its time comes, index of the call, its batch)
        self._began = time.monotonic()
        self._number = next(_numbers)

    async def drive(self) -> None:
        """Runs to the end in the caller's task. What went wrong stands in `error` afterwards; only a cancellation is raised."""
        try:
            self._function = self._program.adopted_by(self._executor)
            has_packed = await self._pack_next()
            if self._source.exhausted and self._retrying is None:  # the whole run is in hand
                await self._slot(has_packed)
            else:
                await self._drive_slots(has_packed)
            self.completed = self._error is None
        except BaseException as error:
            if is_own_cancellation(error):
                raise
            self._fail(error)
        finally:
            self._stopping = True
            if self._function is not None:
                self._function.discard()
            if self._meter is not None:
                self._meter.close()
            if self._source.needs_closing:
                await self._close_source()

    @property
    def error(self) -> BaseException | None:
        """The first error of a call under `stop_on_error`, the error of the source once all that came before it is in the
        sink, or what keeps the executor from working.
        """
        error = self._error if self._error is not None else self._source.error
        return None if error is None else raisable(error)

    def hand(self, count: int) -> None:
        """`count` items have been handed to the user: there is room for as many."""
        self._handed += count
        if self._blocked and self._has_room(self._next_size()):
            self._blocked = False
            self._staff()
        if self._room_made is not None and self._has_room(1):
            self._room_made.set()

    def statistics(self) -> Statistics:
        sizer = self._sizer
        return Statistics(
            pulled=self._pulled,
            finished=self._finished,
            failed=self._failed,
            handed=self._handed,
            window=self._window(),
            batches=self._batches,
            batch_size=sizer.size,
            workers=self._limit,
            busy_seconds=self._busy_seconds,
            elapsed_seconds=time.monotonic() - self._began,
            seconds_per_call=sizer.seconds_per_call,
            overhead_seconds=sizer.overhead_seconds,
            history=() if self._feedback is None else self._feedback.history,
            retried=self._retried,
            abandoned=self._abandoned,
            inline_bytes=self._inline_bytes,
            shared_bytes=self._shared_bytes,
            zero_copy_hits=0 if self._function is None else self._function.zero_copy_hits,
        )

    # Slots

    async def _drive_slots(self, has_packed: bool) -> None:
        most_slots = self._most_slots()
        self._completed = anyio.Event()
        self._feedback = Feedback(self._sizer, most_slots)
        if most_slots > self._limit:
            self._turns = anyio.Semaphore(self._limit, fast_acquire=True)
        try:
            async with anyio.create_task_group() as self._group:
                self._group.start_soon(self._feedback.run)
                if isinstance(self._source, PumpedSource):
                    self._group.start_soon(self._pump, self._source)
                if most_slots > 1:
                    self._group.start_soon(self._slot, has_packed)
                else:
                    await self._slot(has_packed)
                await self._wait_completed(self._completed)
                self._group.cancel_scope.cancel()  # the feedback coroutine has nothing more to hear
        finally:
            self._group = None

    async def _wait_completed(self, completed: anyio.Event) -> None:
        try:
            await completed.wait()
        except BaseException as error:  # trio raises Ctrl-C wherever the main task is; a group would wrap it
            if is_own_cancellation(error):
                raise
            self._fail(error)

    async def _slot(self, has_packed: bool = False) -> None:
        """Runs one batch after another for as long as there are any; `has_packed`: the first is packed already."""
        try:
            while has_packed or await self._pack_next():
                has_packed = False
                self._staff()
                await self._run_foremost()
        except BaseException as error:  # kept as a value, so that it can be raised once every slot has ended
            if is_own_cancellation(error):
                raise
            self._fail(error)
        finally:
            self._slots -= 1
            self._see_whether_complete()

    async def _pack_next(self) -> bool:
        """Packs the next batch; false when there is none now."""
        batch = self._cut()
        if batch is None:
            return False
        assert self._function is not None
        batch.near_end = self._is_near_end()
        parcel = self._function.pack(batch, self._sizer.budget(len(batch)))
        if parcel.unfinished:
            self._staff()  # others need not wait for this one
            await run_off_loop(parcel.finish)
        heappush(self._packed, (batch.start, parcel))
        return True

    async def _run_foremost(self) -> None:
        executor, turns = self._executor, self._turns
        if turns is not None:
            await turns.acquire()
        try:
            async with executor.lease() as worker:
                if self._stopping:  # since this slot began to wait
                    return
                parcel = heappop(self._packed)[1]
                began = executor.clock()
                try:
                    answer = await worker.run(parcel)
                finally:
                    self._abandoned += worker.abandoned
                round_trip = executor.clock() - began
        finally:
            if turns is not None:
                turns.release()
        if self._packed:  # that one goes to the worker first
            await anyio.lowlevel.checkpoint()
        done = await run_off_loop(answer.read) if answer.is_large else answer.read()
        self._conclude(done, round_trip)

    def _staff(self) -> None:
        """Starts one more slot if there is work for it; that one will see to the next."""
        if self._group is not None and self._slots < self._most_slots() and self._has_work():
            self._slots += 1
            self._group.start_soon(self._slot)

    def _most_slots(self) -> int:
        return 2 * self._limit if self._executor.prepares else self._limit

    def _see_whether_complete(self) -> None:
        if self._completed is None:
            return
        done = self._source.exhausted and not self._again and not self._put_off and not self._slots
        if done or self._stopping:
            self._completed.set()

    # Decisions

    def _cut(self) -> Batch | None:
        """The next batch, or None when there is none now."""
        if self._stopping:
            return None
        if self._again:
            return self._cut_again()
        if self._source.exhausted:
            return None
        size = self._next_size()
        if not self._source.is_async and not self._has_room(size):
            self._blocked = True
            return None
        columns = self._source.take(size)
        if self._source.error is not None and self._sink.keeps_all:
            self._fail(self._source.error)
            return None
        if not columns:
            return None
        batch = Batch(self._next_index, columns, function=self._source.function)
        self._next_index += len(batch)
        if not self._source.is_async:
            self._pulled += len(batch)
        return batch

    def _cut_again(self) -> Batch:
        """The foremost of the calls that came back, as many as a batch has now.

        Where hardly any others are to come, each worker has its share: these take longer than was thought, and the others would
        watch one of them make them all.
        """
        _, batch, begin = heappop(self._again)
        size = self._next_size()
        if self._is_near_end():
            size = min(size, ceil(len(batch) / (2 * self._limit)))
        if len(batch) - begin <= size:
            return batch.part(begin, len(batch), deaths=batch.deaths) if begin else batch
        end = begin + size
        heappush(self._again, (batch.start + end, batch, end))
        return batch.part(begin, end, deaths=batch.deaths)

    def _conclude(self, done: BatchDone, round_trip: float) -> None:
        """Takes in what became of a batch."""
        if self._stopping:
            return
        busy_seconds = done.busy_seconds
        self._batches += 1
        self._inline_bytes += done.inline_bytes
        self._shared_bytes += done.shared_bytes
        self._busy_seconds += busy_seconds
        for rest in done.rest:
            heappush(self._again, (rest.start, rest, 0))
        if self._feedback is not None:
            ran, failed = len(done.values), len(done.errors)
            self._feedback.report(BatchTiming(ran, busy_seconds, round_trip, self._remaining(), self._limit, failed))
        if done.errors and self._retrying is not None:
            for stretch in self._take_out_retries(done, self._retrying):
                self._put(stretch)
        else:
            self._put(done)
        if self._meter is not None:
            remaining = self._source.remaining
            self._meter.update(self.statistics(), None if remaining is None else self._next_index + remaining)

    def _put(self, done: BatchDone) -> None:
        """Gives to the sink what will not change any more."""
        if done.errors:
            keep_program_alive(done)
            annotate(done, self._number)
            explain_tuples(done)
        self._finished += len(done.values)
        self._failed += len(done.errors)
        handed = self._sink.put(done)
        if handed:
            self.hand(handed)
        if done.errors and self._stop_on_error:
            error = first_error(done)
            assert error is not None
            self._fail(error)

    def _take_out_retries(self, done: BatchDone, retrying: RetryPolicy) -> list[BatchDone]:
        """What is left of `done` without the calls that are run again, now or later."""
        positions = retrying.to_retry(done)
        if not positions:
            return [done]
        self._retried += len(positions)
        stretches, again = take_out(done, positions)
        for batch in again:
            wait = retrying.wait_seconds(batch.failures)
            if wait:
                heappush(self._put_off, (anyio.current_time() + wait, batch.start, batch))
            else:
                heappush(self._again, (batch.start, batch, 0))
        if self._put_off:
            self._see_to_put_off()
        return stretches

    def _remaining(self) -> int | None:
        """Calls that are not even packed."""
        remaining = self._source.remaining
        if remaining is None:
            return None
        return remaining + len(self._put_off) + sum(len(batch) - begin for _, batch, begin in self._again)

    def _fail(self, error: BaseException) -> None:
        """Ends the run; the first error is the one that is raised."""
        if self._error is None:
            self._error = error
        self._stopping = True
        if self._group is not None:
            self._group.cancel_scope.cancel()

    def _has_work(self) -> bool:
        if self._stopping:
            return False
        if self._again:
            return True
        if isinstance(self._source, PumpedSource):
            return self._source.stored > 0
        return not self._source.exhausted and self._has_room(self._next_size())

    def _next_size(self) -> int:
        if self._fixed_window is None:
            return self._sizer.size
        return min(self._sizer.size, max(1, self._fixed_window // (2 * self._limit)))

    def _is_near_end(self) -> bool:
        """Whether there will not be another batch of new calls for each worker."""
        if self._source.exhausted:
            return True
        remaining = self._source.remaining
        return remaining is not None and remaining < self._limit * self._sizer.size

    def _window(self) -> int:
        if self._fixed_window is not None:
            return self._fixed_window
        return _WINDOW_BATCHES * self._limit * self._sizer.size

    def _has_room(self, count: int) -> bool:
        return self._pulled - self._handed + count <= self._window()

    # Calls that wait for another attempt

    def _see_to_put_off(self) -> None:
        """Makes sure that somebody brings back what was put off, and knows of the earliest."""
        assert self._group is not None
        if self._put_off_sooner is None:
            self._group.start_soon(self._bring_back)
            self._put_off_sooner = anyio.Event()
        else:
            self._put_off_sooner.set()

    async def _bring_back(self) -> None:
        while self._put_off:
            self._put_off_sooner = anyio.Event()
            with anyio.CancelScope(deadline=self._put_off[0][0]):
                await self._put_off_sooner.wait()
            now = anyio.current_time()
            while self._put_off and self._put_off[0][0] <= now:
                _, start, batch = heappop(self._put_off)
                heappush(self._again, (start, batch, 0))
            self._staff()
        self._put_off_sooner = None

    # The two ends of the source

    async def _pump(self, source: PumpedSource) -> None:
        try:
            while True:
                while not self._has_room(1):
                    self._room_made = anyio.Event()
                    await self._room_made.wait()
                    self._room_made = None
                room = min(self._window() - self._pulled + self._handed, source.most_at_once)
                count = await source.pump(room)
                if not count:
                    break
                self._pulled += count
                self._staff()
                if self._pulled % _PUMP_PIECE == 0:
                    await anyio.lowlevel.checkpoint()  # a source that never waits must not hold the event loop
        except BaseException as error:
            if is_own_cancellation(error):
                raise
            self._fail(error)
        if source.error is not None and self._sink.keeps_all:
            self._fail(source.error)
        self._see_whether_complete()

    async def _close_source(self) -> None:
        try:
            await self._source.aclose()
        except BaseException as error:  # a generator whose `finally` raises; an earlier error matters more
            if is_own_cancellation(error) or isinstance(error, KeyboardInterrupt):
                raise
            self.closing_error = error
            self._fail(error)
