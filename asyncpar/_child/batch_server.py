"""Answers batches: it knows the programs of the current runs, reads the calls, makes them, and encodes their outcomes.

It knows nothing of processes, sockets or signals, so it works with anything that carries its messages: our worker processes,
interpreters, and other pools.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from asyncpar._child.carried_context import in_copy_of, taken_apart
from asyncpar._child.control import POSITION, RECEIVED, ControlPage
from asyncpar._child.multiprocessing_ties import take_on_key
from asyncpar._child.protocol import DONE, FAILED, LAST, BatchMessage, CallInterrupted, DoneMessage, News, ProgramOptions
from asyncpar._child.run_batch import BatchReport, run_batch
from asyncpar._memory.loans import MmapMode
from asyncpar._platform.own_imports import import_own
from asyncpar._wire.codec import BY_NAME, EncodedElements, Undeliverable
from asyncpar._wire.decoder import Decoder
from asyncpar._wire.definitions import Definitions, reading
from asyncpar._wire.encoder import BufferPlacer, Encoder
from asyncpar._wire.failures import PackedError, pack_error
from asyncpar._wire.frames import Frame
from asyncpar._wire.unfinished import loads

if TYPE_CHECKING:
    from asyncpar._child.lifetime import Lifetime
    from asyncpar._child.worker_state import WorkerState


class Program:
    """The function that a run executes here, with its options and its definitions."""

    mmap_mode: MmapMode

    def __init__(self, fn: Callable[..., Any], definitions: list[Any], options: ProgramOptions) -> None:
        self.concurrency, self.stop_on_error, self.timeout, self.threshold, self.mmap_mode = options
        self.fn, self.context = taken_apart(fn)
        self.definitions = Definitions(definitions)
        self.manner = BY_NAME  # in which its results are pickled

    def define(self, data: bytes) -> None:
        """Adds a definition. If it cannot be read, only the calls that need it fail, as with any element."""
        try:
            with reading(self.definitions):
                value = loads()(data)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            value = Undeliverable(error)
        self.definitions.extend([value])


class Request(NamedTuple):
    """A batch that has been read.

    Attributes:
        fn: the function, or one that raises for arguments that could not be read.
        definitions: what its answer may refer to.
        read_apart: whether its arguments could not be read whole.
    """

    program: Program
    fn: Callable[..., Any]
    columns: list[Any]
    definitions: Definitions
    budget: float
    near_end: bool
    read_apart: bool


class LentMemory(Protocol):
    """A worker's side of the memory that it sees together with its parent: `SharedMemory` or `ShownMemory`."""

    def begin_batch(self, decoder: Decoder, mode: MmapMode, /) -> object: ...
    def let_go(self) -> object: ...
    def limit_results(self, most_bytes: int, /) -> None: ...
    def placer_from(self, threshold: int, /) -> BufferPlacer: ...
    def lend(self, frame: Frame, /) -> Frame: ...
    def explain(self, errors: dict[int, BaseException], mode: MmapMode, /) -> None: ...
    def rest(self, *, thoroughly: bool) -> None: ...


