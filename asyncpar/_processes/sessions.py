"""What executors have in common whose workers are sent frames: their sessions, and the programs that they keep.

A run of an importable function finds its program kept from the last one, so that a service which maps the same function again
and again sends it once to each worker. Single calls have sessions that outlive them (`call_sessions.py`). Where context
variables are carried (`carrying.py`), their values are part of the program. So it is not kept, and single calls are told apart
by its pickle. If a value can be changed in place, each single call has a program of its own.

Workers keep the modules that they have imported. When modules have been reloaded since the last run began, workers with old
code are not lent any more (`reloading.py`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Hashable, Mapping
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from asyncpar._child.carried_context import InContext
from asyncpar._child.protocol import ProgramOptions
from asyncpar._contract.admission import WhenFull
from asyncpar._contract.batches import Batch
from asyncpar._contract.executor import DEFAULT_HINTS, Hints, Program, Session
from asyncpar._contract.indices import free_index
from asyncpar._contract.lending import PooledExecutor, PooledSession
from asyncpar._memory.loans import NOWHERE
from asyncpar._memory.options import DEFAULT_BYTES
from asyncpar._processes.call_sessions import CallSession, CallSessions, SeatedCallSession
from asyncpar._processes.carrying import carry, check_contextvars
from asyncpar._processes.frame_worker import FrameWorker
from asyncpar._processes.parcel import PickledProgram, ProcessParcel, RunPlacer, SentProgram
from asyncpar._processes.reloading import generation
from asyncpar._processes.seats import SINGLE_CALLS, SeatedSession, Seats
from asyncpar._wire.encoder import is_importable
from asyncpar._wire.unfinished import Hold, hold_unfinished_modules

if TYPE_CHECKING:
    from asyncpar._processes.event_loops import EventLoops

_KEPT_FUNCTIONS = 64  # a name costs a worker a hundred bytes; a run of an importable function saves 10 µs by this

W = TypeVar("W", bound=FrameWorker)


class FrameExecutor(PooledExecutor[W]):
    """An executor whose workers are sent frames. `contextvars`: variables that have their caller's values in workers."""

    def __init__(
        self,
        size: int,
        *,
        contextvars: Collection[ContextVar[Any]] = (),
        max_pending: int | None = None,
        when_full: WhenFull = "wait",
    ) -> None:
        super().__init__(size, max_pending=max_pending, when_full=when_full)
        self.pool.give_back = self.release
        self._contextvars = check_contextvars(contextvars)
        self._workers: set[W] = set()  # all that have not ended
        self._last_program_id = 0
        self._importable: dict[Hashable, SentProgram] = {}  # {its options, and the id of its function, which it holds: program}
        self._calls = CallSessions(self.forget_program)
        self.event_loops: EventLoops | None = None  # where coroutine calls of many runs interleave in a worker
        self._generation = generation()  # for the workers that are lent

    @abstractmethod
    def make_placer(self, threshold: int) -> RunPlacer:
        """What takes the large arguments of one run, of `threshold` bytes or more."""

    def enlist(self, worker: W) -> None:
        """A worker is going to be set up."""
        worker.index = free_index(self._workers, self.places)
        self._workers.add(worker)

    @abstractmethod
    def release(self, worker: W) -> None:
        """Takes back a worker that was lent."""

    @abstractmethod
    def part_with_old_code(self) -> None:
        """Modules have been reloaded: idle workers are dismissed."""

    def open(self, program: Program, hints: Hints) -> RunSession[W] | SeatedRunSession:
        self._begin()
        fn, concurrency, stop_on_error, timeout = program
        threshold = NOWHERE if hints.max_nbytes is None else hints.max_nbytes
        options = concurrency, stop_on_error, timeout, threshold, hints.mmap_mode
        placer = self.make_placer(threshold)
        unfinished = hold_unfinished_modules(fn)
        try:
            is_kept = self._is_sent_by_name(fn)
            kept = self._importable_program(fn, options) if is_kept else None
            is_kept = kept is not None and not kept.in_loops
            sent = kept if kept is not None and is_kept else self.new_program(fn, options, placer)
        except BaseException:
            if unfinished is not None:
                unfinished.release()
            raise
        if concurrency and self.event_loops is not None:
            seats = Seats(self.event_loops, concurrency, hints.most_workers)
            return SeatedRunSession(self, program, sent, placer, unfinished, is_kept=is_kept, seats=seats)
        return RunSession(self, program, sent, placer, unfinished, is_kept=is_kept)

    def open_call(self, fn: Callable[..., Any], concurrency: int, timeout: float | None) -> Session:
        self._begin()
        unfinished = hold_unfinished_modules(fn)
        if unfinished is not None:
            unfinished.release()  # the session of a run holds them for as long as it is open
            return self.open(Program(fn, concurrency, False, timeout), DEFAULT_HINTS)
        if concurrency and self.event_loops is not None:
            concurrency = SINGLE_CALLS
        by_name = self._is_sent_by_name(fn)
        kept = self._calls.find(fn, concurrency, timeout) if by_name else None
        return self._new_call(Program(fn, concurrency, False, timeout), by_name) if kept is None else kept

    def _new_call(self, program: Program, by_name: bool) -> Session:
        fn, concurrency, stop_on_error, timeout = program
        make_placer = partial(self.make_placer, DEFAULT_BYTES)
        placer = make_placer()
        sent = self.new_program(fn, (concurrency, stop_on_error, timeout, DEFAULT_BYTES, "r"), placer)
        session: CallSession[W] | SeatedCallSession
        if concurrency and self.event_loops is not None:
            seats = Seats(self.event_loops, concurrency, None)
            session = SeatedCallSession(program, sent, make_placer, seats)
        else:
            session = CallSession(program, sent, make_placer, self.pool, self.release)
        if by_name:
            self._calls.keep(session)
            return session
        session, is_kept = (session, False) if _may_be_changed(sent.fn) else self._calls.merge(session)
        if is_kept:
            return session
        if isinstance(session, SeatedCallSession):
            return SeatedRunSession(self, program, sent, placer, None, is_kept=False, seats=session.seats)
        return RunSession(self, program, sent, placer, None, is_kept=False)

    def _is_sent_by_name(self, fn: Callable[..., Any]) -> bool:
        """Whether what is sent is the same in every run. Values of context variables may not be."""
        return not self._contextvars and is_importable(fn)

    def _begin(self) -> None:
        """A run, or a call, begins: it is checked that it may, and workers with old code are dismissed."""
        self.pool.bind_to_loop()
        if (now := generation()) != self._generation:
            self._generation = now
            if self.event_loops is not None:
                self.event_loops.part_with_old_code(now)
            self.part_with_old_code()

    def _importable_program(self, fn: Callable[..., Any], options: ProgramOptions) -> SentProgram:
        """The program of an importable function, kept from run to run."""
        key = id(fn), options
        kept = self._importable.get(key)
        if kept is None:
            if len(self._importable) >= _KEPT_FUNCTIONS:
                self.forget_program(self._importable.pop(next(iter(self._importable))))
            kept = self._importable[key] = self.new_program(fn, options, None)
        return kept

    def new_program(self, fn: Callable[..., Any], options: ProgramOptions, placer: RunPlacer | None) -> SentProgram:
        self._last_program_id += 1
        sent: Any = carry(fn, self._contextvars) if self._contextvars else fn
        return SentProgram(sent, options, self._last_program_id, placer)

    def forget_program(self, program: SentProgram) -> None:
        """No run needs the program any longer: workers forget it with their next message."""
        for worker in self._workers:
            worker.forget(program, idle=worker in self.pool.idle)


