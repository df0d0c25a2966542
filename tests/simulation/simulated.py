"""The real scheduler and the real control law over workers that only say how long they took, in virtual time."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from asyncpar._contract.batches import BatchDone
from asyncpar._contract.executor import Hints, Parcel, Place, Program, Traits
from asyncpar._contract.lending import PooledExecutor
from asyncpar._run.batching import make_sizer
from asyncpar._run.scheduler import Run
from asyncpar._run.sinks import StreamSink
from asyncpar._run.sources import open_source
from tests.simulation.durations import Profile
from tests.simulation.virtual_time import run_in_virtual_time


@dataclass(frozen=True, slots=True)
class Report:
    """What one simulated run came to.

    Attributes:
        makespan: from its beginning to its end, in virtual seconds.
        over_bound: the makespan as a multiple of max(longest call, total / workers), which no scheduler can beat.
        utilisation: share of the workers' time that was spent in calls.
        parent_seconds: real processor time for each batch, the simulation's own included.
        peak_window: the most items that were pulled and not handed on.
        first_result: when the first result was there, in virtual seconds.
    """

    makespan: float
    over_bound: float
    utilisation: float
    batches: int
    parent_seconds: float
    peak_window: int
    first_result: float


class SimulatedPlace(Place):
    """Sleeps for as long as the calls and the round trip would have taken; the results are Nones. The places of one worker take
    turns at computing.
    """

    def __init__(self, executor: SimulatedExecutor, worker: asyncio.Lock) -> None:
        self._executor = executor
        self._worker = worker

    async def run(self, parcel: Parcel) -> BatchDone:
        profile, batch = self._executor.profile, parcel.batch
        begin, end = batch.start, batch.start + len(batch)
        calls = profile.calls_within(begin, end, parcel.budget)
        busy = profile.until(begin + calls) - profile.until(begin)
        await asyncio.sleep(self._executor.round_trip / 2)
        async with self._worker:
            self._executor.under_way += 1
            await asyncio.sleep(busy / 2)
            self._executor.note(self._executor.under_way)
            await asyncio.sleep(busy / 2)
            self._executor.under_way -= 1
        await asyncio.sleep(self._executor.round_trip / 2)
        return BatchDone(batch, [None] * calls, {}, ((calls, busy),), "simulated", batch.rest(calls))


class SimulatedExecutor(PooledExecutor[SimulatedPlace]):
    """`workers` of them, each `round_trip` seconds away, with `depth` places for each."""

    def __init__(self, workers: int, round_trip: float, profile: Profile, depth: int = 1) -> None:
        super().__init__(workers * depth)
        self.traits = Traits(depth=depth, round_trip=round_trip)
        self.round_trip = round_trip
        self.profile = profile
        self.under_way = 0  # workers that compute
        self.noted: list[tuple[float, int]] = []  # (when, how many were computing)
        self._with_room: list[asyncio.Lock] = []  # workers that have fewer places than they may, as often as they lack one

    def note(self, under_way: int) -> None:
        self.noted.append((asyncio.get_running_loop().time(), under_way))

    async def start_place(self) -> SimulatedPlace:
        if not self._with_room:
            self._with_room = [asyncio.Lock()] * self.traits.depth
        return SimulatedPlace(self, self._with_room.pop())


def simulate(profile: Profile, workers: int, round_trip: float, *, ordered: bool = False, depth: int = 1) -> Report:
    """Streams all calls of `profile` to a consumer that is always ready."""
    return run_in_virtual_time(_simulate(profile, workers, round_trip, ordered, depth))


async def _simulate(profile: Profile, workers: int, round_trip: float, ordered: bool, depth: int) -> Report:
    executor = SimulatedExecutor(workers, round_trip, profile, depth)
    return await run_on(executor, ordered=ordered)


async def run_on(executor: SimulatedExecutor, *, ordered: bool = False) -> Report:
    """Streams all calls of the executor's profile."""
    profile, workers = executor.profile, max(1, executor.workers)
    sink = StreamSink(ordered=ordered, ends_at_error=True)
    source = open_source([range(profile.length)])
    sizer = make_sizer("auto", 1, source.remaining, workers, executor.traits.round_trip)
    clock = asyncio.get_running_loop().time
    run = Run(Program(id), Hints(), source, executor, sizer, sink, n_jobs=None, window=None, clock=clock)
    began = time.process_time()
    consuming = asyncio.create_task(_consume(run, sink))
    await run.drive()
    sink.end(run.error)
    peak_window, first_result, handed = await consuming
    spent = time.process_time() - began
    if run.error is not None:
        raise run.error
    assert handed == profile.length, "items were lost"
    makespan, batches = clock(), run.statistics().batches
    bound = max(profile.longest, profile.total / workers)
    utilisation = profile.total / (workers * makespan)
    return Report(makespan, makespan / bound, utilisation, batches, spent / batches, peak_window, first_result)


async def _consume(run: Run, sink: StreamSink) -> tuple[int, float, int]:
    """The peak of the window, the time of the first result, and how many there were."""
    peak = handed = 0
    first_result = 0.0
    while True:
        await sink.wait()
        statistics = run.statistics()
        peak = max(peak, statistics.pulled - statistics.handed)
        taken = sum([len(done.values) for done in sink.take(1)])
        if not taken:
            if sink.ended:
                return peak, first_result, handed
            continue
        first_result = first_result or asyncio.get_running_loop().time()
        handed += taken
        run.hand(taken)
