"""Batches on their way out, what comes back, and what the error policy makes of it. Plain values; nothing here awaits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Generic, Literal, NamedTuple, TypeAlias, TypeVar

from asyncpar.errors import CallTimeoutError, OverdueCallError
from asyncpar.notes import add_note
from asyncpar.wording import in_words, message_of, short_repr
from asyncpar.workers.call_forms import BareCall, MixedCall

T = TypeVar("T")

OnError: TypeAlias = Literal["raise", "return", "skip"]
ON_ERROR: tuple[OnError, ...] = ("raise", "return", "skip")

_LONGEST_MESSAGE = 500  # characters that are searched for that; such a message has the names of a few arguments
_LACKS_ARGUMENTS = re.compile(  # as functions in Python, in C, and of numpy say it: how many are missing, or are needed
    r"missing (\d+) required positional|missing required argument .*\(pos (\d+)\)"
    r"|expected (?:at least )?(\d+) arguments?, got 1\b|takes (?:exactly |at least |from )?(\d+)\b.*\b1 (?:was |were )?given"
)


class Batch:
    """Consecutive calls, as columns: one sequence for each argument, all of one length. Never changed once packed.

    `start` is the index of the first call in the run; `deaths` counts the workers that died while they read it, `attempts`
    how often its calls may have been started, the next time included, and `failures` how often they have failed. `function`
    is what they call, where that is not the same in the whole run. `near_end`: when it was packed, the run had hardly any other
    calls for further workers.
    """

    __slots__ = ("attempts", "columns", "deaths", "failures", "function", "near_end", "start")

    def __init__(
        self,
        start: int,
        columns: tuple[Sequence[Any], ...],
        deaths: int = 0,
        attempts: int = 1,
        failures: int = 0,
        function: Callable[..., Any] | None = None,
    ) -> None:
        self.start = start
        self.columns = columns
        self.deaths = deaths
        self.attempts = attempts
        self.failures = failures
        self.function = function
        self.near_end = False

    def __len__(self) -> int:
        return len(self.columns[0])

    def part(self, begin: int, end: int, *, deaths: int = 0, again: bool = False, failed: bool = False) -> Batch:
        """The calls from position `begin` up to `end`; `again`: they may have been started already; `failed`: and failed."""
        columns = tuple([column[begin:end] for column in self.columns])
        return Batch(self.start + begin, columns, deaths, self.attempts + again, self.failures + failed, self.function)

    def rest(self, begin: int) -> tuple[Batch, ...]:
        """The calls from position `begin` on, which nobody has started, as a batch of their own; () if there are none."""
        return (self.part(begin, len(self)),) if begin < len(self) else ()

    def item(self, position: int) -> Any:
        """The item of the call at `position`, or the tuple of its arguments if there are several or none."""
        arguments = self._arguments(tuple(column[position] for column in self.columns))
        return arguments[0] if len(arguments) == 1 else arguments

    def _arguments(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """What the user's function is called with; some forms of calls have columns of their own making."""
        if isinstance(self.function, BareCall):
            return ()
        if isinstance(self.function, MixedCall):
            _, arguments, keywords = row
            return (*arguments, *keywords.values())
        return row

    def describe(self, position: int) -> str:
        """The call at `position`, with its index and the shortened repr of its item."""
        return f"call {self.start + position}, item {short_repr(self.item(position))}"


class BatchDone(NamedTuple):
    """What became of a batch: `values` of its first calls, with None where `errors` (by position) has the exception.

    `rest` are calls of the batch as it was sent that have no outcome and are still to be run. `timings` are runs of
    (calls, seconds), in order. `inline_bytes` travelled there and back, `shared_bytes` went through shared memory. It is an
    `Answer` that has been read already.
    """

    batch: Batch
    values: list[Any]
    errors: dict[int, BaseException]
    timings: Sequence[tuple[int, float]]
    worker: str
    rest: tuple[Batch, ...] = ()
    inline_bytes: int = 0
    shared_bytes: int = 0

    @property
    def is_large(self) -> bool:
        return False

    def read(self) -> BatchDone:
        return self

    @property
    def busy_seconds(self) -> float:
        """Seconds that the worker spent in calls."""
        if len(self.timings) == 1:
            return self.timings[0][1]
        return sum(seconds for _, seconds in self.timings)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What became of one call.

    Attributes:
        index: place of the item in the input, from 0.
        value: what the call returned; None if it failed.
        error: what it raised, or None.
        seconds: how long the call took in its worker; for calls far below 10 µs, and a long one that comes after such, the mean
            of the few around it.
        attempts: how often the call may have been started: once, unless it was retried or a worker died with its batch.
        worker: which worker ran it.
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


