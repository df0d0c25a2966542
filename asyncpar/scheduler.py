"""The loop between a source, an executor and a consumer. One `Run` is one `pmap`, from first item to last outcome.

A run has up to `limit` *slots*, coroutines that each repeat: cut the next batch from the source, pack it, lease a worker,
await the worker, hand the outcomes to the sink. Decisions are made synchronously (`_cut`, `_conclude`, `_staff`), as plain
values; only then is anything awaited.

A slot that finds nothing to do ends instead of waiting, and whatever makes work appear (room in the window, an item from the
pump, calls of a dead worker) starts one: so no slot ever waits for an event that another one must send.

The first slot is the caller's own task. The task group, and the other slots in it, exist only when the first batch is not
the whole run, so that a map over one item costs little more than the round trip to its worker.

# Invariants:
#   pulled - handed <= window                 (memory does not grow with the input)
#   slots <= limit                            (the run's share of the executor)
#   every pulled item is in exactly one of: the pump's store, again, a slot's batch, the sink, or handed
#
# Guarantees: when `drive` returns or raises, no slot, no pump and no call of the run is alive, and the source is closed.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Protocol

import anyio
import anyio.abc
import anyio.lowlevel

from asyncpar.background import is_own_cancellation
from asyncpar.batching import BatchSizer, BatchTiming
from asyncpar.executors.base import AdoptedFunction, Executor, Program
from asyncpar.outcomes import Batch, BatchDone, annotate, first_error, raisable
from asyncpar.sources import AsyncSource, Source
from asyncpar.statistics import Statistics

_WINDOW_BATCHES = 4  # batches in the window for each worker: one running, one next, two waiting for an earlier one; a guess
_PUMP_PIECE = 64  # items between two turns of the event loop; 3 % at 3 µs an item


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
    """

    def __init__(
        self,
        program: Program,
        source: Source,
        executor: Executor[Any],
        sizer: BatchSizer,
        sink: Sink,
        *,
        limit: int,
        window: int | None,
    ) -> None:
        self._program = program
        self._source = source
        self._executor = executor
        self._sizer = sizer
        self._sink = sink
        self._limit = limit
        self._fixed_window = window
        self._function: AdoptedFunction | None = None
        self._group: anyio.abc.TaskGroup | None = None
        self._completed: anyio.Event | None = None
        self._room_made: anyio.Event | None = None  # the pump waits for it
        self._again: deque[Batch] = deque()  # calls whose worker died; they go before new ones
        self._slots = 1
        self._next_index = 0
        self._blocked = False  # a slot ended for want of room in the window
        self._stopping = False
        self._error: BaseException | None = None
        self.closing_error: Exception | None = None  # what closing the source raised
        self.completed = False  # every item that came has an outcome in the sink
        self._pulled = self._handed = self._finished = self._failed = self._batches = 0
        self._busy_seconds = 0.0
        self._began = time.monotonic()

    async def drive(self) -> None:
        """Runs to the end in the caller's task. What went wrong stands in `error` afterwards; only a cancellation is raised."""
        try:
            self._function = self._executor.adopt(self._program)
            await self._drive_slots()
            self.completed = self._error is None
        except BaseException as error:
            if is_own_cancellation(error):
                raise
            self._fail(error)
        finally:
            self._stopping = True
            if self._function is not None:
                self._function.discard()
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
        return Statistics(
            pulled=self._pulled,
            finished=self._finished,
            failed=self._failed,
            handed=self._handed,
            window=self._window(),
            batches=self._batches,
            batch_size=self._sizer.size,
            workers=self._limit,
            busy_seconds=self._busy_seconds,
            elapsed_seconds=time.monotonic() - self._began,
        )

    # Slots

    async def _drive_slots(self) -> None:
        source = self._source
        batch = self._cut()
        if source.exhausted:  # the whole run is in hand
            await self._slot(batch)
            return
        self._completed = anyio.Event()
        try:
            async with anyio.create_task_group() as self._group:
                if isinstance(source, AsyncSource):
                    self._group.start_soon(self._pump, source)
                await self._slot(batch)
                await self._completed.wait()
        finally:
            self._group = None

    async def _slot(self, batch: Batch | None = None) -> None:
        """Runs `batch`, or else the next one, and then one after another for as long as there are any."""
        try:
            batch = batch or self._cut()
            while batch is not None:
                self._staff()
                await self._run(batch)
                batch = self._cut()
        except BaseException as error:  # kept as a value, so that it can be raised once every slot has ended
            if is_own_cancellation(error):
                raise
            self._fail(error)
        finally:
            self._slots -= 1
            self._see_whether_complete()

    async def _run(self, batch: Batch) -> None:
        assert self._function is not None
        parcel = self._function.pack(batch)
        async with self._executor.lease() as worker:
            done = await worker.run(parcel)
        self._conclude(done)

    def _staff(self) -> None:
        """Starts one more slot if there is work for it; that one will see to the next."""
        if self._group is not None and self._slots < self._limit and self._has_work():
            self._slots += 1
            self._group.start_soon(self._slot)

    def _see_whether_complete(self) -> None:
        done = self._source.exhausted and not self._again and not self._slots
        if self._completed is not None and (done or self._stopping):
            self._completed.set()

    # Decisions

    def _cut(self) -> Batch | None:
        """The next batch, or None when there is none now."""
        if self._stopping:
            return None
        if self._again:
            return self._again.popleft()
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
        batch = Batch(self._next_index, columns)
        self._next_index += len(batch)
        if not self._source.is_async:
            self._pulled += len(batch)
        return batch

    def _conclude(self, done: BatchDone) -> None:
        """Takes in what became of a batch."""
        if self._stopping:
            return
        if done.errors:
            annotate(done)
        busy_seconds = done.busy_seconds
        self._finished += len(done.values)
        self._failed += len(done.errors)
        self._batches += 1
        self._busy_seconds += busy_seconds
        if done.rest:
            self._again.extend(done.rest)
        if not self._source.exhausted:
            self._sizer.observe(BatchTiming(len(done.values), busy_seconds, self._source.remaining, self._limit))
        handed = self._sink.put(done)
        if handed:
            self.hand(handed)
        if done.errors and self._program.stop_on_error:
            error = first_error(done)
            assert error is not None
            self._fail(error)

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
        if isinstance(self._source, AsyncSource):
            return self._source.stored > 0
        return not self._source.exhausted and self._has_room(self._next_size())

    def _next_size(self) -> int:
        if self._fixed_window is None:
            return self._sizer.size
        return min(self._sizer.size, max(1, self._fixed_window // (2 * self._limit)))

    def _window(self) -> int:
        if self._fixed_window is not None:
            return self._fixed_window
        return _WINDOW_BATCHES * self._limit * self._sizer.size

    def _has_room(self, count: int) -> bool:
        return self._pulled - self._handed + count <= self._window()

    # The two ends of the source

    async def _pump(self, source: AsyncSource) -> None:
        try:
            while True:
                while not self._has_room(1):
                    self._room_made = anyio.Event()
                    await self._room_made.wait()
                    self._room_made = None
                self._pulled += 1  # before the item is there: it may come while others look at the window
                if not await source.pump():
                    self._pulled -= 1
                    break
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
        except Exception as error:  # a generator whose `finally` raises; an earlier error matters more
            self.closing_error = error
            self._fail(error)
