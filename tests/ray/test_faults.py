"""Workers that die, hang, or are killed for the sake of one call: nothing is lost, and nobody is blamed who is innocent."""

from __future__ import annotations

import os
import re
import signal
import time
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

from asyncpar import CallTimeoutError, RayExecutor, WorkerDiedError, pmap
from asyncpar.testing.functions import Marking, double
from tests.calls.pools import die_at, die_on_odd_tens
from tests.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])]


async def test_a_call_that_kills_its_worker_fails_alone_each_time(executor: RayExecutor) -> None:
    """Whatever its place in a batch, and with another run in the same workers."""
    neighbours: list[int] = []
    stop = anyio.Event()

    async def run_beside() -> None:
        while not stop.is_set():
            assert await pmap(double, range(300), executor=executor) == [2 * x for x in range(300)]
            neighbours.append(300)

    async with anyio.create_task_group() as group:
        group.start_soon(run_beside)
        for poison in range(0, 20, 5):
            results = await pmap(partial(die_at, poison), range(20), executor=executor, on_error="return")
            died = results.pop(poison)
            assert results == [x for x in range(20) if x != poison]
            assert isinstance(died, WorkerDiedError)
            assert (died.index, died.item) == (poison, poison)
            assert f"call {poison}, item {poison}" in str(died)
        stop.set()
    assert neighbours


async def test_several_calls_that_kill_fail_each_alone(executor: RayExecutor) -> None:
    outcomes = [outcome async for outcome in pmap(die_on_odd_tens, range(40), executor=executor, batch_size=1).outcomes()]
    assert [outcome.index for outcome in outcomes if isinstance(outcome.error, WorkerDiedError)] == [10, 30]
    assert [outcome.value for outcome in outcomes if outcome.error is None] == [x for x in range(40) if x not in (10, 30)]


def pid_after_a_while(x: int) -> tuple[int, int]:
    time.sleep(0.01)
    return x, os.getpid()


@pytest.mark.parametrize("killed", [1, 2])
async def test_no_call_is_lost_or_blamed_when_workers_are_killed(killed: int, executor: RayExecutor) -> None:
    async with pmap(pid_after_a_while, range(200), executor=executor) as results:
        found = [await anext(results) for _ in range(20)]
        for pid in list({pid for _, pid in found})[:killed]:
            os.kill(pid, signal.SIGKILL)
        found += [result async for result in results]
    assert [x for x, _ in found] == list(range(200))
    assert results.statistics().failed == 0


async def test_data_that_is_lost_is_put_again_and_nobody_is_blamed(
    executor: RayExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray has no way to lose an object on purpose, so it is only said that one was lost."""
    exceptions: Any = import_module("ray.exceptions")
    losses = [exceptions.ObjectLostError("00", None, "") for _ in range(3)]
    puts: list[int] = []
    result, put = executor.engine.result, executor.engine.put

    async def lose(task: Any) -> Any:
        answer = await result(task)
        if losses:
            raise losses.pop()
        return answer

    async def put_and_note(data: Any) -> Any:
        puts.append(len(data))
        return await put(data)

    monkeypatch.setattr(executor.engine, "result", lose)
    monkeypatch.setattr(executor.engine, "put", put_and_note)
    results = pmap(np.max, [np.full(500_000, 7.0)] * 20, executor=executor, batch_size=1)
    assert await results == [7.0] * 20
    assert results.statistics().failed == 0
    assert 2 <= len(puts) <= 4


def hold_everything_at_three(x: int) -> int:
    if x == 3:
        re.match(r"(a+)+b", "a" * 60)  # holds the GIL for years
    return x


async def test_a_call_that_lets_no_thread_of_its_worker_run_is_ended_too(executor: RayExecutor) -> None:
    results = await pmap(hold_everything_at_three, range(6), executor=executor, timeout=0.3, on_error="return")
    assert isinstance(results.pop(3), CallTimeoutError)
    assert results == [0, 1, 2, 4, 5]


def sleep_at_three(x: int) -> int:
    time.sleep(1000 if x == 3 else 0)
    return x


async def test_a_call_that_outlives_its_timeout_is_ended_and_fails_alone(executor: RayExecutor) -> None:
    results = await pmap(sleep_at_three, range(20), executor=executor, timeout=0.3, on_error="return", batch_size=10)
    late = results.pop(3)
    assert isinstance(late, CallTimeoutError)
    assert (late.index, late.item) == (3, 3)
    assert results == [x for x in range(20) if x != 3]
    with pytest.raises(CallTimeoutError):
        await executor.run(sleep_at_three, 3, timeout=0.3)


async def test_cancelling_a_batch_that_waits_disturbs_no_other_run(executor: RayExecutor, tmp_path: Path) -> None:
    """The calls that run in front of it are made once, and it is not made at all."""
    (tmp_path / "in front").mkdir()
    in_front, behind = Marking(tmp_path / "in front", waits=True), Marking(tmp_path)
    await pmap(double, range(20), executor=executor)  # a worker that has made short calls takes a batch in advance
    async with anyio.create_task_group() as group:
        found: list[int] = []

        async def run() -> None:
            found.extend(await pmap(in_front, range(2), executor=executor, batch_size=1))

        group.start_soon(run)
        await wait_until(lambda: len(in_front.begun) == 2)
        with anyio.move_on_after(0.1):
            await pmap(behind, range(2), executor=executor, batch_size=1)
        in_front.let_go()
    assert found == [0, 1]
    assert in_front.begun == {0: 1, 1: 1}
    assert await pmap(double, range(20), executor=executor) == [2 * x for x in range(20)]
    assert not behind.begun


async def test_cancelling_a_batch_that_runs_has_others_of_its_worker_made_elsewhere(
    executor: RayExecutor, tmp_path: Path
) -> None:
    marking = Marking(tmp_path, waits=True)
    await pmap(double, range(20), executor=executor)
    async with anyio.create_task_group() as group:
        found: list[int] = []

        async def run_behind() -> None:
            found.extend(await pmap(double, range(50), executor=executor))

        async with anyio.create_task_group() as inner:
            inner.start_soon(partial(_consume, marking, executor))
            await wait_until(lambda: len(marking.begun) == 2)
            group.start_soon(run_behind)
            await anyio.sleep(0.05)
            inner.cancel_scope.cancel()
    assert found == [2 * x for x in range(50)]


async def _consume(marking: Marking, executor: RayExecutor) -> None:
    await pmap(marking, range(2), executor=executor, batch_size=1)
