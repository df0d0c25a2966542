"""Random runs: the plan of each, drawn from a seed and a number, and a check of its results.

Every call notes its index among the executions of its run, so that the check knows how often it was executed, even by workers
that were killed. That takes about 10 µs, and much shorter calls take other paths through the inner loop. So there are also
runs whose calls note nothing, and only their results are checked. Between none and all of the calls of a run fail.

The possible outcomes of a call follow from the plan alone, unless its executor was *disturbed* (one of its processes was
killed, or it was closed) while the run was on.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, NamedTuple, TypeAlias

import anyio
import anyio.lowlevel

from asyncpar import CallTimeoutError, Executor, ExecutorUnavailableError, Outcome, ParallelMap, WorkerDiedError, pmap
from tests.faults.executions import Executions

Kind: TypeAlias = Literal["process", "short-lived process", "thread", "interpreter", "inline", "loop"]
Consumption: TypeAlias = Literal["list", "loop", "block", "outcomes", "leave", "drop", "raise"]

_KINDS: dict[Kind, int] = {"process": 6, "short-lived process": 3, "thread": 3, "inline": 1, "loop": 2}  # {kind: its weight}
if sys.version_info >= (3, 14):
    _KINDS["interpreter"] = 3

TIMEOUT = 0.2  # a busy machine may bring an innocent call there too, which is then excused
_STUCK_SECONDS = 1.0  # not forever, because threads have to be waited for in the end
_BUSY_SECONDS = 0.4  # of all calls of a run
_INLINE_BUSY_SECONDS = 0.05  # during which the event loop stands still
_ALWAYS = 1 << 30


class Injected(Exception):
    """What a call raises when it is told to."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


class SourceBroke(Exception):
    """What a source raises when it is told to."""


class ConsumerGaveUp(Exception):
    """What the consumer of a stream raises when it is told to."""


class Order(NamedTuple):
    """What one call is to do: take some time, fail a number of times at first, and return its number and payload.

    A `swift` one does not mark that it was executed, and fails always or never.
    """

    number: int
    payload: int | bytes
    seconds: float
    failures: int
    swift: bool


def obey(order: Order, executions: Executions) -> tuple[int, int | bytes]:
    if order.swift:
        if order.failures:
            raise Injected(order.number)
        return order.number, order.payload
    _begin(order, executions)
    if order.seconds:
        time.sleep(order.seconds)
    return order.number, order.payload


async def obey_soon(order: Order, executions: Executions) -> tuple[int, int | bytes]:
    if not order.swift:
        _begin(order, executions)
    elif order.failures:
        raise Injected(order.number)
    await _pause(order.seconds)
    return order.number, order.payload


def _begin(order: Order, executions: Executions) -> None:
    executions.mark(order.number)
    if order.failures and executions.by_call()[order.number] <= order.failures:
        raise Injected(order.number)


async def _pause(seconds: float) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        await anyio.sleep(seconds)
    else:
        await asyncio.sleep(seconds)  # in a worker, where importing anyio would take longer than the call


@dataclass(frozen=True)
class Plan:
    """All that is random about a run."""

    number: int
    kind: Kind
    coroutine: bool
    zipped: bool  # its executions come as a second column, and the function can be imported
    swift: bool  # its calls are too short for marking that they are made
    length: int
    seconds: float
    payload_bytes: int
    failing: frozenset[int]
    failures: int
    stuck: frozenset[int]
    source: Literal["list", "generator", "async generator"]
    breaks_at: int | None
    consumption: Consumption
    leave_after: int
    options: dict[str, Any]

    @property
    def on_error(self) -> str:
        """The errors of `.outcomes()` are values."""
        return "outcomes" if self.consumption == "outcomes" else str(self.options["on_error"])

    @property
    def timeout(self) -> float | None:
        timeout: float | None = self.options["timeout"]
        return timeout

    @property
    def retries(self) -> int:
        retries: int = self.options["retries"]
        return retries

    @property
    def total(self) -> int:
        """How many items the source gives."""
        return self.length if self.breaks_at is None else self.breaks_at

    @property
    def ends_with_its_calls(self) -> bool:
        """Whether none of its calls begins once the run is over: a thread may be just about to begin one."""
        return self.kind not in ("thread", "interpreter") and self.consumption != "drop"

    def order(self, index: int) -> Order:
        payload = bytes([index % 251]) * self.payload_bytes if self.payload_bytes else index * 7
        seconds = _STUCK_SECONDS if index in self.stuck else self.seconds
        return Order(index, payload, seconds, self.failures if index in self.failing else 0, self.swift)

    def must_fail(self, index: int) -> bool:
        return index in self.stuck or (index in self.failing and self.failures > self.retries)


