"""What pickle alone does not do for arrays. Loaded only if numpy is already loaded.

**Arguments**: of an array that is mapped from a file, only the name of the file and the offset in it are sent, and the worker
maps the same file. The array keeps its mode: what a worker writes to an "r+" array goes to the file. Private changes ("c") are
in no file, so such an array travels with its content, as does one that is not contiguous or whose file is gone.

**Results** are plain arrays, and writable. Pickle remembers that a buffer was read-only, as shared arguments are in a worker.
Without this module, a call that returns such an argument, or a part of it, would give its caller a read-only array.
"""

from __future__ import annotations

import mmap
import os
from functools import cache
from pathlib import Path
from pickle import PickleBuffer
from typing import Any

import numpy as np

from asyncpar._wire.pickler import pickler_with

_MODES = {
    "r": "r",
    "r+": "r+",
    "w+": "r+",
}  # the mode with which an array of each mode is mapped; "w+" would empty the file


@cache
def argument_pickler() -> Any:
    """A pickler for arguments."""
    return pickler_with({np.memmap: _reduce_memmap})


@cache
def result_pickler() -> Any:
    """A pickler for results."""
    return pickler_with({np.memmap: _reduce_plain, np.ndarray: _reduce_plain})


def _reduce_memmap(array: np.memmap[Any, Any]) -> Any:
    offset = _offset_in_file(array)
    if offset is None:
        return array.view(np.ndarray).__reduce_ex__(5)
    assert array.filename is not None, "it has an offset in a file"
    order = "C" if array.flags.c_contiguous else "F"
    return _map_from_file, (os.fspath(array.filename), array.dtype, _MODES[array.mode], offset, array.shape, order)


def _map_from_file(*arguments: Any) -> Any:
    filename, dtype, mode, offset, shape, order = arguments
    return np.memmap(filename, dtype=dtype, mode=mode, offset=offset, shape=shape, order=order)


def _offset_in_file(array: np.memmap[Any, Any]) -> int | None:
    """Where in its file the array begins; None if it cannot be mapped from there."""
    mapping = getattr(array, "_mmap", None)
    if mapping is None or array.mode not in _MODES or not array.size or not array.flags.forc:
        return None
    if not isinstance(array.filename, str | os.PathLike) or not Path(array.filename).exists():
        return None
    beginning = np.frombuffer(mapping, np.uint8)
    within = _address(array) - _address(beginning)
    if not 0 <= within <= beginning.nbytes - array.nbytes:  # not in the mapping: for example, the result of a calculation
        return None
    return int(array.offset - array.offset % mmap.ALLOCATIONGRANULARITY + within)


def _reduce_plain(array: np.ndarray[Any, Any]) -> Any:
    plain = array.view(np.ndarray)
    if plain.flags.writeable or not plain.flags.forc or plain.dtype.hasobject or not plain.nbytes:
        return plain.__reduce_ex__(5)
    content = np.asarray(_Writable(plain))
    order = "C" if plain.flags.c_contiguous else "F"
    return _from_buffer, (PickleBuffer(content), plain.dtype, plain.shape, order)


class _Writable:
    """Presents the bytes of a read-only array to numpy as writable. (ctypes could do this, but the user may have a module of
    that name.)
    """

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self._array = array  # keeps its memory alive
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": (array.nbytes,),
            "data": (_address(array), False),
        }


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> Any:
    return np.frombuffer(content, dtype=dtype).reshape(shape, order=order)


def _address(array: np.ndarray[Any, Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
