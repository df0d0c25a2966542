"""Segments give their calls out in order, whatever is put in front of them meanwhile, and never two functions at once."""

from __future__ import annotations

import numpy

from asyncpar._run.segments import Segment, Segments


def taken(segments: Segments, count: int) -> list[int]:
    segment = segments.take(count)
    return [] if segment is None else [int(item) for item in segment.columns[0]]


def test_segments_that_continue_each_other_are_one_batch() -> None:
    segments = Segments()
    for column in (range(3), (3, 4), [5]):
        segments.add(Segment(None, (column,)))
    assert [taken(segments, 2), taken(segments, 9), taken(segments, 9)] == [[0, 1], [2, 3, 4, 5], []]
    assert segments.calls == 0


def test_what_comes_first_comes_before_the_rest_of_a_segment() -> None:
    segments = Segments()
    segments.add(Segment(None, ([0, 1, 2],), range(3)))
    assert taken(segments, 1) == [0]
    segments.add_first(Segment(None, ([9],), [9]))
    assert [taken(segments, 3), taken(segments, 3)] == [[9], [1, 2]]  # indices of a batch rise


def test_functions_and_arrays_are_not_put_together() -> None:
    segments = Segments()
    for function, column in ((abs, [0]), (len, [1]), (len, numpy.arange(2, 4)), (len, [4])):
        segments.add(Segment(function, (column,)))  # type: ignore[arg-type]
    assert segments.functions == [abs, len, len, len]
    assert [taken(segments, 9) for _ in range(5)] == [[0], [1], [2, 3], [4], []]


def test_selected_calls_keep_their_indices() -> None:
    selected = Segment(None, (numpy.arange(5), "abcde"), range(10, 15)).selected([1, 3])  # type: ignore[arg-type]
    assert (selected.columns[0].tolist(), selected.columns[1], selected.indices) == ([1, 3], ["b", "d"], [11, 13])  # type: ignore[attr-defined]
