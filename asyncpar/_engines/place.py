"""A place in an engine: a batch becomes a task, and what comes of the task an answer.

When a worker dies, it is mostly not known which call is to blame, so suspects run alone. Each batch that was lost runs again
with nothing of ours beside it. If it is lost again, it is to blame, and its calls run one by one. The call that is lost now
fails with `WorkerDiedError`, and no other does. An engine in which a dying worker takes nothing else along knows which batch it
was running. That one is the only suspect, and its calls run one by one at once, each with a worker to itself.

Data that is lost with a worker is put into the engine again, and nobody is blamed. But a call may kill the very worker that
holds its data, so a batch whose data is lost again and again becomes a suspect, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from asyncpar._child.pool_main import UNKNOWN, PoolAnswer
from asyncpar._child.protocol import FAILED
from asyncpar._contract.batches import Batch, BatchDone, fail_overdue, nothing_done, timed_out
from asyncpar._contract.executor import Answer, Fate, Place, Program
from asyncpar._engines.engine import NotSent, Overdue, Work
from asyncpar._engines.placing import Placed
from asyncpar._platform.background import LoopHandle, wait_through
from asyncpar._platform.nesting import depth
from asyncpar._platform.off_loop import run_off_loop
from asyncpar._processes.parcel import ProcessAnswer, ProcessParcel, unpack_failure
from asyncpar._processes.verdicts import LastSeen, judge
from asyncpar._wire.frames import Frame, weigh
from asyncpar._wire.pace import IN_LOOP_BYTES
from asyncpar.errors import WorkerDiedError

if TYPE_CHECKING:
    from asyncpar._engines.executor import EngineExecutor, EngineSession

_DATA_LOSSES = 3  # of a batch, from which on it is a suspect; it may have met several workers that died for other reasons


class EnginePlace(Place):
    """One task of an engine at a time."""

    def __init__(self, executor: EngineExecutor) -> None:
        self._executor = executor
        self._engine = executor.engine
        self._gate = executor.gate

    async def run(self, parcel: ProcessParcel) -> Answer:
        engine, batch = self._engine, parcel.batch
        is_suspect = batch.deaths > 0
        await self._gate.enter(alone=is_suspect and engine.losses_are_shared)
        try:
            generation = engine.generation
            is_alone = is_suspect and not (engine.losses_are_shared and self._gate.detained)
            sent = _Sent()
            try:
                return await self._make_calls(parcel, sent)
            except NotSent as error:
                await engine.rebuild(generation, error, self._first_under_way(parcel.program))
                return nothing_done(batch, (batch,), engine.name)
            except Overdue as error:
                return _fail_overdue(parcel, error.position, engine.name)
            except Exception as error:
                if engine.is_disturbance(error):
                    return nothing_done(batch, (batch.part(0, len(batch), again=True),), engine.name)
                if engine.is_data_loss(error):
                    sent.forget()
                    if batch.attempts <= _DATA_LOSSES:
                        return nothing_done(batch, (batch.part(0, len(batch), again=True),), engine.name)
                elif not engine.is_loss(error):
                    raise
                await engine.rebuild(generation, error, batch)
                return _lost(batch, engine.name, error, is_alone=is_alone, others=engine.losses_are_shared)
        finally:
            self._gate.leave()

    def _first_under_way(self, program: Program) -> Batch | None:
        """The first batch of the run that the engine has not answered yet: what broke it, as far as is known."""
        return next((parcel.batch for parcel in self._executor.under_way.values() if parcel.program is program), None)

    async def _make_calls(self, parcel: ProcessParcel, sent: _Sent) -> Answer:
        session: EngineSession = parcel.pickled  # type: ignore[assignment]  # which has packed it
        frame = parcel.frame(pickles_read=1, news=None)
        program = session.packed_program()
        answer = await self._ask(parcel, program if session.sends_program_along else None, frame, sent)
        if answer[0] == UNKNOWN:
            answer = await self._ask(parcel, program, frame, sent)
        kind, payload, buffers, who = answer
        answered = Frame(kind, payload, [memoryview(buffer) for buffer in buffers])
        if kind == FAILED:
            raise unpack_failure(answered)
        timeout = None if parcel.program.concurrency else parcel.program.timeout
        return _EngineAnswer(answered, parcel, who, sent.inline_bytes + weigh(answered)[0], sent.placed_bytes, timeout)

    async def _ask(self, parcel: ProcessParcel, program: Sequence[Any] | None, frame: Frame, sent: _Sent) -> PoolAnswer:
        engine, executor = self._engine, self._executor
        parts = [await self._refer(part, sent) for part in (*(program or ()), frame.payload, *frame.buffers)]
        wrapped = engine.wrap(parts) if sent.inline_bytes <= IN_LOOP_BYTES else await run_off_loop(partial(engine.wrap, parts))
        program_parts = 0 if program is None else len(program)
        work = Work(
            parcel.sent.program_id,
            wrapped[:program_parts] or None,
            parcel.sent.options[-1],
            depth() + 1,
            wrapped[program_parts:],
            is_suspect=parcel.batch.deaths > 0,
            timeout=None if parcel.program.concurrency else parcel.program.timeout,
        )
        task = await engine.submit(work)
        executor.under_way[task] = parcel
        try:
            return await engine.result(task)
        except anyio.get_cancelled_exc_class():
            loop = LoopHandle()
            self.fate = engine.cancel(task, lambda: loop.call_soon(self._end_detention))
            self._gate.detained += self.fate is Fate.DETAINED
            await wait_through(partial(engine.wait_for_end, task))
            raise
        finally:
            del executor.under_way[task]

    async def _refer(self, part: Any, sent: _Sent) -> Any:
        """A part as it is sent: data, or the engine's reference to it."""
        if type(part) is not Placed:
            sent.inline_bytes += len(part)
            return part
        reference, put_bytes = await part.refer(self._engine)
        sent.placed_bytes += put_bytes
        sent.references.append((part, reference))
        return reference

    def _end_detention(self) -> None:
        self._gate.detained -= 1
        self._executor.pool.forget_one()