class BatchServer:
    """Answers one batch after another.

    Args:
        control: the control page, on which it notes what it is doing.
        memory: for large buffers, which the parent sees too; None: they travel with the messages.
    """

    lifetime: Lifetime | None = None  # says when the worker has to end, if it ever has to
    state: WorkerState | None = None  # of the worker, if it has an initializer

    def __init__(self, control: ControlPage, memory: LentMemory | None) -> None:
        self._control = control
        self._memory = memory
        self._programs: dict[int, Program] = {}  # {program id: program}
        self._coroutines: Any = None  # the module `run_coroutines`, from the first coroutine function on; it imports asyncio
        self._runner: Any = None  # asyncio.Runner, from then on
        self._under_way: Any = None  # the task that runs coroutine calls

    def knows(self, program_id: int) -> bool:
        return program_id in self._programs

    def answer(self, decoder: Decoder, *, lends: bool) -> Frame:
        """The answer to a BATCH. `lends`: its buffers may lie in shared memory."""
        request = self.read(decoder, lends=lends)
        report = self._make_calls(request)
        self._control[POSITION] = RECEIVED
        leaves = self.lifetime is not None and self.lifetime.end_batch(len(report.values))
        return self.write(request, report, LAST if leaves else DONE)

    def read(self, decoder: Decoder, *, lends: bool) -> Request:
        """The batch in a message, once its program and its news have been taken in. `lends`: as for `answer`."""
        if self.state is not None:
            self.state.enter()  # in case the event loop has been given up
        message: BatchMessage = decoder.message
        program_id, new_program, more, news, budget, near_end, manner, encoded_columns = message
        if news is not None:
            self._take_in(news)
        memory = self._memory
        mapped_before = None
        if memory is not None:
            mmap_mode = self._programs[program_id].mmap_mode if new_program is None else new_program[1][-1]
            mapped_before = memory.begin_batch(decoder, mmap_mode) if lends else memory.let_go()
        if new_program is not None:
            self._add_program(program_id, decoder, *new_program)
        program = self._programs[program_id]
        for data in more:
            program.define(data)
        decoder.definitions = definitions = program.definitions
        columns, spoiled = decoder.columns(encoded_columns)
        if not decoder.has_read_apart:
            definitions = definitions.with_more(decoder.listed)
        del mapped_before
        program.manner = max(program.manner, manner)
        fn = partial(_call_unless_undeliverable, program.fn) if spoiled else program.fn
        return Request(program, fn, columns, definitions, budget, near_end, decoder.has_read_apart)

    def take_on(self, program_id: int, decoder: Decoder) -> None:
        """Takes on a program that comes in a message of its own."""
        self._add_program(program_id, decoder, *decoder.message)

    def adopt(self, program_id: int, program: Program) -> None:
        """Takes on a program that was released before."""
        self._programs[program_id] = program

    def release(self, program_id: int) -> Program:
        """The program, which is forgotten here."""
        return self._programs.pop(program_id)

    def _add_program(self, program_id: int, decoder: Decoder, encoded: EncodedElements, options: ProgramOptions) -> None:
        fn, definitions = decoder.value(encoded)
        self._programs[program_id] = Program(fn, definitions, options)

    def write(
        self, request: Request, report: BatchReport, kind: int, positions: tuple[list[int], list[int]] | None = None
    ) -> Frame:
        """The answer with what has become of the calls. `positions`: see `DoneMessage`."""
        program, memory = request.program, self._memory
        if memory is None:
            return _done(report, kind, request, None, positions)
        if report.errors:
            memory.explain(report.errors, program.mmap_mode)
        return memory.lend(_done(report, kind, request, memory.placer_from(program.threshold), positions))

    def forget(self, program_ids: tuple[int, ...]) -> None:
        for program_id in program_ids:
            self._programs.pop(program_id, None)

    def close(self) -> None:
        """Leaves the state of the worker, and closes its event loop."""
        if self.state is not None:
            self.state.leave()
        self._close_runner()

    def runner(self) -> Any:
        """The worker's `asyncio.Runner`, made at first need. Its event loop is uvloop's, where that is installed."""
        if self._runner is None:
            self._coroutines = import_own("asyncpar._child.run_coroutines")
            self._runner = self._coroutines.make_runner()
        return self._runner

    def _give_up_loop(self) -> None:
        """It has been interrupted, perhaps in its own code. A state that lives in it is made anew before the next batch."""
        try:
            if self.state is not None:
                self.state.leave_loop()
        finally:
            self._close_runner()

    def _close_runner(self) -> None:
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    def _take_in(self, news: News) -> None:
        forget, most_shared, key = news
        self.forget(forget)
        assert self._memory is not None, "workers of other pools are sent no news"
        self._memory.limit_results(most_shared)
        if key is not None:
            take_on_key(key)

    def _make_calls(self, request: Request) -> BatchReport:
        program, fn, columns, _, budget, near_end, _ = request
        leave = None if self.lifetime is None else self.lifetime.is_over
        if program.concurrency:
            return self._run_coroutines(request, leave)
        singly = leave is not None or program.timeout is not None
        report: BatchReport = in_copy_of(program.context)(
            run_batch, fn, columns, self._control, budget, program.stop_on_error, singly=singly, near_end=near_end, leave=leave
        )
        return report

    def _run_coroutines(self, request: Request, leave: Callable[[int], bool] | None) -> BatchReport:
        program, runner = request.program, self.runner()
        batch = self._coroutines.run_coroutines(
            request.fn,
            request.columns,
            self._control,
            request.budget,
            concurrency=program.concurrency,
            context=program.context,
            stop_on_error=program.stop_on_error,
            timeout=program.timeout,
            leave=leave,
        )
        try:
            report: BatchReport = self._coroutines.run_to_end(runner, self._note_task(batch))
        except CallInterrupted:  # anywhere in the event loop
            self._give_up_loop()
            raise
        except self._coroutines.asyncio.CancelledError:
            raise CallInterrupted from None
        return report

    async def _note_task(self, batch: Awaitable[BatchReport]) -> BatchReport:
        self._under_way = self._coroutines.asyncio.current_task()
        try:
            return await batch
        finally:
            self._under_way = None

    def cancel_coroutines(self) -> bool:
        """Cancels the coroutine calls that are under way; returns whether there are any. Any thread may call it."""
        task = self._under_way
        if task is None:
            return self.state is not None and self.state.cancel()
        task.get_loop().call_soon_threadsafe(task.cancel)
        return True


def failure(error: BaseException) -> Frame:
    """The answer if a run cannot go on, for example because its function could not be read."""
    return Encoder().frame(FAILED, tuple(pack_error(error, hidden_frames=1)))


def _done(
    report: BatchReport,
    kind: int,
    request: Request,
    placer: BufferPlacer | None,
    positions: tuple[list[int], list[int]] | None,
) -> Frame:
    program, definitions = request.program, request.definitions
    encoder = Encoder(None, placer, definitions, program.manner)
    values = encoder.column(report.values, _describe_result, report.values)
    program.manner = encoder.manner
    message: DoneMessage = (
        values,
        _pack_errors(report.errors, definitions) if report.errors else {},
        report.timings,
        request.read_apart,
        positions,
    )
    return encoder.frame(kind, message)


def _pack_errors(errors: dict[int, BaseException], definitions: Definitions) -> dict[int, PackedError]:
    """Packs an object that many calls have raised only once, since its traceback has grown with each of them."""
    packed: dict[int, PackedError] = {}  # {id of an error: it, packed}
    for error in errors.values():
        if id(error) not in packed:
            packed[id(error)] = pack_error(error, definitions, hidden_frames=1)
    return {position: packed[id(error)] for position, error in errors.items()}


def _call_unless_undeliverable(fn: Callable[..., Any], *arguments: Any) -> Any:
    for argument in arguments:
        if type(argument) is Undeliverable:
            raise argument.error
    return fn(*arguments)


def _describe_result(values: list[Any], position: int) -> tuple[str, str]:
    return f"the result, a {type(values[position]).__qualname__},", "result"
