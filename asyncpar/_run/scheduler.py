"""The loop between a source, an executor and a consumer. One `Run` is one `pmap`, from first item to last outcome.

A run has *slots*, coroutines that each repeat: cut the next batch from the source, pack it, wait for a turn, lease a place,
await the place, hand the outcomes to the sink. Decisions are made synchronously (`_cut`, `_conclude`, `_staff`), as plain
values. What is awaited comes after that.

Where batches of coroutine calls interleave in a worker, there are as many slots as batches under way, whose calls bound them,
and two more for each worker. Otherwise, there are twice as many slots as the run may hold places. So, while workers compute,
the next batch for each of them is already cut and packed. A slot that has packed waits for its *turn* (`turns.py`); there is
one turn for each place. A slot that has a turn takes the foremost of the packed batches, not its own. Calls that came back
undone (their worker died, or their batch outlived its time budget) are cut and packed before new ones and overtake those that
wait. Failed calls that are to be tried again are among them. Until they are due, they are put off (`put_off.py`) and hold up
nothing. Where a run has a rate, a batch has no more calls than there are tokens, and spends them when it is sent
(`rate_limit.py`).

A slot that finds nothing to do ends instead of waiting. Whatever makes work appear (room in the window, an item from the pump,
calls that came back, more places) starts a slot. So no slot ever waits for an event that another one must send.

A run of one batch is one slot in the caller's own task, so that a map over one item costs little more than the round trip to
its worker. Otherwise a task group holds the slots and the feedback coroutine. Where there are several slots, the caller's task
only waits. asyncio's `Task.cancel` reaches that one task only. If it were inside a cancel scope, or waiting for one worker's
grace to end, the other slots would go on meanwhile.

# Invariants:
#   window.pulled - window.handed <= window.size()   (memory does not grow with the input)
#   slots <= 2 * limit, turns <= limit               (the run's share of the executor; without what interleaves)
#   slots <= batches_ahead                           (a slot has one batch under way)
#   len(packed) == slots that have packed and not yet taken
#   every pulled item is in exactly one of: the pump's store, again, put_off, packed, a slot's batch, the sink, handed
#
# (When the window or the limit shrinks, what is there is worked off first, and nothing new begins.)
#
# Guarantees: when `drive` returns or raises, no slot, no pump and no call of the run is alive, and the source is closed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from heapq import heappop, heappush
from math import ceil
from typing import Protocol, TypeAlias

import anyio
import anyio.abc
import anyio.lowlevel

from asyncpar._basics.locking import Numbers
from asyncpar._contract.answers import read
from asyncpar._contract.batches import Batch, BatchDone, check_complete
from asyncpar._contract.errors_of_calls import annotate, keep_program_alive, raisable
from asyncpar._contract.executor import FREE, Answer, Executor, Fate, Hints, Parcel, Place, Program, Session
from asyncpar._platform.background import is_own_cancellation
from asyncpar._platform.off_loop import run_off_loop
from asyncpar._run.batching import BatchSizer, BatchTiming
from asyncpar._run.feedback import Feedback
from asyncpar._run.outcomes import explain_tuples, first_error, in_sequence, without
from asyncpar._run.progress import Meter
from asyncpar._run.put_off import PutOff
from asyncpar._run.rate_limit import RateLimit
from asyncpar._run.retrying import RetryPolicy
from asyncpar._run.sources import AnsweringSource, PumpedSource, Source
from asyncpar._run.statistics import Statistics
from asyncpar._run.turns import Turns
from asyncpar._run.window import BatchesWindow, Window

_PUMP_PIECE = 64  # items between two turns of the event loop; 3 % at 3 µs an item

OpenSession: TypeAlias = Callable[[Executor, Program, Hints], Session]

_numbers = Numbers()  # of the runs of this program


def next_run_number() -> int:
    """A number for one more run of this program."""
    return next(_numbers)


class Sink(Protocol):
    """Takes what the scheduler has computed."""

    keeps_all: bool  # nothing is handed out before the end, so an error of the source need not wait for results

    def put(self, done: BatchDone) -> int:
        """Takes in `done`; returns how many items have left the window by that. For the others, `Run.hand` is called later."""
        ...


class Run:
    """One map: `drive()` it once, then look at `error`; `hand()` opens the window again; `statistics()` at any time.

    Args:
        executor: where batches run.
        open_session: opens a session of the executor; None: its own `open` does.
        n_jobs: how many workers the run may hold at once; None: all.
        window: how many items may be pulled and not yet handed; None: chosen from the batch size.
        batches_ahead: instead of `window`: how many batches may be. See `BatchesWindow`.
        stop_on_error: the first call that fails for good ends the run.
        retrying: which calls that failed are run again.
        rate: how many calls may begin in a second; None: as many as there are places for.
        meter: called, in the event loop, each time a batch has been taken in.
        clock: returns seconds; round trips are measured by it.
    """

    # The initial state of every run; as attributes of the class they cost a run of one batch nothing
    _session: Session | None = None
    _group: anyio.abc.TaskGroup | None = None
    _turns: Turns | None = None
    _feedback: Feedback | None = None
    _put_off: PutOff | None = None
    _attention: anyio.Event | None = None  # the task that drives the run waits for it
    _is_complete = False  # there is nothing left to do
    _slots = 1
    _under_way = 0  # slots that await a place, where batches of coroutine calls interleave
    _next_index = 0  # calls that have been cut, or answered by the source
    _blocked = False  # a slot ended because the window had no room
    _stopping = False
    _error: BaseException | None = None
    closing_error: BaseException | None = None  # what closing the source raised
    completed = False  # every item that came has an outcome in the sink
    _finished = _failed = _batches = _retried = _abandoned = 0
    _busy_seconds = 0.0
    _inline_bytes = _shared_bytes = _cache_hits = 0

    def __init__(
        self,
        program: Program,
        hints: Hints,
        source: Source,
        executor: Executor,
        sizer: BatchSizer,
        sink: Sink,
        *,
        open_session: OpenSession | None = None,
        n_jobs: int | None,
        window: int | None,
        batches_ahead: int | None = None,
        stop_on_error: bool = False,
        retrying: RetryPolicy | None = None,
        rate: RateLimit | None = None,
        meter: Meter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._program = program
        self._hints = hints
        self._open_session = open_session
        self._source = source
        self._answering = source if isinstance(source, AnsweringSource) else None
        self._executor = executor
        self._sizer = sizer
        self._sink = sink
        self._n_jobs = n_jobs
        self._interleaves = executor.traits.interleaves and program.concurrency > 0
        self._limit = limit = self._allowed()
        self._window = (
            Window(window, sizer, limit, source.stored)
            if batches_ahead is None
            else BatchesWindow(batches_ahead, sizer, limit, source)
        )
        self._stop_on_error = stop_on_error
        self._retrying = retrying
        self._rate = rate
        self._meter = meter
        self._clock = clock
        # A heap: (index of the first call, a number, its batch, its position there)
        self._again: list[tuple[int, int, Batch, int]] = []
        self._packed: list[tuple[int, int, Parcel]] = []  # a heap: (index of the first call, a number, its parcel)
        self._began = time.monotonic()
        self._number = next_run_number()

    async def drive(self) -> None:
        """Runs to the end in the caller's task. Afterwards `error` says what went wrong; only a cancellation is raised."""
        try:
            if self._executor.admission is not None:
                await self._executor.admission.enter()
            if self._open_session is None:
                self._session = self._executor.open(self._program, self._hints)
            else:
                self._session = self._open_session(self._executor, self._program, self._hints)
            has_packed = await self._pack_next()
            if self._source.exhausted and self._retrying is None and self._rate is None:  # the whole run is in hand
                while has_packed:
                    await self._run_foremost()
                    has_packed = bool(self._again) and await self._pack_next()
            else:
                await self._drive_slots(has_packed)
            self.completed = self._error is None
        except BaseException as error:
            if is_own_cancellation(error):
                raise
            self._fail(error)
        finally:
            self._stopping = True
            try:
                if self._session is not None:
                    self._session.close()
                if self._executor.admission is not None:
                    self._executor.admission.let_in()
                if self._meter is not None:
                    self._meter.close()
            except Exception as error:  # raised by a user's executor or progress function; an earlier error matters more
                self._fail(error)
            if self._source.needs_closing:
                await self._close_source()

    @property
    def error(self) -> BaseException | None:
        """The first error of a call under `stop_on_error`, the error of the source once everything before it is in the sink, or
        the error that keeps the executor from working.
        """
        error = self._error if self._error is not None else self._source.error
        return None if error is None else raisable(error)

    def hand(self, count: int) -> None:
        """`count` items have been handed to the user: there is room for that many more."""
        self._window.handed += count
        if self._blocked or self._window.opened is not None:
            self._look_for_room()

    def _look_for_room(self) -> None:
        """Wakes the pump, or starts a slot in the place of one that ended for lack of room, if there is room now."""
        self._window.look()
        if self._blocked and self._window.has_room_for_batch():
            self._blocked = False
            self._staff()

    def statistics(self) -> Statistics:
        sizer = self._sizer
        return Statistics(
            pulled=self._window.pulled,
            finished=self._finished,
            failed=self._failed,
            handed=self._window.handed,
            window=self._window.size(),
            batches=self._batches,
            batch_size=sizer.size,
            workers=self._workers(),
            busy_seconds=self._busy_seconds,
            elapsed_seconds=time.monotonic() - self._began,
            seconds_per_call=sizer.seconds_per_call,
            overhead_seconds=sizer.overhead_seconds,
            history=() if self._feedback is None else self._feedback.history,
            retried=self._retried,
            abandoned=self._abandoned,
            inline_bytes=self._inline_bytes,
            shared_bytes=self._shared_bytes,
            zero_copy_hits=0 if self._session is None else self._session.counters().get("zero_copy_hits", 0),
            cache_hits=self._cache_hits,
        )

    # The run's share of the executor

    def _workers(self) -> int:
        return min(self._limit, self._executor.workers)

    def _allowed(self) -> int:
        """How many places the run may hold now."""
        executor, n_jobs = self._executor, self._n_jobs
        if n_jobs is None or n_jobs >= executor.workers:
            return executor.places
        return n_jobs  # one for each: it is not known whether two would be in the same worker

    def _note_change(self) -> None:
        """The number of places has changed. Called from anywhere in the event loop, and so perhaps from outside any task."""
        if self._attention is not None:
            self._attention.set()

    def _follow_places(self) -> None:
        if self._limit == self._allowed():
            return
        self._limit = self._window.workers = self._allowed()
        if self._turns is not None:
            self._turns.resize(self._most_batches())
        self._look_for_room()
        self._staff()

    def _most_batches(self) -> int:
        """How many batches may be under way at once. There may be more slots than that, which prepare the next ones."""
        if self._interleaves:
            return self._limit * self._program.concurrency
        return self._limit if self._rate is None else self._workers()  # a batch that waits in its worker begins too late

    def _most_slots(self) -> int:
        slots = 2 * self._limit if self._executor.traits.prepares else self._limit
        return max(1, min(self._under_way + slots, self._window.most_batches))

    # Slots

    async def _drive_slots(self, has_packed: bool) -> None:
        self._attention = anyio.Event()
        self._feedback = Feedback(self._sizer, self._most_batches())
        self._turns = Turns(self._most_batches())
        stop_watching = self._executor.watch(self._note_change)
        try:
            async with anyio.create_task_group() as self._group:
                self._put_off = PutOff(self._group, self._bring_back)
                if self._rate is not None:
                    self._rate.serve(self._group, self._go_on)
                self._group.start_soon(self._feedback.run)
                if isinstance(self._source, PumpedSource):
                    self._group.start_soon(self._pump, self._source)
                if self._executor.traits.in_own_task:
                    await self._slot(has_packed)
                else:
                    self._group.start_soon(self._slot, has_packed)
                await self._wait_completed()
                self._group.cancel_scope.cancel()  # the feedback coroutine has nothing more to hear
        finally:
            stop_watching()
            self._group = self._put_off = self._rate = None  # they refer to this run: results must not wait for the collector

    async def _wait_completed(self) -> None:
        """Waits for the end of the slots, and follows the number of places meanwhile."""
        try:
            while not self._is_complete:
                assert self._attention is not None, "there is one as long as there are slots"
                await self._attention.wait()
                self._attention = anyio.Event()
                self._follow_places()
        except BaseException as error:  # trio raises Ctrl-C wherever the main task is; a group would wrap it
            if is_own_cancellation(error):
                raise
            self._fail(error)

    async def _slot(self, has_packed: bool = False) -> None:
        """Runs one batch after another for as long as there are any; `has_packed`: the first is packed already."""
        try:
            while has_packed or (self._slots <= self._most_slots() and await self._pack_next()):
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
        if self._rate is not None:
            self._rate.promise(len(batch))
        assert self._session is not None
        batch.near_end = self._is_near_end()
        parcel = self._session.pack(batch, self._sizer.budget(len(batch)))
        if parcel.unfinished:
            self._staff()  # other slots need not wait for this one
            await run_off_loop(parcel.finish)
        heappush(self._packed, (batch.start, next(_numbers), parcel))
        return True

    async def _run_foremost(self) -> None:
        session, turns, depth = self._session, self._turns, self._executor.traits.depth
        assert session is not None
        if turns is not None:
            await turns.acquire()
        try:
            place = session.lease_nowait()
            if place is None:
                place = await session.lease()
            try:
                if self._stopping:  # since this slot began to wait
                    return
                parcel = heappop(self._packed)[2]
                # The other places of its worker may all be taken: then it waits there for its turn, for an unknown time
                is_queued = depth > 1 and turns is not None and turns.held > self._executor.workers
                began = self._clock()
                calls = len(parcel.batch)
                if self._interleaves:
                    self._under_way += 1
                    self._staff()
                if self._rate is not None:
                    self._rate.spend(calls)
                try:
                    answer = await place.run(parcel)
                    while place.goes_on:
                        if (ended := await self._take_in_part(place, parcel, answer)) is None:
                            return
                        calls -= ended
                        answer = await place.go_on()
                finally:
                    self._under_way -= self._interleaves
                    if place.fate is not FREE:
                        self._abandoned += place.fate in (Fate.LEFT, Fate.DETAINED)
                round_trip = self._clock() - began
            finally:
                session.release(place)
        finally:
            if turns is not None:
                turns.release()
        if turns is not None and self._executor.traits.prepares:
            # The next batch goes to the worker first, and answers are taken in in the order in which they came
            await anyio.lowlevel.checkpoint()
        done = await read(answer)
        if len(done.values) != calls or not done.timings:
            check_complete(calls, done, type(self._executor).__name__)
        is_whole = not is_queued and calls == len(parcel.batch)
        self._take_in(parcel, answer, done, round_trip if is_whole else None)
        if self._answering is not None:
            await self._answer_doubles(self._answering)

    async def _take_in_part(self, place: Place, parcel: Parcel, answer: Answer) -> int | None:
        """Takes in a part of an answer; returns how many calls it has, or None if the run, and with it the batch, has ended."""
        try:
            done = await read(answer)
            self._take_in(parcel, answer, done, None)
            self._staff()  # for calls that are to be run again: this slot goes on waiting
            if self._answering is not None:
                await self._answer_doubles(self._answering)
        except BaseException:
            await place.stop()
            raise
        if self._stopping:
            await place.stop()
            return None
        return len(done.values) + sum(map(len, done.rest))

    def _take_in(self, parcel: Parcel, answer: Answer, done: BatchDone, round_trip: float | None) -> None:
        loop_share = 0.0
        if parcel.loop_share or answer.loop_share:  # of one call
            loop_share = max(parcel.loop_share / len(parcel.batch), answer.loop_share / max(len(done.values), 1))
        self._conclude(done, round_trip, loop_share)

    async def _answer_doubles(self, source: AnsweringSource) -> None:
        await source.answer_doubles()
        self._take_answers(source)

    def _staff(self) -> None:
        """Starts one more slot if there is work for it; that slot will start the next."""
        if self._group is not None and self._slots < self._most_slots() and self._has_work():
            self._slots += 1
            self._group.start_soon(self._slot)

    def _see_whether_complete(self) -> None:
        if self._attention is None:
            return
        done = self._source.exhausted and not self._again and not self._calls_put_off() and not self._slots
        if done or self._stopping:
            self._is_complete = True
            self._attention.set()

    # Decisions

    def _cut(self) -> Batch | None:
        """The next batch, or None when there is none now."""
        if self._stopping or (self._source.exhausted and not self._again):
            return None
        window, is_pumped = self._window, self._source.is_pumped
        size = window.next_batch() if self._rate is None else min(window.next_batch(), self._rate.next_batch())
        if not size:
            return None
        if self._again:
            return self._cut_again(size)
        if not is_pumped and window.pulled != window.handed and window.room() < size:  # an empty one has room for any batch
            self._blocked = True
            return None
        columns = self._source.take(size)
        if self._source.error is not None and self._sink.keeps_all:
            self._fail(self._source.error)
            return None
        if not columns:
            return None
        begin, self._next_index = self._next_index, self._next_index + len(columns[0])
        indices = self._source.indices
        batch = Batch(range(begin, self._next_index) if indices is None else indices, columns, function=self._source.function)
        if not is_pumped:
            window.pulled += len(batch)
        return batch

    def _cut_again(self, size: int) -> Batch:
        """The foremost of the calls that came back, as many as a batch has now.

        Near the end of the run, each worker gets a share. These calls take longer than was expected, and otherwise one worker
        would make them all while the others have nothing to do.
        """
        _, _, batch, begin = heappop(self._again)
        if self._is_near_end():
            size = min(size, ceil(len(batch) / max(1, 2 * self._limit)))
        if len(batch) - begin <= size:
            return batch.part(begin, len(batch)) if begin else batch
        end = begin + size
        heappush(self._again, (batch.indices[end], next(_numbers), batch, end))
        return batch.part(begin, end)

    def _run_again(self, batch: Batch) -> None:
        heappush(self._again, (batch.start, next(_numbers), batch, 0))

    def _bring_back(self, batch: Batch) -> None:
        """A batch that was put off is due."""
        self._run_again(batch)
        self._staff()

    def _go_on(self) -> None:
        """There is a token again. A slot that ended for lack of one has not looked whether there is room."""
        self._blocked = not self._source.is_pumped
        self._staff()

    def _calls_put_off(self) -> int:
        return 0 if self._put_off is None else self._put_off.calls

    def _conclude(self, done: BatchDone, round_trip: float | None, loop_share: float) -> None:
        """Processes what became of a batch."""
        if self._stopping:
            return
        busy_seconds = done.busy_seconds
        self._batches += 1
        self._inline_bytes += done.inline_bytes
        self._shared_bytes += done.shared_bytes
        self._busy_seconds += busy_seconds
        for rest in done.rest:
            self._run_again(rest)
        if self._feedback is not None:
            ran, failed, workers = len(done.values), len(done.errors), max(self._workers(), 1)
            remaining = self._remaining()
            self._feedback.report(BatchTiming(ran, busy_seconds, round_trip, remaining, workers, failed, loop_share))
        if done.errors and self._retrying is not None:
            for stretch in self._take_out_retries(done, self._retrying):
                self._put_in_sequence(stretch)
        elif type(done.batch.indices) is range:
            self._put(done)
        else:
            self._put_in_sequence(done)
        self._show_progress()

    def _show_progress(self) -> None:
        if self._meter is not None:
            remaining = self._source.remaining
            self._meter.update(self.statistics(), None if remaining is None else self._next_index + remaining)

    def _take_answers(self, source: AnsweringSource) -> None:
        """Takes in the outcomes of calls that need not be made."""
        answers = source.take_answers()
        for done in answers:
            if not self._stopping:
                self._next_index += len(done.values)
                self._cache_hits += len(done.values)
                self._put(done)
        if answers:
            self._show_progress()

    def _put_in_sequence(self, done: BatchDone) -> None:
        """The outcomes of retried calls need not follow each other."""
        for stretch in in_sequence(done):
            self._put(stretch)

    def _put(self, done: BatchDone) -> None:
        """Gives the sink what will not change any more."""
        if done.errors:
            keep_program_alive(done)
            annotate(done, self._number)
            explain_tuples(done)
        self._finished += len(done.values)
        self._failed += len(done.errors)
        if self._answering is not None:
            self._answering.settle(done)
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
        for batch in done.batch.failed(positions):
            wait = retrying.wait_seconds(batch.failures)
            if wait and self._put_off is not None:
                self._put_off.add(batch, wait)
            else:
                self._run_again(batch)
        return without(done, positions)

    def _remaining(self) -> int | None:
        """Calls that are not packed yet."""
        remaining = self._source.remaining
        if remaining is None:
            return None
        return remaining + self._calls_put_off() + sum(len(batch) - begin for _, _, batch, begin in self._again)

    def _fail(self, error: BaseException) -> None:
        """Ends the run; the first error is raised."""
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
        if self._source.is_pumped:
            return self._source.stored > 0
        return not self._source.exhausted and self._window.has_room_for_batch()

    def _is_near_end(self) -> bool:
        """Whether there are too few new calls left for another batch for each worker."""
        if self._source.exhausted:
            return True
        remaining = self._source.remaining
        return remaining is not None and remaining < self._limit * self._sizer.size

    # The two ends of the source

    async def _pump(self, source: PumpedSource) -> None:
        try:
            while True:
                self._window.at_least = source.ahead
                room = await self._window.wait_for_room()
                count = await source.pump(min(room, source.most_at_once))
                if not count:
                    break
                self._window.pulled += count
                if self._answering is not None:
                    self._take_answers(self._answering)
                self._staff()
                if self._window.pulled % _PUMP_PIECE == 0:
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
