"""One interpreter as a worker: it is set up, runs batches (`_processes/parcel.py`), and is stopped or left to a call.

A call that is to end, because its run was cancelled or its time is up, is treated in three steps.

1. The stop flag is set: no further call begins.
2. The call is interrupted, again and again (`_child/interrupter.py`). When the worker has answered, it is as good as new.
3. If it has not answered within the grace, its call is stuck in C code. Then the interpreter is left to it. It ends when that
   call does. After a timeout, another interpreter takes its place at once, because a run whose calls are all stuck would never
   end otherwise; after a cancellation, its place is occupied until then. Threads are treated in the same way.

An interruption for a timeout may come when the overdue call has just ended. Then it has hit what follows, which has not done
anything yet, because the stop flag was set before. The answer says where it has hit, and that call is run again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import anyio

from asyncpar._child.call_forms import Initializer
from asyncpar._child.control import NOT_RECEIVED, POSITION, SPAN, STOP
from asyncpar._child.interrupter import RUNNING_CALL
from asyncpar._child.protocol import FAILED, INTERRUPTED, CallInterrupted, Setup
from asyncpar._contract.answers import read
from asyncpar._contract.batches import Batch, BatchDone, nothing_done, timed_out
from asyncpar._contract.executor import FREE, Answer, Fate
from asyncpar._interpreters.life import Interpreter
from asyncpar._memory.buffers import Shared
from asyncpar._platform.background import wait_through
from asyncpar._platform.first_imports import first_imports
from asyncpar._platform.nesting import depth
from asyncpar._processes.frame_worker import FrameWorker
from asyncpar._processes.parcel import ProcessAnswer, ProcessParcel, unpack_failure
from asyncpar._processes.verdicts import LastSeen
from asyncpar._processes.zygote_start import search_path
from asyncpar._wire.codec import EncodedElements
from asyncpar._wire.frames import Frame
from asyncpar._wire.views import View
from asyncpar.errors import ExecutorUnavailableError

_GRACE = 0.2  # seconds
_SLOW_SECONDS = 5.0  # far longer than an interpreter takes to end; reached only on a badly overloaded machine
_POLITE_SECONDS = 0.01  # that calls have for coming to their end before the first is interrupted
_DEPTH = 2  # how deep a call is: as in a thread in a worker, since an interpreter has no daemon threads for maps in calls


class InterpreterWorker(FrameWorker):
    """An interpreter, which is a place for one batch at a time.

    Args:
        generation: of the modules that it will import.
        ended: called with this worker, in the event loop, when the interpreter has ended.
    """

    def __init__(self, generation: int, ended: Callable[[InterpreterWorker], object]) -> None:
        self._interpreter = interpreter = Interpreter(self._note_end)
        super().__init__(f"interpreter worker {interpreter.number}", interpreter.channel, interpreter.page, _GRACE, generation)
        self._notify = ended
        self._has_ended = anyio.Event()
        self._sent = 0  # frames that are answered

    @property
    def has_ended(self) -> bool:
        return self._has_ended.is_set()

    def _note_end(self) -> None:
        self._has_ended.set()
        self._interpreter.close()
        self._notify(self)

    async def set_up(self, initializer: Initializer | None) -> None:
        """Waits until it is ready.

        Raises:
            ExecutorUnavailableError: it could not be started. An error of the initializer is raised unchanged.
        """
        self._sent += 1
        try:
            answer = await self.introduce(initializer, partial(_setup, self.index))
        except EOFError:
            hung_up = self.fate is not FREE
            await self.end()
            why = "it was closed" if hung_up else self._interpreter.failure
            raise ExecutorUnavailableError(f"a new interpreter ended before it was ready: {why}") from self._interpreter.failure
        except BaseException:
            await self.end()
            raise
        if answer.kind == FAILED:
            await self.end()
            raise unpack_failure(answer)

    async def run(self, parcel: ProcessParcel) -> Answer:
        channel, timeout = self.channel, parcel.program.timeout
        answer: Frame | range | None
        overdue: range | None = None
        self.page[POSITION] = NOT_RECEIVED
        try:
            frame = self.to_frame(parcel)
            self._sent += 1
            if rest := channel.send_at_once(frame):
                await channel.send_rest(rest)
            answer = await (channel.receive() if timeout is None else self.receive_in_time(parcel, timeout))
            if type(answer) is range:
                overdue = answer
                answer = await self._interrupt_overdue(parcel, overdue)
        except EOFError:
            return await self._bury(parcel.batch)
        except BaseException:
            await self._stop(parcel)
            raise
        if overdue is not None and answer is None:
            return self._leave_overdue(parcel, overdue)
        assert isinstance(answer, Frame), "only an interruption may get no answer"
        self.page[STOP] = 0
        if answer.kind == INTERRUPTED:  # what its calls have returned is lost
            batch = parcel.batch
            self.note_failure(parcel, answer)
            return nothing_done(batch, (batch.part(0, len(batch), again=True),), self.name)
        done = self.to_answer(parcel, frame, answer)
        return done if overdue is None else await _judge_interrupted(done, overdue, parcel)

    def lend(self, buffers: Sequence[Any]) -> Sequence[Any]:
        return [
            Shared(len(buffer), 0, self._interpreter.show(buffer), 0) if type(buffer) is View else buffer for buffer in buffers
        ]

    def hang_up(self) -> None:
        self.fate = Fate.GONE
        self._interpreter.end()

    def let_go(self) -> None:
        """Releases this side's resources for the worker, where nothing can be awaited."""
        self.fate = Fate.GONE
        self._interpreter.let_go()

    async def end(self) -> None:
        """Ends the interpreter, and returns when it has ended, or is known to be stuck in C code."""
        self.hang_up()
        await wait_through(self._wait_ended)
        if not self.has_ended:
            self._interpreter.close()

    async def _wait_ended(self) -> None:
        with anyio.move_on_after(self.grace):
            await self._has_ended.wait()
            return
        if self.page[POSITION] < 0:  # no call holds it up, so it is only slow
            with anyio.move_on_after(_SLOW_SECONDS):
                await self._has_ended.wait()

    async def _stop(self, parcel: ProcessParcel) -> None:
        """Ends the batch that was sent."""
        self.fate = Fate.GONE  # until it has answered: even if this task is cancelled a second time meanwhile
        try:
            if not self.channel.broken:
                self.page[STOP] = 1
                answer = await self._receive_within(_POLITE_SECONDS)
                if answer is None:
                    self._interpreter.interrupt(self._sent)
                    answer = await self._receive_within(self.grace)
                if answer is not None:
                    self.note_failure(parcel, answer)
                    self.page[STOP] = 0
                    self.fate = Fate.FREE
        except EOFError:  # the executor has been closed meanwhile
            pass
        finally:
            if self.fate is not Fate.FREE:
                await self.end()
                if not self.has_ended:
                    self.fate = Fate.DETAINED

    async def _receive_within(self, seconds: float) -> Frame | None:
        with anyio.move_on_after(seconds, shield=True):
            return await self.channel.receive()
        return None

    async def _interrupt_overdue(self, parcel: ProcessParcel, suspects: range) -> Frame | None:
        """A call does not end in time. The worker's answer to its interruption; None: there is none."""
        self.page[STOP] = 1
        self._interpreter.interrupt(self._sent, RUNNING_CALL if parcel.program.concurrency else suspects.start)
        return await self._receive_within(self.grace)

    def _leave_overdue(self, parcel: ProcessParcel, suspects: range) -> BatchDone:
        """It is stuck in C code: the interpreter is left to it, and the other calls are to be run again."""
        self.hang_up()
        self.fate = Fate.LEFT
        return self.fail_overdue(parcel, suspects, LastSeen(int(self.page[POSITION]), int(self.page[SPAN])))

    async def _bury(self, batch: Batch) -> BatchDone:
        """The channel has ended: the executor was closed, or a call has closed the interpreter's end."""
        if self.fate is not FREE:
            raise ExecutorUnavailableError("the executor was closed while this run was using it")
        await self.end()
        raise ExecutorUnavailableError(
            f"an interpreter has ended while it ran {len(batch)} calls from {batch.describe(0)} on; a call may have closed "
            f"descriptors that are not its own ({self._interpreter.failure})"
        )