def _may_be_changed(fn: Any) -> bool:
    """Whether a call may change what it finds in a context variable. The next call, of another request, must not see that."""
    return type(fn) is InContext and not fn.has_constants_only


class _ProgramOfRun(PickledProgram):
    """The program of one run. `is_kept`: it stays with the workers."""

    placer: RunPlacer

    def __init__(
        self,
        executor: FrameExecutor[Any],
        program: Program,
        sent: SentProgram,
        placer: RunPlacer,
        unfinished: Hold | None,
        *,
        is_kept: bool,
    ) -> None:
        super().__init__(program, sent, placer)
        self._executor = executor
        self._unfinished = unfinished  # modules, held while the run goes on
        self._is_kept = is_kept

    def counters(self) -> Mapping[str, int]:
        return {"zero_copy_hits": self.hits}

    def part_with_kept_program(self) -> None:
        if self._is_kept:
            self.sent = self._executor.new_program(self.program.fn, self.sent.options, self.placer)
            self._is_kept = False

    def close(self) -> None:
        self.placer.forget()
        if self._unfinished is not None:
            self._unfinished.release()
        if not self._is_kept:
            self._executor.forget_program(self.sent)
            del self.sent  # it holds blocks of shared memory; parcels that are still on their way keep it


class RunSession(_ProgramOfRun, PooledSession[W]):
    """One run in a `FrameExecutor`."""

    def __init__(self, executor: FrameExecutor[W], *program: Any, is_kept: bool) -> None:
        _ProgramOfRun.__init__(self, executor, *program, is_kept=is_kept)
        self.pool = executor.pool

    def release(self, place: W) -> None:
        self._executor.release(place)


class SeatedRunSession(_ProgramOfRun, SeatedSession):
    """One run of coroutine calls that interleave with others in the event loops of workers."""

    def __init__(self, executor: FrameExecutor[Any], *program: Any, is_kept: bool, seats: Seats) -> None:
        _ProgramOfRun.__init__(self, executor, *program, is_kept=is_kept)
        self.seats = seats
        self._first_sent = self.sent
        self.sent.in_loops = True

    def pack(self, batch: Batch, budget: float) -> ProcessParcel:
        self.seats.next_calls = len(batch)
        return super().pack(batch, budget)

    def close(self) -> None:
        self._first_sent.in_loops = False
        super().close()
