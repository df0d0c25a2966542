"""Guarantees 2, 4 and 8: a bounded window, nothing running after the end however it comes, and an executor that goes on."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from asyncpar import Executor, ExecutorUnavailableError, InlineExecutor, ProcessExecutor, ThreadExecutor, pmap
from tests.functions import Beacon, double, double_soon, identity, process_id
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio


class Counted:
    """An endless source that knows how far it was pulled and whether it was closed."""

    def __init__(self) -> None:
        self.pulled = 0
        self.closed = False

    def sync(self) -> Iterator[int]:
        try:
            for number in itertools.count():
                self.pulled += 1
                yield number
        finally:
            self.closed = True

    async def asynchronous(self) -> AsyncIterator[int]:
        try:
            for number in itertools.count():
                self.pulled += 1
                yield number
        finally:
            await anyio.lowlevel.checkpoint()  # an async source may need to await while it closes
            self.closed = True


@pytest.mark.parametrize("kind", ["sync", "asynchronous"])
async def test_no_more_is_pulled_than_the_window(executor: Executor, kind: str) -> None:
    for buffersize in (1, 20):
        source = Counted()
        async with pmap(double, getattr(source, kind)(), executor=executor, buffersize=buffersize) as results:
            for handed in range(50):
                assert await anext(results) == 2 * handed
                assert source.pulled - handed <= buffersize
        assert source.closed


@pytest.mark.parametrize("ordered", [True, False])
async def test_the_automatic_window_is_bounded_too(executor: Executor, ordered: bool) -> None:
    source = Counted()
    async with pmap(double, source.sync(), executor=executor, ordered=ordered, batch_size=5) as results:
        for handed in range(100):
            await anext(results)
            statistics = results.statistics()
            assert statistics.pulled - statistics.handed <= statistics.window
            assert source.pulled - handed - 1 <= statistics.window
    assert statistics.window <= 5 * 4 * executor.workers


async def test_statistics_account_for_every_item(executor: Executor) -> None:
    results = pmap(double, range(100), executor=executor)
    assert results.statistics().pulled == 0
    await results
    statistics = results.statistics()
    assert (statistics.pulled, statistics.finished, statistics.handed, statistics.failed) == (100, 100, 100, 0)
    assert statistics.batches >= 1
    assert statistics.busy_seconds > 0
    assert statistics.utilisation > 0


async def test_an_exception_in_the_consumer_passes_and_stops_the_run(executor: Executor) -> None:
    source = Counted()
    with pytest.raises(KeyError, match="mine"):
        async with pmap(double, source.sync(), executor=executor) as results:
            async for _ in results:
                raise KeyError("mine")
    assert source.closed
    assert await pmap(double, [4], executor=executor) == [8]


async def test_a_map_that_is_closed_before_it_began_closes_its_source(executor: Executor) -> None:
    source = Counted()
    generator = source.sync()
    async with pmap(double, generator, executor=executor):
        pass
    assert next(generator, None) is None  # closed: it gives nothing any more


async def test_a_dropped_stream_stops_by_itself(executor: Executor) -> None:
    closed = anyio.Event()

    async def source() -> AsyncIterator[int]:
        try:
            for number in itertools.count():
                yield number
        finally:
            closed.set()

    async for result in pmap(double, source(), executor=executor):
        if result == 10:
            break
    gc.collect()
    await closed.wait()


async def test_a_timeout_around_anext_loses_nothing_inside_the_block(executor: Executor) -> None:
    gate = anyio.Event()

    async def source() -> AsyncIterator[int]:
        yield 1
        await gate.wait()
        yield 2

    async with pmap(double, source(), executor=executor) as results:
        assert await anext(results) == 2
        with anyio.move_on_after(0.01) as scope:
            await anext(results)
        assert scope.cancelled_caught
        gate.set()
        assert await anext(results) == 4


async def test_two_tasks_cannot_iterate_over_one_map(executor: Executor) -> None:
    async def source() -> AsyncIterator[int]:
        await anyio.sleep_forever()
        yield 1

    async with pmap(double, source(), executor=executor) as results, anyio.create_task_group() as group:
        group.start_soon(anext, results)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(RuntimeError, match="two tasks cannot iterate over one ParallelMap"):
            await anext(results)
        group.cancel_scope.cancel()


async def test_a_map_that_is_closed_while_it_begins_runs_nothing() -> None:
    calls: list[int] = []

    begun = anyio.Event()

    async def first(results: Any) -> None:
        begun.set()
        with pytest.raises(StopAsyncIteration):
            await anext(results)

    async with InlineExecutor() as executor:
        results = pmap(calls.append, range(8), executor=executor)
        async with anyio.create_task_group() as group:
            group.start_soon(first, results)
            await begun.wait()
            await results.aclose()
        before = len(calls)
        await anyio.wait_all_tasks_blocked()
        assert len(calls) == before


async def test_a_source_that_never_waits_does_not_hold_the_event_loop(executor: Executor) -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async def source() -> AsyncIterator[int]:
        for number in range(2000):
            yield number

    async with anyio.create_task_group() as group:
        group.start_soon(count_turns)
        await pmap(double, source(), executor=executor, buffersize=2000)
        assert turns >= 2000 // 64
        group.cancel_scope.cancel()


async def test_a_stream_in_order_gives_nothing_that_comes_after_the_call_that_failed() -> None:
    others_are_done = threading.Event()

    def call(x: int) -> int:
        if x == 1:
            others_are_done.wait(30)
            raise ZeroDivisionError
        if x == 9:  # what came before it has been taken in
            others_are_done.set()
        return x

    async with ThreadExecutor(2) as executor:
        given = []
        with pytest.raises(ZeroDivisionError):
            async for result in pmap(call, range(20), executor=executor, batch_size=1, buffersize=20):
                given.append(result)
        assert given == [0]


async def test_an_error_of_a_call_matters_more_than_one_of_closing_its_source(executor: Executor) -> None:
    def source() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            raise OSError("while closing")

    with pytest.raises(ZeroDivisionError):
        await pmap(lambda x: 1 // 0, source(), executor=executor)
    with pytest.raises(OSError, match="while closing"):
        async with pmap(double, source(), executor=executor) as results:
            await anext(results)


# Process workers: what is said to have stopped is watched through a file


async def test_cancelling_an_await_ends_calls_that_do_not_listen(tmp_path: Path) -> None:
    beacon = Beacon(tmp_path / "beacon")
    async with ProcessExecutor(2, grace=0.05) as executor:
        async with anyio.create_task_group() as group:
            group.start_soon(_collect, executor, beacon)
            await wait_until(lambda: beacon.count > 0)
            group.cancel_scope.cancel()
        assert_gone(beacon.pid)
        assert await pmap(double, range(10), executor=executor) == [2 * x for x in range(10)]


async def test_cancelling_an_await_keeps_workers_that_stop_in_time(tmp_path: Path) -> None:
    beacon = Beacon(tmp_path / "beacon")
    async with ProcessExecutor(1, grace=30) as executor:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(_nap, executor, beacon)
                await wait_until(lambda: beacon.count > 3)
                scope.cancel()
        count = beacon.count
        (pid,) = await pmap(process_id, [0], executor=executor)
        assert pid == beacon.pid
        assert beacon.count == count  # no further call was started


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_second_cancellation_while_workers_stop_does_no_harm(tmp_path: Path) -> None:
    """asyncio's own `Task.cancel` goes through every shield; a worker that has not answered must not be lent again."""
    beacon = Beacon(tmp_path / "beacon")
    async with ProcessExecutor(1, grace=0.5) as executor:

        async def run() -> list[int]:
            return await pmap(beacon.spin, range(100), executor=executor)

        task = asyncio.ensure_future(run())
        await wait_until(lambda: beacon.count > 0)
        task.cancel()
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        assert not task.done()  # it waits for the worker
        for _ in range(5):
            task.cancel()
            await anyio.lowlevel.checkpoint()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert_gone(beacon.pid)  # five cancellations do not shorten the wait
        assert await pmap(double, range(10), executor=executor) == [2 * x for x in range(10)]


