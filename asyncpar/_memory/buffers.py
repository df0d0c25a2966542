"""Buffers on both sides of a channel: their type, the memory that they are received into, and what is sent for shared ones."""

import mmap
from typing import NamedTuple, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview

_MAPPED_BYTES = 1 << 20  # below, malloc's own memory is warm and zeroing takes 50 µs; a guess


class Shared(NamedTuple):
    """Is sent instead of a buffer in shared memory (`loans.py`). A sender never uses the same `serial` twice."""

    length: int
    offset: int
    serial: int
    slot: int


class Elsewhere:
    """Stands for a buffer that the receiver has from elsewhere than the message. `was_there`: it has been sent before."""

    __slots__ = ("was_there",)

    def __init__(self, *, was_there: bool) -> None:
        self.was_there = was_there

    def __len__(self) -> int:
        raise NotImplementedError


def allocate(length: int) -> bytearray | mmap.mmap:
    """Memory to receive into. Large memory is mapped, page by page as it fills, since zeroing 100 MiB would block everything.

    The mapping is private, so that a forked copy of this process has its own.
    """
    if length >= _MAPPED_BYTES:
        try:
            return mmap.mmap(-1, length, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError:  # too many mappings
            pass
    return bytearray(length)
