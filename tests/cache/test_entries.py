"""Entries come back as they were written, or not at all."""

from __future__ import annotations

import dataclasses
import functools
import io
import math
import os
import pickle
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncpar._cache.compression import parse_compress
from asyncpar._cache.entries import HEAD_BYTES, DamagedEntryError, Reader, assemble, read, read_small, verify
from asyncpar._cache.inputs import FileInput, StreamInput
from asyncpar._cache.serializers import PICKLE, Plain, Serializer

KEY = bytes(range(20))
SECRET = b"a secret of enough bytes"
METHODS = ["zlib", "gzip", "bz2", "lzma", "xz", "lz4", "zstd"]


def written(value: Any, serializer: Serializer = PICKLE, **options: Any) -> bytes:
    return b"".join(assemble(serializer.pack(value), serializer.code, key=KEY, seconds=1.5, **options))


@contextmanager
def opened(data: bytes) -> Iterator[FileInput]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        yield FileInput(file.fileno())


def read_back(data: bytes, reader: Reader) -> Any:
    with opened(data) as source:
        small = read_small(bytes(source.first), reader)
        found = read(source, reader)
        assert small is None or same(small.value, found.value)
        return found.value


@dataclasses.dataclass
class Pair:
    one: Any
    other: Any


ARRAY = np.arange(100_000.0)
VALUES: dict[str, Any] = {
    "small": {"a": 1},
    "one array": ARRAY,
    "fortran": np.asfortranarray(ARRAY.reshape(100, -1)),
    "arrays in a dataclass": Pair(ARRAY[:10_000], [ARRAY, b"x" * 10**6]),
    "frame": pd.DataFrame({"a": ARRAY, "b": "x"}),
    "long body": list(range(50_000)),
}


def same(one: Any, other: Any) -> bool:
    return pickle.dumps(one) == pickle.dumps(other) or bool(np.all(one == other))


@pytest.mark.parametrize("map_mode", [None, "r", "c"])
@pytest.mark.parametrize("breathe", [False, True])
@pytest.mark.parametrize("name", VALUES)
def test_a_value_comes_back(name: str, breathe: bool, map_mode: Any) -> None:
    value = VALUES[name]
    data = b"".join(assemble(PICKLE.pack(value, breathe=breathe), 0, key=KEY, seconds=1.5))
    with opened(data) as source:
        entry = read(source, Reader(PICKLE, map_mode=map_mode), breathe=breathe)
    assert (entry.key, entry.seconds) == (KEY, 1.5)
    found = entry.value
    if isinstance(value, Pair):
        assert isinstance(found, Pair)
        value, found = [value.one, *value.other], [found.one, *found.other]
    assert all(map(same, value, found)) if isinstance(value, list) else same(value, found)


@pytest.mark.parametrize(("map_mode", "writable"), [(None, True), ("r", False), ("c", True)])
def test_arrays_are_aligned_and_writable_unless_they_are_mapped_for_reading(map_mode: Any, writable: bool) -> None:
    first, second = read_back(written([ARRAY, ARRAY[:12_345]]), Reader(PICKLE, map_mode=map_mode))
    assert first.flags.writeable is second.flags.writeable is writable
    if map_mode is not None:
        assert first.ctypes.data % 64 == second.ctypes.data % 64 == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["small", "one array", "long body"])
def test_a_compressed_value_comes_back(name: str, method: str) -> None:
    try:
        compression = parse_compress(method)
    except ValueError as error:
        pytest.skip(str(error))
    data = written(VALUES[name], compression=compression)
    assert same(read_back(data, Reader(PICKLE)), VALUES[name])
    assert name != "one array" or len(data) < len(written(VALUES[name]))


def test_a_stream_is_read_no_further_than_the_entry() -> None:
    stream = io.BytesIO(written(VALUES["arrays in a dataclass"]) + written("next") + b"rest")
    assert same(read(StreamInput(stream, HEAD_BYTES), Reader(PICKLE)).value.one, ARRAY[:10_000])
    assert read(StreamInput(stream, HEAD_BYTES), Reader(PICKLE)).value == "next"
    assert stream.read() == b"rest"


FAULTY: dict[str, tuple[Any, dict[str, Any], Reader]] = {
    "small": ({"a": [1, 2.5, "text"]}, {}, Reader(PICKLE)),
    "buffers": ([ARRAY[:5000], ARRAY[:3000]], {}, Reader(PICKLE)),
    "long body": (list(range(40_000)), {}, Reader(PICKLE)),
    "compressed": ([ARRAY[:5000]] * 2, {"compression": parse_compress("zlib")}, Reader(PICKLE)),
    "signed": ([ARRAY[:5000]], {"signing_key": SECRET}, Reader(PICKLE, SECRET)),
    "mapped and verified": ([ARRAY[:5000]], {}, Reader(PICKLE, map_mode="r", check_maps=True)),
    "signed and mapped": ([ARRAY[:5000]], {"signing_key": SECRET}, Reader(PICKLE, SECRET, "r")),
}


@functools.cache
def faulty(name: str) -> bytes:
    value, options, _ = FAULTY[name]
    return written(value, **options)