def _setup(index: int, initializer: EncodedElements | None, key: bytes | None) -> Setup:
    """What an interpreter does not have from its process."""
    argv: list[str] = list(getattr(sys, "argv", ()))
    pid, first = os.getpid(), first_imports()
    return None, {}, search_path(), argv, initializer, None, None, depth() + _DEPTH, key, index, pid, first


async def _judge_interrupted(answer: ProcessAnswer, suspects: range, parcel: ProcessParcel) -> BatchDone:
    return without_interrupted(await read(answer), suspects, parcel)


def without_interrupted(done: BatchDone, suspects: range, parcel: ProcessParcel) -> BatchDone:
    """The overdue call fails with a timeout, even if it has come to its end meanwhile. One hit after it is run again."""
    batch, timeout, values = parcel.batch, parcel.program.timeout, done.values
    assert timeout is not None, "nothing is overdue without a timeout"
    hit = next((position for position, error in done.errors.items() if type(error) is CallInterrupted), len(values))
    overdue = hit if parcel.program.concurrency else suspects.start
    if overdue < len(values):
        values[overdue] = None
        done.errors[overdue] = timed_out(batch, overdue, timeout)
    if hit <= overdue or hit >= len(values):
        return done
    errors = {position: error for position, error in done.errors.items() if position < hit}
    again = [batch.part(hit, hit + 1, again=True)] if hit < len(batch) else []  # it may have hit the end of our own loop
    return done._replace(
        values=values[:hit], errors=errors, timings=_timings_of(done, hit), rest=(*again, *batch.rest(hit + 1))
    )


def _timings_of(done: BatchDone, calls: int) -> Sequence[tuple[int, float]]:
    """Those of the first `calls` calls. Each has its own, but one that was hit just after another has ended counts with it."""
    timings: list[tuple[int, float]] = []
    for made, seconds in done.timings:
        if calls:
            timings.append((min(made, calls), seconds))
            calls -= timings[-1][0]
    return timings
