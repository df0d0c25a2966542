"""Guarantees 3 and 8 where coroutine calls of many runs share a worker, and some of them, or somebody else, kill it."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import anyio
import psutil
import pytest

from asyncpar import ProcessExecutor, WorkerDiedError, pmap
from tests.calls.interleaved import DiesWhenRead, Gate, echo, obey, obey_at_once
from tests.loops import on_one_loop
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

RUNS = 12  # at the same time
SECONDS = 2.5


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


async def check_waiting(executor: ProcessExecutor, gate: Gate) -> None:
    assert await pmap(gate.wait, [-1, -1], executor=executor) == [-1, -1]
    assert await executor.run(gate.wait, -1) == -1


@pytest.mark.parametrize("retries", [0, 2])
async def test_a_call_that_kills_its_worker_fails_alone_and_others_are_made_again(gate: Gate, retries: int) -> None:
    async with ProcessExecutor(1) as executor, anyio.create_task_group() as group:
        group.start_soon(check_waiting, executor, gate)
        await wait_until(lambda: len(gate.came) == 2)
        options: dict[str, Any] = {"retries": retries, "retry_on": WorkerDiedError}
        results = pmap(gate.die_once_others_came, [2], executor=executor, **options)
        [outcome] = [outcome async for outcome in results.outcomes()]
        assert isinstance(outcome.error, WorkerDiedError)
        assert outcome.error.exit_code == 7
        assert outcome.attempts == 2 + retries


@on_one_loop
async def test_a_call_whose_argument_kills_its_reader_fails_alone(gate: Gate) -> None:
    async with ProcessExecutor(1) as executor, anyio.create_task_group() as group:
        group.start_soon(check_waiting, executor, gate)
        await wait_until(lambda: len(gate.came) == 2)
        gate.open()
        items = [1, DiesWhenRead(), 3]
        results = await pmap(echo, items, executor=executor, batch_size=3, on_error="return")
        assert (results[0], results[2]) == (1, 3)
        assert isinstance(results[1], WorkerDiedError)


@on_one_loop
async def test_calls_that_have_found_no_lane_are_run_again(gate: Gate) -> None:
    async with ProcessExecutor(1) as executor, anyio.create_task_group() as group:

        async def check() -> None:
            assert await pmap(gate.wait, [-1] * 600, executor=executor, concurrency=600) == [-1] * 600

        group.start_soon(check)
        await wait_until(lambda: len(gate.came) == 600)
        (worker,) = executor._workers
        pid = worker._process.group
        gate.open()
        os.kill(pid, signal.SIGKILL)


# At random


def draw_orders(random: Random, length: int, *, deadly: bool) -> list[tuple[int, str, float, bytes]]:
    whats = random.choices(("", "fail", "exit", "die"), (100, 5, 1, 0.7 if deadly else 0), k=length)
    size = random.choice((0, 0, 1000, 300_000)) if length <= 20 else 0
    return [(number, what, random.choice((0, 0.001, 0.01)), random.randbytes(size)) for number, what in enumerate(whats)]


async def carry_out(random: Random, executor: ProcessExecutor, killed: list[int]) -> None:
    """One run, or one call, perhaps cancelled; its outcomes are compared with its orders."""
    orders = draw_orders(random, random.choice((1, 5, 20, 100)), deadly=random.random() < 0.3)
    fn: Any = random.choice((obey, obey, obey, obey_at_once))
    options: dict[str, Any] = {
        "batch_size": random.choice(("auto", 1, 7)),
        "max_nbytes": random.choice((None, 1 << 20)),
        "n_jobs": random.choice((None, 1)),
        "concurrency": random.choice((None, 1, 5)) if fn is obey else None,
        "on_error": "return",
    }
    if len(orders) == 1 and random.random() < 0.5:
        run = partial(call, executor, fn, orders[0])
    else:
        run = partial(pmap, fn, orders, executor=executor, **options)
    with anyio.move_on_after(random.random() / 10 if random.random() < 0.2 else 60) as scope:
        results = await run()
    if scope.cancelled_caught:
        assert scope.deadline < anyio.current_time() + 1
        return
    assert len(results) == len(orders)
    for (number, what, _, payload), result in zip(orders, results, strict=True):
        if isinstance(result, WorkerDiedError):
            assert what == "die" or killed
        elif what == "fail":
            assert isinstance(result, ValueError)
            assert result.args == (number,)
        else:
            assert what != "die"
            assert result == (number, payload)


async def call(executor: ProcessExecutor, fn: Any, order: Any) -> list[Any]:
    try:
        return [await executor.run(fn, order)]
    except Exception as error:  # compared with the order
        return [error]


@pytest.mark.parametrize("kills", [True, False])
async def test_random_runs_give_what_they_should_whatever_kills_and_cancels(kills: bool) -> None:
    random = Random(f"interleaved {kills}")
    killed: list[int] = []

    async def kill_now_and_then() -> None:
        zygotes = psutil.Process().children
        while True:
            await anyio.sleep(random.random() / 2)
            workers = [worker for zygote in zygotes() for worker in zygote.children()]
            if workers:
                victim = random.choice(workers)
                killed.append(victim.pid)
                victim.kill()

    async with ProcessExecutor(2, max_calls_per_worker=50) as executor, anyio.create_task_group() as group:
        if kills:
            group.start_soon(kill_now_and_then)
        end = time.monotonic() + SECONDS

        async def lane(number: int) -> None:
            own = Random(f"{random.random()} {number}")
            while time.monotonic() < end:
                await carry_out(own, executor, killed)

        async with anyio.create_task_group() as lanes:
            for number in range(RUNS):
                lanes.start_soon(lane, number)
        group.cancel_scope.cancel()
