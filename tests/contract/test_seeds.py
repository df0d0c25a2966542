"""`seed=`: each call has a random stream of its own, which depends on nothing but the seed and the call's index."""

from __future__ import annotations

import re
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asyncpar
from asyncpar import Executor, Parallel, PicklingError, ProcessExecutor, WorkerDiedError, current_call, pmap
from tests.calls.seeded import NO_CALL, DrawsThenFails, all_drawn, draw, draw_soon, draw_with_numpy, maps_within_soon
from tests.functions import add, die_on_negative, raise_value_error
from tests.helper_processes import FORKSERVER, helper_processes
from tests.interpreters import with_interpreters
from tests.loops import on_one_loop

ITEMS = [3, 0, 7, 7, 1, 0, 0, 2]
DRAWN = all_drawn(11, ITEMS)
on_every_loop = pytest.mark.anyio
names = pytest.mark.parametrize("executor", ["process", "thread", "inline", None, with_interpreters("interpreter")])


@pytest.fixture(scope="module", autouse=True)
def helpers_run() -> Iterator[None]:
    with helper_processes():
        yield


@on_one_loop
@on_every_loop
async def test_calls_draw_the_same_in_every_executor(executor: Executor) -> None:
    assert await pmap(draw, ITEMS, executor=executor, seed=11) == DRAWN
    assert await pmap(draw_soon, ITEMS, executor=executor, seed=11) == DRAWN


@on_every_loop
async def test_coroutine_calls_in_the_callers_event_loop_draw_the_same() -> None:
    assert await pmap(draw_soon, ITEMS, seed=11) == DRAWN
    assert await pmap(draw_soon, ITEMS, seed=11, concurrency=1) == DRAWN


@pytest.mark.anyio
@on_one_loop
@names
async def test_executors_with_a_name_draw_the_same(executor: str | None) -> None:
    assert await pmap(draw, ITEMS, executor=executor, seed=11) == DRAWN
    assert [drawn async for drawn in pmap(draw, ITEMS, executor=executor, seed=11)] == DRAWN


@pytest.mark.anyio
@on_one_loop
async def test_pools_of_others_draw_the_same() -> None:
    with ThreadPoolExecutor(2) as threads, ProcessPoolExecutor(2, mp_context=FORKSERVER) as processes:
        for pool in (threads, processes):
            assert await pmap(draw, ITEMS, executor=pool, seed=11) == DRAWN
            assert await pmap(draw_soon, ITEMS, executor=pool, seed=11) == DRAWN


@pytest.mark.anyio
@on_one_loop
async def test_one_item_draws_as_the_first_of_many(executor: Executor) -> None:
    assert await pmap(draw, [3], executor=executor, seed=11) == DRAWN[:1]


@on_one_loop
@on_every_loop
async def test_the_order_of_results_does_not_matter(executor: Executor) -> None:
    drawn = [one async for one in pmap(draw, ITEMS, executor=executor, seed=11, ordered=False, batch_size=1)]
    assert sorted(drawn) == sorted(DRAWN)


@pytest.mark.anyio
@on_one_loop
async def test_an_async_source_draws_the_same(executor: Executor) -> None:
    async def source() -> AsyncIterator[int]:
        for item in ITEMS:
            yield item

    assert await pmap(draw, source(), executor=executor, seed=11) == DRAWN


@on_one_loop
@on_every_loop
@pytest.mark.parametrize("retry_wait", [0.0, 0.01])
async def test_a_retry_begins_its_stream_anew(executor: Executor, tmp_path: Path, retry_wait: float) -> None:
    items = list(range(8))
    failing = DrawsThenFails(tmp_path, {2: 1, 5: 2})
    results = pmap(failing, items, executor=executor, seed=11, retries=2, retry_wait=retry_wait, batch_size=3)
    assert await results == all_drawn(11, items)
    assert results.statistics().retried == 3


@pytest.mark.anyio
@on_one_loop
async def test_a_retried_row_of_an_array_keeps_its_index(executor: Executor, tmp_path: Path) -> None:
    failing = DrawsThenFails(tmp_path, {2: 1, 5: 2})
    rows: Any = np.arange(8)
    drawn = await pmap(failing, rows, executor=executor, seed=11, retries=2, batch_size=4)
    assert [index for _, index, _ in drawn] == list(range(8))


@on_every_loop
async def test_calls_that_run_again_after_a_death_draw_the_same(tmp_path: Path) -> None:
    def die_once(item: int) -> Any:
        drawn = draw(item)
        if item == 3 and not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            die_on_negative(-1)
        return drawn

    async with ProcessExecutor(2) as executor:
        assert await pmap(die_once, range(8), executor=executor, seed=11, retries=1, batch_size=8) == all_drawn(11, range(8))


