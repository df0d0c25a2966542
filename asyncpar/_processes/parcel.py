"""What is sent to a process worker, and what comes back: the function of a run, its batches, and their answers.

Everything is pickled before a worker is requested, so that no worker waits for it. Small objects are pickled and unpickled in
the event loop, at once. If an object turns out to be large, it is left unfinished there, and a thread does it.

    sent = SentProgram(fn, ...)               # once per run, or once for all runs of an importable function
    parcel = PickledProgram(...).pack(...)    # for each batch
    frame = parcel.frame(pickles_read=..., …) # when the worker is known: the program goes only to one that does not hold it
    done = ProcessAnswer(...).read()          # None: a thread must do it

An answer may have some of the outcomes only (a PART), and the last one those of the other calls.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from asyncpar._basics.wording import stand_in
from asyncpar._child.call_forms import make_call
from asyncpar._child.protocol import BATCH, BatchMessage, DoneMessage, News, ProgramOptions, positions_of
from asyncpar._contract.batches import Batch, BatchDone, complete_timeouts
from asyncpar._contract.executor import Parcel, Program
from asyncpar._contract.single_call import SingleCall
from asyncpar._memory.blocks import Block
from asyncpar._memory.buffers import Buffer
from asyncpar._wire.codec import ONE_BY_ONE, EncodedElements, Undeliverable
from asyncpar._wire.decoder import Decoder
from asyncpar._wire.definitions import Candidates, Definitions, reading
from asyncpar._wire.encoder import (
    TEXT_SPEED,
    TEXT_TYPES,
    BufferPlacer,
    Encoder,
    encode_definition,
    encode_function,
    first_manner,
)
from asyncpar._wire.failures import PackedError, unpack_error
from asyncpar._wire.frames import Frame, weigh
from asyncpar._wire.pace import IN_LOOP_BYTES, Breaths, Limit, Pace, TooLarge
from asyncpar._wire.views import View

_MIXED_COLUMNS = (  # of `make_call`: in words, and as a path
    ("the function of {}", "function"),
    ("an argument of {}", "arguments"),
    ("a keyword argument of {}", "keywords"),
)
_TEXT_BYTES = 64  # of a value in a message, from which on it is rather a text than a number
_SECONDS_AT_ONCE = 0.75e-3  # that objects are packed, or read, in one turn of the event loop, …
_AT_ONCE = 3 * IN_LOOP_BYTES // 4  # … and how many bytes of them, where these take longer than it seems; both are guesses
_MOST_AT_ONCE = 2.0  # times that; what takes longer is left to a thread


class RunPlacer(BufferPlacer, Protocol):
    """The placer of one run. `has_copied`: its `find` may find something."""

    @property
    def has_copied(self) -> bool: ...
    def forget(self) -> None: ...


class SentProgram:
    """A function with its options, as it is sent once to each worker. From then on, only its id is sent.

    Attributes:
        encoded, buffers: the function with its first definitions, once it is encoded.
        definitions: all that workers have of it, or will have with their next batch.
        more: the pickles of the definitions that came with items.
        in_loops: a run of coroutine calls has it. What a worker has of one program shares its concurrency, so another run that
            is on at the same time has a program of its own.
    """

    in_loops = False

    def __init__(
        self,
        fn: Callable[..., Any],
        options: ProgramOptions,
        program_id: int,
        placer: BufferPlacer | None,
    ) -> None:
        self.fn = fn
        self.options = options
        self.program_id = program_id
        self.encoded: EncodedElements | None = None
        self.buffers: list[Buffer | Block | View] = []
        self.definitions = Definitions()
        self.more: list[bytes] = []
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
        encoded, self.buffers, brought = encode_function(self.fn, pace, self._placer)
        self.definitions.extend(brought)
        self.encoded = encoded  # last: another thread takes it for encoded from here on

    def add_definition(self, value: object) -> None:
        """From now on, a class or a function is sent only once, if it can be sent by itself."""
        try:
            data = encode_definition(value, self.definitions)
        except KeyboardInterrupt:
            raise
        except BaseException:  # raised by something in it, or it is large; it goes on travelling with the batches
            return
        self.more.append(data)
        self.definitions.extend([value])

    def definitions_after(self, pickles_read: int) -> list[bytes]:
        """What a worker has not seen that has read so many pickles of this program, that of the function included."""
        return self.more[pickles_read - 1 :]

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

    Attributes:
        hits: how many buffers were already in shared memory when they were to be sent.
        manner, manner_of_results: in which columns of objects are pickled (`codec.py`). If something could not be sent or read,
            they go one by one in both directions.
        packing_share, reading_share: how much of the event loop's time for one batch a call took when the last batch was packed
            and read.
    """

    hits = 0
    packing_share = reading_share = 0.0
    _too_large = sys.maxsize  # a batch of this many calls took too long in the event loop; half of it is tried again

    def __init__(self, program: Program, sent: SentProgram, placer: BufferPlacer | None) -> None:
        self.program = program
        self.sent = sent
        self.placer = placer
        self.manner = self.manner_of_results = first_manner()
        self._candidates: Candidates | None = None  # from the first that comes with a batch

    def pack(self, batch: Batch, budget: float) -> ProcessParcel:
        return ProcessParcel(self, batch, budget)

    def may_be_small(self, calls: int) -> bool:
        """Whether the event loop is likely to pack so many calls in time."""
        return calls <= self._too_large // 2 and calls * self.packing_share <= _MOST_AT_ONCE

    def note_weight(self, calls: int, weight: int) -> None:
        self._too_large = min(self._too_large, calls) if weight >= IN_LOOP_BYTES else sys.maxsize

    def note_manner(self, manner: int) -> None:
        """A batch had to be packed in this manner. The threads that pack other batches may have noted a later one."""
        self.manner = max(self.manner, manner)
        if manner == ONE_BY_ONE:
            self.manner_of_results = ONE_BY_ONE

    def take_in(self, brought: list[Any]) -> None:
        """Classes and functions have come with a batch. Those that will come again are sent only once from now on."""
        if self._candidates is None:
            self._candidates = Candidates()
        for value in self._candidates.choose(brought):
            self.part_with_kept_program()
            self.sent.add_definition(value)

    def part_with_kept_program(self) -> None:
        """If other runs have the program, too, this run gets a copy."""


