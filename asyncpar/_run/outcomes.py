"""What the error policy makes of a batch that came back, and what users see of its calls. Plain values; nothing here awaits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from asyncpar._basics.notes import add_note
from asyncpar._basics.wording import message_of
from asyncpar._contract.batches import BatchDone, stretches

T = TypeVar("T")

OnError: TypeAlias = Literal["raise", "return", "skip"]
ON_ERROR: tuple[OnError, ...] = ("raise", "return", "skip")

_LONGEST_MESSAGE = 500  # characters that are searched for that; such a message has the names of a few arguments
_LACKS_ARGUMENTS = re.compile(  # as functions in Python, in C, and of numpy say it: how many are missing, or are needed
    r"missing (\d+) required positional|missing required argument .*\(pos (\d+)\)"
    r"|expected (?:at least )?(\d+) arguments?, got 1\b|takes (?:exactly |at least |from )?(\d+)\b.*\b1 (?:was |were )?given"
)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What became of one call.

    Attributes:
        index: position of the item in the input, from 0.
        value: what the call returned; None if it failed.
        error: what it raised, or None.
        seconds: how long the call took in its worker; for calls far below 10 µs, and a long one that follows them, the mean of
            the few around it.
        attempts: how often the call may have been started: once, unless it was retried or a worker died with its batch; 0 if
            its result was found in the cache.
        worker: which worker ran it, or "the cache".
    """

    index: int
    value: T | None = None
    error: BaseException | None = None
    seconds: float = 0.0
    attempts: int = 1
    worker: str = field(default="", compare=False)

    def unwrap(self) -> T:
        """The value, or the error raised."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]  # T may itself be None; without an error the value is a T


def explain_tuples(done: BatchDone) -> None:
    """Says what to write where a call lacks arguments and its one item is a tuple of them."""
    batch = done.batch.plain
    if batch.function is not None or len(batch.columns) != 1:  # calls of `Parallel`, or several iterables
        return
    for position, error in done.errors.items():
        item = batch.item(position)
        if type(error) is TypeError and type(item) in (tuple, list):
            lacks = _LACKS_ARGUMENTS.search(message_of(error)[:_LONGEST_MESSAGE])
            if lacks is not None and int(next(filter(None, lacks.groups()))) <= len(item) > 1:
                add_note(
                    error,
                    "each item is one argument; if its elements are the arguments, write pmap(f, *zip(*items)), "
                    "or pmap(lambda item: f(*item), items)",
                )


def without(done: BatchDone, positions: Sequence[int]) -> list[BatchDone]:
    """`done` without the calls at `positions`, split into stretches."""
    bounds = [-1, *positions, len(done.values)]
    return [_stretch(done, after + 1, before) for after, before in pairwise(bounds) if after + 1 < before]


def in_sequence(done: BatchDone) -> list[BatchDone]:
    """`done`, split into stretches whose indices follow each other."""
    indices = done.batch.indices
    if type(indices) is range:
        return [done]
    first = 0
    found = []
    for begin, end in stretches(indices[: len(done.values)]):
        found.append(_stretch(done, first, first + end - begin))
        first += end - begin
    return found


def _stretch(done: BatchDone, begin: int, end: int) -> BatchDone:
    errors = {position - begin: error for position, error in done.errors.items() if begin <= position < end}
    timings = list(_cut_timings(done.timings, begin, end))
    return BatchDone(done.batch.part(begin, end), done.values[begin:end], errors, timings, done.worker)


def _cut_timings(timings: Sequence[tuple[int, float]], begin: int, end: int) -> Iterator[tuple[int, float]]:
    first = 0
    for calls, seconds in timings:
        within = min(end, first + calls) - max(begin, first)
        if within > 0:
            yield within, seconds * within / calls
        first += calls


def first_error(done: BatchDone) -> BaseException | None:
    """The error of the earliest call that failed."""
    return done.errors[min(done.errors)] if done.errors else None


def values_by_policy(done: BatchDone, on_error: OnError) -> list[Any]:
    """The values to hand to the user; under "raise", those before the first error."""
    values = done.values
    if not done.errors:
        return values
    if on_error == "raise":
        return values[: min(done.errors)]
    if on_error == "skip":
        return [value for position, value in enumerate(values) if position not in done.errors]
    for position, error in done.errors.items():
        values[position] = error
    return values


def to_outcomes(done: BatchDone) -> list[Outcome[Any]]:
    """One outcome for each call."""
    seconds = [spent / calls for calls, spent in done.timings for _ in range(calls)]
    indices, errors, worker = done.batch.indices, done.errors, done.worker
    attempts = done.batch.attempts
    return [
        Outcome(indices[position], value, errors.get(position), seconds[position], attempts, worker)
        for position, value in enumerate(done.values)
    ]
