"""`dump`, `load` and `hash`: single values in files, in the format of the cache's entries, and the digest that its keys are
made of.

A file that joblib has written begins with a pickle or with a compressed one, and never as ours do, so `load` can tell them
apart, and reads both (`joblib_files.py`). `dump` writes only our own.
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from typing import IO, Any, cast

from asyncpar._cache.compression import CompressOption, decompress_alone, parse_compress
from asyncpar._cache.entries import HEAD_BYTES, DamagedEntryError, MapMode, Reader, assemble, read
from asyncpar._cache.forms import Forms
from asyncpar._cache.inputs import FileInput, StreamInput
from asyncpar._cache.parts import parts_of
from asyncpar._cache.serializers import PICKLE
from asyncpar._memory.buffers import Buffer

_MAP_MODES: dict[Any, MapMode] = {"r": "r", "c": "c", "r+": "r+", "w+": "r+"}
_DIGITS = 32  # of a hash in hexadecimal, as many as joblib's
_OURS = b"asyncpar"


def dump(
    value: Any, filename: str | os.PathLike[str] | IO[bytes], compress: CompressOption = 0, protocol: int | None = None
) -> list[str] | None:
    """Writes a value to a file, from which `load` reads it, or maps its arrays.

    Large buffers, such as those of arrays, also in frames and in other objects, are written beside the pickle without a copy. A
    file is replaced only when the new one is complete.

    Args:
        value: whatever can be pickled.
        filename: a path, or a file that is open for writing bytes.
        compress: True, a level from 0 to 9, a method ("zlib", "gzip", "bz2", "lzma", "xz", "lz4", "zstd"), or both as a tuple.
            If no method is named, the suffix of the file decides (.z .gz .bz2 .lzma .xz .lz4 .zst).
        protocol: of pickle; there is only one here, 5.

    Returns:
        A list with the path; None for an open file.

    Raises:
        ValueError: there is no such compression.
        Exception: what pickling the value raises.

    Example:
        >>> import tempfile, os
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "numbers")
        ...     _ = dump([1, 2, 3], path)
        ...     load(path)
        [1, 2, 3]
    """
    if protocol not in (None, -1, 5):
        raise ValueError(f"protocol is 5 or None, not {protocol!r}: older ones cannot keep arrays beside the pickle")
    is_path = isinstance(filename, str | os.PathLike)
    if not is_path and not hasattr(filename, "write"):
        raise ValueError(f"Second argument should be a filename or a file-like object, not {filename!r:.200}")
    path = os.fspath(cast("str", filename)) if is_path else ""
    pieces = assemble(PICKLE.pack(value), PICKLE.code, compression=parse_compress(compress, path))
    if not is_path:
        file = cast("IO[bytes]", filename)
        for piece in pieces:
            file.write(piece)
        return None
    _replace(path, pieces)
    return [path]


def load(filename: str | os.PathLike[str] | IO[bytes], mmap_mode: str | None = None) -> Any:
    """Reads a value that `dump` has written.

    Reading a file runs what its pickle says, so load only files that you trust. A value that is not mapped is checked as a
    whole; of one that is mapped, everything but the arrays is.

    Args:
        filename: a path, or a file that is open for reading bytes.
        mmap_mode: None reads arrays into memory. "r" maps them from the file for reading, "c" for writing to copies, and
            "r+" (or "w+") for writing to the file. Compressed files and open files are read all the same, with a warning.

    Raises:
        ValueError: the file was not written by `dump`, or not completely, or is damaged; or `mmap_mode` does not exist.
    """
    if mmap_mode is not None and mmap_mode not in _MAP_MODES:
        raise ValueError(f'mmap_mode is None, "r", "c", "r+" or "w+", not {mmap_mode!r:.200}')
    if not isinstance(filename, str | os.PathLike):
        if mmap_mode is not None:
            warnings.warn(f"mmap_mode={mmap_mode!r} has no effect on an open file; pass its path", UserWarning, stacklevel=2)
        return _load_open(filename)
    mode = None if mmap_mode is None else _MAP_MODES[mmap_mode]
    path = os.fspath(filename)
    with open(path, "r+b" if mode == "r+" else "rb") as file:
        source = FileInput(file.fileno())
        if bytes(source.first[: len(_OURS)]) != _OURS:
            file.seek(0)
            return _load_foreign(file, path, mode)
        try:
            found = read(source, Reader(PICKLE, map_mode=mode))
        except DamagedEntryError as error:
            raise ValueError(f"{path} cannot be loaded: {error}") from error
    if mode is not None and found.is_compressed:
        _warn_of_compressed(path, str(mmap_mode), stacklevel=3)
    return found.value


def _load_open(file: IO[bytes]) -> Any:
    """The value at which an open file stands. Only one that can go back may be joblib's, or compressed as a whole."""
    if file.seekable():
        start = file.tell()
        head = file.read(len(_OURS))
        if not head and start:  # it has just been written; joblib goes back, too
            start = file.seek(0)
            head = file.read(len(_OURS))
        file.seek(start)
        if head != _OURS:
            return _load_foreign(file, None, None)
    try:
        return read(StreamInput(file, HEAD_BYTES), Reader(PICKLE)).value
    except DamagedEntryError as error:
        raise ValueError(f"{file!r:.200} cannot be loaded: {error}") from error


