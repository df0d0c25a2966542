"""A worker's event loop: it reads the channel itself, and has many batches of coroutine calls under way.

A batch is not waited for. Its calls begin at once, each in a task of its own, as long as fewer than `concurrency` calls of
their program are running, and otherwise in turn. When all have ended, the outcomes go back together. When some have ended and
others take longer, those that are there go ahead as a PART a moment later, so that no result waits for a slower call. The error
that ends a run goes ahead at once, and no further call of its batch begins.

    channel → batches → waiting calls → tasks → outcomes → outbox → channel

CANCEL reaches the calls of one batch: those that have begun are cancelled, the others do not begin. The batch is answered all
the same, when all its calls have ended. So the parent knows that none is running any more.

Calls share the event loop, and may do much to it. If one stops it, or has a task that raises SystemExit, the loop is run again,
and all that was under way goes on. If one cancels all tasks, other calls are cancelled, even those that have not begun, and
nothing else is. Each call has a copy of the context in which the loop was entered, so that it sees nothing that others set.

Frames that are not for the event loop (a plain BATCH) end it, and are handed back to the main program; the parent sends them
only when no batch is under way. The loop itself stays, with what belongs to it (a client, for example), and goes on with the
next batch of coroutine calls.

Every call that is running stands in a lane of the control page, so that the parent knows them if the worker dies. BEGAN is when
a call last began or ended, which shows that the loop is not held up.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import time
from collections import deque
from functools import partial
from typing import Any

from asyncpar._child.batch_server import BatchServer, Program, Request, failure
from asyncpar._child.control import BEGAN, FIRST_LANE, UNNOTED, lane_entry
from asyncpar._child.frame_server import FrameServer, flush_output
from asyncpar._child.protocol import BESIDE, CANCEL, DONE, FORGET, LAST, PART, CallInterrupted, with_positions
from asyncpar._child.run_batch import MOST_ERRORS, BatchReport
from asyncpar._child.run_coroutines import run_to_end, wait_until_done
from asyncpar._memory.buffers import Buffer
from asyncpar._wire.channel import Channel
from asyncpar._wire.decoder import Decoder
from asyncpar._wire.frames import Frame, to_parts
from asyncpar.errors import OverdueCallError

_MOST_BROKEN = 100  # programs whose batches may still be on their way; a guess
_PART_SECONDS = 2e-3  # that outcomes wait for the others of their batch: those of calls of equal length come together; a guess


class EventLoop:
    """Serves batches of coroutine calls.

    Args:
        others: answers the frames that need no event loop.
    """

    def __init__(self, server: BatchServer, others: FrameServer, channel: Channel, control: memoryview[float]) -> None:
        self._server = server
        self._others = others
        self._channel = channel
        self._control = control
        self._batches: dict[int, _Batch] = {}  # {ticket: batch}
        self._queues: dict[Program, _Queue] = {}
        self._broken: dict[int, Frame] = {}  # {id of a program that could not be read: the failure}
        self._outbox: list[Buffer] = []
        self._writes = False  # the outbox is about to be sent, or waits until the socket takes more
        self._free_lanes: list[int] = []
        self._lanes = FIRST_LANE  # from here on, none has ever been used
        self._made = 0  # calls since the loop was entered
        self._is_leaving = False  # the worker has reached its limits: no further call begins
        self._worker_pid = os.getpid()
        self._loop: Any = None
        self._context = contextvars.copy_context()  # of which each call gets a copy, unless its program has one
        self._left: asyncio.Future[Frame] | None = None  # the frame that ends the loop

    def serve(self, frame: Frame) -> Frame:
        """Serves a BESIDE and what comes after it; returns the first frame that is for somebody else.

        Raises:
            EOFError: the parent has closed the channel.
        """
        try:
            return run_to_end(self._server.runner(), self._serve(frame))
        except EOFError:
            self._end_calls()  # before the state of the worker is left, which they use
            raise

    async def _serve(self, frame: Frame) -> Frame:
        self._loop = loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        left: asyncio.Future[Frame] = loop.create_future()
        self._left = left
        self._made = 0
        self._writes = False
        loop.add_reader(self._channel, self._read)
        try:
            self._handle(frame)
            self._take_frames()  # that came together with it
            await wait_until_done(left)
            return left.result()
        finally:
            loop.remove_reader(self._channel)
            loop.remove_writer(self._channel)
            os.set_blocking(self._channel.fileno(), True)  # which uvloop has changed
            self._channel.send_parts(self._outbox)
            self._outbox = []
            if self._server.lifetime is not None:
                self._server.lifetime.end_batch(self._made)

    def _end_calls(self) -> None:
        """Cancels all calls, and returns when they have ended. Their batches will have no answers."""
        batches, self._batches = self._batches, {}
        for queue in self._queues.values():
            queue.drop()
        tasks = [task for batch in batches.values() for task in batch.tasks.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            run_to_end(self._server.runner(), asyncio.wait(tasks))

    # What comes

    def _read(self) -> None:
        """The channel can be read."""
        assert self._left is not None
        try:
            self._channel.receive_some()
            self._take_frames()
        except BaseException as error:  # the end of the channel, for example
            self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        """The loop ends with this error."""
        if self._left is not None and not self._left.done():
            self._left.set_exception(error)

    def _take_frames(self) -> None:
        assert self._left is not None
        while not self._left.done() and (frame := self._channel.take()) is not None:
            self._handle(frame)

    def _handle(self, frame: Frame) -> None:
        if frame.kind == BESIDE:
            self._begin(frame)
        elif frame.kind == CANCEL:
            if (batch := self._batches.get(frame.ticket)) is not None:  # else its answer is on its way
                self._cancel(batch)
        elif frame.kind == FORGET:
            self._others.answer(frame)
        else:
            assert self._left is not None
            assert not self._batches, "a frame for the main program came while batches were under way"
            self._left.set_result(frame)

    def _begin(self, frame: Frame) -> None:
        decoder = Decoder(frame)
        program_id, new_program = decoder.message[:2]
        if new_program is not None:
            self._broken.pop(program_id, None)
        if (broken := self._broken.get(program_id)) is not None:
            self._send(broken._replace(ticket=frame.ticket))
            return
        try:
            request = self._server.read(decoder, lends=bool(frame.buffers))
        except CallInterrupted:
            raise
        except BaseException as error:  # raised by reading the function: the run cannot go on
            if len(self._broken) == _MOST_BROKEN:
                del self._broken[next(iter(self._broken))]
            self._broken[program_id] = failure(error)
            self._send(self._broken[program_id]._replace(ticket=frame.ticket))
            return
        batch = self._batches[frame.ticket] = _Batch(frame.ticket, request)
        queue = self._queues.get(request.program)
        if queue is None:
            queue = self._queues[request.program] = _Queue()
        queue.waiting.extend([(batch, position, row) for position, row in enumerate(zip(*request.columns, strict=True))])
        self._start_calls(request.program, queue)
        self._answer_if_ended(batch)

    def _cancel(self, batch: _Batch) -> None:
        batch.is_cancelled = True
        for task in list(batch.tasks.values()):
            task.cancel()
        self._queues[batch.request.program].drop(batch)
        self._answer_if_ended(batch)

    # Calls

    def _start_calls(self, program: Program, queue: _Queue) -> None:
        """Starts as many calls of a program as may run."""
        while queue.waiting and queue.running < program.concurrency:
            if self._has_reached_limits():
                for batch in queue.drop():
                    self._answer_if_ended(batch)
                break
            batch, position, row = queue.take()
            self._made += 1
            # Not by the loop's task factory, which a call may have set: an eager one would begin calls within each other
            context = (program.context or self._context).copy()
            task = asyncio.Task(self._call(queue, batch, position, row), loop=self._loop, context=context)
            batch.tasks[position] = task
            task.add_done_callback(partial(self._see_end, queue, batch, position))
        if not queue.waiting and not queue.running:
            self._queues.pop(program, None)

    def _has_reached_limits(self) -> bool:
        """Whether no further call is to begin. A fresh worker makes one in any case."""
        lifetime = self._server.lifetime
        if lifetime is not None and self._made and not self._is_leaving:
            self._is_leaving = lifetime.is_over(self._made)
        return self._is_leaving

    async def _call(self, queue: _Queue, batch: _Batch, position: int, row: tuple[Any, ...]) -> None:
        program, fn = batch.request.program, batch.request.fn
        value, error = None, None
        lane = self._enter_lane(lane_entry(batch.ticket, position))
        self._control[BEGAN] = began = time.monotonic()
        limit = None
        try:
            if program.timeout is None:
                value = await fn(*row)
            else:
                async with asyncio.timeout(program.timeout) as limit:
                    value = await fn(*row)
        except BaseException as raised:
            error = OverdueCallError("", seconds=program.timeout or 0.0) if limit and limit.expired() else raised
        if os.getpid() != self._worker_pid:  # the call has forked, and this is the copy, in which asyncio cannot go on
            os._exit(0)
        self._control[BEGAN] = ended = time.monotonic()
        self._leave_lane(lane)
        self._end_call(queue, batch, position, value, error, ended - began)
        error = None  # it would refer to itself, by its traceback and this frame

    def _see_end(self, queue: _Queue, batch: _Batch, position: int, task: asyncio.Task[None]) -> None:
        """The task of a call has ended. If it was cancelled before its first step, `_call` has not been entered."""
        if position in batch.tasks:
            self._end_call(queue, batch, position, None, asyncio.CancelledError(), 0.0)

    def _end_call(
        self, queue: _Queue, batch: _Batch, position: int, value: Any, error: BaseException | None, seconds: float
    ) -> None:
        program = batch.request.program
        queue.running -= 1
        batch.end(position, value, error, seconds)
        if error is not None and program.stop_on_error:
            queue.drop(batch)
        self._start_calls(program, queue)
        self._answer_if_ended(batch)

    def _enter_lane(self, entry: float) -> int:
        """Notes a call; returns its lane, or 0 if there is none left."""
        if self._free_lanes:
            lane = self._free_lanes.pop()
        elif self._lanes < len(self._control):
            lane = self._lanes
            self._lanes += 1
        else:
            self._control[UNNOTED] += 1
            return 0
        self._control[lane] = entry
        return lane

    def _leave_lane(self, lane: int) -> None:
        if lane:
            self._control[lane] = 0.0
            self._free_lanes.append(lane)
        else:
            self._control[UNNOTED] -= 1

    # What goes

    def _answer_if_ended(self, batch: _Batch) -> None:
        """Answers a batch whose calls have all ended, and sees to it that what has ended is not kept for long otherwise."""
        if not batch.running and not batch.waiting:
            if self._batches.pop(batch.ticket, None) is None:  # answered already
                return
            if batch.due is not None:
                batch.due.cancel()
            self._send(self._pack(batch, LAST if self._has_reached_limits() else DONE))
        elif batch.is_cancelled or not batch.outcomes:
            return
        elif batch.errors >= (1 if batch.request.program.stop_on_error else MOST_ERRORS):
            self._send_part(batch)
        elif batch.due is None:
            batch.due = self._loop.call_later(_PART_SECONDS, self._send_part, batch)

    def _send_part(self, batch: _Batch) -> None:
        if batch.due is not None:
            batch.due.cancel()
            batch.due = None
        if batch.is_cancelled or not batch.outcomes:
            return
        part = self._pack(batch, PART)
        if batch.failure is None:
            self._send(part)
        else:  # which is told when none of its calls is running any more
            self._cancel(batch)

    def _pack(self, batch: _Batch, kind: int) -> Frame:
        if batch.failure is not None:
            return batch.failure
        flush_output()
        report, positions = batch.take(is_last=kind != PART)
        try:
            frame = self._server.write(batch.request, report, kind, positions)._replace(ticket=batch.ticket)
            return with_positions(frame, positions[0]) if kind == PART and positions is not None else frame
        except CallInterrupted:
            raise
        except BaseException as error:  # raised by something in the results, where an element cannot be blamed
            batch.failure = failure(error)._replace(ticket=batch.ticket)
            return batch.failure

    def _send(self, frame: Frame) -> None:
        self._outbox += to_parts(frame)
        if not self._writes:
            self._writes = True
            self._loop.call_soon(self._write)  # what ends in one turn of the loop travels together

    def _write(self) -> None:
        if self._left is None or (self._left.done() and not self._outbox):
            return
        try:
            self._outbox = self._channel.send_some(self._outbox)
        except EOFError as error:
            self._outbox = []
            self._give_up(error)
            return
        if self._outbox:
            self._loop.add_writer(self._channel, self._write)
        else:
            self._loop.remove_writer(self._channel)
            self._writes = False


class _Batch:
    """A batch that is under way, with the outcomes that have not been sent yet."""

    def __init__(self, ticket: int, request: Request) -> None:
        self.ticket = ticket
        self.request = request
        self.calls = len(request.columns[0])
        self.waiting = self.calls  # not started
        self.running = 0
        self.tasks: dict[int, asyncio.Task[None]] = {}  # {position: task}, of the calls that have not ended
        self.unstarted: list[int] = []  # positions of calls that will not be started
        self.outcomes: dict[int, tuple[Any, BaseException | None, float]] = {}  # {position: value, error, seconds}
        self.errors = 0  # among these
        self.is_cancelled = False
        self.failure: Frame | None = None  # its outcomes could not be packed
        self.due: asyncio.TimerHandle | None = None  # when the outcomes go ahead of the others

    def end(self, position: int, value: Any, error: BaseException | None, seconds: float) -> None:
        self.running -= 1
        self.tasks.pop(position, None)
        self.outcomes[position] = value, error, seconds
        self.errors += error is not None

    def take(self, *, is_last: bool) -> tuple[BatchReport, tuple[list[int], list[int]] | None]:
        """The outcomes, and the positions of a DONE or a PART. Those of a cancelled batch interest nobody."""
        outcomes, self.outcomes = {} if self.is_cancelled else self.outcomes, {}
        self.errors = 0
        ended = sorted(outcomes)
        report = BatchReport(
            [outcomes[position][0] for position in ended],
            {place: error for place, position in enumerate(ended) if (error := outcomes[position][1]) is not None},
            [(1, outcomes[position][2]) for position in ended],
        )
        return report, None if len(ended) == self.calls else (ended, self.unstarted if is_last else [])


class _Queue:
    """The calls of one program that wait for others of it to end."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[_Batch, int, tuple[Any, ...]]] = deque()
        self.running = 0

    def take(self) -> tuple[_Batch, int, tuple[Any, ...]]:
        batch, position, row = self.waiting.popleft()
        batch.waiting -= 1
        batch.running += 1
        self.running += 1
        return batch, position, row

    def drop(self, dropped: _Batch | None = None) -> set[_Batch]:
        """The waiting calls of a batch, or of all, will not be started. Returns the batches that had some."""
        batches = set()
        waiting, self.waiting = self.waiting, deque()
        for batch, position, row in waiting:
            if dropped is None or batch is dropped:
                batch.waiting -= 1
                batch.unstarted.append(position)
                batches.add(batch)
            else:
                self.waiting.append((batch, position, row))
        return batches
