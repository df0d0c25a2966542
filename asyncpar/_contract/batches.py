"""Batches on their way out and what comes back. Plain values; nothing here awaits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from asyncpar._basics.wording import short_repr
from asyncpar._child.call_forms import BareCall, MixedCall
from asyncpar.errors import CallTimeoutError, OverdueCallError


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


def timed_out(batch: Batch, position: int, seconds: float) -> CallTimeoutError:
    """The error of a call that took longer than `seconds`."""
    message = f"{batch.describe(position)} took longer than its timeout of {seconds:g} s"
    return CallTimeoutError(message, batch.start + position, batch.item(position), seconds)


def complete_timeouts(batch: Batch, errors: dict[int, BaseException]) -> None:
    """Tells the timeouts of coroutine calls, which their worker knows only by position, what they are about."""
    for position, error in errors.items():
        if type(error) is OverdueCallError:
            errors[position] = timed_out(batch, position, error.seconds)
