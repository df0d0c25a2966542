"""Digests of bytes: BLAKE2b from the standard library for what is short, BLAKE3 for what is long.

BLAKE3 digests 8 GB/s where BLAKE2b does 1.4, but its module does not load in a subinterpreter, and loading it takes a
millisecond. Which of the two is used depends on the length alone, so the same bytes have the same digest everywhere.

Data of more than a segment is digested segment by segment, in two threads at a time, and then their digests are. They are
threads of our own, which end with the digest. BLAKE3 has a pool of threads, but that would not survive a fork: a forked child
that digests would wait for threads that it does not have.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

from asyncpar._memory.buffers import Buffer

DIGEST_BYTES = 32
LONG_BYTES = 1 << 16  # BLAKE2b takes 45 µs for it
_SEGMENT_BYTES = 1 << 22  # BLAKE3 takes 1 ms for it, several times what a thread costs


class DigestUnavailableError(RuntimeError):
    """The digest of long data cannot be computed in this interpreter."""


def digest(data: Buffer) -> bytes:
    """The digest of contiguous bytes."""
    length = len(data)
    if length < LONG_BYTES:
        return blake2b(data, digest_size=DIGEST_BYTES).digest()
    if length <= _SEGMENT_BYTES:
        return _of_segment(data)
    view = memoryview(data)
    return _of_digests(_in_threads([view[begin : begin + _SEGMENT_BYTES] for begin in range(0, length, _SEGMENT_BYTES)]))


def digest_in_pieces(pieces: Iterable[Any], length: int) -> bytes:
    """The digest of `length` bytes that come in pieces."""
    if length < LONG_BYTES:
        return digest(b"".join(pieces))
    digests, digester, room = [], _blake3(), _SEGMENT_BYTES
    for piece in pieces:
        view = memoryview(piece)
        while len(view) > room:
            digester.update(view[:room])
            digests.append(bytes(digester.digest()))
            view, digester, room = view[room:], _blake3(), _SEGMENT_BYTES
        digester.update(view)
        room -= len(view)
    digests.append(bytes(digester.digest()))
    return digests[0] if length <= _SEGMENT_BYTES else _of_digests(digests)


def _in_threads(segments: list[memoryview]) -> list[bytes]:
    """The digests of the segments; the second thread takes every other one."""
    digests: dict[int, bytes] = {}

    def work(first: int) -> None:
        for place in range(first, len(segments), 2):
            digests[place] = _of_segment(segments[place])

    other = threading.Thread(target=work, args=(1,), name="asyncpar digest")
    try:
        other.start()
    except RuntimeError:  # the interpreter is ending, or there are too many threads
        work(1)
        other = threading.current_thread()
    try:
        work(0)
    finally:
        if other is not threading.current_thread():
            other.join()
    return [digests[place] for place in range(len(segments))]


def _of_segment(data: Buffer) -> bytes:
    digester = _blake3()
    digester.update(data)
    return bytes(digester.digest())


def _of_digests(digests: list[bytes]) -> bytes:
    return blake2b(b"".join(digests), digest_size=DIGEST_BYTES).digest()


def _blake3() -> Any:
    try:
        from blake3 import blake3
    except ImportError as error:
        raise DigestUnavailableError(
            f"data of {LONG_BYTES} bytes or more cannot be digested here, because blake3 does not load ({error}); it does not "
            "in subinterpreters: use processes or threads"
        ) from error
    return blake3()
