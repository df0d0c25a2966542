"""Digests of bytes: BLAKE2b from the standard library for what is short, BLAKE3 for what is long.

BLAKE3 digests 8 GB/s where BLAKE2b does 1.4, but its module does not load in a subinterpreter, and loading it takes a
millisecond. Which of the two is used depends on the length alone, so the same bytes have the same digest everywhere.

BLAKE3 could use several threads. Their pool would not survive a fork: a forked child that digests would wait for threads that
it does not have. So one thread does it.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

from asyncpar._memory.buffers import Buffer

DIGEST_BYTES = 32
LONG_BYTES = 1 << 16  # BLAKE2b takes 45 µs for it


class DigestUnavailableError(RuntimeError):
    """The digest of long data cannot be computed in this interpreter."""


def digest(data: Buffer) -> bytes:
    """The digest of contiguous bytes."""
    if len(data) < LONG_BYTES:
        return blake2b(data, digest_size=DIGEST_BYTES).digest()
    digester = _blake3()
    digester.update(data)
    return bytes(digester.digest())


def digest_in_pieces(pieces: Iterable[Any], length: int) -> bytes:
    """The digest of `length` bytes that come in pieces."""
    digester = blake2b(digest_size=DIGEST_BYTES) if length < LONG_BYTES else _blake3()
    for piece in pieces:
        digester.update(piece)
    return bytes(digester.digest())


def _blake3() -> Any:
    try:
        from blake3 import blake3
    except ImportError as error:
        raise DigestUnavailableError(
            f"data of {LONG_BYTES} bytes or more cannot be digested here, because blake3 does not load ({error}); it does not "
            "in subinterpreters: use processes or threads"
        ) from error
    return blake3()
