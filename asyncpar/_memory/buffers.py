"""Buffers on both sides of a channel: their type, the memory that they are received into, and what stands for a shared one."""

import mmap
from typing import NamedTuple, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview

_MAPPED_BYTES = 1 << 20  # below, malloc's own memory is warm and zeroing takes 50 µs; a guess


class Shared(NamedTuple):
    """A buffer in shared memory (`loans.py`): what travels in its place. `serial` is never used twice by the same sender."""

    length: int
    offset: int
    serial: int
    slot: int


def allocate(length: int) -> bytearray | mmap.mmap:
    """Memory to receive into. A large one is mapped, page by page as it fills, for zeroing 100 MiB holds everybody up.

    Privately: a forked copy of this process is to have its own.
    """
    if length >= _MAPPED_BYTES:
        try:
            return mmap.mmap(-1, length, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError:  # too many mappings
            pass
    return bytearray(length)
