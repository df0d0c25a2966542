"""Batches on their way out and what comes back. Plain values; nothing here awaits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from asyncpar._basics.wording import short_repr
from asyncpar._child.call_forms import BareCall, make_call
from asyncpar.errors import CallTimeoutError, ExecutorUnavailableError, OverdueCallError

_SELECTED_SINGLY = (list, tuple, range, str, bytes)  # single elements of other columns may be copies

B = TypeVar("B", bound="Batch")


class Batch:
    """Calls that travel together, as columns: one sequence for each argument, all of one length. Never changed once packed.

    Attributes:
        indices: of the calls, in the run: a range, or a list of rising numbers.
        columns: see above.
        deaths: how many workers died with the batch, where it is not known whether the batch is to blame.
        attempts: how often its calls may have been started, the next time included.
        failures: how often they have failed.
        function: what they call, if that is not the same in the whole run.
        near_end: when it was packed, the run had hardly any calls left for other workers.
        alone: it may have killed its worker, so nothing else may run beside it.
    """

    __slots__ = ("alone", "attempts", "columns", "deaths", "failures", "function", "indices", "near_end")

    def __init__(
        self,
        indices: Sequence[int],
        columns: tuple[Sequence[Any], ...],
        deaths: int = 0,
        attempts: int = 1,
        failures: int = 0,
        function: Callable[..., Any] | None = None,
        alone: bool = False,
    ) -> None:
        self.indices = indices
        self.columns = columns
        self.deaths = deaths
        self.attempts = attempts
        self.failures = failures
        self.function = function
        self.near_end = False
        self.alone = alone

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def start(self) -> int:
        """The index of the first call."""
        return self.indices[0]

    @property
    def plain(self) -> Batch:
        """The batch as messages show it: in some, columns have been added for the worker."""
        return self

    def turned_into(self, kind: type[B], columns: tuple[Sequence[Any], ...], function: Callable[..., Any] | None) -> B:
        """The same calls in another form."""
        other = kind(self.indices, columns, self.deaths, self.attempts, self.failures, function, self.alone)
        other.near_end = self.near_end
        return other

    def part(self, begin: int, end: int, *, deaths: int | None = None, again: bool = False, failed: bool = False) -> Batch:
        """The calls from position `begin` up to `end`. `again`: they may have been started. `failed`: they have also failed.

        `deaths`: 0 once a worker has read the batch, because the control page tells more then.
        """
        columns = tuple([column[begin:end] for column in self.columns])
        deaths = self.deaths if deaths is None else deaths
        indices = self.indices[begin:end]
        return type(self)(indices, columns, deaths, self.attempts + again, self.failures + failed, self.function, self.alone)

    def some(
        self, positions: Sequence[int], *, deaths: int = 0, again: bool = False, failed: bool = False, alone: bool = False
    ) -> Batch:
        """The calls at these positions, which rise. See `part`."""
        columns = tuple([[column[position] for position in positions] for column in self.columns])
        indices = [self.indices[position] for position in positions]
        return type(self)(indices, columns, deaths, self.attempts + again, self.failures + failed, self.function, alone)

    def rest(self, begin: int) -> tuple[Batch, ...]:
        """The calls from position `begin` on, which were read but not started, as a batch of their own, if there are any."""
        return (self.part(begin, len(self), deaths=0),) if begin < len(self) else ()

    def failed(self, positions: Sequence[int]) -> list[Batch]:
        """The calls at these positions, to be run again. They are one batch, unless a column can only be cut as a slice."""
        if all(isinstance(column, _SELECTED_SINGLY) for column in self.columns):
            return [self.some(positions, again=True, failed=True, alone=self.alone)]
        return [self.part(begin, end, deaths=0, again=True, failed=True) for begin, end in stretches(positions)]

    def item(self, position: int) -> Any:
        """The item of the call at `position`, or the tuple of its arguments if there are several or none."""
        arguments = self._arguments(tuple(column[position] for column in self.columns))
        return arguments[0] if len(arguments) == 1 else arguments

    def _arguments(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments of the user's function; in some forms of calls the columns hold something else."""
        if isinstance(self.function, BareCall):
            return ()
        if self.function is make_call:
            _, arguments, keywords = row
            return (*arguments, *keywords.values())
        return row

    def describe(self, position: int) -> str:
        """The call at `position`, with its index and the shortened repr of its item."""
        return f"call {self.indices[position]}, item {short_repr(self.item(position))}"


class BatchDone(NamedTuple):
    """What became of a batch: `values` of its first calls, with None where `errors` (by position) has the exception.

    `rest` has the calls of the sent batch that have no outcome and are still to be run. `timings` has (calls, seconds) for each
    stretch of calls, in order. `inline_bytes` travelled there and back, `shared_bytes` went through shared memory. A
    `BatchDone` is an `Answer` that has been read already.
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

    @property
    def loop_share(self) -> float:
        return 0.0

    def read(self) -> BatchDone:
        return self

    @property
    def busy_seconds(self) -> float:
        """Seconds that the worker spent in calls."""
        if len(self.timings) == 1:
            return self.timings[0][1]
        return sum(seconds for _, seconds in self.timings)


def nothing_done(batch: Batch, rest: Sequence[Batch], worker: str) -> BatchDone:
    """A batch that came back undone. `rest` has the calls to be run again; empty batches in it do not count."""
    return BatchDone(batch.part(0, 0), [], {}, (), worker, tuple([part for part in rest if len(part)]))


def check_complete(calls: int, done: BatchDone, executor: str) -> None:
    """An executor that loses a call would change the results silently.

    `calls`: how many were under way.

    Raises:
        ExecutorUnavailableError: not every one of them has an outcome, with its time, or comes back to be run again.
    """
    outcomes, timed = len(done.values), sum([calls for calls, _ in done.timings])
    rest = sum(map(len, done.rest))
    if outcomes + rest != calls or timed != outcomes:
        raise ExecutorUnavailableError(
            f"the {executor} is defective: of a batch of {calls} calls, it gave back {outcomes} outcomes, {timed} of them "
            f"timed, and {rest} calls to be run again"
        )


def stretches(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """The stretches of rising numbers without a gap: (first, last + 1) of each."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number:
            found[-1] = found[-1][0], number + 1
        else:
            found.append((number, number + 1))
    return found


def timed_out(batch: Batch, position: int, seconds: float) -> CallTimeoutError:
    """The error of a call that took longer than `seconds`."""
    message = f"{batch.describe(position)} took longer than its timeout of {seconds:g} s"
    return CallTimeoutError(message, batch.indices[position], batch.item(position), seconds)


def fail_overdue(
    batch: Batch, values: list[Any], errors: dict[int, BaseException], timings: Sequence[tuple[int, float]], timeout: float
) -> None:
    """Makes calls fail that took longer than `timeout` and could not be stopped. Each has a timing of its own."""
    for position, (_, seconds) in enumerate(timings):
        if seconds > timeout:
            errors[position] = timed_out(batch, position, timeout)
            values[position] = None


def complete_timeouts(batch: Batch, errors: dict[int, BaseException]) -> None:
    """Adds the calls to the timeouts of coroutine calls: their worker knows them only by position."""
    for position, error in errors.items():
        if type(error) is OverdueCallError:
            errors[position] = timed_out(batch, position, error.seconds)
