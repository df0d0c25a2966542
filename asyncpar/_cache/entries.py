"""The format of an entry: one file with a value and all that is needed to trust it.

    magic     by which our files are known
    seal      the digest of head, table and body; with a signing key, nobody else can make it
    head      format, how the body is written, key, time, seconds that computing took, lengths
    table     a line for each buffer: offset, length, length as stored, digest
    body      the pickle
    buffers   aligned, so that arrays can be mapped from the file

# Guarantees

- What does not have the right seal is not unpickled, and whatever is damaged raises `DamagedEntryError` and never gives a
  value. Bytes between buffers belong to nothing and may be anything.
- The digests of buffers are under the seal. Buffers that are read are checked. Buffers that are mapped are checked only if the
  caller asks for it, since that would read all of them; the file's length is always checked, because a map beyond its end kills
  the process.
- Numbers that are read (lengths, offsets) are believed only once the seal is right, up to the length of the file.

Refused: a database (it suffers from network filesystems, and one bad page loses everything), and checksums beside the data
without a key as protection against attackers, who can write both.
"""

from __future__ import annotations

import mmap
import struct
import sys
import time
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Literal, NamedTuple, TypeAlias

from asyncpar._cache.compression import Compression, decompress
from asyncpar._cache.digests import BLAKE3, DIGEST_BYTES, LONG_BYTES, DigestUnavailableError, digest, own_method
from asyncpar._cache.inputs import FileInput, StreamInput, TooShortError
from asyncpar._cache.serializers import Packed, Serializer
from asyncpar._memory.buffers import Buffer

MapMode: TypeAlias = Literal["r", "c", "r+"]
Source: TypeAlias = FileInput | StreamInput
Line: TypeAlias = tuple[int, int, int, bytes]  # of the table

_MAGIC = b"asyncpar"
_FORMAT = 1
# magic, seal, format, serializer, compression, signed, buffers, key, method of digests, created (ns), seconds, length of the
# body, and as stored
_HEAD = struct.Struct("<8s32sBBBBI20sB3xQdQQ")
HEAD_BYTES = _HEAD.size
_SEALED = len(_MAGIC) + DIGEST_BYTES  # from here on, up to the end of the body
_NO_SEAL = bytes(DIGEST_BYTES)
_LONGEST_SMALL = 1 << 14
_LINE = struct.Struct("<QQQ32s")
_ALIGNMENT = 64  # of buffers: a cache line, and more than any type needs
_NO_DESCRIPTOR: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}  # else each map holds one
_OTHER_SERIALIZER = "it was written by another serializer"
_ACCESS = {"r": mmap.ACCESS_READ, "c": mmap.ACCESS_COPY, "r+": mmap.ACCESS_WRITE}


class DamagedEntryError(ValueError):
    """A file is no entry, or not a whole one. The message says what is wrong with it."""


class ForeignEntryError(DamagedEntryError):
    """A file is an entry, but not one for this reader. Nothing has to be wrong with it."""


class Found(NamedTuple):
    """An entry that has been read. `created` is a time, and `seconds` is how long computing took."""

    value: Any
    key: bytes
    created: float
    seconds: float
    is_compressed: bool = False


class Reader(NamedTuple):
    """How entries are read: with which serializer, checked with which signing key, mapped or not."""

    serializer: Serializer
    signing_key: bytes | None = None
    map_mode: MapMode | None = None
    check_maps: bool = False


def assemble(
    packed: Packed,
    serializer: int,
    *,
    key: bytes = bytes(20),
    seconds: float = 0.0,
    compression: Compression | None = None,
    signing_key: bytes | None = None,
) -> list[Buffer]:
    """The pieces of an entry, in the order in which they are written."""
    squeeze = (lambda data: data) if compression is None else compression.compress
    body = squeeze(packed.body)
    stored = [squeeze(buffer) for buffer in packed.buffers]
    is_long = len(body) >= LONG_BYTES or any(len(part) >= LONG_BYTES for part in stored)
    method = own_method() if is_long else BLAKE3
    head = _HEAD.pack(
        _MAGIC,
        _NO_SEAL,
        _FORMAT,
        serializer,
        0 if compression is None else compression.method.code,
        signing_key is not None,
        len(stored),
        key,
        method,
        time.time_ns(),
        seconds,
        len(packed.body),
        len(body),
    )
    position = len(head) + _LINE.size * len(stored) + len(body)
    lines, pieces = [], []
    for raw, data in zip(packed.buffers, stored, strict=True):
        gap = -position % _ALIGNMENT
        lines.append(_LINE.pack(position + gap, len(raw), len(data), digest(data, method)))
        pieces += [bytes(gap), data]
        position += gap + len(data)
    described = b"".join((head[_SEALED:], *lines))
    return [_MAGIC + _seal(described, body, signing_key, method) + described, body, *pieces]


def read(source: Source, reader: Reader, *, breathe: bool = False) -> Found:
    """An entry with its value.

    Raises:
        DamagedEntryError: there is something wrong with it.
    """
    try:
        head, lines, body = _checked(source, reader)
        if head.serializer != reader.serializer.code:
            raise ForeignEntryError(_OTHER_SERIALIZER)
        if head.compression:
            body = _expanded(head.compression, body, head.length)
        buffers = _buffers(source, head, lines, reader) if lines else ()
        value = reader.serializer.unpack(body, buffers, breathe=breathe)
        return Found(value, head.key, head.created, head.seconds, bool(head.compression))
    except TooShortError:
        raise DamagedEntryError("it ends too early") from None
    except DigestUnavailableError as error:
        raise ForeignEntryError(str(error)) from error
    except (DamagedEntryError, OSError, MemoryError):
        raise
    except Exception as error:
        raise DamagedEntryError(f"reading its value raises {type(error).__name__}: {error}") from error