class ProcessParcel(Parcel):
    """A batch whose columns are encoded before a worker is requested: at once, unless the columns or the function take long."""

    __slots__ = ("_columns", "_encoder", "definitions", "loop_share", "pickled", "sent", "unfinished")

    def __init__(self, pickled: PickledProgram, batch: Batch, budget: float) -> None:
        self.program = pickled.program
        self.batch = batch
        self.budget = budget
        self.pickled = pickled
        self.sent = pickled.sent
        self.unfinished = True
        if self.sent.encoded is not None and pickled.may_be_small(len(batch)):
            try:
                self._encode(Limit())
            except TooLarge:
                pickled.note_weight(len(batch), IN_LOOP_BYTES)

    def _encode(self, pace: Pace) -> None:
        pickled, batch = self.pickled, self.batch
        encoder = Encoder(pace, pickled.placer, self.sent.definitions, pickled.manner)
        self._columns = tuple(
            [encoder.column(column, _describe_argument, batch, which) for which, column in enumerate(batch.columns)]
        )
        self._encoder = encoder
        self.loop_share = max(encoder.object_weight / _AT_ONCE, encoder.object_seconds / _SECONDS_AT_ONCE)
        pickled.packing_share = self.loop_share / len(batch)
        pickled.note_manner(encoder.manner)
        self.unfinished = False

    @property
    def refusal(self) -> BaseException | None:  # type: ignore[override]  # in a parcel that needs no encoding it is a constant
        return self._encoder.refusal

    def finish(self) -> None:
        self.sent.finish()
        pace = Breaths()
        self._encode(pace)
        self.pickled.note_weight(len(self.batch), pace.weight)

    def frame(self, *, pickles_read: int, news: News | None) -> Frame:
        """The message to a worker that has read so many pickles of the program: none, the function, or definitions as well."""
        sent, encoder, pickled = self.sent, self._encoder, self.pickled
        pickled.hits += encoder.count_hits()
        if encoder.brought:
            pickled.take_in(encoder.brought)
        new_program, buffers = None, []
        if not pickles_read:
            assert sent.encoded is not None, "a parcel is finished before it is sent"
            new_program, buffers, pickles_read = (sent.encoded, sent.options), sent.buffers, 1
        more = sent.definitions_after(pickles_read)
        self.definitions = sent.definitions.with_more(encoder.listed)
        message: BatchMessage = (
            sent.program_id,
            new_program,
            more,
            news,
            self.budget,
            self.batch.near_end,
            pickled.manner_of_results,
            self._columns,
        )
        return encoder.frame(BATCH, message, buffers)


