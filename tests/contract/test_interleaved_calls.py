"""Coroutine functions in process workers: calls of many runs interleave, and what one does to its loop reaches no other."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from asyncpar import CallTimeoutError, ExecutorUnavailableError, ProcessExecutor, pmap
from asyncpar._memory.loans import Mappings
from asyncpar._processes import event_loops
from tests.calls.interleaved import (
    Gate,
    Results,
    await_a_task_that_exits,
    begin_tasks_at_once,
    count_in_context,
    echo,
    echo_at_once,
    exit_in_a_task,
    fail,
    have_no_uvloop,
    length,
    many_bytes,
    many_bytes_at_once,
    process_id_soon,
    stop_the_loop,
    wait_at,
)
from tests.functions import process_id
from tests.loops import on_one_loop
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


@asynccontextmanager
async def waiting_run(executor: ProcessExecutor, gate: Gate, calls: int = 1, **options: Any) -> AsyncIterator[list[Any]]:
    """A run whose calls wait for the gate, and its results, once the gate has been opened at the end of the block."""
    results: list[Any] = []

    async def run() -> None:
        results.extend(await pmap(gate.wait, [-1] * calls, executor=executor, **options))

    before = len(gate.came)
    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await wait_until(lambda: len(gate.came) == before + calls)
        yield results
        gate.open()


# What comes, and when


async def test_no_result_waits_for_a_slower_call_of_its_batch(gate: Gate) -> None:
    async with (
        ProcessExecutor(1) as executor,
        pmap(gate.wait, [-1, 1, 2, 3], executor=executor, batch_size=4, ordered=False) as results,
    ):
        assert sorted([await anext(results) for _ in range(3)]) == [1, 2, 3]
        gate.open()
        assert await anext(results) == -1


async def test_no_error_waits_for_a_slower_call_of_its_batch(gate: Gate) -> None:
    async def fail_or_wait(x: int) -> Any:
        if not x:
            raise LookupError
        return await gate.wait(x)

    async with ProcessExecutor(1) as executor:
        with pytest.raises(LookupError):
            await pmap(fail_or_wait, [-1, 0, -2], executor=executor, batch_size=3)
        assert not gate.is_open


async def test_no_retry_waits_for_a_slower_call_of_its_batch(gate: Gate) -> None:
    async with ProcessExecutor(1) as executor:
        assert await pmap(gate.open_at_second_attempt, range(3), executor=executor, batch_size=3, retries=1) == [0, 1, 2]


@on_one_loop
async def test_once_a_call_has_failed_no_further_call_of_its_batch_begins(gate: Gate) -> None:
    async with ProcessExecutor(1) as executor:
        with pytest.raises(ValueError, match="0"):
            await pmap(gate.fail_at_zero, range(100), executor=executor, batch_size=100, concurrency=1)
        assert gate.came == ["0"]


@on_one_loop
async def test_many_errors_come_in_portions() -> None:
    async with ProcessExecutor(1) as executor:
        results = pmap(fail, range(1000), executor=executor, batch_size=1000, concurrency=1000, on_error="return")
        assert [repr(error) async for error in results] == [f"ValueError({x})" for x in range(1000)]
        assert results.statistics().batches >= 4


# Whose turn it is


@on_one_loop
async def test_a_worker_makes_as_many_calls_of_a_run_at_once_as_its_concurrency_says(gate: Gate) -> None:
    async def look_and_open() -> None:
        await wait_until(lambda: len(gate.came) >= 3)
        for _ in range(5):
            await executor.run(echo, 0)  # there and back through the same event loop
        assert len(gate.came) == 3
        gate.open()

    async with ProcessExecutor(1) as executor, anyio.create_task_group() as group:
        group.start_soon(look_and_open)
        assert await pmap(gate.wait, [-1] * 8, executor=executor, concurrency=3) == [-1] * 8


async def test_runs_of_one_function_do_not_wait_for_each_other(gate: Gate) -> None:
    async def run(items: list[int]) -> None:
        assert await pmap(wait_at, [gate] * len(items), items, executor=executor, concurrency=2) == items

    async with ProcessExecutor(1) as executor, anyio.create_task_group() as group:
        group.start_soon(run, [-1] * 2)
        await wait_until(lambda: len(gate.came) == 2)
        await run([1, 2, 3])
        gate.open()


@on_one_loop
async def test_plain_and_coroutine_calls_go_on_in_turn() -> None:
    async with ProcessExecutor(1) as executor, anyio.create_task_group() as group:

        async def call_for_ever(fn: Any) -> None:
            while True:
                await executor.run(fn, 0)
                made[fn] += 1

        made: Counter[Any] = Counter()
        for fn in (process_id, process_id_soon, echo):
            group.start_soon(call_for_ever, fn)
        await wait_until(lambda: min(made[process_id], made[process_id_soon], made[echo]) >= 5)
        group.cancel_scope.cancel()


async def test_a_plain_call_does_not_wait_for_a_long_call_while_other_workers_could_make_way(gate: Gate) -> None:
    async with ProcessExecutor(2) as executor, waiting_run(executor, gate), anyio.create_task_group() as group:

        async def go_on() -> None:
            async with pmap(echo, itertools.count(), executor=executor, concurrency=20) as results:
                async for _ in results:
                    pass

        group.start_soon(go_on)
        for _ in range(3):
            with anyio.fail_after(20):
                await executor.run(process_id, None)
        group.cancel_scope.cancel()


async def test_a_call_that_is_cancelled_before_it_has_a_worker_leaves_it_to_the_next() -> None:
    for turns in range(7):
        async with ProcessExecutor(1) as executor, anyio.create_task_group() as group:
            scope = anyio.CancelScope()

            async def first(scope: anyio.CancelScope = scope, executor: ProcessExecutor = executor) -> None:
                with scope:
                    await executor.run(echo, 1)

            group.start_soon(first)
            results: list[int] = []

            async def second(results: list[int] = results, executor: ProcessExecutor = executor) -> None:
                results.append(await executor.run(echo, 2))

            group.start_soon(second)
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            scope.cancel()
            await wait_until(lambda results=results: results == [2])  # type: ignore[misc]


async def test_a_run_with_a_limit_of_workers_starts_no_more() -> None:
    async with ProcessExecutor(4) as executor:
        pids = await pmap(process_id_soon, range(300), executor=executor, n_jobs=1, concurrency=5)
        assert len(set(pids)) == 1
        assert executor.pool.started == 1


async def test_an_event_loop_whose_tasks_begin_at_once_makes_all_calls() -> None:
    async with ProcessExecutor(1, initializer=have_no_uvloop) as executor:  # whose tasks never begin at once
        if not await executor.run(begin_tasks_at_once):
            pytest.skip("this Python has no eager tasks")
        assert await pmap(echo_at_once, range(5000), executor=executor, concurrency=2, batch_size=2500) == list(range(5000))


@on_one_loop
async def test_more_batches_than_have_tickets_wait(monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
    monkeypatch.setattr(event_loops, "MOST_BATCHES", 2)
    async with ProcessExecutor(1) as executor:
        async with waiting_run(executor, gate, 2, batch_size=1), anyio.create_task_group() as group:
            group.start_soon(executor.run, echo, 0)
            await wait_until(lambda: executor.pool.waiting)
            gate.open()
        assert await pmap(echo, range(20), executor=executor, batch_size=1, concurrency=10) == list(range(20))


# Ends that reach one run only


@pytest.mark.parametrize("single", [True, False])
async def test_a_cancellation_reaches_its_own_calls_and_spares_the_worker(gate: Gate, single: bool) -> None:
    async with ProcessExecutor(1) as executor:
        pid = await executor.run(process_id_soon, 0)
        async with waiting_run(executor, gate) as results:
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as group:
                    if single:
                        group.start_soon(executor.run, gate.wait, -2)
                    else:
                        group.start_soon(partial(waits, gate, executor, [-2, -2]))
                    await wait_until(lambda: "-2" in gate.came)
                    scope.cancel()
            assert await executor.run(process_id_soon, 0) == pid
            assert not results
        assert results == [-1]
        assert gate.came.count("-1") == 1


async def waits(gate: Gate, executor: ProcessExecutor, items: list[int]) -> None:
    await pmap(gate.wait, items, executor=executor)


async def test_a_timeout_reaches_its_own_call_and_spares_the_worker(gate: Gate) -> None:
    async with ProcessExecutor(1) as executor:
        pid = await executor.run(process_id_soon, 0)
        async with waiting_run(executor, gate) as results:
            late, in_time = await pmap(gate.wait, [-2, 2], executor=executor, timeout=0.1, on_error="return")
            assert isinstance(late, CallTimeoutError)
            assert in_time == 2
            assert await executor.run(process_id_soon, 0) == pid
        assert results == [-1]
        assert gate.came.count("-1") == 1


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})])
async def test_a_second_cancellation_does_not_cost_the_worker_its_grace(gate: Gate) -> None:
    async with ProcessExecutor(1, grace=60) as executor:
        pid = await executor.run(process_id_soon, 0)
        run = asyncio.ensure_future(executor.run(gate.wait_in_spite_of_all, 1))
        await wait_until(lambda: gate.came)
        for _ in range(3):
            run.cancel()
            await anyio.sleep(0.001)
        assert not run.done()
        gate.open()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert await executor.run(process_id_soon, 0) == pid


@pytest.mark.parametrize("how", ["hold_the_loop", "wait_in_spite_of_all"])
async def test_calls_of_others_are_made_again_if_the_end_of_a_call_costs_its_worker(gate: Gate, how: str) -> None:
    async with ProcessExecutor(1, grace=0.05) as executor, waiting_run(executor, gate, 3) as results:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(executor.run, getattr(gate, how), 5)
                await wait_until(lambda: "5" in gate.came)
                scope.cancel()
        assert not results
        await wait_until(lambda: gate.came.count("-1") == 6)
    assert results == [-1] * 3


@on_one_loop
async def test_a_call_that_holds_the_loop_is_not_blamed_for_the_timeouts_of_others(gate: Gate) -> None:
    async with ProcessExecutor(1, grace=0.05) as executor, anyio.create_task_group() as group:

        async def hold() -> None:
            assert await executor.run(gate.hold_the_loop, 5) == 5

        group.start_soon(hold)
        await wait_until(lambda: gate.came)
        for timeout in (0.1, 0.1, 0.12):  # their ends race
            group.start_soon(partial(expect, [1, 2], executor, timeout))
        await wait_until(lambda: gate.came == ["5", "5"])  # it has a worker for itself
        gate.open()


async def expect(items: list[Any], executor: ProcessExecutor, timeout: float | None = None) -> None:
    assert await pmap(echo, items, executor=executor, timeout=timeout) == items


# What calls do to their event loop


@on_one_loop
async def test_a_call_that_cancels_all_tasks_cancels_calls_and_nothing_else(gate: Gate) -> None:
    async with ProcessExecutor(1) as executor:
        pid = await executor.run(process_id_soon, 0)
        results = await pmap(gate.cancel_the_others, range(10), executor=executor, batch_size=10, on_error="return")
        assert results[0] == 0
        assert [type(result) for result in results[1:]] == [asyncio.CancelledError] * 9  # which have not begun
        assert await executor.run(process_id_soon, 0) == pid


@pytest.mark.parametrize("fn", [exit_in_a_task, stop_the_loop])
async def test_a_call_that_ends_the_loop_ends_no_call(gate: Gate, fn: Any) -> None:
    async with ProcessExecutor(1) as executor:
        async with waiting_run(executor, gate) as results:
            assert await pmap(fn, range(3), executor=executor) == [0, 1, 2]
            assert not results
        assert results == [-1]
        assert gate.came == ["-1"]


@on_one_loop
async def test_a_call_that_awaits_a_task_that_exits_fails(gate: Gate) -> None:
    async with ProcessExecutor(1) as executor, waiting_run(executor, gate):
        with pytest.raises(RuntimeError, match="raised SystemExit: 3"):
            await executor.run(await_a_task_that_exits, 0)


@on_one_loop
async def test_a_call_does_not_see_what_others_have_set_in_their_contexts() -> None:
    async with ProcessExecutor(1) as executor:
        assert await pmap(count_in_context, range(6), executor=executor, concurrency=2, batch_size=6) == [0] * 6


# Limits and large things


@on_one_loop
@pytest.mark.parametrize("most", [1, 3])
async def test_a_worker_makes_no_more_calls_than_it_may(most: int) -> None:
    async with ProcessExecutor(1, max_calls_per_worker=most) as executor:
        pids = await pmap(process_id_soon, range(most), executor=executor, concurrency=2)
        pids += [await executor.run(fn, 0) for fn in (process_id, process_id_soon, process_id_soon) * 2]
        pids += await pmap(process_id_soon, range(10), executor=executor, concurrency=4)
    assert max(Counter(pids).values()) <= most


@on_one_loop
async def test_large_arguments_do_not_get_into_each_others_way() -> None:
    data = [bytes(600_000 + x) for x in range(20)]  # more than a socket takes at once
    async with ProcessExecutor(1) as executor, anyio.create_task_group() as group:

        async def run() -> None:
            options: dict[str, Any] = {"batch_size": 1, "concurrency": 10, "max_nbytes": None}
            assert await pmap(length, data, executor=executor, **options) == list(map(len, data))

        for _ in range(3):
            group.start_soon(run)


@on_one_loop
async def test_large_results_wait_for_a_slow_parent(capfd: pytest.CaptureFixture[str]) -> None:
    async with ProcessExecutor(1) as executor:
        fns: list[Any] = [many_bytes, many_bytes_at_once, many_bytes]
        for fn in fns:  # plain calls use the channel after the event loop
            results = pmap(fn, [3_000_000] * 5, executor=executor, batch_size=1, max_nbytes=None)
            assert [len(result) async for result in results] == [3_000_000] * 5
    assert capfd.readouterr().err == ""  # as a worker would write that cannot send


@on_one_loop
async def test_a_run_fails_whose_answer_cannot_be_mapped(monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no more mappings")

    async with ProcessExecutor(1) as executor:
        with monkeypatch.context() as patch:
            patch.setattr(Mappings, "map", refuse)
            with pytest.raises(OSError, match="no more mappings"):
                await pmap(many_bytes, [3_000_000] * 3, executor=executor)
        assert await pmap(echo, range(3), executor=executor) == [0, 1, 2]


@on_one_loop
async def test_a_run_whose_answer_cannot_be_packed_ends_when_none_of_its_calls_is_running(gate: Gate) -> None:
    ended: list[bool] = []

    async def run() -> None:
        with pytest.raises(RuntimeError, match="KeyboardInterrupt"):
            await pmap(Results(gate), [-1, 1], executor=executor, batch_size=2)
        ended.append(gate.is_open)

    async with ProcessExecutor(1) as executor:
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await wait_until(lambda: gate.came)
            assert await pmap(echo, [0] * 50, executor=executor, concurrency=1) == [0] * 50
            gate.open()
        assert ended == [True]
        assert await pmap(echo, range(3), executor=executor) == [0, 1, 2]


# The end of the executor, and of the parent's loop


async def test_every_run_is_told_that_the_executor_was_closed(gate: Gate) -> None:
    async def run(fn: Any) -> None:
        with pytest.raises(ExecutorUnavailableError, match="was closed"):
            await fn()

    async with ProcessExecutor(1) as executor, anyio.create_task_group() as group:
        group.start_soon(run, partial(executor.run, gate.wait, -1))
        for _ in range(2):
            group.start_soon(run, partial(waits, gate, executor, [-2] * 200))
        await wait_until(lambda: len(gate.came) > 2)
        await executor.aclose()


PROGRAM = """
import asyncio, pathlib, sys
from asyncpar import ProcessExecutor, pmap
from tests.calls.interleaved import Gate

gate = Gate(pathlib.Path(sys.argv[1]))

async def one():
    await executor.run(gate.wait, -1)

async def many():
    await pmap(gate.wait, [-1] * 3, executor=executor)

async def main():
    global executor, tasks
    executor = ProcessExecutor(1)
    tasks = [asyncio.create_task(one()), asyncio.create_task(many())]
    while len(gate.came) < 4:
        await asyncio.sleep(0.001)

asyncio.run(main())
print([task.cancelled() for task in tasks])
"""


def test_a_program_ends_in_the_middle_of_coroutine_calls(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("[True, True]\n", "", 0)
