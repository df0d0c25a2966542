"""An executor whose batches run in an engine.

There are two places for each of the engine's workers, so that the next batch is there when a worker has finished one. Their
number follows that of the workers while runs are on.

Mostly, an engine cannot end a task that is running. A run that is cancelled takes back what has not begun, and leaves the rest
to itself. So each batch has a time budget, also where the user says how many calls it has: after a cancellation, a worker makes
calls for nobody only until then.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping
from contextvars import ContextVar
from typing import Any

import anyio

from asyncpar._basics.locking import Numbers
from asyncpar._child.protocol import BATCH
from asyncpar._contract.admission import WhenFull
from asyncpar._contract.batches import Batch
from asyncpar._contract.executor import Hints, Place, Program, Session, Traits
from asyncpar._contract.lending import Pool, PooledExecutor, PooledSession
from asyncpar._contract.life import LEFT_OPEN, Life
from asyncpar._engines.engine import Engine
from asyncpar._engines.gate import Gate
from asyncpar._engines.place import EnginePlace
from asyncpar._engines.placing import EnginePlacer, Placed, place
from asyncpar._memory.loans import NOWHERE
from asyncpar._processes.carrying import carry, check_contextvars
from asyncpar._processes.parcel import PickledProgram, ProcessParcel, SentProgram
from asyncpar._wire.encoder import Encoder

_SMALL_PROGRAM = 1 << 14  # up to this many bytes, a function is sent with every batch instead of on request; a guess
_MOST_SECONDS = 1.0  # of a batch whose size the user has chosen; a guess

_program_ids = Numbers(int.from_bytes(os.urandom(6), "big") << 16)  # workers may serve other programs as well


class EngineExecutor(PooledExecutor[Place]):
    """An executor over an engine that is there already.

    Attributes:
        under_way: the tasks in the engine, oldest first.
    """

    traits = Traits(stops="never", depth=2)

    def __init__(
        self,
        engine: Engine,
        *,
        contextvars: Collection[ContextVar[Any]] = (),
        max_pending: int | None = None,
        when_full: WhenFull = "wait",
    ) -> None:
        super().__init__(engine.workers * self.traits.depth, max_pending=max_pending, when_full=when_full)
        self.engine = engine
        self.gate = Gate()
        self.under_way: dict[Any, ProcessParcel] = {}
        self._contextvars = check_contextvars(contextvars)
        engine.changed = self._follow_workers

    def grow(self, size: int) -> None:
        """Nothing: there are as many places as the engine has workers for."""

    def _follow_workers(self) -> None:
        self.pool.resize(self.engine.workers * self.traits.depth)

    def open(self, program: Program, hints: Hints) -> Session:
        self.pool.bind_to_loop()
        fn: Any = carry(program.fn, self._contextvars) if self._contextvars else program.fn
        placer = None
        if self.engine.keeps_data:
            placer = EnginePlacer(NOWHERE if hints.max_nbytes is None else hints.max_nbytes)
        options = program.concurrency, program.stop_on_error, program.timeout, NOWHERE, hints.mmap_mode
        return EngineSession(program, self.pool, SentProgram(fn, options, next(_program_ids), placer), placer)

    async def start_place(self) -> Place:
        return EnginePlace(self)

    async def shut_down(self) -> None:
        await self.engine.close()


class ConnectedExecutor(EngineExecutor):
    """An executor over an engine that has to be started: at the `async with`, or when the first place is asked for."""

    def __init__(self, engine: Engine, **options: Any) -> None:
        super().__init__(engine, **options)
        self._life = Life(self.pool, self._live, self._end_everything, self._end_without_loop)
        self._connecting = anyio.Lock()
        self._is_connected = False
        self._failure: Exception | None = None  # of what lives in the background; other tasks there must not end with it

    async def __aenter__(self) -> Any:
        self.pool.bind_to_loop()
        try:
            await self._connect()
        except BaseException:  # nobody will call `aclose`
            await self.aclose()
            raise
        return self

    async def start_place(self) -> Place:
        await self._connect()
        return await super().start_place()

    async def _connect(self) -> None:
        if self._is_connected:
            return
        async with self._connecting:
            if not self._is_connected:
                await self._life.begin()
                try:
                    await self.engine.start()
                except BaseException:
                    with anyio.CancelScope(shield=True):
                        await self.engine.close()
                    raise
                self._is_connected = True
                self._follow_workers()

    async def shut_down(self) -> None:
        await self._life.end()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    async def _live(self) -> None:
        try:
            await self.engine.live()
        except Exception as error:
            self._failure = error
            await anyio.sleep_forever()

    async def _end_everything(self) -> None:
        self.pool.close()
        with anyio.CancelScope(shield=True):
            async with self._connecting:
                try:
                    await self.engine.close()
                except Exception as error:
                    self._failure = error

    def _end_without_loop(self) -> None:
        """Called when the event loop has been closed: nothing can be awaited in it any more."""
        self._life.forget(LEFT_OPEN)
        self.engine.let_go()


class EngineSession(PickledProgram, PooledSession[Place]):
    """One run in an engine.

    Attributes:
        sends_program_along: each batch has its function with it, or a reference to it. Otherwise a worker has to ask for it.
    """

    placer: EnginePlacer | None
    sends_program_along = True
    _packed: list[Any] | None = None

    def __init__(self, program: Program, pool: Pool[Place], sent: SentProgram, placer: EnginePlacer | None) -> None:
        self.pool = pool
        PickledProgram.__init__(self, program, sent, placer)

    def pack(self, batch: Batch, budget: float) -> ProcessParcel:
        return super().pack(batch, budget if math.isfinite(budget) else _MOST_SECONDS)

    def packed_program(self) -> list[Any]:
        """The parts of the message with the program."""
        if self._packed is None:
            sent = self.sent
            frame = Encoder().frame(BATCH, (sent.encoded, sent.options), sent.buffers)
            parts: list[Any] = [frame.payload, *frame.buffers]
            if sum([len(part) for part in parts if type(part) is not Placed]) > _SMALL_PROGRAM:
                if self.placer is None:
                    self.sends_program_along = False
                else:
                    parts = [part if type(part) is Placed else place(part) for part in parts]
            self._packed = parts
        return self._packed

    def take_in(self, brought: list[Any]) -> None:
        """Nothing is defined later on, since it is not known which worker has it."""

    def counters(self) -> Mapping[str, int]:
        return {"zero_copy_hits": self.hits}

    def close(self) -> None:
        if self.placer is not None:
            self.placer.forget()
        self._packed = None