@pytest.mark.parametrize("name", FAULTY)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=150)
def test_one_flipped_bit_never_gives_a_wrong_value(name: str, place: float, bit: int) -> None:
    data = bytearray(faulty(name))
    data[int(place * len(data))] ^= 1 << bit
    _check_damaged(name, bytes(data))


@pytest.mark.parametrize("name", FAULTY)
def test_a_flipped_bit_in_the_head_or_the_table_never_gives_a_wrong_value(name: str) -> None:
    for place in range(300):
        data = bytearray(faulty(name))
        if place < len(data):
            data[place] ^= 0x10
            _check_damaged(name, bytes(data))


@pytest.mark.parametrize("name", FAULTY)
@given(share=st.floats(0, 1, exclude_max=True))
@settings(max_examples=50)
def test_a_truncated_entry_never_gives_a_value(name: str, share: float) -> None:
    data = faulty(name)
    with pytest.raises(DamagedEntryError):
        read_back(data[: int(share * len(data))], FAULTY[name][2])


def _check_damaged(name: str, data: bytes) -> None:
    """It is refused, or, where the bit lies between two buffers, gives the right value."""
    value, _, reader = FAULTY[name]
    try:
        found = read_back(data, reader)
    except DamagedEntryError:
        return
    assert (
        found == value
        if not isinstance(value[0] if isinstance(value, list) else None, np.ndarray)
        else all(map(same, found, value))
    )


class Bomb:
    def __reduce__(self) -> Any:
        return _explode, ()


def _explode() -> None:
    raise AssertionError("a pickle was read that should not have been")


@pytest.mark.parametrize(("options", "reader"), [
    ({}, Reader(PICKLE, SECRET)),
    ({"signing_key": b"another secret of bytes"}, Reader(PICKLE, SECRET)),
    ({"signing_key": SECRET}, Reader(PICKLE)),
    ({}, Reader(Plain())),
])  # fmt: skip
def test_what_is_not_signed_with_the_key_is_not_unpickled(options: dict[str, Any], reader: Reader) -> None:
    with pytest.raises(DamagedEntryError, match=r"signed|signature|serializer"):
        read_back(written(Bomb(), **options), reader)


def test_verify_finds_damage_in_buffers() -> None:
    data = bytearray(written(ARRAY))
    with opened(bytes(data)) as source:
        assert verify(source, Reader(PICKLE), with_buffers=True).key == KEY
    data[-1] ^= 1
    with opened(bytes(data)) as source, pytest.raises(DamagedEntryError, match="checksum of a buffer"):
        verify(source, Reader(PICKLE), with_buffers=True)


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.lists(st.integers(), max_size=1).map(frozenset)
    ),
    max_leaves=20,
)


@given(plain_values)
def test_plain_values_come_back_without_pickle(value: Any) -> None:
    serializer = Plain()
    found = read_back(written(value, serializer), Reader(serializer))
    assert repr(found) == repr(value)


@pytest.mark.parametrize(
    "array",
    [ARRAY, ARRAY.reshape(100, -1).T, np.array(["a", "bc"]), np.array("2026-01-01", "M8[D]"), np.zeros((0, 2)), np.float32(2)],
)
def test_arrays_come_back_without_pickle(array: Any) -> None:
    serializer = Plain()
    found = read_back(written(array, serializer), Reader(serializer))
    assert type(found) is type(array)
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)


def test_dataclasses_come_back_without_pickle_if_they_were_named() -> None:
    serializer = Plain([Pair])
    assert read_back(written(Pair(1, [Pair(math.inf, None)]), serializer), Reader(serializer)) == Pair(
        1, [Pair(math.inf, None)]
    )
    with pytest.raises(TypeError, match=r"does not take objects of .*Pair.*serializer="):
        Plain().pack(Pair(1, 2))
    with pytest.raises(DamagedEntryError, match="not among the dataclasses"):
        read_back(written(Pair(1, 2), serializer), Reader(Plain()))


@pytest.mark.parametrize("value", [object(), np.array([object()]), lambda: None, 1 + np.ma.MaskedArray([1])])
def test_the_plain_serializer_refuses_what_is_not_plain(value: Any) -> None:
    with pytest.raises(TypeError, match="the plain serializer"):
        Plain().pack(value)


@pytest.mark.parametrize(
    ("compress", "file_name", "expected"),
    [
        (False, "", None),
        (0, "", None),
        (True, "", ("zlib", 3)),
        (9, "", ("zlib", 9)),
        ("xz", "", ("xz", 3)),
        (("bz2", 5), "", ("bz2", 5)),
        (False, "a.gz", ("gzip", 3)), (5, "a.xz", ("xz", 5)), ("zlib", "a.gz", ("zlib", 3)),
    ],
)  # fmt: skip
def test_compress_names_a_method_and_a_level(compress: Any, file_name: str, expected: Any) -> None:
    compression = parse_compress(compress, file_name)
    assert (compression and (compression.method.name, compression.level)) == expected


@pytest.mark.parametrize("compress", [10, -1, "zip", ("zlib", 99), ("zlib",), None, 2.5])
def test_a_compression_that_does_not_exist_is_refused(compress: Any) -> None:
    with pytest.raises(ValueError, match=r"compress|level"):
        parse_compress(compress)
