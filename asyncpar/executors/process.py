"""The process executor: workers forked by a zygote, each spoken to over its own socket.

There is no thread, no queue and no polling between a run and its worker: the slot that leased a worker writes the batch to
the worker's socket and awaits the socket. The mechanisms stand in `workers/zygote.py` (how workers come to be and to an
end), `wire/` (what is sent) and `workers/process_main.py` (the other end).

Cancelling goes in three steps: the stop flag on the control page keeps the worker from starting another call; if its answer
comes within `grace` seconds, it stays in the pool; else it is killed and the kill is awaited. A fresh worker costs about a
millisecond, which is what makes this an ordinary answer.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from asyncpar.background import BackgroundTask, start_background
from asyncpar.cpus import cpu_count
from asyncpar.errors import ExecutorUnavailableError, WorkerDiedError
from asyncpar.executors.base import AdoptedFunction, Executor, Parcel, Program, Worker
from asyncpar.executors.zygote_client import WorkerProcess, Zygote, refuse_unless_supported, start_zygote
from asyncpar.outcomes import Batch, BatchDone
from asyncpar.wire.codec import Decoder, Encoder, Undeliverable, encode_function
from asyncpar.wire.failures import PackedError, unpack_error
from asyncpar.wire.frames import Frame
from asyncpar.workers.control import NOT_RECEIVED, POSITION, RECEIVED, STOP
from asyncpar.workers.protocol import BATCH, DONE, FAILED, FORGET, SETUP, BatchMessage, DoneMessage, Setup

_OFF_LOOP_BYTES = 1 << 18  # a longer pickle is read in a thread: reading it could hold the event loop for a millisecond
_FORGET_AT_ONCE_BYTES = 1 << 16  # a larger function is not left with idle workers until they hear the next message
_DEATHS_BEFORE_BLAME = 2  # a worker may die while it reads a batch by no fault of that batch; not twice in a row


class _ProcessParcel(Parcel):
    """A batch whose columns are encoded; `encoder` holds their buffers."""

    __slots__ = ("columns", "encoder", "function")

    def __init__(self, function: _PickledFunction, batch: Batch) -> None:
        super().__init__(function.program, batch)
        self.function = function
        self.encoder = Encoder()
        self.columns = tuple(
            [
                self.encoder.column(column, partial(_describe_argument, batch, place))
                for place, column in enumerate(batch.columns)
            ]
        )


class _PickledFunction(AdoptedFunction):
    """A function as it is sent: pickled once, and sent to each worker with the first batch that worker gets."""

    def __init__(self, program: Program, function_id: int, forget: Callable[[_PickledFunction], None]) -> None:
        super().__init__(program)
        self.function_id = function_id
        self._forget = forget
        self._encoded, self._buffers = encode_function(program.fn)
        self.size = sum(map(len, self._encoded[0])) + sum(map(len, self._buffers))

    def pack(self, batch: Batch) -> _ProcessParcel:
        return _ProcessParcel(self, batch)

    def discard(self) -> None:
        self._forget(self)

    def frame(self, parcel: _ProcessParcel, *, known: bool, forget: tuple[int, ...]) -> Frame:
        """The message to a worker that knows the function already, or does not."""
        program = self.program
        function, buffers = (None, []) if known else (self._encoded, self._buffers)
        message = BatchMessage(self.function_id, function, forget, program.concurrency, program.stop_on_error, parcel.columns)
        return parcel.encoder.frame(BATCH, tuple(message), buffers)


class ProcessWorker(Worker):
    """One forked process."""

    def __init__(self, process: WorkerProcess, zygote: Zygote, grace: float) -> None:
        self._process = process
        self._zygote = zygote
        self._grace = grace
        self._known: set[int] = set()  # ids of the functions that it holds
        self._to_forget: list[int] = []
        self.idle = False
        self.idle_since = 0.0

    @property
    def name(self) -> str:
        return f"process worker {self._process.worker_id}"

    async def set_up(self, initializer: _Initializer | None) -> None:
        """Hands the worker its surroundings and waits until it is ready.

        Raises:
            ExecutorUnavailableError: it died before that. What the initializer raised is raised as it is.
        """
        channel = self._process.channel
        try:
            await channel.send(_setup_frame(initializer))
            answer = await channel.receive()
        except EOFError:
            await self._see_end()
            raise ExecutorUnavailableError(
                f"a new worker process {self._process.describe_end()} before it was ready; what it wrote to stderr may "
                "say why (a failing preload= module or initializer=, or too little memory)"
            ) from None
        except BaseException:
            await self.kill()
            raise
        if answer.kind == FAILED:
            await self.kill()
            raise _unpack_failure(answer)

    async def run(self, parcel: _ProcessParcel) -> BatchDone:
        process = self._process
        process.page[POSITION] = NOT_RECEIVED
        try:
            await process.channel.send(self._frame(parcel))
            answer = await process.channel.receive()
        except EOFError:
            return await self._bury(parcel.batch)
        except BaseException:
            await self._stop()
            raise
        if answer.kind == FAILED:
            raise _unpack_failure(answer)
        if len(answer.payload) > _OFF_LOOP_BYTES:
            return await anyio.to_thread.run_sync(_read_answer, answer, parcel.batch, self.name)
        return _read_answer(answer, parcel.batch, self.name)

    def forget(self, function: _PickledFunction) -> None:
        """The worker need not keep `function` any longer; it hears so with its next batch, or now if that is large."""
        if function.function_id not in self._known:
            return
        self._known.discard(function.function_id)
        self._to_forget.append(function.function_id)
        if function.size > _FORGET_AT_ONCE_BYTES and self.idle:
            self._process.channel.send_nowait(Encoder().frame(FORGET, tuple(self._to_forget)))
            self._to_forget.clear()

    async def retire(self) -> None:
        """Lets an idle worker exit like any Python program; kills it if that takes longer than the grace."""
        self.hang_up()
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(self._grace):
                await self._zygote.wait_ended(self._process)
            await self.kill()

    def hang_up(self) -> None:
        """Ends the conversation: an idle worker exits, and whoever awaits a busy one is told that it died."""
        self.usable = False
        self._process.channel.shutdown()

    async def kill(self) -> None:
        """Ends the worker whatever it is doing; returns when it is gone."""
        self.usable = False
        self._zygote.kill(self._process)  # first: even if this task is cancelled a second time, the worker goes
        await self._see_end()

    def _frame(self, parcel: _ProcessParcel) -> Frame:
        function = parcel.function
        known = function.function_id in self._known
        forget, self._to_forget = tuple(self._to_forget), []
        self._known.add(function.function_id)
        return function.frame(parcel, known=known, forget=forget)

    async def _stop(self) -> None:
        process = self._process
        if not process.channel.broken:
            process.page[STOP] = 1
            with anyio.move_on_after(self._grace, shield=True):
                try:
                    await process.channel.receive()
                except EOFError:
                    await self._see_end()
                    return
                process.page[STOP] = 0
                return
        await self.kill()

    async def _bury(self, batch: Batch) -> BatchDone:
        """The worker died: the call that was running is blamed for it, and the others are to be run again."""
        position = int(self._process.page[POSITION])
        await self._see_end()
        if position < 0:
            deaths = batch.deaths + (position == RECEIVED)
            if deaths < _DEATHS_BEFORE_BLAME:
                again = batch.part(0, len(batch), deaths=deaths)
                return BatchDone(batch.part(0, 0), [], {}, (), self.name, (again,))
            position = 0
        blamed = batch.part(position, position + 1)
        process = self._process
        error = WorkerDiedError(
            f"the worker process {process.pid or ''} {process.describe_end()} while it ran {batch.describe(position)}; "
            "the other calls of its batch run again elsewhere",
            process.pid,
            process.exit_code,
            process.signal,
        )
        rest = (batch.part(0, position), batch.part(position + 1, len(batch)))
        return BatchDone(blamed, [None], {0: error}, ((1, 0.0),), self.name, tuple(part for part in rest if len(part)))

    async def _see_end(self) -> None:
        self.usable = False
        with anyio.CancelScope(shield=True):
            await self._zygote.wait_ended(self._process)
        self._process.channel.close()


class ProcessExecutor(Executor[ProcessWorker]):
    """Runs calls in up to `max_workers` processes (default: as many as processors).

    Workers are forked in about a millisecond from a small helper process, on demand, with the working directory,
    environment, `sys.path` and `sys.argv` of that moment. No `if __name__ == "__main__"` guard is needed: a worker never
    imports the main script. A function is sent to a worker once per run. Cancelling a run stops its workers at their next
    call, or kills them after `grace` seconds. Closing the executor leaves no process behind, and neither does the end of
    this program, SIGKILL included.

    Args:
        max_workers: how many processes there may be at once.
        initializer: called with `initargs` in each new worker, before its first call. What it raises fails the run.
        initargs: arguments of the initializer.
        preload: names of modules that are imported once and shared by all workers, which then start with them at hand.
            Only modules that start no threads.
        idle_timeout: seconds after which a worker without work exits.
        grace: seconds that a worker has for stopping, or exiting, by itself before it is killed.

    Raises:
        ExecutorUnavailableError: this platform cannot pass descriptors between processes (Windows).
        ValueError: an argument is out of range.

    >>> import anyio, math, asyncpar
    >>> async def main():
    ...     async with asyncpar.ProcessExecutor(2) as executor:
    ...         return await asyncpar.pmap(math.factorial, range(5), executor=executor)
    >>> anyio.run(main)
    [1, 1, 2, 6, 24]
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        preload: Sequence[str] = (),
        idle_timeout: float = 300,
        grace: float = 0.2,
    ) -> None:
        refuse_unless_supported()
        _check_arguments(max_workers, initializer, preload, idle_timeout, grace)
        super().__init__(cpu_count() if max_workers is None else max_workers)
        self._initializer = None if initializer is None else _Initializer(initializer, tuple(initargs))
        self._preload = tuple(preload)
        self._idle_timeout = idle_timeout
        self._grace = grace
        self._workers: set[ProcessWorker] = set()  # all that have not ended
        self._zygote: Zygote | None = None
        self._starting = anyio.Lock()
        self._life: BackgroundTask | None = None
        self._last_function_id = 0

    def adopt(self, program: Program) -> _PickledFunction:
        self._bind_to_loop()
        self._last_function_id += 1
        return _PickledFunction(program, self._last_function_id, self._forget_function)

    def _borrow_nowait(self) -> ProcessWorker | None:
        worker = super()._borrow_nowait()
        if worker is not None:
            worker.idle = False
        return worker

    def _shelve(self, worker: ProcessWorker) -> None:
        worker.idle = True
        worker.idle_since = time.monotonic()
        super()._shelve(worker)

    def _take_back(self, worker: ProcessWorker) -> None:
        if not worker.usable:
            self._workers.discard(worker)
        super()._take_back(worker)

    async def _start_worker(self) -> ProcessWorker:
        async with self._starting:
            if self._life is None or self._life.ended:
                self._life = await start_background(self._live)
        self._refuse_if_closed()
        if self._zygote is None or not self._zygote.alive:
            self._zygote = start_zygote(self._preload, self._grace)
        worker = ProcessWorker(self._zygote.fork(), self._zygote, self._grace)
        self._workers.add(worker)
        try:
            await worker.set_up(self._initializer)
        except BaseException:
            self._workers.discard(worker)
            raise
        return worker

    async def _shut_down(self) -> None:
        for worker in self._workers:
            worker.hang_up()
        if self._life is not None:
            self._life.cancel()
            await self._life.wait()
        if self._zygote is not None:
            await self._zygote.aclose()
        for worker in self._workers:
            await worker.kill()

    async def _live(self) -> None:
        """Retires idle workers for as long as the executor lives, and closes it when the event loop ends first."""
        try:
            await self._retire_idle_workers()
        finally:
            if not self._closed:
                self._life = None
                await self.aclose()

    async def _retire_idle_workers(self) -> None:
        while True:
            now = time.monotonic()
            oldest = self._idle[0].idle_since if self._idle else now
            await anyio.sleep(max(oldest + self._idle_timeout - now, 0))
            expired = time.monotonic() - self._idle_timeout
            while self._idle and self._idle[0].idle_since <= expired:
                worker = self._idle.pop(0)
                self._workers.discard(worker)
                await worker.retire()
                self._forget_worker()
            if not self._started and self._zygote is not None:
                zygote, self._zygote = self._zygote, None
                await zygote.aclose()

    def _forget_function(self, function: _PickledFunction) -> None:
        for worker in self._workers:
            worker.forget(function)


