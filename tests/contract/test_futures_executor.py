"""What is special to pools of others: they are given as they are, may break, and end no call that is running."""

from __future__ import annotations

import concurrent.futures
import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor as ForeignPool
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import numpy as np
import pytest

from asyncpar import (
    CallTimeoutError,
    ExecutorUnavailableError,
    FuturesExecutor,
    Parallel,
    PicklingError,
    WorkerDiedError,
    delayed,
    pmap,
    run,
)
from asyncpar._sync.portal import close_portal
from asyncpar.testing.functions import Marking, double
from tests.calls.pools import (
    Large,
    die_at,
    die_on_five,
    die_on_odd_tens,
    end_at_once,
    map_inside,
    nap,
    sleep_at_two,
    sleep_soon,
    sum_of_naps,
    when,
)
from tests.helper_processes import FORKSERVER, helper_processes
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio
on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@pytest.fixture(scope="module", autouse=True)
def helpers_run() -> Iterator[None]:
    with helper_processes():
        yield


def processes(workers: int = 2) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=FORKSERVER)


def interpreters() -> ForeignPool:
    if not hasattr(concurrent.futures, "InterpreterPoolExecutor"):
        pytest.skip("this Python has no InterpreterPoolExecutor")
    pool: ForeignPool = concurrent.futures.InterpreterPoolExecutor(2)
    return pool


POOLS: dict[str, Callable[[], ForeignPool]] = {
    "threads": partial(ThreadPoolExecutor, 2),
    "processes": processes,
    "interpreters": interpreters,
}


@pytest.fixture(params=["threads", "processes"])
def pool(request: pytest.FixtureRequest) -> Iterator[ForeignPool]:
    with POOLS[request.param]() as pool:
        yield pool


@pytest.mark.parametrize("kind", POOLS)
async def test_a_pool_may_be_given_as_the_executor(kind: str) -> None:
    with POOLS[kind]() as pool:
        assert await pmap(double, range(50), executor=pool) == [2 * x for x in range(50)]
        assert [result async for result in pmap(abs, iter([-1, 2]), executor=pool)] == [1, 2]
        assert pool.submit(abs, -3).result() == 3  # it is its owner's, and goes on


@pytest.mark.parametrize("kind", POOLS)
async def test_a_pool_makes_single_calls(kind: str) -> None:
    with POOLS[kind]() as pool:
        assert await run(pow, 2, exp=3, executor=pool) == 8
        with pytest.raises(ZeroDivisionError) as caught:
            await run(divmod, 1, 0, executor=pool)
        assert "raised by the call divmod(1, 0), in " in caught.value.__notes__[-1]


async def test_a_single_call_that_kills_its_worker_fails_alone() -> None:
    async with FuturesExecutor(processes) as executor:
        with pytest.raises(WorkerDiedError, match=r"while it ran the call die_on_five\(5\)"):
            await executor.run(die_on_five, 5)
        assert await executor.run(die_on_five, 4) == 4


async def test_runs_with_one_pool_share_its_places(pool: ForeignPool) -> None:
    results: list[Any] = []

    async def run(first: int) -> None:
        results.extend(await pmap(double, range(first, first + 100), executor=pool))

    async with anyio.create_task_group() as group:
        for first in (0, 100, 200):
            group.start_soon(run, first)
    assert sorted(results) == [2 * x for x in range(300)]


@on_asyncio
async def test_threads_share_our_memory() -> None:
    items = [object(), threading.Lock()]
    with ThreadPoolExecutor(2) as pool:
        results = await pmap(lambda x: (x, threading.current_thread().name), items, executor=pool)
    assert [result for result, _ in results] == items
    assert all("ThreadPoolExecutor" in name for _, name in results)


@on_asyncio
async def test_what_cannot_be_pickled_fails_alone_in_a_pool_of_processes() -> None:
    with processes() as pool:
        results = await pmap(double, [1, threading.Lock(), 3], executor=pool, on_error="return", batch_size=3)
        assert results[::2] == [2, 6]
        assert isinstance(results[1], PicklingError)


@on_asyncio
async def test_a_large_function_is_not_sent_with_every_batch(tmp_path: Path) -> None:
    with processes() as pool:
        results = pmap(Large(tmp_path), range(100), executor=pool, batch_size=2)
        values = await results
    assert [x for x, _ in values] == list(range(100))
    sent = results.statistics().inline_bytes
    assert len(list(tmp_path.iterdir())) <= 8, (
        "a worker that begins late may be met by each of the four places, as the first was"
    )
    assert sent < 9_000_000, f"{sent} bytes were sent"


