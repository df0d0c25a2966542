"""Segments: consecutive calls of one function and one form that have been pulled, and wait to be cut into batches.

A source that is pulled ahead of its batches keeps its calls so. A batch begins with the first segment, and goes on with those
that continue it. Taking a few calls of a long segment copies only these.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

from asyncpar._basics.loaded import loaded_numpy
from asyncpar._run.sources import Columns


class Segment(NamedTuple):
    """`function`: what they call, if that is not the same in the whole run. `indices`: of the calls in the run, if it is not
    the scheduler that numbers them.
    """

    function: Callable[..., Any] | None
    columns: Columns
    indices: Sequence[int] | None = None

    @property
    def calls(self) -> int:
        return len(self.columns[0])

    def part(self, begin: int, end: int) -> Segment:
        columns = tuple([column[begin:end] for column in self.columns])
        return Segment(self.function, columns, None if self.indices is None else self.indices[begin:end])

    def selected(self, positions: Sequence[int]) -> Segment:
        """The calls at these positions."""
        columns = tuple([_selected(column, positions) for column in self.columns])
        return Segment(self.function, columns, None if self.indices is None else _selected(self.indices, positions))


class Segments:
    """A store of segments. `calls`: how many there are in it."""

    def __init__(self) -> None:
        self._segments: deque[Segment] = deque()
        self._begin = 0  # calls of the first segment that have been taken
        self.calls = 0

    @property
    def functions(self) -> list[Any]:
        return [segment.function for segment in self._segments]

    def add(self, segment: Segment) -> None:
        self._segments.append(segment)
        self.calls += segment.calls

    def add_first(self, segment: Segment) -> None:
        if self._begin:
            first = self._segments.popleft()
            self._segments.appendleft(first.part(self._begin, first.calls))
            self._begin = 0
        self._segments.appendleft(segment)
        self.calls += segment.calls

    def take(self, count: int) -> Segment | None:
        """Up to `count` calls that can be one batch; None if there are none."""
        parts: list[Segment] = []
        while count and self._segments and (not parts or _continues(parts[-1], self._segments[0])):
            parts.append(self._take_of_first(count))
            count -= parts[-1].calls
            self.calls -= parts[-1].calls
        return _joined(parts) if parts else None

    def _take_of_first(self, count: int) -> Segment:
        first, begin, end = self._segments[0], self._begin, self._begin + count
        if end < first.calls:
            self._begin = end
            return first.part(begin, end)
        self._segments.popleft()
        self._begin = 0
        return first.part(begin, first.calls) if begin else first


def _continues(first: Segment, second: Segment) -> bool:
    """Whether they can be one batch: calls of one form, whose indices rise, and whose columns are cheap to put together."""
    return (
        first.function is second.function
        and len(first.columns) == len(second.columns)
        and (first.indices is None or second.indices is None or first.indices[-1] < second.indices[0])
        and not any(_is_array(column) for column in (*first.columns, *second.columns))
    )


def _joined(parts: list[Segment]) -> Segment:
    if len(parts) == 1:
        return parts[0]
    columns = tuple([list(chain.from_iterable(pieces)) for pieces in zip(*[part.columns for part in parts], strict=True)])
    indices = [part.indices for part in parts if part.indices is not None]
    return Segment(parts[0].function, columns, list(chain.from_iterable(indices)) if indices else None)


def _selected(column: Any, positions: Sequence[int]) -> Sequence[Any]:
    if _is_array(column):
        rows: Sequence[Any] = column[positions]
        return rows
    return [column[position] for position in positions]


def _is_array(column: object) -> bool:
    numpy = loaded_numpy()
    return numpy is not None and isinstance(column, numpy.ndarray)