async def test_leaving_a_stream_ends_calls_that_do_not_listen(tmp_path: Path) -> None:
    beacon = Beacon(tmp_path / "beacon")
    async with ProcessExecutor(2, grace=0.05) as executor:
        async with pmap(first_then_spin(beacon), range(2), executor=executor, batch_size=1) as results:
            assert await anext(results) == 0
            await wait_until(lambda: beacon.count > 0)
        assert_gone(beacon.pid)


async def test_the_first_error_ends_calls_that_do_not_listen(tmp_path: Path) -> None:
    beacon = Beacon(tmp_path / "beacon")
    async with ProcessExecutor(2, grace=0.05) as executor:
        with pytest.raises(ZeroDivisionError):
            await pmap(spin_or_fail(beacon), range(2), executor=executor, batch_size=1)
        assert_gone(beacon.pid)


async def test_closing_the_executor_under_a_run_ends_the_run_with_a_clear_error(tmp_path: Path) -> None:
    beacon = Beacon(tmp_path / "beacon")
    executor = ProcessExecutor(1, grace=0.05)

    async def consume() -> None:
        with pytest.raises(ExecutorUnavailableError, match="the executor was closed while this run was using it"):
            await pmap(beacon.spin, [0], executor=executor)

    async with anyio.create_task_group() as group:
        group.start_soon(consume)
        await wait_until(lambda: beacon.count > 0)
        await executor.aclose()
    assert_gone(beacon.pid)