def make_loky() -> ForeignPool:
    loky = pytest.importorskip("loky")
    pool: ForeignPool = loky.ProcessPoolExecutor(2)
    return pool


@on_asyncio
@pytest.mark.parametrize("make", [processes, make_loky])
@pytest.mark.parametrize("batch_size", ["auto", 10])
async def test_a_call_that_kills_its_worker_fails_alone(make: Callable[[], ForeignPool], batch_size: Any) -> None:
    async with FuturesExecutor(make) as executor:
        neighbours: list[int] = []

        async def run_beside() -> None:
            neighbours.extend(await pmap(partial(die_at, -1), range(200), executor=executor))

        async with anyio.create_task_group() as group:
            group.start_soon(run_beside)
            call = partial(die_at, 23)
            results = await pmap(call, range(60), executor=executor, on_error="return", batch_size=batch_size)
        assert neighbours == list(range(200))
        died = results.pop(23)
        assert results == [x for x in range(60) if x != 23]
        assert isinstance(died, WorkerDiedError)
        assert (died.index, died.item) == (23, 23)
        assert "call 23, item 23" in str(died)
        assert await pmap(double, [1], executor=executor) == [2]


@on_asyncio
async def test_several_calls_that_kill_fail_each_alone() -> None:
    async with FuturesExecutor(processes) as executor:
        outcomes = [outcome async for outcome in pmap(die_on_odd_tens, range(40), executor=executor).outcomes()]
    assert [outcome.index for outcome in outcomes if isinstance(outcome.error, WorkerDiedError)] == [10, 30]
    assert [outcome.value for outcome in outcomes if outcome.error is None] == [x for x in range(40) if x not in (10, 30)]


@on_asyncio
async def test_a_broken_pool_that_was_given_as_an_object_ends_the_run_and_the_message_says_what_to_do() -> None:
    remedy = r"call .*FuturesExecutor\(lambda: ProcessPoolExecutor\(4\)\)"
    with processes() as pool, pytest.raises(ExecutorUnavailableError, match=remedy):
        await pmap(partial(die_at, 3), range(10), executor=pool)


class BrokenAtTheSecond(ProcessPoolExecutor):
    """Takes the second task when a worker has died of the first: the pool is broken by then, and its user does not know."""

    first: concurrent.futures.Future[Any] | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        if self.first is None:
            self.first = super().submit(fn, *args, **kwargs)
            return self.first
        with pytest.raises(concurrent.futures.BrokenExecutor):
            self.first.result(60)
        return super().submit(fn, *args, **kwargs)


@on_asyncio
async def test_a_pool_that_takes_no_more_batches_because_it_broke_names_the_call_that_it_had() -> None:
    with (
        BrokenAtTheSecond(2, mp_context=FORKSERVER) as pool,
        pytest.raises(ExecutorUnavailableError, match=r"died, perhaps while it ran call 0, item 0"),
    ):
        await pmap(partial(die_at, 0), range(10), executor=pool, batch_size=1)


@pytest.mark.parametrize("kind", ["threads", "processes"])
@on_asyncio
async def test_a_pool_that_was_shut_down_takes_no_run(kind: str) -> None:
    pool = POOLS[kind]()
    pool.shutdown()
    with pytest.raises(ExecutorUnavailableError, match=r"PoolExecutor takes no calls: .*shutdown"):
        await pmap(double, [1], executor=pool)


@pytest.mark.parametrize("kind", ["threads", "processes"])
async def test_a_pool_that_is_shut_down_under_a_run_ends_it_with_a_clear_error(kind: str, tmp_path: Path) -> None:
    marking = Marking(tmp_path, waits=True)
    pool = POOLS[kind]()

    async def consume() -> None:
        with pytest.raises(ExecutorUnavailableError, match=r"PoolExecutor (takes no calls|was shut down)"):
            await pmap(marking, range(1000), executor=pool, batch_size=1)

    async with anyio.create_task_group() as group:
        group.start_soon(consume)
        await wait_until(lambda: len(marking.begun) == 2)
        pool.shutdown(wait=False, cancel_futures=True)
        marking.let_go()
    pool.shutdown()