def read_small(data: bytes, reader: Reader) -> Found | None:
    """The same in a third of the time, for an entry that is plainly short and whole; None for all others, good or bad."""
    if len(data) < HEAD_BYTES or reader.signing_key is not None:
        return None
    magic, seal, form, serializer, compression, signed, count, key, _, created, seconds, _, length = _HEAD.unpack_from(data)
    if (
        len(data) != HEAD_BYTES + length
        or length >= _LONGEST_SMALL
        or magic != _MAGIC
        or form != _FORMAT
        or serializer != reader.serializer.code
        or compression
        or count
        or signed
        or blake2b(data[_SEALED:], digest_size=DIGEST_BYTES).digest() != seal
    ):
        return None
    try:
        return Found(reader.serializer.unpack(data[HEAD_BYTES:], ()), key, created / 1e9, seconds)
    except Exception:
        return None  # and the longer way says what is wrong


def verify(source: Source, reader: Reader, *, with_buffers: bool, any_serializer: bool = False) -> Found:
    """An entry without its value, once its seal, and if asked for its buffers, have been checked.

    Raises:
        DamagedEntryError: there is something wrong with it.
    """
    try:
        head, lines, _ = _checked(source, reader)
        if head.serializer != reader.serializer.code and not any_serializer:
            raise ForeignEntryError(_OTHER_SERIALIZER)
        for line in lines if with_buffers else ():
            _stored(source, line, head.method)
    except DigestUnavailableError as error:
        raise ForeignEntryError(str(error)) from error
    except TooShortError:
        raise DamagedEntryError("it ends too early") from None
    return Found(None, head.key, head.created, head.seconds, bool(head.compression))


class _Head(NamedTuple):
    """What an entry says about itself. `length` is that of the body when it is not compressed."""

    serializer: int
    compression: int
    key: bytes
    method: int
    created: float
    seconds: float
    length: int


def _checked(source: Source, reader: Reader) -> tuple[_Head, list[Line], Buffer]:
    """Head, table and body."""
    first = source.first
    if len(first) < HEAD_BYTES:
        raise DamagedEntryError("it is too short" if _MAGIC.startswith(bytes(first[:8])) else "it was not written by asyncpar")
    head = _HEAD.unpack_from(first)
    magic, seal, form, serializer, compression, signed, count, key, method, created, seconds, raw, length = head
    if magic != _MAGIC:
        raise DamagedEntryError("it was not written by asyncpar")
    if form != _FORMAT:
        raise ForeignEntryError(f"it has format {form}, which this version does not know")
    if bool(signed) != (reader.signing_key is not None):
        raise ForeignEntryError("it is signed, and there is no key" if signed else "it is not signed")
    begin = HEAD_BYTES + count * _LINE.size
    if begin + length > len(first):
        first = source.begin(begin + length)
    view = memoryview(first)
    body = view[begin : begin + length]
    if not _same(_seal(view[_SEALED:begin], body, reader.signing_key, method), seal, secretly=bool(signed)):
        raise DamagedEntryError("its signature is wrong" if signed else "its checksum is wrong")
    lines = [_LINE.unpack_from(first, HEAD_BYTES + place * _LINE.size) for place in range(count)]
    return _Head(serializer, compression, key, method, created / 1e9, seconds, raw), lines, body


def _seal(described: Buffer, body: Buffer, signing_key: bytes | None, method: int) -> bytes:
    sealer = blake2b(described, digest_size=DIGEST_BYTES, key=signing_key or b"")
    sealer.update(body if len(body) < LONG_BYTES else digest(body, method))
    return sealer.digest()


def _same(seal: bytes, other: bytes, *, secretly: bool) -> bool:
    if not secretly:
        return seal == other
    from hmac import compare_digest

    return compare_digest(seal, other)


def _buffers(source: Source, head: _Head, lines: Sequence[Line], reader: Reader) -> list[Any]:
    if head.compression:
        return [_expanded(head.compression, _stored(source, line, head.method), line[1]) for line in lines]
    if reader.map_mode is None or not isinstance(source, FileInput):
        return [_stored(source, line, head.method) for line in lines]
    end = max(offset + stored for offset, _, stored, _ in lines)
    source.check_size(end)
    view = memoryview(mmap.mmap(source.fd, end, access=_ACCESS[reader.map_mode], **_NO_DESCRIPTOR))
    buffers = [view[offset : offset + stored] for offset, _, stored, _ in lines]
    if reader.check_maps or reader.signing_key is not None:
        for buffer, line in zip(buffers, lines, strict=True):
            _check(buffer, line, head.method)
    return buffers


def _stored(source: Source, line: Line, method: int) -> Buffer:
    """A buffer as it is stored, in memory of its own."""
    data = source.take(line[0], line[2])
    _check(data, line, method)
    return data


def _expanded(code: int, data: Buffer, length: int) -> bytearray:
    expanded = bytearray(decompress(code, data))
    if len(expanded) != length:
        raise DamagedEntryError("a part of it does not have the length that it should")
    return expanded


def _check(data: Buffer, line: Line, method: int) -> None:
    if digest(data, method) != line[3]:
        raise DamagedEntryError("the checksum of a buffer is wrong")
