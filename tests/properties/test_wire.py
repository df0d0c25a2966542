"""Whatever is sent arrives, however the stream is cut and whatever cannot be pickled in between."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncpar._wire.codec import OUT_OF_BAND_BYTES, Undeliverable
from asyncpar._wire.decoder import Decoder
from asyncpar._wire.encoder import Encoder
from asyncpar._wire.frames import Frame, FrameReader, to_parts

frames = st.builds(
    Frame,
    st.integers(0, 255),
    st.binary(max_size=300),
    st.lists(st.binary(max_size=300), max_size=4),
    st.integers(0, 2**16 - 1),
)


def feed(reader: FrameReader, stream: bytes, cuts: st.DataObject | None = None) -> list[Frame]:
    """Gives the reader the stream, in pieces that hypothesis chooses or else as large as they can be."""
    found = []
    left = memoryview(stream)
    while len(left):
        space = reader.space()
        most = min(len(space), len(left))
        count = cuts.draw(st.integers(1, most)) if cuts is not None else most
        assert count, "a reader always has space for more"
        space[:count] = left[:count]
        left = left[count:]
        reader.advance(count)
        while (frame := reader.take()) is not None:
            found.append(frame)
    return found


def as_bytes(frame: Frame) -> tuple[int, bytes, list[bytes]]:
    return frame.kind, bytes(frame.payload), [bytes(buffer) for buffer in frame.buffers]


@given(st.lists(frames, max_size=5), st.data())
def test_frames_come_out_however_the_stream_is_cut(sent: list[Frame], cuts: st.DataObject) -> None:
    stream = b"".join(bytes(part) for frame in sent for part in to_parts(frame))
    assert list(map(as_bytes, feed(FrameReader(), stream, cuts))) == list(map(as_bytes, sent))


@given(st.sampled_from([0, 1, 1 << 16, (1 << 16) + 1, 3 << 20]), st.sampled_from([0, 5, 1 << 20]))
@settings(max_examples=20)
def test_large_frames_come_out_whole(payload: int, buffer: int) -> None:
    sent = Frame(1, b"p" * payload, [b"b" * buffer, b"", b"c" * 7])
    stream = b"".join(bytes(part) for part in to_parts(sent))
    (frame,) = feed(FrameReader(), stream)
    assert as_bytes(frame) == as_bytes(sent)


def test_many_buffers_do_not_overflow_the_header() -> None:
    sent = Frame(1, b"", [b"x"] * 20_000)
    (frame,) = feed(FrameReader(), b"".join(bytes(part) for part in to_parts(sent)))
    assert len(frame.buffers) == 20_000


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
nested = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
)
columns = st.one_of(
    st.lists(scalars, max_size=20),
    st.lists(nested, max_size=10),
    st.ranges() if hasattr(st, "ranges") else st.builds(range, st.integers(-50, 50), st.integers(-50, 50)),
    st.text(max_size=20),
    st.binary(max_size=20),
)


def round_trip(sent: list[Any]) -> tuple[list[Any], bool]:
    encoder = Encoder()
    encoded = [encoder.column(column, lambda position: (f"element {position}", "element")) for column in sent]
    stream = b"".join(bytes(part) for part in to_parts(encoder.frame(3, ("message", encoded))))
    (frame,) = feed(FrameReader(), stream)
    decoder = Decoder(frame)
    assert decoder.message[0] == "message"
    return decoder.columns(decoder.message[1])


@given(st.lists(columns, min_size=1, max_size=3))
def test_columns_arrive_equal_and_of_the_same_types(sent: list[Any]) -> None:
    received, spoiled = round_trip(sent)
    assert not spoiled
    for before, after in zip(sent, received, strict=True):
        assert list(before) == list(after)
        assert list(map(type, before)) == list(map(type, after))


@given(st.lists(st.integers(0, 2 * OUT_OF_BAND_BYTES), min_size=1, max_size=4), st.booleans(), st.booleans())
@settings(max_examples=40)
def test_arrays_arrive_equal_inside_and_outside_the_pickle(lengths: list[int], fortran: bool, whole: bool) -> None:
    arrays = [np.arange(2 * length, dtype=np.uint8).reshape(2, -1, order="F" if fortran else "C") for length in lengths]
    sent: list[Any] = arrays if whole else [[{"array": array, "view": array[:, ::2]} for array in arrays], lengths]
    received, spoiled = round_trip(sent)
    assert not spoiled
    if whole:
        assert all((before == after).all() for before, after in zip(arrays, received, strict=True))
    else:
        for before, after in zip(arrays, received[0], strict=True):
            assert (before == after["array"]).all()
            assert (before[:, ::2] == after["view"]).all()
            assert after["array"].flags.writeable


@given(st.lists(st.booleans(), min_size=1, max_size=10))
def test_what_cannot_be_pickled_spoils_only_its_own_place(good: list[bool]) -> None:
    big = np.ones(2 * OUT_OF_BAND_BYTES, dtype=np.uint8)
    column = [[position, big] if fine else [big, threading.Lock()] for position, fine in enumerate(good)]
    (received,), spoiled = round_trip([column])
    assert spoiled == (not all(good))
    for position, (fine, element) in enumerate(zip(good, received, strict=True)):
        if fine:
            assert element[0] == position
            assert (element[1] == big).all()
        else:
            assert isinstance(element, Undeliverable)
            assert f"element {position} cannot be sent between processes" in str(element.error)
