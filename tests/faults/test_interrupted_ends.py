"""Ends that are interrupted, by asyncio's `Task.cancel` or by the end of something else, still complete. Chaos runs found each
of these cases.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import psutil
import pytest

from asyncpar import Executor, ExecutorUnavailableError, ProcessExecutor, ThreadExecutor, pmap
from asyncpar._child.control import STOP
from asyncpar._child.protocol import KILL, Record
from asyncpar._contract.lending import PooledExecutor
from asyncpar._platform.background import BackgroundTask, start_background
from asyncpar._processes.zygote_client import ForkedProcess, Zygote
from asyncpar.executors.inline import InlinePlace
from tests.faults.executions import Executions
from tests.functions import Beacon, double
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio
on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])

_others: list[psutil.Process] = []


@pytest.fixture(autouse=True)
def others_are_known() -> None:
    """What other libraries keep for the whole program, such as the helpers of multiprocessing."""
    _others[:] = psutil.Process().children(recursive=True)


def new_children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if child not in _others]


@on_asyncio
async def test_leaving_a_stream_waits_for_its_source_also_if_the_task_is_cancelled_meanwhile() -> None:
    closing, let_go, closed = anyio.Event(), anyio.Event(), False

    async def source() -> AsyncIterator[int]:
        nonlocal closed
        try:
            for number in range(1000):
                yield number
        finally:
            closing.set()
            with anyio.CancelScope(shield=True):
                await let_go.wait()
            closed = True

    async def leave() -> None:
        async with pmap(double, source(), executor="inline", buffersize=2) as results:
            await anext(results)

    leaving = asyncio.ensure_future(leave())
    await closing.wait()
    leaving.cancel()
    for _ in range(10):
        await anyio.lowlevel.checkpoint()
    assert not leaving.done()
    let_go.set()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert closed


class _CancelsAScopeOfItsOwn(InlinePlace):
    def __init__(self, let_go: anyio.Event) -> None:
        self._let_go = let_go

    async def run(self, parcel: Any) -> Any:
        async def end() -> None:
            await self._let_go.wait()
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(end)
            await anyio.sleep_forever()
        return await super().run(parcel)


class _TwoPlaces(PooledExecutor[_CancelsAScopeOfItsOwn]):
    def __init__(self, let_go: anyio.Event) -> None:
        super().__init__(2)
        self._let_go = let_go

    async def start_place(self) -> _CancelsAScopeOfItsOwn:
        return _CancelsAScopeOfItsOwn(self._let_go)


@on_asyncio
@pytest.mark.parametrize("turns", range(5))
async def test_a_cancellation_that_coincides_with_that_of_a_scope_is_not_taken_for_the_end_of_the_run(turns: int) -> None:
    let_go = anyio.Event()
    running = asyncio.ensure_future(_run(double, _TwoPlaces(let_go), range(4)))
    for _ in range(20):
        await anyio.lowlevel.checkpoint()
    let_go.set()
    for _ in range(turns):
        await anyio.lowlevel.checkpoint()
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()


@on_asyncio
async def test_a_cancelled_task_asks_all_workers_to_stop_at_once(tmp_path: Path) -> None:
    let_go = tmp_path / "let go"
    begun = Executions(tmp_path / "begun")

    def call(x: int) -> None:
        begun.mark(x)
        while not let_go.exists():
            pass

    async with ProcessExecutor(2, grace=60.0) as executor:
        running = asyncio.ensure_future(_run(call, executor, range(4)))
        await wait_until(lambda: begun.total == 2)
        running.cancel()
        await wait_until(lambda: all(worker._process.page[STOP] for worker in executor._workers))
        let_go.touch()
        await asyncio.wait([running])
        assert running.cancelled()
        assert begun.total == 2


async def test_a_call_may_become_overdue_between_two_looks_at_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = itertools.chain([1.0, -1.0], itertools.repeat(1.0))
    monkeypatch.setattr("asyncpar.executors.thread.seconds_left", lambda page, timeout: next(looks))
    async with ThreadExecutor(1) as executor:
        assert await pmap(time.sleep, [0.01], executor=executor, timeout=60.0) == [None]


@on_asyncio
async def test_a_kill_that_waits_to_be_sent_is_sent_even_if_its_sender_is_cancelled(tmp_path: Path) -> None:
    beacon = Beacon(tmp_path / "beacon")
    async with ProcessExecutor(1) as executor:
        running = asyncio.ensure_future(_run(beacon.spin, executor))
        await wait_until(lambda: beacon.count > 0)
        (worker,) = executor._workers
        zygote = executor._zygote
        assert zygote is not None
        os.kill(zygote._pid, signal.SIGSTOP)
        try:
            _fill_control_socket(zygote, worker._process)
            killing = asyncio.ensure_future(worker.kill())
            for _ in range(10):  # until it waits for room in the socket
                await anyio.lowlevel.checkpoint()
            killing.cancel()
            await anyio.lowlevel.checkpoint()
        finally:
            os.kill(zygote._pid, signal.SIGCONT)
        await asyncio.wait([killing, running])
        assert killing.cancelled()
        assert isinstance(running.exception(), ExecutorUnavailableError)
        assert not psutil.pid_exists(beacon.pid)


def _fill_control_socket(zygote: Zygote, worker: ForkedProcess) -> None:
    with pytest.raises(BlockingIOError):
        while True:
            zygote._control.send(Record(KILL, worker.worker_id + 1000).pack())  # for a worker that there is not


async def test_an_executor_that_is_closed_while_it_asks_for_a_worker_starts_no_zygote() -> None:
    async with ProcessExecutor(1) as executor:
        await _let_worker_be_asked_for(executor, meanwhile=executor.aclose)
    assert not new_children()


async def test_an_executor_that_is_closed_at_its_very_beginning_starts_no_zygote(monkeypatch: pytest.MonkeyPatch) -> None:
    executor = ProcessExecutor(1)

    async def start_and_be_closed(fn: Any, if_lost: Any) -> BackgroundTask:
        task = await start_background(fn, if_lost)
        await executor.aclose()
        return task

    monkeypatch.setattr("asyncpar._contract.life.start_background", start_and_be_closed)
    with pytest.raises(ExecutorUnavailableError, match="closed"):
        await pmap(double, [1], executor=executor)
    assert not new_children()


async def test_a_worker_that_comes_as_its_executor_closes_is_given_back() -> None:
    async with ProcessExecutor(1) as executor:

        async def begin_to_close() -> None:
            executor.pool.close()

        await _let_worker_be_asked_for(executor, meanwhile=begin_to_close)
    assert not new_children()


async def _let_worker_be_asked_for(executor: ProcessExecutor, meanwhile: Any) -> None:
    """Replaces a worker, which has to wait until `meanwhile` is over."""
    await pmap(double, [1], executor=executor)
    (worker,) = executor._workers
    executor.pool.let_idle_go()
    await worker.retire()
    executor._workers.clear()
    zygote = executor._zygote
    assert zygote is not None

    async def run() -> None:
        with pytest.raises(ExecutorUnavailableError, match="closed"):
            await pmap(double, [1], executor=executor)

    async with anyio.create_task_group() as group, zygote._sending:
        group.start_soon(run)
        await wait_until(lambda: zygote._sending.statistics().tasks_waiting == 1)
        await meanwhile()


async def _run(fn: Any, executor: Executor, items: Iterable[int] = (0,)) -> list[Any]:
    return await pmap(fn, items, executor=executor, batch_size=1)