class ProcessAnswer:
    """A worker's answer to a parcel, not unpickled yet."""

    __slots__ = (
        "_batch",
        "_definitions",
        "_frame",
        "_inline_bytes",
        "_pickled",
        "_shared_bytes",
        "_worker_name",
        "is_large",
        "loop_share",
    )

    def __init__(self, frame: Frame, parcel: ProcessParcel, worker_name: str, inline_bytes: int, shared_bytes: int) -> None:
        self._frame = frame
        self._batch = parcel.batch
        self._pickled = parcel.pickled
        self._definitions = parcel.definitions
        self._worker_name = worker_name
        self._inline_bytes = inline_bytes
        self._shared_bytes = shared_bytes
        payload = len(frame.payload)  # if it is large, it has numbers or texts; what has other objects lies beside it
        speed = TEXT_SPEED if payload > _TEXT_BYTES * len(self._batch) else 1
        self.is_large = (
            payload > speed * IN_LOOP_BYTES
            or self._weight() - payload > IN_LOOP_BYTES
            or len(self._batch) * self._pickled.reading_share > _MOST_AT_ONCE
        )
        self.loop_share = 0.0  # until it is read

    def _weight(self) -> int:
        frame = self._frame
        return weigh(frame)[0] if frame.buffers else len(frame.payload)  # with what is mapped, which may be a pickle

    def positions(self) -> list[int]:
        """Of the calls whose outcomes a PART has. The outcomes are not read."""
        return positions_of(self._frame)

    def read(self) -> BatchDone | None:
        decoder = Decoder(self._frame, Breaths() if self.is_large else None)
        decoder.definitions = self._definitions
        decoder.may_read_apart = self.is_large
        message: DoneMessage = decoder.message
        encoded, packed_errors, timings, has_read_apart, positions = message
        began = time.thread_time() if len(encoded) > 1 else 0.0
        try:
            (column,), spoiled = decoder.columns([encoded])
        except TooLarge:
            self.is_large = True
            return None
        if len(column) and type(column[0]) in TEXT_TYPES:
            self.loop_share = self._weight() / TEXT_SPEED / _AT_ONCE
        elif len(encoded) > 1:
            self.loop_share = max(decoder.weight / _AT_ONCE, (time.thread_time() - began) / _SECONDS_AT_ONCE)
            self._pickled.reading_share = self.loop_share / len(column)
        if has_read_apart or decoder.has_read_apart:
            self._pickled.note_manner(ONE_BY_ONE)
        values = column if type(column) is list else list(column)
        errors: dict[int, BaseException] = {}
        if packed_errors:
            with reading(self._definitions):
                errors = {position: unpack_error(PackedError(*packed)) for position, packed in packed_errors.items()}
        if spoiled:
            _unpack_undeliverables(values, errors)
        batch = self._batch
        if positions is None:
            rest = batch.rest(len(values))
        else:
            ended, unstarted = positions
            rest = (batch.some(unstarted),) if unstarted else ()
            batch = batch.some(ended)
        if errors:
            complete_timeouts(batch, errors)
        return BatchDone(batch, values, errors, timings, self._worker_name, rest, self._inline_bytes, self._shared_bytes)


def _unpack_undeliverables(values: list[Any], errors: dict[int, BaseException]) -> None:
    """Results that could not be sent or read become errors of their calls."""
    for position, value in enumerate(values):
        if type(value) is Undeliverable:
            errors[position] = value.error
            values[position] = None


def _describe_argument(batch: Batch, which: int, position: int) -> tuple[str, str]:
    batch = batch.plain
    call = batch.describe(position)
    if batch.function is make_call:
        return _MIXED_COLUMNS[which][0].format(call), _MIXED_COLUMNS[which][1]
    name = "the item" if len(batch.columns) == 1 and not isinstance(batch, SingleCall) else f"argument {which}"
    return f"{name} of {call}", f"arguments[{which}]"


def unpack_failure(answer: Frame) -> BaseException:
    """The error that the run fails with. An error of a worker never ends the program."""
    error = unpack_error(PackedError(*Decoder(answer).message))
    if issubclass(type(error), Exception):
        return error
    return stand_in(error, "an initializer, or a module that a worker imported for the function,")