def hash(obj: Any, hash_name: str = "blake2b", coerce_mmap: bool = False) -> str:  # noqa: A001 - joblib's name
    """A text that is the same for equal values and different for different ones.

    It does not depend on the process, the version of Python, the order of sets and dicts, or how an array lies in memory; 1,
    1.0 and True are different, and so are arrays in C and in Fortran order. Objects count by their class and their state;
    `register_hasher` says otherwise.

    Args:
        obj: the value.
        hash_name: the method of `hashlib` that makes the text.
        coerce_mmap: an `np.memmap` counts as an array.

    Raises:
        TypeError: something in the value has no stable content, such as a lock.
        ValueError: there is no such method.

    Example:
        >>> hash({"a": 1, "b": 2}) == hash({"b": 2, "a": 1})
        True
        >>> hash(1) == hash(1.0)
        False
    """
    form = Forms(parts_of, tell_maps_apart=not coerce_mmap).form(obj)
    if hash_name == "blake2b":
        return hashlib.blake2b(form, digest_size=_DIGITS // 2).hexdigest()
    return hashlib.new(hash_name, form, usedforsecurity=False).hexdigest()


def _replace(path: str, pieces: list[Buffer]) -> None:
    temporary = f"{path}.{os.getpid()}-{os.urandom(4).hex()}.new"
    try:
        with open(temporary, "xb", buffering=0) as file:
            for piece in pieces:
                view = memoryview(piece)
                while len(view):
                    view = view[file.write(view) :]
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def _load_foreign(file: IO[bytes], path: str | None, mmap_mode: MapMode | None) -> Any:
    """A file that is not ours as it stands. It may be joblib's, or either one, compressed as a whole."""
    from asyncpar._cache.joblib_files import load_joblib

    start = file.tell()
    try:
        plain = decompress_alone(file)
        if plain is None:
            file.seek(start)
            return load_joblib(file, path, mmap_mode)
        value = _load_open(io.BytesIO(plain))
    except ImportError:  # of what is in it
        raise
    except Exception as error:
        raise ValueError(
            f"{path or file!r:.200} is damaged, or was written neither by asyncpar.dump nor by joblib: {error}"
        ) from error
    if mmap_mode is not None:
        _warn_of_compressed(path or repr(file), mmap_mode, stacklevel=4)
    return value


def _warn_of_compressed(name: str, mmap_mode: str, stacklevel: int) -> None:
    message = f"mmap_mode={mmap_mode!r} has no effect on {name}, because it is compressed"
    warnings.warn(message, UserWarning, stacklevel=stacklevel)
