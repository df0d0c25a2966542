"""What is sent to a process worker, and what comes back: the function of a run, its batches, and their answers.

Everything is pickled before a worker is asked for, so that no worker waits for it. Small things are pickled and unpickled in
the event loop, at once; what turns out to be large is left unfinished there, and done in a thread.

    sent = SentFunction(fn, ...)              # once per run, or once for all runs of an importable function
    parcel = PickledFunction(...).pack(...)   # for each batch
    frame = parcel.frame(known=..., ...)      # when the worker is known: the function goes only to one that does not hold it
    done = ProcessAnswer(...).read()
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from asyncpar.executors.base import AdoptedFunction, Parcel, Program
from asyncpar.outcomes import Batch, BatchDone, complete_timeouts
from asyncpar.wire.blocks import Block
from asyncpar.wire.codec import Decoder, EncodedElements, Encoder, Undeliverable, encode_function
from asyncpar.wire.failures import PackedError, unpack_error
from asyncpar.wire.frames import Buffer, Frame, weigh
from asyncpar.wire.pace import IN_LOOP_BYTES, Breaths, Limit, Pace, TooLarge
from asyncpar.wire.placer import Placer
from asyncpar.wire.unfinished import Hold
from asyncpar.workers.call_forms import MixedCall
from asyncpar.workers.protocol import BATCH, BatchMessage, DoneMessage


class SentFunction:
    """A function in the form in which it is sent, once to each worker; `function_id` is its name from then on."""

    def __init__(self, fn: Callable[..., Any], function_id: int, place: Placer | None) -> None:
        self.fn = fn
        self.function_id = function_id
        self.encoded: EncodedElements | None = None
        self.buffers: list[Buffer | Block] = []
        self._place = place
        self._finishing = threading.Lock()
        try:
            self._encode(Limit())
        except TooLarge:
            return

    def finish(self) -> None:
        """Encodes it, if that has been put off because it takes long. In threads: several parcels may wait for one function."""
        with self._finishing:
            if self.encoded is None:
                self._encode(Breaths())

    def _encode(self, pace: Pace) -> None:
        self.encoded, self.buffers = encode_function(self.fn, pace, self._place)

    @property
    def is_large(self) -> bool:
        """Whether any of it travels out of band. Then it is not left with idle workers until they hear the next message."""
        return bool(self.buffers) or (self.encoded is not None and type(self.encoded[0][0]) is not bytes)


class PickledFunction(AdoptedFunction):
    """The function of one run. `discard` is called with it when the run is over, unless it is None: then it is kept."""

    def __init__(
        self,
        program: Program,
        sent: SentFunction,
        place: Placer,
        share_of_results: Callable[[], int],
        discard: Callable[[SentFunction], None] | None,
    ) -> None:
        super().__init__(program)
        self.place = place
        self.share_of_results = share_of_results
        self.hits = 0
        self.unfinished_modules: Hold | None = None  # held for as long as the run goes on
        self.sent = sent
        self._discard = discard
        self.sends_much = False  # so that the next batch, which will hardly be smaller, is not tried in the loop

    def pack(self, batch: Batch, budget: float) -> ProcessParcel:
        return ProcessParcel(self, batch, budget)

    @property
    def zero_copy_hits(self) -> int:
        return self.hits

    def discard(self) -> None:
        self.place.forget()
        if self.unfinished_modules is not None:
            self.unfinished_modules.release()
        if self._discard is not None:
            self._discard(self.sent)
            self.sent.buffers = []


class ProcessParcel(Parcel):
    """A batch whose columns are encoded before a worker is asked for: at once, unless that, or the function, takes long."""

    __slots__ = ("_adopted", "_columns", "_encoder", "function", "unfinished")

    def __init__(self, adopted: PickledFunction, batch: Batch, budget: float) -> None:
        super().__init__(adopted.program, batch, budget)
        self._adopted = adopted
        self.function = adopted.sent
        self.unfinished = True
        if self.function.encoded is not None and not adopted.sends_much:
            try:
                self._encode(Limit())
            except TooLarge:
                return

    def _encode(self, pace: Pace) -> None:
        encoder, batch = Encoder(pace, self._adopted.place), self.batch
        self._columns = tuple(
            [encoder.column(column, _describe_argument, batch, which) for which, column in enumerate(batch.columns)]
        )
        self._encoder = encoder
        self.unfinished = False

    def finish(self) -> None:
        self.function.finish()
        pace = Breaths()
        self._encode(pace)
        self._adopted.sends_much = pace.weight > IN_LOOP_BYTES

    def frame(self, *, known: bool, forget: tuple[int, ...], key: bytes | None = None) -> Frame:
        """The message to a worker that knows the function already, or does not; and that is to have this key, or has one."""
        program, function = self.program, self.function
        self._adopted.hits += self._encoder.hits
        encoded, buffers = (None, []) if known else (function.encoded, function.buffers)
        message: BatchMessage = (
            function.function_id,
            encoded,
            forget,
            program.concurrency,
            program.stop_on_error,
            program.timeout,
            (self._adopted.place.threshold, self._adopted.share_of_results(), program.mmap_mode),
            key,
            self.budget,
            self._columns,
        )
        return self._encoder.frame(BATCH, message, buffers)


class ProcessAnswer:
    """A worker's answer to `batch`, not unpickled yet."""

    __slots__ = ("_batch", "_frame", "_inline_bytes", "_shared_bytes", "_worker_name", "is_large")

    def __init__(self, frame: Frame, batch: Batch, worker_name: str, inline_bytes: int, shared_bytes: int) -> None:
        self._frame = frame
        self._batch = batch
        self._worker_name = worker_name
        self._inline_bytes = inline_bytes
        self._shared_bytes = shared_bytes
        weight = weigh(frame)[0] if frame.buffers else len(frame.payload)  # with what is mapped: it may be a pickle
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
    which = "the item" if len(batch.columns) == 1 else f"argument {place}"
    return f"{which} of {call}", f"arguments[{place}]"
