"""Pickling in pieces, so that no event loop of this process is blocked for long while a large object is pickled or read.

Pickling holds the GIL from its first byte to its last, in whatever thread it happens, unless the pickler calls Python code
meanwhile. So our picklers write, and our unpicklers read, through a *pace*: a callable that is told the weight of each piece.
Pickle makes pieces of 64 KiB. There are two kinds. In the event loop, the pace is a `Limit`, which raises `TooLarge` as soon as
the whole would take too long there. The work is then done again in a thread. In a thread, the pace is `Breaths`, which naps now
and then so that the event loop gets the GIL. A worker has no event loop and no pace.

A weight is in bytes, or in units that take as long as a byte.
"""

import pickle
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from asyncpar._memory.buffers import Buffer, allocate
from asyncpar._wire.unfinished import loads, unpickler

IN_LOOP_BYTES = 1 << 18  # takes at most a millisecond, whether it is one text or many small objects
_NAP_BYTES = 1 << 17
_NAP_SECONDS = 50e-6  # long enough for a thread that waits for the GIL to wake up and take it
_PIECE = 1 << 18  # copied in 0.1 ms


def nap() -> None:
    """Lets other threads have the GIL, the event loop's above all. Python by itself may let them wait for 5 ms."""
    time.sleep(_NAP_SECONDS)


class TooLarge(BaseException):
    """Pickling would block the event loop for too long. Not an `Exception`, so that no `__reduce__` catches it."""


class Limit:
    """Raises `TooLarge` once more than `IN_LOOP_BYTES` have passed."""

    weight = 0  # of all that has passed

    def __call__(self, weight: int) -> None:
        self.weight += weight
        if self.weight > IN_LOOP_BYTES:
            raise TooLarge


class Breaths:
    """Naps after every `_NAP_BYTES`, and lets other threads have the GIL."""

    weight = 0

    def __init__(self) -> None:
        self._until_nap = _NAP_BYTES

    def __call__(self, weight: int) -> None:
        self.weight += weight
        self._until_nap -= weight
        if self._until_nap <= 0:
            self._until_nap = _NAP_BYTES
            nap()


Pace: TypeAlias = Limit | Breaths


class Writer:
    """The file of a pickler: collects what is written."""

    def __init__(self, pace: Pace | None) -> None:
        self._pace = pace
        self._pieces: list[Buffer] = []
        self.write: Callable[[Any], object] = self._pieces.append if pace is None else self._write

    def _write(self, data: Any) -> None:
        assert self._pace is not None, "without a pace nothing is written here"
        self._pace(len(data))
        self._pieces.append(data if type(data) is bytes else pickle.PickleBuffer(data).raw())

    def take(self) -> list[Buffer]:
        """All that was written since the last `take`. Large bytes in it belong to the object and must be copied at once."""
        pieces = self._pieces[:]
        self._pieces.clear()
        return pieces


def join(pieces: list[Buffer], pace: Pace | None) -> Buffer:
    """The pieces as one piece."""
    if len(pieces) == 1:
        return pieces[0]
    length = sum(map(len, pieces))
    return b"".join(pieces) if pace is None or length < IN_LOOP_BYTES else _join(pieces, length, pace)


def copy(data: Buffer, pace: Pace) -> Buffer:
    """A copy that can be changed."""
    return _join([data], len(data), pace)


def load(data: Buffer, buffers: Iterable[Any], pace: Pace) -> Any:
    """Does what `pickle.loads` does, but reads in pieces if the data is large."""
    if len(data) < IN_LOOP_BYTES:
        return loads()(data, buffers=buffers)
    return unpickler()(_Reader(data, pace), buffers=buffers).load()


class _Reader:
    """The file of an unpickler."""

    def __init__(self, data: Buffer, pace: Pace) -> None:
        self._data = memoryview(data)
        self._pace = pace
        self._position = 0

    def read(self, count: int) -> bytes:
        return bytes(self._take(count))

    def readinto(self, target: Any) -> int:
        view = memoryview(target)
        for begin in range(0, len(view), _PIECE):
            piece = view[begin : begin + _PIECE]
            piece[:] = self._take(len(piece))
        return len(view)

    def readline(self) -> bytes:
        rest = bytes(self._data[self._position : self._position + _PIECE])  # only short opcodes of old protocols use lines
        return bytes(self._take(rest.find(b"\n") + 1 or len(rest)))

    def _take(self, count: int) -> memoryview:
        taken = self._data[self._position : self._position + count]
        self._position += len(taken)
        self._pace(len(taken))
        return taken


def _join(pieces: list[Buffer], length: int, pace: Pace) -> Buffer:
    """Does what `b"".join` does, but neither touches fresh memory all at once nor copies everything in one go."""
    joined = memoryview(allocate(length))
    position = 0
    for piece in pieces:
        view = memoryview(piece)
        for begin in range(0, len(view), _PIECE):
            part = view[begin : begin + _PIECE]
            joined[position : position + len(part)] = part
            position += len(part)
            pace(len(part))
    return joined
