"""Event loops that are closed by hand with tasks left in them: nothing of ours stays, and nothing is reported."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from asyncpar import ExecutorUnavailableError, ParallelMap, ProcessExecutor, pmap
from asyncpar._platform import closed_loops
from asyncpar.testing.leftovers import busy_threads, join_new_threads
from tests.faults.test_forks import outcome_of
from tests.functions import Beacon, double, identity, process_id

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(params=["asyncio", "uvloop"])
def new_loop(request: pytest.FixtureRequest) -> LoopFactory:
    if request.param == "asyncio":
        return asyncio.new_event_loop
    uvloop = pytest.importorskip("uvloop", reason="uvloop has no build for this interpreter")
    factory: LoopFactory = uvloop.new_event_loop
    return factory


@pytest.fixture(autouse=True)
def nobody_complains(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """asyncio logs a task that is dropped while it waits; other complaints are warnings, which are errors."""
    with caplog.at_level(logging.DEBUG, "asyncio"):
        yield
        gc.collect()
    assert not [record.getMessage() for record in caplog.records if "selector" not in record.getMessage()]


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


async def use_the_default_pool(_: list[Any]) -> None:
    assert await pmap(double, range(10), executor="process", n_jobs=2) == [2 * x for x in range(10)]


async def use_a_pool_that_nobody_closes(kept: list[Any]) -> None:
    kept.append(ProcessExecutor(2))
    assert await pmap(double, range(10), executor=kept[0]) == [2 * x for x in range(10)]


async def leave_a_stream_with_its_iterator(_: list[Any]) -> None:
    async for x in pmap(identity, range(10**9), executor="process"):
        if x == 1000:
            break


async def keep_a_stream(kept: list[Any]) -> None:
    kept.append(pmap(identity, range(10**9), executor="process"))
    for x in range(1000):
        assert await anext(kept[0]) == x


async def keep_a_stream_of_threads(kept: list[Any]) -> None:
    kept.append(pmap(identity, range(10**9), executor="thread"))
    for x in range(1000):
        assert await anext(kept[0]) == x


USES = [
    use_the_default_pool,
    use_a_pool_that_nobody_closes,
    leave_a_stream_with_its_iterator,
    keep_a_stream,
    keep_a_stream_of_threads,
]


@pytest.mark.parametrize("use", USES)
def test_nothing_is_left_when_a_loop_has_been_closed(
    new_loop: LoopFactory, use: Callable[[list[Any]], Awaitable[None]]
) -> None:
    before, threads = children(), busy_threads()
    loops = []
    for _ in range(3):
        kept: list[Any] = []
        loop = new_loop()
        loops.append(weakref.ref(loop))
        loop.run_until_complete(use(kept))
        loop.close()
        assert children() == before
        del kept, loop
    join_new_threads(threads)
    gc.collect()
    assert not [loop for loop in loops if loop() is not None]


def test_calls_that_run_when_the_loop_is_closed_are_killed(new_loop: LoopFactory, tmp_path: Path) -> None:
    beacon = Beacon(tmp_path / "beacon")

    async def begin() -> None:
        stream: ParallelMap[None] = pmap(beacon.spin, [0], executor="process")
        waiting = asyncio.ensure_future(anext(stream))
        while not beacon.pid:
            await asyncio.sleep(0.001)
        waiting.cancel()

    loop = new_loop()
    loop.run_until_complete(begin())
    assert psutil.pid_exists(beacon.pid)
    loop.close()
    assert not psutil.pid_exists(beacon.pid)


def test_loops_may_be_closed_in_several_threads_at_once(new_loop: LoopFactory) -> None:
    before = children()
    errors: list[BaseException] = []
    together = threading.Barrier(3)

    def use_loops() -> None:
        try:
            for _ in range(3):
                loop = new_loop()
                loop.run_until_complete(use_the_default_pool([]))
                together.wait(30)
                loop.close()
        except BaseException as error:
            errors.append(error)
            together.abort()

    threads = [threading.Thread(target=use_loops) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert children() == before


def test_a_loop_may_be_closed_in_a_coroutine_of_another(new_loop: LoopFactory) -> None:
    before = children()
    closed = new_loop()
    kept: list[Any] = []
    thread = threading.Thread(target=closed.run_until_complete, args=[keep_a_stream(kept)])
    thread.start()
    thread.join()
    assert children() > before

    async def main() -> None:
        (worker,) = await pmap(process_id, [0], executor="process", n_jobs=1)
        closed.close()
        assert await pmap(process_id, [0], executor="process", n_jobs=1) == [worker]
        assert await anext(pmap(identity, range(10), executor="process", n_jobs=1)) == 0
        kept.clear()
        gc.collect()

    asyncio.run(main())
    assert children() == before


class KeepsItsTimers(asyncio.SelectorEventLoop):
    """A custom event loop that keeps its timers when it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.timers: list[Any] = []

    def call_later(  # type: ignore[override]  # generic in its arguments, which nobody here minds
        self, delay: float, callback: Any, *args: Any, context: Any = None
    ) -> Any:
        handle: Any = super().call_later(delay, callback, *args, context=context)
        self.timers.append(handle)
        return handle


def test_a_closed_loop_that_told_nobody_is_noticed_when_the_next_one_is_used() -> None:
    before = children()
    loop = KeepsItsTimers()
    loop.run_until_complete(use_the_default_pool([]))
    loop.close()
    left = children()
    assert left > before

    async def main() -> None:
        await use_the_default_pool([])
        assert not children() & (left - before)

    asyncio.run(main())
    assert children() == before


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_loop_whose_timers_are_all_cancelled_goes_on() -> None:
    loop: Any = asyncio.get_running_loop()
    async with ProcessExecutor(1) as executor:
        for _ in range(3):
            (pid,) = await pmap(process_id, [0], executor=executor)
            for timer in list(loop._scheduled):
                timer.cancel()
            gc.collect()
            assert await pmap(process_id, [0], executor=executor) == [pid]


def test_an_executor_of_a_closed_loop_says_why_it_is_closed(new_loop: LoopFactory) -> None:
    kept: list[Any] = []
    loop = new_loop()
    loop.run_until_complete(use_a_pool_that_nobody_closes(kept))
    loop.close()
    with pytest.raises(ExecutorUnavailableError, match="was left open when its event loop was closed"):
        asyncio.run(use_again(kept[0]))


async def use_again(executor: ProcessExecutor) -> None:
    await pmap(double, [1], executor=executor)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_forked_copy_that_closes_the_loop_leaves_the_originals_pool_alone(loop: str) -> None:
    pytest.importorskip(loop, reason="uvloop has no build for this interpreter")
    program = """
        if sys.argv[1] == "uvloop":
            import uvloop
            loop = uvloop.new_event_loop()
        else:
            loop = asyncio.new_event_loop()
        before = loop.run_until_complete(workers())
        pid = os.fork()
        if pid == 0:
            loop.close()
            os._exit(0)
        wait_for(pid)
        assert loop.run_until_complete(workers()) == before
        loop.close()
    """
    assert outcome_of(program, loop) == (0, "", "")


def test_a_map_that_a_users_task_group_runs_is_not_taken_for_a_task_of_ours() -> None:
    names: list[str] = []

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(pmap, abs, [1])
            names.extend(task.get_name() for task in asyncio.all_tasks())

    anyio.run(main)
    assert any(name.startswith(closed_loops._STARTED_BY_USERS) for name in names), names