def draw_plan(seed: int, number: int) -> Plan:
    """The same for the same seed and number."""
    random = Random(f"{seed} {number}")
    kind: Kind = random.choices(list(_KINDS), list(_KINDS.values()))[0]
    coroutine = kind == "loop" or random.random() < 0.2
    swift = random.random() < 0.3
    payload_bytes = 0 if swift else random.choice((0, 0, 0, 100, 10_000, 200_000, 1 << 20))
    most = 3000 if payload_bytes <= 100 else 300 if payload_bytes <= 10_000 else 20
    length = random.choice((0, 1, random.randint(2, 10), random.randint(2, min(most, 200)), random.randint(2, most)))
    if swift:
        length = random.randint(2, most)
    busy_seconds = _INLINE_BUSY_SECONDS if kind == "inline" and not coroutine else _BUSY_SECONDS
    timeout = random.choice((None, None, None, TIMEOUT, 20.0))
    gets_stuck = timeout == TIMEOUT and not swift and (coroutine or kind != "inline") and random.random() < 0.7
    options: dict[str, Any] = {
        "batch_size": random.choice(("auto", "auto", 1, 2, 7, 50)),
        "ordered": random.random() < 0.6,
        "on_error": random.choice(("raise", "return", "skip")),
        "timeout": timeout,
        "retries": random.choice((0, 0, 1, 3)),
        "retry_wait": random.choice((0.0, 0.0, 0.01)),
        "n_jobs": random.choice((None, None, 1, 2)),
        "buffersize": random.choice((None, None, 1, 10, 300)),
        "concurrency": random.choice((None, 1, 5)) if coroutine else None,
    }
    seconds = 0.0 if swift else min(random.choice((0.0, 0.0, 1e-4, 1e-3, 5e-3)), busy_seconds / max(length, 1))
    few = _some_of(random, length, random.choice((0, 0, 1, 10)))
    rate = random.choice((0.0, 0.0, 0.05, 0.5, 1.0))
    return Plan(
        number,
        kind,
        coroutine,
        zipped=random.random() < 0.5,
        swift=swift,
        length=length,
        seconds=seconds,
        payload_bytes=payload_bytes,
        failing=few | {index for index in range(length) if random.random() < rate},
        failures=_ALWAYS if swift else random.choice((1, 2, _ALWAYS)),
        stuck=_some_of(random, length, random.randint(1, 2) if gets_stuck else 0),
        source=random.choice(("list", "generator", "async generator")),
        breaks_at=random.randint(0, length) if random.random() < 0.1 else None,
        consumption=random.choice(("list", "list", "loop", "block", "outcomes", "outcomes", "leave", "drop", "raise")),
        leave_after=random.randint(0, length),
        options=options,
    )


def _some_of(random: Random, length: int, count: int) -> frozenset[int]:
    return frozenset(random.randrange(length) for _ in range(count)) if length else frozenset()


