"""`run`, the function and the method: one call, awaited."""

from __future__ import annotations

import asyncio
import functools
import gc
import math
import os
import signal
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

import asyncpar
from asyncpar import CallTimeoutError, Executor, PicklingError, ProcessExecutor, ThreadExecutor, WorkerDiedError, pmap, run
from asyncpar._contract.batches import BatchDone, nothing_done
from asyncpar._contract.executor import Place
from tests.calls.rereading import Rereading
from tests.calls.timeouts import Stuck, nap_in_asyncio
from tests.functions import Beacon, add, double, double_soon, kill_self, make_texts, process_id, raise_value_error
from tests.loops import on_one_loop
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

# Python's garbage collector crashes there on a cycle with a memoryview of a memoryview (gh-77894), and the traceback of a send
# that was cancelled is one
MEMORYVIEWS_CRASH = sys.version_info < (3, 11, 8) or (3, 12) <= sys.version_info < (3, 12, 2)


async def test_arguments_of_every_form_arrive(executor: Executor) -> None:
    assert await executor.run(dict) == {}
    assert await executor.run(double, 4) == 8
    assert await executor.run(add, 1, 2) == 3
    assert await executor.run(dict, a=1, b=[2]) == {"a": 1, "b": [2]}
    assert await executor.run(dict, [("x", 0)], y=1) == {"x": 0, "y": 1}
    assert await executor.run(lambda *row, **named: (row, named), (1, 2), None, key="k") == (((1, 2), None), {"key": "k"})


async def test_coroutine_functions_run_in_the_worker(executor: Executor) -> None:
    assert await executor.run(double_soon if executor.traits.in_own_task else nap_in_asyncio, 0) == 0


async def test_without_an_executor_plain_functions_leave_the_process_and_coroutine_functions_do_not() -> None:
    async def here(x: int) -> tuple[int, int]:
        await anyio.lowlevel.checkpoint()
        return os.getpid(), x

    assert await run(process_id, 0) != os.getpid()
    assert await run(here, x=5) == (os.getpid(), 5)


@on_one_loop
@pytest.mark.parametrize("name", ["process", "thread", "inline"])
async def test_executors_have_the_names_that_pmap_knows(name: str) -> None:
    assert await run(math.sqrt, 9, executor=name) == 3.0


@on_one_loop
async def test_pools_of_threads_make_single_calls() -> None:
    with ThreadPoolExecutor(1) as pool:
        assert await run(add, 1, b=2, executor=pool) == 3
        with pytest.raises(ValueError, match="bad 3"):
            await run(raise_value_error, 3, executor=pool)


@on_one_loop
@pytest.mark.parametrize("mistake", [3, None, "abs"])
async def test_what_is_not_a_function_is_refused(executor: Executor, mistake: Any) -> None:
    with pytest.raises(TypeError, match=r"run takes a function .* write run\(f, x\), not run\(f\(x\)\)"):
        await executor.run(mistake, 1)
    with pytest.raises(TypeError, match=r"write run\(double_soon, …\)"):
        await executor.run(double_soon(1))  # type: ignore[call-overload]  # the mistake
    with pytest.raises(ValueError, match="timeout must be a positive number"):
        await executor.run(abs, 1, timeout=-1)


async def test_an_error_arrives_unchanged_and_shows_the_call(executor: Executor) -> None:
    with pytest.raises(ValueError, match="bad 7") as caught:
        await executor.run(raise_value_error, 7)
    assert [
        note for note in caught.value.__notes__ if note.startswith("asyncpar: raised by the call raise_value_error(7), in ")
    ]
    if isinstance(executor, ProcessExecutor):
        assert "raise ValueError" in str(caught.value.__cause__)


@on_one_loop
async def test_a_call_that_exits_does_not_end_the_program(executor: Executor) -> None:
    with pytest.raises(RuntimeError, match=r"the call _exit\(3\), raised SystemExit: 3"):
        await executor.run(_exit, 3)
    with pytest.raises(RuntimeError, match="a call raised StopIteration"):
        await executor.run(next, iter([]))