@dataclass(frozen=True, slots=True)
class _Initializer:
    function: Callable[..., object]
    arguments: tuple[Any, ...]

    def __call__(self) -> None:
        self.function(*self.arguments)


def _setup_frame(initializer: _Initializer | None) -> Frame:
    encoded, buffers = (None, []) if initializer is None else encode_function(initializer)
    try:
        directory: str | None = os.getcwd()
    except FileNotFoundError:  # it has been removed
        directory = None
    setup = Setup(directory, dict(os.environ), list(sys.path), list(sys.argv), encoded)
    return Encoder().frame(SETUP, tuple(setup), buffers)


def _read_answer(answer: Frame, batch: Batch, worker_name: str) -> BatchDone:
    assert answer.kind == DONE
    decoder = Decoder(answer)
    message = DoneMessage._make(decoder.message)
    (column,), spoiled = decoder.columns([message.values])
    values = list(column)
    errors = {position: unpack_error(PackedError(*packed)) for position, packed in message.errors.items()}
    if spoiled:
        for position, value in enumerate(values):
            if isinstance(value, Undeliverable):
                errors[position] = value.error
                values[position] = None
    done = batch if len(values) == len(batch) else batch.part(0, len(values))
    return BatchDone(done, values, errors, message.timings, worker_name)


def _unpack_failure(answer: Frame) -> BaseException:
    return unpack_error(PackedError(*Decoder(answer).message))


def _describe_argument(batch: Batch, place: int, position: int) -> str:
    which = "the item" if len(batch.columns) == 1 else f"argument {place}"
    return f"{which} of {batch.describe(position)}"


def _check_arguments(
    max_workers: int | None,
    initializer: Callable[..., object] | None,
    preload: Sequence[str],
    idle_timeout: float,
    grace: float,
) -> None:
    if max_workers is not None and max_workers < 1:
        raise ValueError(f"max_workers must be at least 1, or None for one per processor, not {max_workers!r}")
    if initializer is not None and not callable(initializer):
        raise TypeError(f"initializer must be callable, not {initializer!r}")
    if isinstance(preload, str):
        raise TypeError(f"preload must be a sequence of module names, such as [{preload!r}], not one string")
    if idle_timeout <= 0:
        raise ValueError(f"idle_timeout must be a positive number of seconds, not {idle_timeout!r}")
    if grace < 0:
        raise ValueError(f"grace must be a number of seconds, 0 or more, not {grace!r}")