@on_asyncio
async def test_batches_that_a_pool_of_threads_never_began_end_the_run_when_it_is_shut_down(tmp_path: Path) -> None:
    marking = Marking(tmp_path, waits=True)
    pool = ThreadPoolExecutor(1)
    executor = FuturesExecutor(pool, workers=3)  # more than it has, so that two wait in it

    async def shut_down() -> None:
        await wait_until(lambda: pool._work_queue.qsize() == 2)
        pool.shutdown(wait=False, cancel_futures=True)
        marking.let_go()

    async with anyio.create_task_group() as group:
        group.start_soon(shut_down)
        with pytest.raises(ExecutorUnavailableError, match="the ThreadPoolExecutor was shut down while this run was using it"):
            await pmap(marking, range(10), executor=executor, batch_size=1)
    pool.shutdown()


def fail_to_begin() -> None:
    raise LookupError("no licence")


@on_asyncio
async def test_a_pool_of_threads_whose_initializer_fails_says_that_it_is_broken(caplog: pytest.LogCaptureFixture) -> None:
    message = "the ThreadPoolExecutor is broken: A thread initializer failed"
    with ThreadPoolExecutor(1, initializer=fail_to_begin) as pool, pytest.raises(ExecutorUnavailableError, match=message):
        await pmap(double, range(10), executor=pool)
    assert "no licence" in caplog.text


async def test_a_call_that_is_left_keeps_its_place_until_it_ends(pool: ForeignPool, tmp_path: Path) -> None:
    marking = Marking(tmp_path, waits=True)
    async with FuturesExecutor(pool, workers=1) as executor:
        places = executor.places
        results = pmap(marking, range(places), executor=executor, batch_size=1)
        async with anyio.create_task_group() as group:
            group.start_soon(consume, results)
            await wait_until(lambda: len(marking.begun) == places)
            group.cancel_scope.cancel()
        assert results.statistics().abandoned == places
        with anyio.move_on_after(0.05) as scope:
            await pmap(double, [1], executor=executor)
        assert scope.cancelled_caught, "the place of a call that goes on was lent again"
        marking.let_go()
        assert await pmap(double, range(10), executor=executor) == [2 * x for x in range(10)]


async def consume(results: Any) -> None:
    await results


@on_asyncio
async def test_cancelling_takes_back_what_the_pool_has_not_begun(tmp_path: Path) -> None:
    marking = Marking(tmp_path, waits=True)
    with processes(1) as pool:
        async with FuturesExecutor(pool, workers=4) as executor:  # more than it has, so that some must wait in it
            async with anyio.create_task_group() as group:
                group.start_soon(consume, pmap(marking, range(100), executor=executor, batch_size=1))
                await wait_until(lambda: marking.begun and len(pool._pending_work_items) == executor.places)
                group.cancel_scope.cancel()
            marking.let_go()
            assert await pmap(double, range(10), executor=executor) == [2 * x for x in range(10)]
            assert len(marking.begun) <= 3  # those that are running, and what the pool had put into its own queue


async def test_a_call_that_takes_too_long_fails(pool: ForeignPool) -> None:
    results = await pmap(sleep_at_two, range(5), executor=pool, timeout=0.2, on_error="return", batch_size=5)
    assert isinstance(results[2], CallTimeoutError)
    assert (results[2].index, results[2].item, results[2].seconds) == (2, 2, 0.2)
    assert results[:2] + results[3:] == [0, 1, 3, 4]


@on_asyncio
async def test_a_coroutine_call_that_takes_too_long_is_cancelled(pool: ForeignPool) -> None:
    results = await pmap(sleep_soon, [0, 1000, 0], executor=pool, timeout=0.2, on_error="return")
    assert results[::2] == [0, 0]
    assert isinstance(results[1], CallTimeoutError)


@on_asyncio
async def test_large_arrays_come_back_whole_and_writable(pool: ForeignPool) -> None:
    arrays = [np.full((600, 600), number) for number in range(6)]  # nearly three megabytes each
    for number, result in enumerate(await pmap(np.negative, arrays, executor=pool)):
        assert (result == -number).all()
        result += 1


@pytest.fixture
def the_portal_ends_with_the_test(nothing_is_left_behind: None) -> Iterator[None]:
    yield
    close_portal()


