"""`timeout=`: a call that takes too long fails by itself, and costs its neighbours nothing."""

from __future__ import annotations

import copy
import pickle
import time
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from asyncpar import CallTimeoutError, Executor, InlineExecutor, ProcessExecutor, ThreadExecutor, pmap
from tests.calls.timeouts import Stuck, hold_the_loop, nap, nap_in_asyncio, time_out_in_its_own_words
from tests.functions import Beacon, double
from tests.loops import on_one_loop
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["process", "thread"])
async def stoppable(request: pytest.FixtureRequest, anyio_backend: object) -> Any:
    """An executor whose calls a timeout can end before they return."""
    async with ProcessExecutor(2) if request.param == "process" else ThreadExecutor(2) as executor:
        yield executor


@on_one_loop
@pytest.mark.parametrize("batch_size", ["auto", 1, 7, 20])
@pytest.mark.parametrize("ordered", [True, False])
async def test_only_the_call_that_takes_too_long_fails(
    stoppable: Executor, tmp_path: Path, batch_size: Any, ordered: bool
) -> None:
    await check_that_only_stuck_calls_fail(stoppable, tmp_path, batch_size, ordered)


async def test_the_call_fails_on_every_loop(stoppable: Executor, tmp_path: Path) -> None:
    await check_that_only_stuck_calls_fail(stoppable, tmp_path, batch_size=7, ordered=True)


async def check_that_only_stuck_calls_fail(stoppable: Executor, tmp_path: Path, batch_size: Any, ordered: bool) -> None:
    stuck = Stuck(tmp_path)
    items = [0, 1, -2, 3, 4, 5, -6, *range(7, 20)]
    results = pmap(stuck, items, executor=stoppable, timeout=0.3, batch_size=batch_size, ordered=ordered)
    outcomes = sorted([outcome async for outcome in results.outcomes()], key=lambda outcome: outcome.index)
    assert [outcome.index for outcome in outcomes] == list(range(20))
    for item, outcome in zip(items, outcomes, strict=True):
        if item >= 0:
            assert outcome.unwrap() == item * 2
        else:
            assert isinstance(outcome.error, CallTimeoutError)
            assert (outcome.error.index, outcome.error.item, outcome.error.seconds) == (outcome.index, item, 0.3)
            assert f"call {outcome.index}, item {item} took longer than its timeout of 0.3 s" in str(outcome.error)
    stuck.let_go()
    assert await pmap(double, range(5), executor=stoppable) == [0, 2, 4, 6, 8]


async def test_the_error_stops_the_run_unless_told_otherwise(stoppable: Executor, tmp_path: Path) -> None:
    stuck = Stuck(tmp_path)
    with pytest.raises(TimeoutError, match="call 1, item -1") as caught:
        await pmap(stuck, [0, -1, 2], executor=stoppable, timeout=0.2)
    stuck.let_go()
    assert any("call 1" in note for note in caught.value.__notes__)
    assert await pmap(stuck, [3], executor=stoppable, timeout=60.0) == [6]


async def test_a_call_has_its_time_for_itself_also_late_in_a_batch(executor: Executor) -> None:
    results = await pmap(time.sleep, [0.3] * 4, executor=executor, timeout=1.0, batch_size=4)
    assert results == [None] * 4


async def test_a_stuck_process_is_killed_and_replaced(tmp_path: Path) -> None:
    beacon = Beacon(tmp_path / "beacon")
    async with ProcessExecutor(1) as executor:
        with pytest.raises(CallTimeoutError):
            await pmap(beacon.spin, [0], executor=executor, timeout=0.2)
        assert not psutil.pid_exists(beacon.pid)
        assert await pmap(double, [4], executor=executor) == [8]


async def test_threads_run_no_call_twice_and_go_on_when_all_are_stuck(tmp_path: Path) -> None:
    stuck = Stuck(tmp_path)
    items = [-1, -2, -3, 4, 5, -6, 7]
    async with ThreadExecutor(2) as executor:
        results = pmap(stuck, items, executor=executor, timeout=0.1, batch_size=3, on_error="return")
        values = await results
        assert [value for value in values if isinstance(value, int)] == [8, 10, 14]
        assert sorted(stuck.marks) == sorted(items)
        assert results.statistics().abandoned == 4
        stuck.let_go()
        assert await pmap(stuck, [1, 2, 3], executor=executor) == [2, 4, 6]


async def test_an_abandoned_call_is_counted_when_a_run_is_cancelled(tmp_path: Path) -> None:
    stuck = Stuck(tmp_path)
    async with ThreadExecutor(1) as executor:
        results = pmap(stuck, [-1], executor=executor)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:

                async def cancel_when_it_runs() -> None:
                    await wait_until((tmp_path / "marks").exists)
                    scope.cancel()

                group.start_soon(cancel_when_it_runs)
                await results
        assert results.statistics().abandoned == 1
        stuck.let_go()
        assert await pmap(double, [1], executor=executor) == [2]


async def test_a_coroutine_call_is_cancelled_in_the_callers_loop() -> None:
    values = await pmap(nap, [0.0, 60.0, 0.01], timeout=0.3, on_error="return")
    assert (values[0], values[2]) == (0.0, 0.01)
    assert isinstance(values[1], CallTimeoutError)
    assert (values[1].index, values[1].item) == (1, 60.0)


async def test_a_coroutine_call_is_cancelled_in_a_worker(stoppable: Executor) -> None:
    values = await pmap(nap_in_asyncio, [0.0, 60.0, 0.01], timeout=0.5, on_error="return", executor=stoppable)
    assert (values[0], values[2]) == (0.0, 0.01)
    assert isinstance(values[1], CallTimeoutError)
    assert (values[1].index, values[1].item, values[1].seconds) == (1, 60.0, 0.5)


@pytest.mark.parametrize("timeout", [None, 60.0])
async def test_a_timeout_that_a_call_raises_itself_arrives_as_it_was_raised(executor: Executor, timeout: Any) -> None:
    for where in (executor, None):
        results = pmap(time_out_in_its_own_words, ["", "mine"], executor=where, timeout=timeout, on_error="return")
        first, second = await results
        for error, text in ((first, ""), (second, "mine")):
            assert type(error) is CallTimeoutError
            assert (error.args, error.index, error.item, error.seconds) == ((text,), 0, None, 0.0)
            assert error.__notes__[0] == "a note of its own"


async def test_a_coroutine_call_that_holds_its_loop_is_found_and_killed() -> None:
    async with ProcessExecutor(2, grace=0.1) as executor:
        values = await pmap(hold_the_loop, [0, 1, -2, 3], timeout=0.3, on_error="return", executor=executor)
    assert [values[0], values[1], values[3]] == [0, 1, 3]
    assert isinstance(values[2], CallTimeoutError)


async def test_inline_a_plain_call_fails_when_it_returns() -> None:
    values = await pmap(time.sleep, [0.0, 0.2, 0.0], timeout=0.1, on_error="return", executor=InlineExecutor())
    assert (values[0], values[2]) == (None, None)
    assert isinstance(values[1], CallTimeoutError)


@pytest.mark.parametrize("clone", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_the_error_survives_pickling(clone: Any) -> None:
    error = clone(CallTimeoutError("too long", 3, "item", 1.5))
    assert (str(error), error.index, error.item, error.seconds) == ("too long", 3, "item", 1.5)
    assert isinstance(error, TimeoutError)