def annotate(done: BatchDone, run: int) -> None:
    """Adds to each error a note that names the call it came from; `run` is the number of the run."""
    attempt = f", at attempt {done.batch.attempts}" if done.batch.attempts > 1 else ""
    for position, error in done.errors.items():
        add_note(error, f"raised by {done.batch.describe(position)}, in {done.worker}{attempt}", run)


def keep_program_alive(done: BatchDone) -> None:
    """Puts an error that names the call in the place of each that would end the program if it were raised here.

    A call that exits, as a debugger does when it finds no terminal, has no say about the program. Ctrl-C of the program itself
    never stands among the errors of calls.
    """
    for position, error in done.errors.items():
        if issubclass(type(error), (SystemExit, KeyboardInterrupt, GeneratorExit)):
            done.errors[position] = replacement = RuntimeError(f"{done.batch.describe(position)}, raised {in_words(error)}")
            replacement.__cause__ = error


def explain_tuples(done: BatchDone) -> None:
    """Says what to write where a call lacks arguments and its one item is a tuple of them."""
    if done.batch.function is not None or len(done.batch.columns) != 1:  # calls of `Parallel`, or several iterables
        return
    for position, error in done.errors.items():
        item = done.batch.item(position)
        if type(error) is TypeError and type(item) in (tuple, list):
            lacks = _LACKS_ARGUMENTS.search(message_of(error)[:_LONGEST_MESSAGE])
            if lacks is not None and int(next(filter(None, lacks.groups()))) <= len(item) > 1:
                add_note(
                    error,
                    "each item is one argument; if its elements are the arguments, write pmap(f, *zip(*items)), "
                    "or pmap(lambda item: f(*item), items)",
                )


def timed_out(batch: Batch, position: int, seconds: float) -> CallTimeoutError:
    """The error of a call that took longer than `seconds`."""
    message = f"{batch.describe(position)} took longer than its timeout of {seconds:g} s"
    return CallTimeoutError(message, batch.start + position, batch.item(position), seconds)


def complete_timeouts(batch: Batch, errors: dict[int, BaseException]) -> None:
    """Tells the timeouts of coroutine calls, which their worker knows only by position, what they are about."""
    for position, error in errors.items():
        if type(error) is OverdueCallError:
            errors[position] = timed_out(batch, position, error.seconds)


def take_out(done: BatchDone, positions: Sequence[int]) -> tuple[list[BatchDone], list[Batch]]:
    """`done` without the calls at `positions`, in stretches; and those calls, each as a batch of its own to be run again."""
    again = [done.batch.part(position, position + 1, again=True, failed=True) for position in positions]
    bounds = [-1, *positions, len(done.values)]
    stretches = [_stretch(done, after + 1, before) for after, before in pairwise(bounds) if after + 1 < before]
    return stretches, again


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


def raisable(error: BaseException) -> BaseException:
    """`error`, or what Python allows a coroutine to raise in its place (PEP 479): the others would end a loop silently."""
    if not issubclass(type(error), (StopIteration, StopAsyncIteration)):
        return error
    replacement = RuntimeError(f"a call raised {type(error).__name__}")
    replacement.__cause__ = error
    return replacement


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
    start, errors, worker = done.batch.start, done.errors, done.worker
    attempts = done.batch.attempts
    return [
        Outcome(start + position, value, errors.get(position), seconds[position], attempts, worker)
        for position, value in enumerate(done.values)
    ]