class Source:
    """The orders of a plan, in one of the shapes in which items may come."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.open = 0

    def make(self) -> Any:
        if self._plan.source == "generator":
            return self._generate()
        if self._plan.source == "async generator":
            return self._generate_soon()
        return list(self._orders()) if self._plan.breaks_at is None else self._generate()

    def _generate(self) -> Iterator[Order]:
        self.open += 1
        try:
            yield from self._orders()
            self._break()
        finally:
            self.open -= 1

    async def _generate_soon(self) -> AsyncIterator[Order]:
        self.open += 1
        try:
            for order in self._orders():
                if order.number % 10 == 0:
                    await anyio.lowlevel.checkpoint()
                yield order
            self._break()
        finally:
            self.open -= 1

    def _orders(self) -> Iterator[Order]:
        return map(self._plan.order, range(self._plan.total))

    def _break(self) -> None:
        if self._plan.breaks_at is not None:
            raise SourceBroke


@dataclass
class Record:
    """What a consumer saw of a run."""

    entries: list[tuple[int, Any]] = field(default_factory=list)  # (index, value or error), as they came
    outcomes: list[Outcome[Any]] = field(default_factory=list)
    complete: bool = False  # the end was reached, and no error was raised
    error: BaseException | None = None
    cancelled: bool = False


async def carry_out(plan: Plan, executor: Executor | None, executions: Executions, source: Source, record: Record) -> None:
    """Runs it, and records what comes; only a cancellation is raised."""
    try:
        await _consume(plan, _start(plan, executor, executions, source), record)
    except Exception as error:
        record.error = error
    except anyio.get_cancelled_exc_class():
        record.cancelled = True
        raise


def _start(plan: Plan, executor: Executor | None, executions: Executions, source: Source) -> ParallelMap[Any]:
    options = plan.options | {"executor": executor}
    fn = obey_soon if plan.coroutine else obey
    if plan.zipped:
        return pmap(fn, source.make(), itertools.repeat(executions), **options)
    if plan.coroutine:

        async def closure_soon(order: Order) -> Any:
            return await obey_soon(order, executions)

        return pmap(closure_soon, source.make(), **options)
    return pmap(lambda order: obey(order, executions), source.make(), **options)


async def _consume(plan: Plan, results: ParallelMap[Any], record: Record) -> None:
    if plan.consumption == "list":
        for value in await results:
            _enter(record, value)
        record.complete = True
    elif plan.consumption in ("loop", "drop"):
        await _iterate(plan, results, record)
    else:
        async with results:
            await _iterate(plan, results, record)


async def _iterate(plan: Plan, results: ParallelMap[Any], record: Record) -> None:
    leaves = plan.consumption in ("leave", "drop", "raise")
    async for value in results.outcomes() if plan.consumption == "outcomes" else results:
        _enter(record, value)
        if leaves and len(record.entries) > plan.leave_after:
            if plan.consumption == "raise":
                raise ConsumerGaveUp
            return
        if plan.consumption != "loop" and len(record.entries) % 500 == 0:  # no code could wait for a run that is cancelled here
            await anyio.sleep(0.001)  # a consumer that is slow at times
    record.complete = True


def _enter(record: Record, value: Any) -> None:
    if isinstance(value, Outcome):
        record.outcomes.append(value)
        record.entries.append((value.index, value.value if value.error is None else value.error))
    elif isinstance(value, BaseException):
        record.entries.append((getattr(value, "index", -1), value))
    else:
        record.entries.append((value[0], value))


class Faults(NamedTuple):
    """What is wrong with a run, as figures and as lines to read."""

    lost: int
    duplicated: int
    wrong: int  # results that are not those of their calls
    shifted: int  # results that stand where another one belongs
    complaints: list[str]


def find_faults(plan: Plan, record: Record, executions: Counter[int], *, disturbed: bool) -> Faults:
    """Compares what was recorded with the plan. `disturbed`: processes of its executor were killed, or it was closed."""
    wrong = [(index, entry) for index, entry in record.entries if not _is_due(plan, index, entry, disturbed)]
    complaints = [f"call {index} became {entry!r:.300}" for index, entry in wrong[:20]]
    indices = [index for index, _ in record.entries]
    if plan.options["ordered"] and indices != sorted(indices):
        complaints.append("the results are not in order")
    if record.error is not None and not _may_end_with(plan, record.error, disturbed):
        raised = traceback.extract_tb(record.error.__traceback__)
        where = " < ".join([f"{frame.name}:{frame.lineno}" for frame in reversed(raised)])
        complaints.append(f"it ended with {record.error!r:.300}, raised in {where}, because of {record.error.__cause__}")
    if record.complete and plan.breaks_at is not None:
        complaints.append("the error of its source was swallowed")
    lost = _count_lost(plan, record, executions, disturbed)
    duplicated = len(indices) - len(set(indices)) + _count_executed_too_often(plan, record, executions, disturbed)
    shifted = _count_shifted(plan, indices)
    if lost or duplicated or wrong or shifted:
        complaints.append(f"{lost} lost, {duplicated} duplicated, {len(wrong)} wrong, {shifted} shifted")
    return Faults(lost, duplicated, len(wrong), shifted, complaints)


def _count_shifted(plan: Plan, indices: list[int]) -> int:
    """Where nothing is left out, the results of a run in order are those of the first calls, one after another."""
    if not plan.options["ordered"] or plan.on_error == "skip":
        return 0
    return sum(index != position for position, index in enumerate(indices))


def _is_due(plan: Plan, index: int, entry: Any, disturbed: bool) -> bool:
    """Whether the plan, or a disturbance, explains what became of a call."""
    if not 0 <= index < plan.total:
        return False
    if not isinstance(entry, BaseException):
        order = plan.order(index)
        return bool(entry == (order.number, order.payload)) and (
            disturbed or plan.timeout == TIMEOUT or not plan.must_fail(index)
        )
    return plan.on_error != "skip" and _is_excused(plan, entry, disturbed) and (plan.on_error != "raise")


def _is_excused(plan: Plan, error: BaseException, disturbed: bool) -> bool:
    if isinstance(error, Injected):
        return error.index in plan.failing and (disturbed or plan.timeout == TIMEOUT or plan.must_fail(error.index))
    if isinstance(error, CallTimeoutError):
        return plan.timeout == TIMEOUT
    return isinstance(error, WorkerDiedError) and disturbed


def _may_end_with(plan: Plan, error: BaseException, disturbed: bool) -> bool:
    if isinstance(error, SourceBroke):
        return plan.breaks_at is not None
    if isinstance(error, ConsumerGaveUp):
        return plan.consumption == "raise"
    if isinstance(error, ExecutorUnavailableError):
        return disturbed
    return plan.on_error == "raise" and _is_excused(plan, error, disturbed)


def _count_lost(plan: Plan, record: Record, executions: Counter[int], disturbed: bool) -> int:
    """Calls that should have come out of a run that reached its end, and did not; and results of calls that never began."""
    seen = {index for index, _ in record.entries}
    unfounded = sum(
        not isinstance(entry, BaseException) and not executions[index] and not plan.swift for index, entry in record.entries
    )
    streamed_all = isinstance(record.error, SourceBroke) and plan.consumption != "list"
    if not (record.complete or streamed_all):
        return unfounded
    missing = set(range(plan.total)) - seen
    if plan.on_error == "skip":
        missing = {index for index in missing if not (disturbed or plan.timeout == TIMEOUT or plan.must_fail(index))}
    return unfounded + len(missing)


def _count_executed_too_often(plan: Plan, record: Record, executions: Counter[int], disturbed: bool) -> int:
    """Calls that were executed more often than their outcome admits; or twice, although nothing had happened to them."""
    known = {outcome.index: outcome.attempts for outcome in record.outcomes}
    excused = disturbed or plan.timeout == TIMEOUT
    return sum(
        times > known.get(index, _ALWAYS if excused else 1 + min(plan.retries, plan.order(index).failures))
        for index, times in executions.items()
    )
