"""pyarrow: tables and arrays are their types and their values, however they are cut into chunks or offset in their buffers."""

from __future__ import annotations

from typing import Any

import numpy
import pyarrow

from asyncpar._cache.array_parts import parts_of_array
from asyncpar._cache.digests import digest
from asyncpar._cache.forms import Forms

_WITH_LONG_OFFSETS = {pyarrow.large_string(), pyarrow.large_binary()}


def parts_of(value: Any, forms: Forms) -> object | None:
    """What stands for a value of pyarrow; None if its pickle does."""
    if isinstance(value, pyarrow.Table | pyarrow.RecordBatch):
        return _written(value.schema), [parts_of_column(column) for column in value.columns]
    if isinstance(value, pyarrow.Array | pyarrow.ChunkedArray):
        return parts_of_column(value)
    if isinstance(value, pyarrow.Scalar):
        return str(value.type), value.as_py()
    if isinstance(value, pyarrow.Schema):
        return _written(value)
    if isinstance(value, pyarrow.Field):
        return _written(pyarrow.schema([value]))
    if isinstance(value, pyarrow.DataType):
        return _written_type(value)
    return None


def same_as(kind: type) -> type:
    """The class whose objects have the same name in a key: arrays have one for each type of their elements."""
    return pyarrow.Array if issubclass(kind, pyarrow.Array | pyarrow.ChunkedArray) else kind


def _written(schema: Any) -> bytes:
    """A schema as it is sent, with all its metadata; its text is cut off, and names may be such that it means two schemas."""
    written: bytes = schema.serialize().to_pybytes()
    return written


def _written_type(kind: Any) -> bytes:
    return _written(pyarrow.schema([("", kind)]))


def parts_of_column(column: Any) -> object:
    """Type, length, which values are there, and those."""
    kind = column.type
    if pyarrow.types.is_dictionary(kind):
        return str(kind), parts_of_column(column.cast(kind.value_type))
    if pyarrow.types.is_nested(kind) or isinstance(kind, pyarrow.BaseExtensionType) or pyarrow.types.is_null(kind):
        return _written_type(kind), len(column), column.to_pylist()
    if pyarrow.types.is_string_view(kind) or pyarrow.types.is_binary_view(kind):
        column = column.cast(pyarrow.large_binary())  # which pyarrow can take apart
    chunks = column if isinstance(column, pyarrow.ChunkedArray) else pyarrow.chunked_array([column])
    there = chunks.is_valid().combine_chunks()
    return str(kind), len(column), _buffers(there), _buffers(chunks.drop_null().combine_chunks())


def _buffers(array: Any) -> object:
    """Digests of the part of the buffers that an array without missing values uses."""
    if isinstance(array, pyarrow.ChunkedArray):  # too long for one array of this type
        return array.to_pylist()
    kind = array.type
    if pyarrow.types.is_boolean(kind):
        return array.to_numpy(zero_copy_only=False).tobytes()
    begin, end = array.offset, array.offset + len(array)
    _, first, *others = array.buffers()
    if not len(array):
        return b""
    if not others:
        width = kind.bit_width // 8
        return digest(memoryview(first)[begin * width : end * width])
    ends = numpy.frombuffer(first, "i8" if kind in _WITH_LONG_OFFSETS else "i4")[begin : end + 1]
    return parts_of_array(ends - ends[0]), digest(memoryview(others[0])[ends[0] : ends[-1]])
