"""`max_pending` and `when_full`: how much may wait for an executor's places."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest

from asyncpar import ExecutorSaturatedError, FuturesExecutor, PicklingError, ProcessExecutor, ThreadExecutor, pmap
from tests.calls.timeouts import Stuck
from tests.functions import double, make_texts
from tests.loops import on_one_loop
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio


async def test_calls_beyond_the_limit_are_refused() -> None:
    go_on = threading.Event()
    async with ThreadExecutor(2, max_pending=3, when_full="raise") as executor, anyio.create_task_group() as group:
        for _ in range(5):  # two at work, three waiting
            group.start_soon(executor.run, go_on.wait)
        await wait_until(lambda: executor.pool.waiting == 3)
        with pytest.raises(ExecutorSaturatedError, match="3 calls are already waiting for a place in this ThreadExecutor"):
            await executor.run(double, 1)
        with pytest.raises(ExecutorSaturatedError):
            await pmap(double, range(10), executor=executor)
        go_on.set()


async def test_without_any_pending_calls_only_free_workers_take_some() -> None:
    go_on = threading.Event()
    async with ThreadExecutor(2, max_pending=0, when_full="raise") as executor:
        async with anyio.create_task_group() as group:
            group.start_soon(executor.run, go_on.wait)
            group.start_soon(executor.run, go_on.wait)
            await wait_until(lambda: executor.pool.free == 0)
            with pytest.raises(ExecutorSaturatedError):
                await executor.run(double, 1)
            go_on.set()
        assert [await executor.run(double, number) for number in range(5)] == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("limit", [0, 1, 5])
async def test_calls_that_wait_outside_come_in_one_by_one_and_in_order(limit: int) -> None:
    go_on, order, most = threading.Event(), [], 0
    async with ThreadExecutor(1, max_pending=limit) as executor:

        async def call(number: int) -> None:
            nonlocal most
            order.append(await executor.run(double, number))
            most = max(most, executor.pool.waiting)

        async with anyio.create_task_group() as group:
            group.start_soon(executor.run, go_on.wait)
            await wait_until(lambda: executor.pool.free == 0)
            for number in range(20):
                await anyio.lowlevel.checkpoint()
                group.start_soon(call, number)
                await anyio.wait_all_tasks_blocked()
            assert executor.pool.waiting == limit
            go_on.set()
    assert order == [2 * number for number in range(20)]
    assert most <= limit


async def test_whoever_is_cancelled_outside_leaves_its_turn_to_the_next() -> None:
    go_on, results = threading.Event(), []
    async with ThreadExecutor(1, max_pending=0) as executor, anyio.create_task_group() as group:

        async def call(number: int, scope: anyio.CancelScope) -> None:
            with scope:
                results.append(await executor.run(double, number))

        group.start_soon(executor.run, go_on.wait)
        await wait_until(lambda: executor.pool.free == 0)
        scopes = [anyio.CancelScope() for _ in range(4)]
        for number, scope in enumerate(scopes):
            group.start_soon(call, number, scope)
            await anyio.wait_all_tasks_blocked()
        scopes[0].cancel()
        scopes[2].cancel()
        go_on.set()
        await wait_until(lambda: len(results) == 2)
    assert results == [2, 6]


async def test_whatever_is_let_in_and_cannot_be_sent_leaves_its_turn_to_the_next(tmp_path: Path) -> None:
    stuck, results = Stuck(tmp_path), []
    async with ProcessExecutor(1, max_pending=0) as executor, anyio.create_task_group() as group:

        async def send_a_lock(make: Any) -> None:
            with pytest.raises(PicklingError):
                await make()

        async def call() -> None:
            results.append(await executor.run(double, 1))

        lock = threading.Lock()
        group.start_soon(executor.run, stuck, -1)
        await wait_until((tmp_path / "marks").exists)
        for make in (
            lambda: executor.run(double, lock),
            lambda: executor.run(lambda: lock),
            lambda: pmap(lambda _: lock, [1], executor=executor),
            lambda: pmap(lambda _: lock, [1, 2], executor=executor),
        ):
            group.start_soon(send_a_lock, make)
            await anyio.wait_all_tasks_blocked()
        group.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        stuck.let_go()
        await wait_until(lambda: results == [2])


async def test_a_map_that_has_begun_is_not_refused() -> None:
    async with ProcessExecutor(2, max_pending=0, when_full="raise") as executor:
        assert await pmap(double, range(100), executor=executor, batch_size=1) == [2 * number for number in range(100)]
        assert await pmap(double, [1], executor=executor) == [2]


async def test_calls_whose_arguments_are_being_pickled_count_as_pending() -> None:
    texts = make_texts(150_000)
    outcomes: list[Any] = []
    async with ProcessExecutor(1, max_pending=1, when_full="raise") as executor:

        async def call() -> None:
            try:
                outcomes.append(await executor.run(len, texts))
            except ExecutorSaturatedError as error:
                outcomes.append(error)

        async with anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(call)
    assert outcomes.count(len(texts)) == 2
    assert len(outcomes) == 6


async def test_closing_the_executor_ends_the_wait_outside() -> None:
    go_on = threading.Event()
    async with anyio.create_task_group() as group:
        async with ThreadExecutor(1, max_pending=0) as executor:

            async def call() -> None:
                with pytest.raises(Exception, match="is closed"):
                    await executor.run(double, 1)

            group.start_soon(executor.run, go_on.wait)
            await wait_until(lambda: executor.pool.free == 0)
            group.start_soon(call)
            await anyio.wait_all_tasks_blocked()
        go_on.set()


@on_one_loop
async def test_pools_of_others_have_the_same_limit() -> None:
    go_on = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        async with FuturesExecutor(pool, max_pending=0, when_full="raise") as executor, anyio.create_task_group() as group:
            group.start_soon(executor.run, go_on.wait)
            await wait_until(lambda: executor.pool.free == 0)
            with pytest.raises(ExecutorSaturatedError):
                await executor.run(double, 1)
            go_on.set()


@pytest.mark.parametrize("wrong", [{"max_pending": -1}, {"max_pending": 1.5}, {"max_pending": True}, {"when_full": "refuse"}])
def test_a_limit_that_makes_no_sense_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ThreadExecutor(1, **wrong)