@pytest.mark.usefixtures("the_portal_ends_with_the_test")
@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_parallel_runs_in_a_pool_that_is_its_backend(kind: str) -> None:
    with POOLS[kind]() as pool:
        assert Parallel(n_jobs=2, backend=pool)(delayed(double)(x) for x in range(20)) == [2 * x for x in range(20)]
        assert Parallel(backend=pool)(delayed(double)(x) for x in range(5)) == [0, 2, 4, 6, 8]


@on_asyncio
async def test_maps_in_calls_of_a_pool_do_not_multiply_processes(pool: ForeignPool) -> None:
    assert await pmap(map_inside, range(3), executor=pool) == [[0, 0], [0, 1], [0, 2]]


@pytest.mark.parametrize("wrong", [3, "processes", ThreadPoolExecutor.submit, dict])
@on_asyncio
async def test_what_is_no_pool_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError):
        FuturesExecutor(wrong)


@pytest.mark.parametrize("workers", [0, -1, 1.5, "2"])
@on_asyncio
async def test_a_number_of_workers_that_cannot_be_is_refused(workers: Any) -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="workers must be"):
        FuturesExecutor(pool, workers)


@on_asyncio
async def test_only_pools_that_were_made_here_are_shut_down() -> None:
    with ThreadPoolExecutor(1) as given:
        async with FuturesExecutor(given) as executor:
            await pmap(double, [1], executor=executor)
        assert given.submit(abs, -1).result() == 1
    made: list[ThreadPoolExecutor] = []

    def make() -> ThreadPoolExecutor:
        made.append(ThreadPoolExecutor(1))
        return made[0]

    async with FuturesExecutor(make) as executor:
        await pmap(double, [1], executor=executor)
    with pytest.raises(RuntimeError, match="shutdown"):
        made[0].submit(abs, -1)


@on_asyncio
@pytest.mark.skipif(sys.version_info < (3, 14), reason="no InterpreterPoolExecutor")
async def test_interpreters_are_workers_of_their_own() -> None:
    with interpreters() as pool:
        items: list[Any] = [1, threading.Lock()]
        first, second = await pmap(double, items, executor=pool, on_error="return", batch_size=2)
        assert first == 2
        assert isinstance(second, PicklingError)


@on_asyncio
@pytest.mark.parametrize("n_jobs", [1, 2])
async def test_no_more_calls_run_at_once_than_n_jobs_allows(n_jobs: int) -> None:
    async with FuturesExecutor(partial(processes, 3)) as executor:
        spans = await pmap(when, [Path()] * 60, executor=executor, n_jobs=n_jobs, batch_size=1)
    edges = sorted([(began, 1) for began, _ in spans] + [(ended, -1) for _, ended in spans])
    under_way = list(itertools.accumulate(change for _, change in edges))
    assert max(under_way) <= n_jobs


@on_asyncio
async def test_suspects_are_not_kept_waiting_by_runs_that_go_on() -> None:
    async with FuturesExecutor(partial(processes, 3)) as executor, anyio.create_task_group() as group:

        async def go_on() -> None:
            async with pmap(double, itertools.count(), executor=executor, n_jobs=1, batch_size=1) as results:
                async for _ in results:
                    pass

        group.start_soon(go_on)
        group.start_soon(go_on)
        found = await pmap(die_on_five, range(12), executor=executor, n_jobs=1, batch_size=4, on_error="return")
        group.cancel_scope.cancel()
    assert isinstance(found[5], WorkerDiedError)
    assert [x for x in found if not isinstance(x, WorkerDiedError)] == [x for x in range(12) if x != 5]


@on_asyncio
async def test_no_call_is_blamed_for_a_pool_whose_workers_cannot_begin() -> None:
    def make() -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, mp_context=FORKSERVER, initializer=end_at_once)

    async with FuturesExecutor(make) as executor:
        with pytest.raises(ExecutorUnavailableError, match="broken before it has run a call"):
            await pmap(double, range(5), executor=executor, on_error="return")


async def test_calls_in_threads_of_a_pool_are_outside_of_the_event_loop() -> None:
    with ThreadPoolExecutor(2) as pool:
        assert await pmap(sum_of_naps, [3, 4], executor=pool) == [3, 6]
        assert await pmap(nap, [3, 4], executor=pool) == [3, 4]