def _exit(code: int) -> None:
    raise SystemExit(code)


async def test_a_call_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    beacon = Beacon(tmp_path / "beacon")
    async with ProcessExecutor(1) as executor:
        with pytest.raises(CallTimeoutError, match=r"the call Beacon.spin\(\) took longer than its timeout of 0.2 s"):
            await executor.run(beacon.spin, timeout=0.2)
        assert not psutil.pid_exists(beacon.pid)
        assert await executor.run(double, 4, timeout=60) == 8


async def test_a_cancelled_call_is_killed_and_disturbs_no_other(tmp_path: Path) -> None:
    beacon, stuck = Beacon(tmp_path / "beacon"), Stuck(tmp_path)
    async with ProcessExecutor(2) as executor, anyio.create_task_group() as group:
        results: list[int] = []

        async def call_the_other() -> None:
            results.append(await executor.run(stuck, -4))

        async def spin() -> None:
            with scope:
                await executor.run(beacon.spin)

        scope = anyio.CancelScope()
        group.start_soon(call_the_other)
        group.start_soon(spin)
        await wait_until(lambda: beacon.pid and (tmp_path / "marks").exists())
        scope.cancel()
        await wait_until(lambda: not psutil.pid_exists(beacon.pid))
        assert results == []
        stuck.let_go()
        await wait_until(lambda: results == [-8])
        assert await executor.run(double, 4) == 8


@pytest.mark.parametrize("kind", ["process", "thread"])
async def test_wherever_a_call_is_cancelled_the_executor_goes_on(kind: str) -> None:
    makes: dict[str, Any] = {"process": ProcessExecutor, "thread": ThreadExecutor}
    texts = [] if MEMORYVIEWS_CRASH else make_texts(60_000)  # packed in a thread
    async with makes[kind](1, max_pending=1) as executor:
        for steps in range(25):
            async with anyio.create_task_group() as group:
                for argument in (texts, "short", "waits outside"):
                    group.start_soon(executor.run, len, argument)
                for _ in range(steps):
                    await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
            assert await executor.run(double, steps) == 2 * steps
            assert executor.pool.waiting == 0
            assert executor.pool.free == 1


async def test_cancelling_a_call_that_waits_leaves_the_queue_in_order() -> None:
    async with ThreadExecutor(1) as executor:
        held, order = threading.Event(), []

        async def call(number: int, scope: anyio.CancelScope) -> None:
            with scope:
                order.append(await executor.run(double, number))

        async with anyio.create_task_group() as group:
            group.start_soon(executor.run, held.wait)
            await wait_until(lambda: executor.pool.started and not executor.pool.idle)
            scopes = [anyio.CancelScope() for _ in range(3)]
            for number, scope in enumerate(scopes):
                group.start_soon(call, number, scope)
                await wait_until(lambda: executor.pool.waiting == number + 1)  # noqa: B023 - called within this turn
            scopes[1].cancel()
            await wait_until(lambda: executor.pool.waiting == 2)
            held.set()
        assert order == [0, 4]


async def test_the_call_that_kills_its_worker_is_told_so() -> None:
    async with ProcessExecutor(1) as executor:
        with pytest.raises(WorkerDiedError, match=r"was killed by SIGKILL while it ran the call kill_self\(0\)") as caught:
            await executor.run(kill_self, 0)
        assert caught.value.signal == signal.SIGKILL
        assert await executor.run(double, 4) == 8


async def test_a_call_whose_worker_dies_before_it_receives_the_call_is_sent_again() -> None:
    async with ProcessExecutor(1) as executor:
        pid = await executor.run(process_id, 0)
        os.kill(pid, signal.SIGKILL)
        assert await executor.run(process_id, 0) != pid


