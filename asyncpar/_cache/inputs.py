"""Where entries are read from: files, and streams that can only go forward."""

from __future__ import annotations

import os
from typing import IO

from asyncpar._memory.buffers import Buffer, allocate

FIRST_BYTES = 1 << 16  # read at once; a small entry is no larger
_PIECE = (
    1 << 20
)  # read at once: while the kernel fills 100 MB of fresh pages, other threads wait for it, with and without the GIL


class TooShortError(Exception):
    """The file has fewer bytes than it says."""


class FileInput:
    """A file, by its descriptor, which stays the caller's. `first` is how it begins."""

    __slots__ = ("fd", "first")

    def __init__(self, fd: int, first: bytes | None = None) -> None:
        self.fd = fd
        self.first = os.read(fd, FIRST_BYTES) if first is None else first

    def begin(self, length: int) -> Buffer:
        """The first `length` bytes."""
        if length <= len(self.first):
            return self.first
        self.check_size(length)
        whole = memoryview(allocate(length))
        whole[: len(self.first)] = self.first
        self._fill(whole[len(self.first) :], len(self.first))
        return whole

    def take(self, offset: int, length: int) -> Buffer:
        """Some bytes, in memory of their own."""
        if offset + length <= len(self.first):
            return bytearray(memoryview(self.first)[offset : offset + length])
        self.check_size(offset + length)
        taken = memoryview(allocate(length))
        self._fill(taken, offset)
        return taken

    def check_size(self, size: int) -> None:
        """Raises TooShortError unless the file has this size, at least."""
        if os.fstat(self.fd).st_size < size:
            raise TooShortError

    def _fill(self, target: memoryview, offset: int) -> None:
        with open(self.fd, "rb", buffering=0, closefd=False) as file:
            file.seek(offset)
            done = 0
            while done < len(target):
                count = file.readinto(target[done : done + _PIECE])
                if not count:
                    raise TooShortError
                done += count


class StreamInput:
    """A file object, from where it stands; it is read no further than the entry goes."""

    def __init__(self, file: IO[bytes], first_bytes: int) -> None:
        self._file = file
        self._position = 0
        self.first: Buffer = b""
        try:
            self.first = self._read(first_bytes)
        except TooShortError as short:
            self.first = short.args[0]

    def begin(self, length: int) -> Buffer:
        self.first = bytes(self.first) + self._read(length - len(self.first))
        return self.first

    def take(self, offset: int, length: int) -> Buffer:
        self._read(offset - self._position)
        return bytearray(self._read(length))

    def _read(self, length: int) -> bytes:
        """In pieces: the length may be wrong, and must not make us ask for more memory than there is data."""
        pieces: list[bytes] = []
        left = length
        while left > 0:
            piece = self._file.read(min(left, _PIECE))
            if not piece:
                raise TooShortError(b"".join(pieces))
            pieces.append(piece)
            left -= len(piece)
        self._position += length
        return b"".join(pieces)