@pytest.mark.anyio
@on_one_loop
async def test_numpys_generator_is_a_spawned_child(executor: Executor) -> None:
    children = np.random.SeedSequence(11).spawn(4)
    expected = [np.random.Generator(np.random.PCG64(child)).random() for child in children]
    assert await pmap(draw_with_numpy, range(4), executor=executor, seed=11) == expected


def test_streams_are_the_same_in_every_release() -> None:
    """Numbers that were written down: programs rely on them."""
    assert [drawn for _, _, drawn in asyncpar.map(draw, [0, 0], seed=0, executor="inline")] == STREAMS_OF_SEED_0
    assert list(asyncpar.map(draw_with_numpy, [0, 0], seed=0, executor="inline")) == NUMPY_STREAMS_OF_SEED_0


STREAMS_OF_SEED_0 = [0.8222024672594808, 0.6230992379026213]
NUMPY_STREAMS_OF_SEED_0 = [0.9429375528828794, 0.6771968569751019]


def test_neighbouring_seeds_have_nothing_in_common() -> None:
    drawn = [value for seed in range(30) for _, _, value in asyncpar.map(draw, [0] * 30, seed=seed, executor="inline")]
    assert len(set(drawn)) == 900
    assert abs(sum(drawn) / 900 - 0.5) < 0.05  # five standard errors


@pytest.mark.anyio
@on_one_loop
async def test_without_a_seed_there_is_no_current_call(executor: Executor) -> None:
    await pmap(draw, ITEMS, executor=executor, seed=11)
    with pytest.raises(RuntimeError, match=r"write pmap\(f, items, seed=42\)"):
        await pmap(draw, ITEMS, executor=executor)
    with pytest.raises(RuntimeError, match="a call of a map with a seed"):
        current_call()


@on_every_loop
async def test_coroutine_calls_of_a_map_within_a_call_have_no_stream_of_its(executor: Executor) -> None:
    within = [NO_CALL] * 6 + [0, 1]
    assert await pmap(maps_within_soon, [1, 2], seed=11) == [within] * 2
    assert await pmap(maps_within_soon, [1, 2], executor=executor, seed=11) == [within] * 2


@pytest.mark.parametrize("seed", [True, -1, 1.0, "1", float("nan"), np.float64(1), np.int64(-1), None.__class__])
def test_what_is_no_seed_is_refused_at_the_edge(seed: Any) -> None:
    with pytest.raises(ValueError, match="seed must be an integer, 0 or more, or None, not"):
        pmap(draw, ITEMS, seed=seed)
    with pytest.raises(ValueError, match="seed must be an integer"):
        Parallel(seed=seed)


def test_numbers_of_numpy_and_huge_ones_are_seeds() -> None:
    eleven: Any = np.int64(11)
    assert list(asyncpar.map(draw, ITEMS, seed=eleven, executor="inline")) == DRAWN
    huge = 10**6000  # more digits than Python writes
    assert list(asyncpar.map(draw, ITEMS, seed=huge, executor="inline")) == all_drawn(huge, ITEMS)


# What users see of a call


@pytest.mark.anyio
@on_one_loop
async def test_errors_show_the_users_function_and_item(executor: Executor) -> None:
    wrong_function: Any = add
    with pytest.raises(ValueError, match="bad b") as caught:
        await pmap(raise_value_error, ["b"], executor=executor, seed=11)
    assert "raised by call 0, item 'b', in" in caught.value.__notes__[0]
    with pytest.raises(TypeError) as wrong:
        await pmap(wrong_function, [(1, 2)], executor=executor, seed=11)
    assert "each item is one argument" in wrong.value.__notes__[1]
    assert re.search(r"add\(\) missing 1 required positional argument", str(wrong.value))


@pytest.mark.anyio
@on_one_loop
async def test_deaths_and_refusals_show_them_too() -> None:
    async with ProcessExecutor(1) as executor:
        with pytest.raises(WorkerDiedError, match="while it ran call 1, item -1") as died:
            await pmap(die_on_negative, [1, -1], executor=executor, seed=11)
        assert (died.value.index, died.value.item) == (1, -1)
        lock = threading.Lock()
        with pytest.raises(PicklingError, match=r"^the item of call 1, .*: arguments\[0\], a _thread.lock"):
            await pmap(draw, [1, lock], executor=executor, seed=11)
        with pytest.raises(PicklingError, match=r"^the function <function .*: function\.__closure__\['lock'\], a _thread.lock"):
            await pmap(lambda _: lock, [1, 2], executor=executor, seed=11)


@pytest.mark.anyio
@on_one_loop
async def test_outcomes_and_progress_are_as_without_a_seed(executor: Executor) -> None:
    seen: list[int] = []
    results = pmap(draw, ITEMS, executor=executor, seed=11, progress=lambda statistics: seen.append(statistics.finished))
    outcomes = [outcome async for outcome in results.outcomes()]
    assert [outcome.index for outcome in outcomes] == list(range(8))
    assert [outcome.unwrap() for outcome in outcomes] == DRAWN
    assert seen[-1] == 8
