"""Frames: messages with their large buffers, cut out of a byte stream.

    header   kind (1 byte), ticket (2), number of buffers (4), length of the payload (8)
    lengths  8 bytes for each buffer
    payload  a pickle
    buffers  the raw bytes of each, in order; for a buffer in shared memory (its length says so), its location

Both ends of a channel share this module, which does no I/O. A `FrameReader` says where the next bytes belong and is told
how many arrived, so that the blocking worker, the awaiting parent and a property test use the same code.

Guarantees: a buffer is received directly into memory of its own (there is no copy, and it lives as long as any view of it).
However the stream is cut into pieces, the same frames come out. Bytes of a following frame are kept for it.
"""

import mmap
import struct
from collections.abc import Sequence
from typing import NamedTuple

from asyncpar._memory.buffers import Buffer, Shared, allocate

_HEADER = struct.Struct("<BxHIQ")
_SHARED = struct.Struct("<4Q")
_SHARED_MARK = (1 << 64) - 1  # instead of a length
_SCRATCH_BYTES = 1 << 16  # one read takes a whole small frame; a default socket delivers 64 KiB at once
_BYTES_AT_ONCE = 1 << 18  # copied by one system call in about 0.1 ms, far below the 5 ms for which the loop may be blocked


class Frame(NamedTuple):
    """One message: its kind, a pickle, and the buffers that the pickle refers to.

    `ticket`: which of several batches that are under way at once it is about.
    """

    kind: int
    payload: Buffer
    buffers: Sequence[Buffer | Shared] = ()
    ticket: int = 0


def weigh(frame: Frame) -> tuple[int, int]:
    """How many bytes travel with the frame, and how many lie in shared memory."""
    if not frame.buffers:
        return len(frame.payload), 0
    shared = sum([buffer.length for buffer in frame.buffers if isinstance(buffer, Shared)])
    beside = sum([len(buffer) for buffer in frame.buffers if not isinstance(buffer, Shared)])
    return len(frame.payload) + beside, shared


def to_parts(frame: Frame) -> list[Buffer]:
    """The frame as the pieces to write, in order, none of them empty. Large buffers are not copied."""
    head = _HEADER.pack(frame.kind, frame.ticket, len(frame.buffers), len(frame.payload))
    if not frame.buffers:
        return [head + frame.payload] if len(frame.payload) < _SCRATCH_BYTES else [head, frame.payload]
    sent: list[Buffer] = [_SHARED.pack(*buffer) if isinstance(buffer, Shared) else buffer for buffer in frame.buffers]
    marks = [_SHARED_MARK if isinstance(buffer, Shared) else len(buffer) for buffer in frame.buffers]
    lengths = struct.pack(f"<{len(marks)}Q", *marks)
    return [head + lengths, frame.payload, *(buffer for buffer in sent if len(buffer))]


def first_piece(parts: list[Buffer]) -> Buffer:
    """What to write next of `parts`: no more than an event loop may be blocked for."""
    return parts[0] if len(parts[0]) <= _BYTES_AT_ONCE else memoryview(parts[0])[:_BYTES_AT_ONCE]


def without(parts: list[Buffer], sent: int) -> list[Buffer]:
    """What is left of `parts` once `sent` bytes have been sent."""
    for index, part in enumerate(parts):
        if sent < len(part):
            return [memoryview(part)[sent:], *parts[index + 1 :]]
        sent -= len(part)
    return []


class FrameReader:
    """Cuts a byte stream into frames.

    In a loop: read into `space()`, tell `advance()` how many bytes came, and take the frames that `take()` returns.
    """

    def __init__(self) -> None:
        self._scratch = memoryview(bytearray(_SCRATCH_BYTES))
        self._held = 0  # bytes of the scratch space that are not yet part of a frame
        self._kind = self._ticket = 0
        self._targets: list[bytearray | mmap.mmap] = []  # payload and buffers of the frame being received
        self._unfilled: list[memoryview] = []  # the parts of them that are still missing, last first
        self._shared: list[int] = []  # which of the buffers lie in shared memory

    def space(self) -> memoryview:
        """Where the next bytes of the stream go. Never empty, and never so large that filling it takes long."""
        if self._unfilled:
            return self._unfilled[-1][:_BYTES_AT_ONCE]
        return self._scratch[self._held :] if self._held else self._scratch

    def advance(self, count: int) -> None:
        """`count` bytes have been written to the start of `space()`."""
        if not self._unfilled:
            self._held += count
            return
        rest = self._unfilled.pop()[count:]
        if rest:
            self._unfilled.append(rest)

    def take(self) -> Frame | None:
        """The next frame if it is complete, else None."""
        if self._unfilled:
            return None
        if self._targets:
            payload, *buffers = self._targets
            self._targets = []
            received: list[Buffer | Shared] = [memoryview(buffer) for buffer in buffers]
            for index in self._shared:
                received[index] = Shared(*_SHARED.unpack(buffers[index]))
            return Frame(self._kind, memoryview(payload), received, self._ticket)
        return self._parse_scratch() if self._held else None

    def _parse_scratch(self) -> Frame | None:
        if self._held < _HEADER.size:
            return None
        kind, ticket, count, payload_length = _HEADER.unpack_from(self._scratch)
        if not count and (end := _HEADER.size + payload_length) <= self._held:
            frame = Frame(kind, bytes(self._scratch[_HEADER.size : end]), (), ticket)  # the usual case: small, and complete
            self._drop_scratch(end)
            return frame
        head = _HEADER.size + 8 * count
        if self._held < head:
            if head > len(self._scratch):
                self._widen_scratch(head)
            return None
        marks = struct.unpack_from(f"<{count}Q", self._scratch, _HEADER.size)
        self._shared = [index for index, mark in enumerate(marks) if mark == _SHARED_MARK]
        lengths = [payload_length, *(_SHARED.size if mark == _SHARED_MARK else mark for mark in marks)]
        self._drop_scratch(head)
        self._kind, self._ticket = kind, ticket
        self._begin(lengths)
        return self.take()

    def _begin(self, lengths: list[int]) -> None:
        self._targets = [allocate(length) for length in lengths]
        self._unfilled = [memoryview(target) for target in reversed(self._targets) if len(target)]
        while self._held and self._unfilled:
            target = self._unfilled[-1]
            count = min(len(target), self._held)
            target[:count] = self._scratch[:count]
            self._drop_scratch(count)
            self.advance(count)

    def _drop_scratch(self, count: int) -> None:
        left = self._held - count
        if left:
            self._scratch[:left] = bytes(self._scratch[count : self._held])
        self._held = left

    def _widen_scratch(self, size: int) -> None:
        wider = memoryview(bytearray(2 * size))
        wider[: self._held] = self._scratch[: self._held]
        self._scratch = wider