async def test_a_run_that_waits_for_a_worker_may_be_cancelled_just_as_the_executor_closes() -> None:
    entered, leave = threading.Event(), threading.Event()

    def call(_: int) -> None:
        entered.set()
        leave.wait(30)

    executor = ThreadExecutor(1)
    scope = anyio.CancelScope()

    async def wait_in_line() -> None:
        with scope, contextlib.suppress(ExecutorUnavailableError):  # whichever comes first
            await pmap(identity, [1], executor=executor)

    async def cancel() -> None:
        scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(_run, pmap(call, [1], executor=executor))
        await wait_until(entered.is_set)
        group.start_soon(wait_in_line)
        await wait_until(lambda: executor.pool.has_waiters)
        group.start_soon(executor.aclose)
        group.start_soon(cancel)
        leave.set()
    with pytest.raises(ExecutorUnavailableError):
        await pmap(identity, [1], executor=executor)


async def test_an_abandoned_thread_starts_no_further_call_and_keeps_its_place() -> None:
    entered, leave = threading.Event(), threading.Event()
    calls: list[int] = []

    def call(x: int) -> None:
        calls.append(x)
        entered.set()
        leave.wait(30)

    async with ThreadExecutor(1) as executor:
        async with anyio.create_task_group() as group:
            group.start_soon(_run, pmap(call, range(5), executor=executor, batch_size=5))
            await wait_until(entered.is_set)
            group.cancel_scope.cancel()
        assert calls == [0]
        with anyio.move_on_after(0.05) as scope:  # the only place is still taken
            await pmap(identity, [1], executor=executor)
        assert scope.cancelled_caught
        leave.set()
        assert await pmap(identity, [1], executor=executor) == [1]
        assert calls == [0]


@pytest.mark.parametrize("width", [1, 2])
async def test_a_thread_starts_no_further_call_after_many_short_ones_either(width: int) -> None:
    entered, leave = threading.Event(), threading.Event()
    started = [0]

    def call(x: int, *_: int) -> None:  # short ones until the 5000th, so that many are made between two looks at the clock
        started[0] = x
        if x == 5000:
            entered.set()
            leave.wait(30)

    async with ThreadExecutor(1) as executor:
        async with anyio.create_task_group() as group:
            group.start_soon(_run, pmap(call, *[range(10_000)] * width, executor=executor, batch_size=10_000))
            await wait_until(entered.is_set)
            group.cancel_scope.cancel()
        leave.set()
        assert await pmap(identity, [1], executor=executor) == [1]  # once the abandoned thread has ended
        assert started == [5000]


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_an_abandoned_thread_may_outlive_its_event_loop(loop: str) -> None:
    entered, leave, left = threading.Event(), threading.Event(), threading.Event()

    def call(_: int) -> None:
        entered.set()
        leave.wait(30)
        left.set()

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(_run, pmap(call, [1], executor="thread"))
            await wait_until(entered.is_set)
            group.cancel_scope.cancel()

    anyio.run(main, backend=loop)
    leave.set()
    assert left.wait(30)


async def test_a_map_that_was_awaited_may_be_closed(executor: Executor) -> None:
    async with pmap(identity, [1, 2], executor=executor) as results:
        assert await results == [1, 2]
    await results.aclose()


async def test_cancelling_cancels_coroutine_calls_in_the_callers_loop() -> None:
    started, cancelled = anyio.Event(), []

    async def call(x: int) -> None:
        try:
            if x == 2:
                started.set()
            await anyio.sleep_forever()
        finally:
            cancelled.append(x)

    async with anyio.create_task_group() as group:
        group.start_soon(_run, pmap(call, itertools.count(), concurrency=3))
        await started.wait()
        group.cancel_scope.cancel()
    assert sorted(cancelled) == [0, 1, 2]


async def test_no_more_coroutine_calls_are_under_way_than_allowed() -> None:
    under_way, most = 0, 0
    seven = anyio.Event()

    async def call(x: int) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if under_way == 7:
            seven.set()
        await seven.wait()
        await anyio.lowlevel.checkpoint()
        under_way -= 1
        return await double_soon(x)

    assert await pmap(call, range(100), concurrency=7) == [2 * x for x in range(100)]
    assert most == 7


async def _collect(executor: Executor, beacon: Beacon) -> None:
    await pmap(beacon.spin, range(2), executor=executor, batch_size=1)


async def _nap(executor: Executor, beacon: Beacon) -> None:
    await pmap(beacon.nap, range(10**6), executor=executor, batch_size=10**6)


async def _run(results: Any) -> None:
    await results


def first_then_spin(beacon: Beacon) -> Any:
    return lambda x: x if x == 0 else beacon.spin()


def spin_or_fail(beacon: Beacon) -> Any:
    """Call 0 spins forever; call 1 fails once it has seen that."""

    def call(x: int) -> None:
        if x == 0:
            beacon.spin()
        while beacon.count == 0:
            pass
        raise ZeroDivisionError

    return call


def assert_gone(pid: int) -> None:
    assert pid > 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
