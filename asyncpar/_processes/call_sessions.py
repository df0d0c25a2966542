"""Sessions of single calls, kept so that a service which calls the same functions again and again sends each of them once.

A map opens a session, sends its function to each of its workers, and lets them forget it. For a single call that would cost
more than the call. So the sessions of single calls outlive them, and with them what workers hold of their functions. Which
function a session stands for must be certain, because a worker that has the wrong one would silently call it:

- **An importable function** is what its module says. It is recognised by its identity, and kept alive by its session. If the
  module is reloaded, other workers are forked (`reloading.py`), which know no function.
- **Any other function** (of a script, a closure, a `functools.partial`) is recognised by its pickle. It is pickled for each
  call, because a global that it uses may have changed, and sent only if the pickle is new. Large pickles are not kept.

What a function keeps in its globals stays in the worker from call to call, as it does for importable functions.

Both tables are small. What was used least recently makes way, and workers forget it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeAlias, TypeVar

from asyncpar._contract.batches import Batch
from asyncpar._contract.executor import Program
from asyncpar._contract.lending import Pool, PooledSession
from asyncpar._processes.frame_worker import FrameWorker
from asyncpar._processes.parcel import PickledProgram, ProcessParcel, RunPlacer, SentProgram
from asyncpar._processes.seats import SeatedSession, Seats
from asyncpar._wire.definitions import Definitions

_MOST_IMPORTABLE = 64  # a name costs a worker a hundred bytes
_MOST_BY_VALUE = 16  # a guess: a service calls few functions of its main script
_LARGEST_BY_VALUE = 1 << 14  # bytes; a guess, too

W = TypeVar("W", bound=FrameWorker)


class _ProgramOfCalls(PickledProgram):
    """The program of any number of single calls of one function, some perhaps at the same time.

    `users`: calls under way of a function that is pickled by value. The last one that closes the session lets go of what the
    function refers to.
    """

    users = 0

    def __init__(self, program: Program, sent: SentProgram, make_placer: Callable[[], RunPlacer]) -> None:
        self._make_placer = make_placer
        self.placer: RunPlacer
        super().__init__(program, sent, make_placer())

    def let_go_of_function(self) -> None:
        """It has been pickled. What it refers to must not live as long as the session."""
        self.program = self.program._replace(fn=_pickled)
        self.sent.fn = _pickled

    def close(self) -> None:
        if self.users:
            self.users -= 1
            if not self.users:
                self.sent.definitions = Definitions()

    def take_in(self, brought: list[object]) -> None:
        """Nothing is defined later on: this program outlives the call."""

    def pack(self, batch: Batch, budget: float) -> ProcessParcel:
        if self.placer.has_copied:  # calls have no arguments in common that could be found again
            self.placer = self._make_placer()
        return ProcessParcel(self, batch, budget)


class CallSession(_ProgramOfCalls, PooledSession[W]):
    """The session of single calls of one function."""

    def __init__(
        self,
        program: Program,
        sent: SentProgram,
        make_placer: Callable[[], RunPlacer],
        pool: Pool[W],
        release: Callable[[W], None],
    ) -> None:
        _ProgramOfCalls.__init__(self, program, sent, make_placer)
        self.pool = pool
        self.release = release  # type: ignore[method-assign, assignment]  # a call less, each time


class SeatedCallSession(_ProgramOfCalls, SeatedSession):
    """The session of single calls of one coroutine function."""

    def __init__(self, program: Program, sent: SentProgram, make_placer: Callable[[], RunPlacer], seats: Seats) -> None:
        _ProgramOfCalls.__init__(self, program, sent, make_placer)
        self.seats = seats


AnyCallSession: TypeAlias = "CallSession[Any] | SeatedCallSession"


def _pickled(*_: object) -> None:
    """Stands for a function that is needed only as a pickle."""


class CallSessions:
    """The kept sessions of one executor. `forget` is called with the program of each that makes way."""

    def __init__(self, forget: Callable[[SentProgram], object]) -> None:
        self._forget = forget
        self._importable: dict[Hashable, AnyCallSession] = {}  # {(id of its function, concurrency, timeout): session}
        self._by_value: dict[Hashable, AnyCallSession] = {}  # {(its pickle, its options): session}; the newest use last

    def find(self, fn: object, concurrency: int, timeout: float | None) -> AnyCallSession | None:
        """The session of an importable function."""
        key = id(fn), concurrency, timeout
        kept = self._importable.pop(key, None)
        if kept is not None:
            self._importable[key] = kept
        return kept

    def keep(self, session: AnyCallSession) -> None:
        """Keeps the session of an importable function."""
        fn, concurrency, _, timeout = session.program
        self._make_room(self._importable, _MOST_IMPORTABLE)
        self._importable[id(fn), concurrency, timeout] = session

    def merge(self, session: AnyCallSession) -> tuple[AnyCallSession, bool]:
        """The kept session of the same pickle, or this one, kept from now on if it is small; and whether it is kept."""
        sent = session.sent
        if sent.encoded is None or sent.is_large or sent.weight > _LARGEST_BY_VALUE:
            return session, False
        key = sent.encoded[0][0], sent.options
        kept = self._by_value.pop(key, None)
        if kept is None:
            kept = session
            kept.let_go_of_function()
            self._make_room(self._by_value, _MOST_BY_VALUE)
        self._by_value[key] = kept
        kept.users += 1
        kept.sent.definitions = sent.definitions  # the same pickle has brought the same classes
        return kept, True

    def _make_room(self, kept: dict[Hashable, AnyCallSession], most: int) -> None:
        while len(kept) >= most:
            self._forget(kept.pop(next(iter(kept))).sent)