@on_one_loop
async def test_what_cannot_be_sent_is_refused_before_a_worker_is_started() -> None:
    async with ProcessExecutor(1) as executor:
        with pytest.raises(PicklingError, match=r"argument 0 of the call double\(.*_thread.lock, cannot be pickled"):
            await executor.run(double, threading.Lock())
        with pytest.raises(PicklingError, match="function"):
            await executor.run(functools.partial(double, threading.Lock()))
        assert executor.pool.started == 0
        with pytest.raises(PicklingError, match="the result"):
            await executor.run(threading.Lock)


@on_one_loop
async def test_large_arguments_and_results_are_sent_without_holding_the_loop() -> None:
    async with ProcessExecutor(1) as executor:
        texts = make_texts(200_000)
        assert await executor.run(len, texts) == len(texts)
        assert await executor.run(make_texts, 200_000) == texts
        assert await executor.run(bytes, 3_000_000) == bytes(3_000_000)


@on_one_loop
async def test_a_function_of_a_script_is_sent_once_and_again_when_it_has_changed() -> None:
    async with ProcessExecutor(1) as executor:
        assert [await executor.run(Rereading()) for _ in range(3)] == [1, 1, 1]
        assert [await executor.run(Rereading("changed")) for _ in range(2)] == [2, 2]
        assert await executor.run(Rereading()) == 2
        factor = 2

        def scale(x: int) -> int:
            return x * factor

        assert await executor.run(scale, 5) == 10
        factor = 3
        assert await executor.run(scale, 5) == 15


@on_one_loop
async def test_what_was_called_is_not_kept_alive(executor: Executor) -> None:
    class Thing:
        def method(self, other: object) -> bool:
            return self is other

    thing, other = Thing(), Thing()
    gone, other_gone = weakref.ref(thing), weakref.ref(other)
    await executor.run(thing.method, other)
    await executor.run(thing.method, other=other)
    del thing, other
    await wait_until(lambda: gc.collect() >= 0 and gone() is None and other_gone() is None)


@on_one_loop
async def test_few_functions_of_scripts_are_kept_and_those_of_the_last_calls() -> None:
    async with ProcessExecutor(1) as executor:
        for number in range(40):
            await executor.run(Rereading("first"))
            await executor.run(Rereading(f"{number}"))
        assert await executor.run(Rereading("first")) == 41
        assert await executor.run(Rereading("0")) == 42


@on_one_loop
async def test_an_executor_that_loses_a_call_is_told_so() -> None:
    class Losing(asyncpar.InlineExecutor):
        async def start_place(self) -> Any:
            return LosingPlace()

    class LosingPlace(Place):
        async def run(self, parcel: Any) -> BatchDone:
            return nothing_done(parcel.batch, (), "nobody")

    with pytest.raises(asyncpar.ExecutorUnavailableError, match="the Losing is defective"):
        await Losing().run(double, 1)


@on_one_loop
async def test_calls_and_maps_share_the_workers() -> None:
    async with ProcessExecutor(2) as executor:
        async with asyncio.TaskGroup() as group:
            mapped = group.create_task(pmap(double, range(2000), executor=executor, batch_size=10))
            calls = [group.create_task(executor.run(double, number)) for number in range(100)]
        assert mapped.result() == [2 * number for number in range(2000)]
        assert [call.result() for call in calls] == [2 * number for number in range(100)]


async def test_many_calls_one_after_another_let_other_tasks_run() -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with ProcessExecutor(1) as executor, anyio.create_task_group() as group:
        await executor.run(double, 1)
        group.start_soon(count_turns)
        for number in range(300):
            await executor.run(double, number)
        group.cancel_scope.cancel()
    assert turns >= 300 // 11


async def test_a_call_ends_with_its_executor(tmp_path: Path) -> None:
    beacon = Beacon(tmp_path / "beacon")
    async with anyio.create_task_group() as group, ProcessExecutor(1) as executor:

        async def spin() -> None:
            with pytest.raises(asyncpar.ExecutorUnavailableError, match="closed"):
                await executor.run(beacon.spin)

        group.start_soon(spin)
        await wait_until(lambda: beacon.pid)
    with pytest.raises(asyncpar.ExecutorUnavailableError, match="is closed"):
        await executor.run(time.sleep, 0)
