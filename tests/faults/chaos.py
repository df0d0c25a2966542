"""The chaos engine: random runs on shared executors, while a gremlin kills, cancels and closes, for some seconds.

A few lanes at a time carry out one random run after another (`random_runs.py`) and check the results of each. The gremlin has
moods, drawn at random from time to time: calm, in which runs have to be flawless; killing workers; cancelling runs; and
everything, including zygotes and whole executors. A watch looks for runs that do not end.

The plan of each run follows from the seed and its number. The times at which things happen to it do not, since they depend on
the system.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import itertools
import math
import os
import sys
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TextIO

import anyio
import anyio.lowlevel
import psutil

from asyncpar import Executor, InlineExecutor, InterpreterExecutor, ProcessExecutor, ThreadExecutor
from tests.faults.executions import Executions
from tests.faults.random_runs import Kind, Plan, Record, Source, carry_out, draw_plan, find_faults

LANES = 5
PATIENCE = 40.0  # seconds for one run; a hundred times what the longest takes
_MOOD_SECONDS = 0.7
_MOODS: tuple[dict[str, int], ...] = (  # {what the gremlin does: how likely}
    {},
    {"kill": 1},
    {"cancel": 1},
    {"kill": 10, "cancel": 6, "kill zygote": 2, "close": 1},
)
_AFTERSHOCK_SECONDS = 0.3
_PAUSE_SECONDS = 0.03  # between two deeds, on average


_kept_open = ctypes.CFUNCTYPE(None)(
    int
)  # libffi keeps a descriptor from the first callback on, which no executor leaves behind


@dataclass
class Figures:
    """What happened, and what went wrong."""

    runs: int = 0
    items: int = 0  # results that were handed out
    failures: int = 0  # those of them that are errors
    kills: int = 0
    zygote_kills: int = 0
    cancels: int = 0
    closes: int = 0
    lost: int = 0
    duplicated: int = 0
    wrong: int = 0
    shifted: int = 0
    left: int = 0  # processes that outlived their executors
    hangs: int = 0
    complaints: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        figures = {name: value for name, value in vars(self).items() if name != "complaints"}
        return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in figures.items())

    def __iadd__(self, other: Figures) -> Figures:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)
        return self


async def chaos(seed: int, seconds: float, directory: Path, *, lanes: int = LANES) -> Figures:
    """Starts runs for `seconds`, and returns the figures once the last run has ended; their counts are in `directory`."""
    engine = _Chaos(seed, directory)
    async with engine.executors(), anyio.create_task_group() as helpers:
        helpers.start_soon(engine.watch)
        helpers.start_soon(engine.gremlin)
        async with anyio.create_task_group() as group:
            for _ in range(lanes):
                group.start_soon(engine.lane, time.monotonic() + seconds)
        helpers.cancel_scope.cancel()
    engine.look_around()
    return engine.figures


@dataclass
class _Active:
    """A run that is on."""

    plan: Plan
    scope: anyio.CancelScope
    began: float
    task: asyncio.Task[None] | None = None  # where tasks can be cancelled without a scope
    was_cancelled: bool = False


class _Shared:
    """An executor that runs share, and how often something was done to it."""

    def __init__(self, make: Callable[[], Executor]) -> None:
        self._make = make
        self.executor = make()
        self._disturbed_at = -math.inf
        self._victims: list[psutil.Process] = []  # that may not be dead yet, or whose death may not be known yet

    def disturb(self, *victims: psutil.Process) -> None:
        self._disturbed_at = time.monotonic()
        self._victims += victims

    def look_for_victims(self) -> None:
        """On a busy machine, a killed process may go on for a while."""
        self._victims = [victim for victim in self._victims if _goes_on(victim)]
        if self._victims:
            self.disturb()

    def was_disturbed_since(self, moment: float) -> bool:
        """A killed zygote may be noticed only by the run after the next."""
        return self._disturbed_at > moment - _AFTERSHOCK_SECONDS

    @property
    def zygote(self) -> psutil.Process | None:
        zygote = self.executor._zygote if isinstance(self.executor, ProcessExecutor) else None
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(zygote._pid) if zygote is not None and zygote.alive else None
        return None

    async def replace(self) -> None:
        """Closes it while it is in use; later runs get a fresh one."""
        self.disturb()
        old, self.executor = self.executor, self._make()
        await old.aclose()


class _Chaos:
    def __init__(self, seed: int, directory: Path) -> None:
        self.figures = Figures()
        self._seed = seed
        self._random = Random(seed)
        self._directory = directory
        self._numbers = itertools.count()
        self._active: dict[int, _Active] = {}  # {number: run}
        self._ended: list[tuple[Plan, Executions, int]] = []  # with the calls that had begun by the end of the run
        self._shared: dict[Kind, _Shared] = {
            "process": _Shared(lambda: ProcessExecutor(3)),
            "short-lived process": _Shared(lambda: ProcessExecutor(2, max_calls_per_worker=7)),
            "thread": _Shared(lambda: ThreadExecutor(3)),
            "inline": _Shared(InlineExecutor),
        }
        if sys.version_info >= (3, 14):
            self._shared["interpreter"] = _Shared(lambda: InterpreterExecutor(2))

    @contextlib.asynccontextmanager
    async def executors(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            for shared in self._shared.values():
                await shared.executor.aclose()

    def look_around(self) -> None:
        """After the end: no process is left, and no call of any run has begun since that run was over."""
        left = psutil.Process().children(recursive=True)
        self.figures.left += len(left)
        if left:
            self.figures.complaints.append(f"seed {self._seed}: processes are left: {left}")
        for plan, executions, total in self._ended:
            if plan.ends_with_its_calls and executions.total != total:
                self._complain(plan, f"{executions.total - total} calls began after its end")

    # Runs

    async def lane(self, end: float) -> None:
        while time.monotonic() < end:
            plan = draw_plan(self._seed, next(self._numbers))
            with anyio.CancelScope() as scope:
                active = self._active[plan.number] = _Active(plan, scope, time.monotonic())
                try:
                    await self._run(active)
                finally:
                    del self._active[plan.number]

    async def _run(self, active: _Active) -> None:
        plan, record = active.plan, Record()
        executions, source = Executions(self._directory / f"executions {plan.number}"), Source(plan)
        shared = self._shared.get(plan.kind)
        executor = shared.executor if shared is not None else None
        if shared is not None:
            shared.look_for_victims()
        try:
            await _in_a_task_of_its_own(active, lambda: carry_out(plan, executor, executions, source, record))
        finally:
            total = executions.total
            disturbed = shared is not None and shared.was_disturbed_since(active.began)
            faults = find_faults(plan, record, executions.by_call(), disturbed=disturbed)
            self._ended.append((plan, executions, total))
            self.figures.runs += 1
            self.figures.items += len(record.entries)
            self.figures.failures += sum(isinstance(entry, BaseException) for _, entry in record.entries)
            self.figures.lost += faults.lost
            self.figures.duplicated += faults.duplicated
            self.figures.wrong += faults.wrong
            self.figures.shifted += faults.shifted
            for complaint in faults.complaints:
                self._complain(plan, complaint)
            if source.open and plan.consumption != "drop":
                self._complain(plan, f"its source was not closed ({'cancelled' if active.was_cancelled else 'not cancelled'})")
            if record.cancelled and not active.was_cancelled:
                self._complain(plan, "it was cancelled by nobody")

    def _complain(self, plan: Plan, complaint: str) -> None:
        self.figures.complaints.append(f"seed {self._seed}, {plan}: {complaint}")

    # The gremlin

    async def gremlin(self) -> None:
        while True:
            mood = self._random.choice(_MOODS)
            with anyio.move_on_after(_MOOD_SECONDS * self._random.uniform(0.5, 1.5)):
                while True:
                    await anyio.sleep(self._random.expovariate(1 / _PAUSE_SECONDS))
                    if mood:
                        with anyio.CancelScope(shield=True):
                            await self._do(self._random.choices(list(mood), list(mood.values()))[0])

    async def _do(self, deed: str) -> None:
        shared = self._shared[self._random.choice(("process", "process", "short-lived process"))]
        if deed == "kill":
            self._kill_worker(shared)
        elif deed == "cancel":
            self._cancel_run()
        elif deed == "kill zygote":
            self._kill_zygote(shared)
        else:
            self.figures.closes += 1
            await shared.replace()

    def _kill_worker(self, shared: _Shared) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            workers = shared.zygote.children() if shared.zygote is not None else []
            if workers:
                victim = self._random.choice(workers)
                shared.disturb(victim)
                victim.kill()
                self.figures.kills += 1

    def _kill_zygote(self, shared: _Shared) -> None:
        zygote = shared.zygote
        if zygote is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                shared.disturb(zygote, *zygote.children())
            zygote.kill()
            self.figures.zygote_kills += 1

    def _cancel_run(self) -> None:
        if not self._active:
            return
        active = self._random.choice(list(self._active.values()))
        active.was_cancelled = True
        self.figures.cancels += 1
        if active.task is not None and self._random.random() < 0.5:
            active.task.cancel()
        else:
            active.scope.cancel()

    # The watch

    async def watch(self) -> None:
        """Ends everything if a run does not end, and says where every task stands."""
        try:
            while True:
                faulthandler.dump_traceback_later(2 * PATIENCE, exit=True)  # for when the event loop itself stands still
                await anyio.sleep(1)
                stuck = [run for run in self._active.values() if time.monotonic() - run.began > PATIENCE]
                if stuck:
                    self.figures.hangs += len(stuck)
                    for run in stuck:
                        print(f"\nHANG: seed {self._seed}, {run.plan}", file=sys.stderr)
                    print_stacks(sys.stderr)
                    raise AssertionError(f"runs do not end: seed {self._seed}, {[run.plan for run in stuck]}")
        finally:
            faulthandler.cancel_dump_traceback_later()


async def _in_a_task_of_its_own(active: _Active, fn: Callable[[], Awaitable[None]]) -> None:
    """On asyncio, so that it can be cancelled by `Task.cancel`, which knows no shields; else just here."""
    if not hasattr(anyio.lowlevel.current_token().native_token, "call_soon_threadsafe"):
        await fn()
        return

    async def run() -> None:
        with active.scope:
            await fn()

    active.scope = anyio.CancelScope()
    active.task = asyncio.get_running_loop().create_task(run())
    await asyncio.wait([active.task])
    if not active.task.cancelled():
        active.task.result()


def _goes_on(victim: psutil.Process) -> bool:
    """Whether it runs, or is a zygote whose end its executor has not seen."""
    try:
        return victim.status() != psutil.STATUS_ZOMBIE or victim.ppid() == os.getpid()
    except psutil.NoSuchProcess:
        return False


def print_stacks(file: TextIO) -> None:
    """Where every task of the event loop stands, outermost call first, and every thread."""
    for task in anyio.get_running_tasks():
        print(f"\ntask {task.name}", file=file)
        for line in _stack(task.coro):
            print(line, end="", file=file)
    faulthandler.dump_traceback(file)
    print(f"processes: {[(child.pid, child.ppid(), child.status()) for child in psutil.Process().children(True)]}", file=file)
    print(f"descriptors: {sorted(os.listdir('/proc/self/fd'), key=int)}", file=file)


def _stack(awaitable: Any) -> list[str]:
    lines: list[str] = []
    while awaitable is not None:
        frame = next(
            (getattr(awaitable, name) for name in ("cr_frame", "ag_frame", "gi_frame") if hasattr(awaitable, name)), None
        )
        if frame is not None:
            lines += traceback.format_list(traceback.extract_stack(frame, limit=1))
        names = ("cr_await", "ag_await", "gi_yieldfrom")
        awaitable = next((getattr(awaitable, name) for name in names if hasattr(awaitable, name)), None)
    return lines
