"""What is sent to a process worker, and what comes back: the function of a run, its batches, and their answers.

Everything is pickled before a worker is requested, so that no worker waits for it. Small objects are pickled and unpickled in
the event loop, at once. If an object turns out to be large, it is left unfinished there, and a thread does it.

    sent = SentProgram(fn, ...)               # once per run, or once for all runs of an importable function
    parcel = PickledProgram(...).pack(...)    # for each batch
    frame = parcel.frame(known=..., ...)      # when the worker is known: the program goes only to one that does not hold it
    done = ProcessAnswer(...).read()
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from asyncpar._basics.wording import stand_in
from asyncpar._child.call_forms import MixedCall
from asyncpar._child.protocol import BATCH, BatchMessage, DoneMessage, News, ProgramOptions
from asyncpar._contract.batches import Batch, BatchDone, complete_timeouts
from asyncpar._contract.executor import Parcel, Program
from asyncpar._contract.single_call import SingleCall
from asyncpar._memory.blocks import Block
from asyncpar._memory.buffers import Buffer
from asyncpar._wire.codec import BufferPlacer, Decoder, EncodedElements, Encoder, Undeliverable, encode_function
from asyncpar._wire.failures import PackedError, unpack_error
from asyncpar._wire.frames import Frame, weigh
from asyncpar._wire.pace import IN_LOOP_BYTES, Breaths, Limit, Pace, TooLarge


class SentProgram:
    """A function with its options, as it is sent once to each worker. From then on, only its id is sent."""

    def __init__(self, fn: Callable[..., Any], options: ProgramOptions, program_id: int, placer: BufferPlacer | None) -> None:
        self.fn = fn
        self.options = options
        self.program_id = program_id
        self.encoded: EncodedElements | None = None
        self.buffers: list[Buffer | Block] = []
        self._placer = placer
        self._finishing = threading.Lock()
        try:
            self._encode(Limit())
        except TooLarge:
            return

    def finish(self) -> None:
        """Encodes it, if that was put off because it takes long. Runs in threads: several parcels may wait for one function."""
        with self._finishing:
            if self.encoded is None:
                self._encode(Breaths())

    def _encode(self, pace: Pace) -> None:
        self.encoded, self.buffers = encode_function(self.fn, pace, self._placer)

    @property
    def weight(self) -> int:
        """Its size in bytes, once it is encoded, without what lies in shared memory."""
        pickles = (
            [] if self.encoded is None else [len(memoryview(pickled)) for pickled in self.encoded[0] if pickled is not None]
        )
        return sum(pickles) + sum([len(buffer) for buffer in self.buffers if type(buffer) is not Block])

    @property
    def is_large(self) -> bool:
        """Whether any part of it travels out of band. Then idle workers are told at once to forget it."""
        return bool(self.buffers) or (self.encoded is not None and type(self.encoded[0][0]) is not bytes)


class PickledProgram:
    """What all parcels of one run have in common: the program, as it is sent, and the placer for large buffers.

    `hits`: how many buffers were already in shared memory when they were to be sent.
    """

    hits = 0
    sends_much = False  # if so, the next batch, which will hardly be smaller, is not tried in the loop

    def __init__(self, program: Program, sent: SentProgram, placer: BufferPlacer | None) -> None:
        self.program = program
        self.sent = sent
        self.placer = placer

    def pack(self, batch: Batch, budget: float) -> ProcessParcel:
        return ProcessParcel(self, batch, budget)


class ProcessParcel(Parcel):
    """A batch whose columns are encoded before a worker is requested: at once, unless the columns or the function take long."""

    __slots__ = ("_columns", "_encoder", "_pickled", "sent", "unfinished")

    def __init__(self, pickled: PickledProgram, batch: Batch, budget: float) -> None:
        self.program = pickled.program
        self.batch = batch
        self.budget = budget
        self._pickled = pickled
        self.sent = pickled.sent
        self.unfinished = True
        if self.sent.encoded is not None and not pickled.sends_much:
            try:
                self._encode(Limit())
            except TooLarge:
                return

    def _encode(self, pace: Pace) -> None:
        encoder, batch = Encoder(pace, self._pickled.placer), self.batch
        self._columns = tuple(
            [encoder.column(column, _describe_argument, batch, which) for which, column in enumerate(batch.columns)]
        )
        self._encoder = encoder
        self.unfinished = False

    @property
    def refusal(self) -> BaseException | None:  # type: ignore[override]  # in a parcel that needs no encoding it is a constant
        return self._encoder.refusal

    def finish(self) -> None:
        self.sent.finish()
        pace = Breaths()
        self._encode(pace)
        self._pickled.sends_much = pace.weight > IN_LOOP_BYTES

    def frame(self, *, known: bool, news: News | None) -> Frame:
        """The message to a worker; `known`: whether it already knows the program."""
        sent, encoder = self.sent, self._encoder
        self._pickled.hits += encoder.hits
        new_program, buffers = None, []
        if not known:
            assert sent.encoded is not None, "a parcel is finished before it is sent"
            new_program, buffers = (sent.encoded, sent.options), sent.buffers
        message: BatchMessage = sent.program_id, new_program, news, self.budget, self.batch.near_end, self._columns
        return encoder.frame(BATCH, message, buffers)


class ProcessAnswer:
    """A worker's answer to `batch`, not unpickled yet."""

    __slots__ = ("_batch", "_frame", "_inline_bytes", "_shared_bytes", "_worker_name", "is_large")

    def __init__(self, frame: Frame, batch: Batch, worker_name: str, inline_bytes: int, shared_bytes: int) -> None:
        self._frame = frame
        self._batch = batch
        self._worker_name = worker_name
        self._inline_bytes = inline_bytes
        self._shared_bytes = shared_bytes
        weight = weigh(frame)[0] if frame.buffers else len(frame.payload)  # with what is mapped, which may be a pickle
        self.is_large = weight > IN_LOOP_BYTES

    def read(self) -> BatchDone:
        decoder = Decoder(self._frame, Breaths() if self.is_large else None)
        message: DoneMessage = decoder.message
        encoded, packed_errors, timings = message
        (column,), spoiled = decoder.columns([encoded])
        values = column if type(column) is list else list(column)
        errors = {position: unpack_error(PackedError(*packed)) for position, packed in packed_errors.items()}
        if spoiled:
            _unpack_undeliverables(values, errors)
        if errors:
            complete_timeouts(self._batch, errors)
        batch = self._batch
        rest = batch.rest(len(values))
        return BatchDone(batch, values, errors, timings, self._worker_name, rest, self._inline_bytes, self._shared_bytes)


def _unpack_undeliverables(values: list[Any], errors: dict[int, BaseException]) -> None:
    """Results that could not be sent or read become errors of their calls."""
    for position, value in enumerate(values):
        if type(value) is Undeliverable:
            errors[position] = value.error
            values[position] = None


def _describe_argument(batch: Batch, place: int, position: int) -> tuple[str, str]:
    call = batch.describe(position)
    if isinstance(batch.function, MixedCall):
        return (f"an argument of {call}", "arguments") if place == 1 else (f"a keyword argument of {call}", "keywords")
    which = "the item" if len(batch.columns) == 1 and not isinstance(batch, SingleCall) else f"argument {place}"
    return f"{which} of {call}", f"arguments[{place}]"


def unpack_failure(answer: Frame) -> BaseException:
    """The error that the run fails with. An error of a worker never ends the program."""
    error = unpack_error(PackedError(*Decoder(answer).message))
    if issubclass(type(error), Exception):
        return error
    return stand_in(error, "an initializer, or a module that a worker imported for the function,")