class _Sent:
    """What was sent for a batch."""

    def __init__(self) -> None:
        self.inline_bytes = 0
        self.placed_bytes = 0
        self.references: list[tuple[Placed, Any]] = []

    def forget(self) -> None:
        """The engine does not have what these refer to any more, unless it was put there again meanwhile."""
        for placed, reference in self.references:
            if placed.spot.reference is reference:
                placed.spot.reference = None


class _EngineAnswer(ProcessAnswer):
    """What came back from an engine. Its calls were not timed from outside."""

    __slots__ = ("_timeout",)

    def __init__(
        self, frame: Frame, parcel: ProcessParcel, who: str, inline_bytes: int, placed_bytes: int, timeout: float | None
    ) -> None:
        super().__init__(frame, parcel, who, inline_bytes, placed_bytes)
        self._timeout = timeout

    def read(self) -> BatchDone | None:
        done = super().read()
        if done is not None and self._timeout is not None:
            fail_overdue(done.batch, done.values, done.errors, done.timings, self._timeout)
        return done


def _fail_overdue(parcel: ProcessParcel, position: int, name: str) -> BatchDone:
    """What becomes of a batch whose worker was ended because of the call at this position."""
    batch, timeout = parcel.batch, parcel.program.timeout
    assert timeout is not None, "nothing is overdue without a timeout"
    again = judge(batch, range(position, position + 1), LastSeen(position, 1)).again
    error = timed_out(batch, position, timeout)
    failed, rest = batch.part(position, position + 1), tuple([part for part in again if len(part)])
    return BatchDone(failed, [None], {0: error}, ((1, timeout),), name, rest)


def _lost(batch: Batch, name: str, error: Exception, *, is_alone: bool, others: bool) -> BatchDone:
    """What becomes of a batch whose worker died. `is_alone`: no other can have killed it. `others`: others may have."""
    deaths = batch.deaths + 1
    if is_alone and len(batch) == 1:
        message = f"a worker of the {name} died while it ran {batch.describe(0)}: {error}"
        died = WorkerDiedError(message, batch.start, batch.item(0))
        return BatchDone(batch, [None], {0: died}, ((1, 0.0),), name)
    if not is_alone and others:
        return nothing_done(batch, [batch.part(0, len(batch), deaths=deaths, again=True)], name)
    singles = [batch.part(position, position + 1, deaths=deaths, again=True) for position in range(len(batch))]
    return nothing_done(batch, singles, name)
