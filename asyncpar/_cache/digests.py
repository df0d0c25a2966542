"""Digests of bytes: BLAKE2b from the standard library for what is short, BLAKE3 for what is long.

BLAKE3 digests 8 GB/s where BLAKE2b does 1.4, but its module does not load in a subinterpreter, and loading it takes a
millisecond. Which of the two is used depends on the length, so the same bytes have the same digest in all processes.

# Subinterpreters

There, long data is digested by BLAKE2b, too. So

- keys are the same everywhere as long as no argument has `LONG_BYTES` in a piece. A call with a longer one has another key
  there, and is computed once more. Its result is never taken for that of another call;
- an entry says by which method its long parts were digested. What a subinterpreter has written is read everywhere. What others
  have written, if it is long, a subinterpreter cannot check, so it counts as a miss there, and the next result replaces it.

Refused: BLAKE2b or SHA-256 for all, which digest large arrays at a tenth or a fifth of the speed for the sake of a place where
numpy does not load either; BLAKE3 written in Python, which would have the same keys, at 1 MB/s.

# Long data

Data of more than a segment is digested segment by segment, in two threads at a time, and then their digests are. They are
threads of our own, which end with the digest. BLAKE3 has a pool of threads, but that would not survive a fork: a forked child
that digests would wait for threads that it does not have.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

from asyncpar._memory.buffers import Buffer

DIGEST_BYTES = 32
LONG_BYTES = 1 << 16  # BLAKE2b takes 45 µs for it
_SEGMENT_BYTES = 1 << 22  # BLAKE3 takes 1 ms for it, several times what a thread costs


BLAKE3, BLAKE2B = 0, 1  # methods for long data, as entries name them
_PERSON = b"asyncpar long"


class DigestUnavailableError(RuntimeError):
    """The digest of long data cannot be computed in this interpreter."""


@functools.cache
def own_method() -> int:
    """The method for long data in this interpreter."""
    try:
        import blake3  # noqa: F401 - whether it loads is the question
    except ImportError:
        return BLAKE2B
    return BLAKE3


def digest(data: Buffer, method: int | None = None) -> bytes:
    """The digest of contiguous bytes.

    Raises:
        DigestUnavailableError: they are long, and the method does not exist here.
    """
    length = len(data)
    if length < LONG_BYTES:
        return blake2b(data, digest_size=DIGEST_BYTES).digest()
    if method is None:
        method = own_method()
    if length <= _SEGMENT_BYTES:
        return _of_segment(data, method)
    _digester(method)  # raises here rather than in a thread
    view = memoryview(data)
    segments = [view[begin : begin + _SEGMENT_BYTES] for begin in range(0, length, _SEGMENT_BYTES)]
    return _of_digests(_in_threads(segments, method))


def digest_in_pieces(pieces: Iterable[Any], length: int) -> bytes:
    """The digest of `length` bytes that come in pieces."""
    if length < LONG_BYTES:
        return digest(b"".join(pieces))
    method = own_method()
    digests, digester, room = [], _digester(method), _SEGMENT_BYTES
    for piece in pieces:
        view = memoryview(piece)
        while len(view) > room:
            digester.update(view[:room])
            digests.append(bytes(digester.digest()))
            view, digester, room = view[room:], _digester(method), _SEGMENT_BYTES
        digester.update(view)
        room -= len(view)
    digests.append(bytes(digester.digest()))
    return digests[0] if length <= _SEGMENT_BYTES else _of_digests(digests)


def _in_threads(segments: list[memoryview], method: int) -> list[bytes]:
    """The digests of the segments; the second thread takes every other one."""
    digests: dict[int, bytes] = {}

    def work(first: int) -> None:
        for place in range(first, len(segments), 2):
            digests[place] = _of_segment(segments[place], method)

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


def _of_segment(data: Buffer, method: int) -> bytes:
    digester = _digester(method)
    digester.update(data)
    return bytes(digester.digest())


def _of_digests(digests: list[bytes]) -> bytes:
    return blake2b(b"".join(digests), digest_size=DIGEST_BYTES).digest()


def _digester(method: int) -> Any:
    if method == BLAKE2B:
        return blake2b(digest_size=DIGEST_BYTES, person=_PERSON)
    if method != BLAKE3 or own_method() != BLAKE3:
        raise DigestUnavailableError("it was digested by a method that does not load here, as blake3 in a subinterpreter")
    from blake3 import blake3

    return blake3()
