"""Reads files that joblib has written (0.10 or newer), whether or not joblib is installed.

Such a file is a pickle, perhaps compressed as a whole. Where an array belongs, the pickle has a description of it, an object
of joblib's class `NumpyArrayWrapper`. Right behind the instruction that completes that object, the array's own bytes interrupt
the pickle: a byte with the length of a padding, the padding, and the buffer. An array of objects is a pickle of its own there.

The unpickler that is written in C cannot stop in the middle of its input, so this is the one in Python.
"""

from __future__ import annotations

import math
import pickle
from typing import IO, Any

_DESCRIPTION = "joblib.numpy_pickle", "NumpyArrayWrapper"
_PIECE = 1 << 24  # bytes that are read at once: a stream may give the same only in one more copy
_OLD = frozenset({"NDArrayWrapper", "ZNDArrayWrapper"})  # of joblib before 0.10: each array is in a file of its own

_Unpickler: Any = pickle._Unpickler  # the one in Python has no public name


def load_joblib(file: IO[bytes], path: str | None, mmap_mode: str | None) -> Any:
    """The value that an open file goes on with, if that is not compressed.

    Args:
        path: where `np.memmap` finds the file, if arrays are to be mapped.

    Raises:
        Exception: it is not such a file, or is damaged.
    """
    return _JoblibUnpickler(file, path, mmap_mode).load()


class Description:
    """What the pickle says of an array: subclass, shape, order, dtype, allow_mmap, numpy_array_alignment_bytes."""

    subclass: type
    shape: Any
    order: str
    dtype: Any
    allow_mmap: bool
    numpy_array_alignment_bytes: int | None = None  # older files have none, and no padding

    def read(self, file: IO[bytes], path: str | None, mmap_mode: str | None) -> Any:
        """The array, whose bytes are next in the file."""
        import numpy as np

        if self.dtype.hasobject:
            return pickle.load(file)
        if self.numpy_array_alignment_bytes is not None:
            _take(file, _take(file, 1)[0])
        size = math.prod(self.shape)
        if mmap_mode is not None and self.allow_mmap and path is not None and size:
            offset = file.tell()
            order: Any = self.order
            mapped: Any = np.memmap(path, dtype=self.dtype, shape=self.shape, order=order, mode=mmap_mode, offset=offset)  # type: ignore[call-overload]
            file.seek(offset + mapped.nbytes)
            return mapped
        flat = np.empty(size, self.dtype)
        view = memoryview(flat.view(np.uint8) if flat.size and self.dtype.itemsize else b"").cast("B")
        for begin in range(0, len(view), _PIECE):
            piece = view[begin : begin + _PIECE]
            piece[:] = _take(file, len(piece))
        array = flat.reshape(self.shape[::-1]).T if self.order == "F" else flat.reshape(self.shape)
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        return array if self.subclass in (np.ndarray, np.memmap) else array.view(self.subclass)


class _JoblibUnpickler(_Unpickler):  # type: ignore[misc]  # see above
    dispatch = dict(_Unpickler.dispatch)  # noqa: RUF012 - a table of pickle's, which has no annotation there either

    def __init__(self, file: IO[bytes], path: str | None, mmap_mode: str | None) -> None:
        super().__init__(file)
        self._file, self._path, self._mmap_mode = file, path, mmap_mode

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == _DESCRIPTION:
            return Description
        if name in _OLD and module.startswith("joblib."):
            raise pickle.UnpicklingError("it is of a joblib before 0.10; load it with joblib, and dump it again")
        return super().find_class(module, name)

    def load_build(self) -> None:
        super().load_build()
        if isinstance(self.stack[-1], Description):
            self.stack[-1] = self.stack[-1].read(self._file, self._path, self._mmap_mode)

    dispatch[pickle.BUILD[0]] = load_build


def _take(file: IO[bytes], length: int) -> bytes:
    data = file.read(length)
    while len(data) < length:  # a stream may give less at once
        more = file.read(length - len(data))
        if not more:
            raise EOFError("it ends in the middle of an array")
        data += more
    return data
