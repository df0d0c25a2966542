"""How a run cuts its items into batches: time budgets, preparing ahead, slices, and the statistics about that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

from asyncpar import Executor, ProcessExecutor, ThreadExecutor, pmap
from asyncpar._contract.batches import Batch
from asyncpar._processes.parcel import ProcessParcel
from asyncpar._run import batching
from tests.calls.processes import say_so_and_wait
from tests.functions import double, double_soon, identity
from tests.loops import on_one_loop
from tests.places import open_session, run_parcel
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("function", [double, double_soon])
async def test_a_batch_that_outlives_its_budget_gives_the_rest_back_unstarted(executor: Executor, function: Any) -> None:
    concurrency = 1 if function is double_soon else 0
    if concurrency and executor.traits.interleaves:
        pytest.skip("there, a batch has no time budget")
    session = open_session(executor, function, concurrency)
    done = await run_parcel(session, session.pack(Batch(range(10, 13), ([1, 2, 3],)), budget=1e-9))
    assert done.values == [2]
    assert [(rest.start, list(rest.columns[0]), rest.attempts) for rest in done.rest] == [(11, [2, 3], 1)]


@pytest.mark.parametrize("ordered", [True, False])
async def test_when_every_batch_outlives_its_budget_all_results_are_there(
    executor: Executor, ordered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching.AdaptiveSizer, "budget", lambda self, calls: 1e-9)
    outcomes = [outcome async for outcome in pmap(double, iter(range(200)), executor=executor, ordered=ordered).outcomes()]
    if ordered:
        assert [outcome.index for outcome in outcomes] == list(range(200))
    assert sorted(outcome.index for outcome in outcomes) == list(range(200))
    assert all(outcome.value == 2 * outcome.index and outcome.attempts == 1 for outcome in outcomes)


async def test_what_came_back_goes_before_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching.AdaptiveSizer, "budget", lambda self, calls: 1e-9)
    called: list[int] = []
    async with ThreadExecutor(1) as executor:
        results = pmap(called.append, range(100), executor=executor)
        await results
    assert sorted(called) == list(range(100))
    largest = max(state.batch_size for state in results.statistics().history)
    for position, item in enumerate(called):  # one batch was with the worker and one was packed; nothing else may lie between
        assert abs(position - item) < 2 * largest


@pytest.mark.parametrize("kind", [ProcessExecutor, ThreadExecutor])
async def test_while_a_worker_computes_its_next_batch_is_already_pulled(
    kind: type[ProcessExecutor | ThreadExecutor], tmp_path: Path
) -> None:
    pulled: list[int] = []
    second_pulled = anyio.Event()

    def source() -> Iterator[Path]:
        for number in range(3):
            pulled.append(number)
            if number == 1:
                second_pulled.set()
            yield tmp_path

    async with kind(1) as executor, anyio.create_task_group() as group:

        async def consume() -> None:
            await pmap(say_so_and_wait, source(), executor=executor, batch_size=1)

        group.start_soon(consume)
        try:
            await second_pulled.wait()
            await wait_until((tmp_path / "running").exists)
            assert pulled == [0, 1]
        finally:
            (tmp_path / "go on").touch()


@on_one_loop
@pytest.mark.parametrize("batch_size", [1, 7])
async def test_a_fixed_batch_size_is_honoured_exactly(batch_size: int) -> None:
    async with ThreadExecutor(2) as executor:
        results = pmap(double, range(50), executor=executor, batch_size=batch_size)
        await results
    assert results.statistics().batches == -(-50 // batch_size)


async def test_statistics_show_what_the_control_law_believes(executor: Executor) -> None:
    results = pmap(identity, range(20_000), executor=executor)
    await results
    statistics = results.statistics()
    assert statistics.batch_size >= 1
    assert statistics.seconds_per_call is not None
    assert statistics.seconds_per_call > 0
    assert 0 <= statistics.overhead_share <= 1
    assert statistics.history
    assert [state.batches for state in statistics.history] == sorted({state.batches for state in statistics.history})
    assert statistics.history[-1].batches <= statistics.batches
    assert max(state.batch_size for state in statistics.history) > 1


@on_one_loop
async def test_a_slice_of_a_range_costs_the_same_however_long_it_is() -> None:
    async with ProcessExecutor(1) as executor:
        session = open_session(executor, double)
        sizes = []
        for length in (10, 10**6):
            parcel = session.pack(Batch(range(length), (range(length),)), 1.0)
            assert isinstance(parcel, ProcessParcel)
            sizes.append(len(parcel.frame(pickles_read=1, news=None).payload))
    assert sizes[1] - sizes[0] < 10


@on_one_loop
async def test_rows_of_an_array_travel_as_one_buffer() -> None:
    array: Any = np.zeros((1000, 100))
    async with ProcessExecutor(1) as executor:
        parcel = open_session(executor, double).pack(Batch(range(1000), (array,)), 1.0)
        assert isinstance(parcel, ProcessParcel)
        frame = parcel.frame(pickles_read=1, news=None)
    assert [len(buffer) for buffer in frame.buffers] == [1000 * 100 * 8]
    assert len(frame.payload) < 500
