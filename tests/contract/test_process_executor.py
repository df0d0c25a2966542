"""What only process workers have: surroundings, initializers, preloading, retirement, and functions that are sent once."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from asyncpar import Executor, ExecutorUnavailableError, ProcessExecutor, pmap
from tests.calls.processes import CountsItsPickles, surroundings
from tests.contract import draws_at_import
from tests.functions import double, identity, process_id
from tests.loops import on_one_loop
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio


@on_one_loop
async def test_workers_have_the_surroundings_of_the_moment_of_the_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ProcessExecutor(1) as executor:
        (before,) = await pmap(surroundings, [0], executor=executor)
    assert before == (os.getcwd(), None, sys.argv, False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASYNCPAR_TEST", "yes")
    monkeypatch.setattr("sys.argv", ["program", "argument"])
    monkeypatch.syspath_prepend("/nowhere/special")
    async with ProcessExecutor(1) as executor:
        (after,) = await pmap(surroundings, [0], executor=executor)
    assert after == (str(tmp_path), "yes", ["program", "argument"], True)


async def test_a_worker_started_later_sees_what_has_changed_since(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ProcessExecutor(1) as executor:
        await pmap(identity, [0], executor=executor)
        monkeypatch.setenv("ASYNCPAR_TEST", "later")
        await kill_the_worker(executor)
        ((_, variable, _, _),) = await pmap(surroundings, [0], executor=executor)
    assert variable == "later"


@on_one_loop
async def test_the_working_directory_may_have_been_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "short-lived"
    directory.mkdir()
    monkeypatch.chdir(directory)
    monkeypatch.syspath_prepend("relative")
    directory.rmdir()
    async with ProcessExecutor(1) as executor:
        assert await pmap(double, [1, 2], executor=executor) == [2, 4]
        assert await pmap(lambda _: "relative" in sys.path, [0], executor=executor) == [True]


@on_one_loop
async def test_more_functions_may_be_mapped_than_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "seventy.py").write_text("".join(f"def f{number}(x):\n    return x + {number}\n" for number in range(70)))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "seventy", raising=False)  # of an earlier run of this test
    functions = [getattr(importlib.import_module("seventy"), f"f{number}") for number in range(70)]
    async with ProcessExecutor(1) as executor:
        for _ in range(2):
            for number, function in enumerate(functions):
                assert await pmap(function, [1, 2], executor=executor) == [1 + number, 2 + number]


class Place(str):
    """Not a string by type, and of a class that workers cannot import before they have their `sys.path`."""


@on_one_loop
async def test_what_is_no_string_in_the_search_path_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd: list[Any] = [None, b"/bytes", Path("/path"), 7, Place("/place")]
    monkeypatch.setattr("sys.path", [*odd, *sys.path])
    async with ProcessExecutor(1, preload=["wave"]) as executor:
        (path,) = await pmap(lambda _: sys.path, [0], executor=executor)
    assert path == ["/place", *sys.path[len(odd) :]]


async def test_the_initializer_runs_once_in_each_worker_before_its_first_call(tmp_path: Path) -> None:
    def initialize(name: str) -> None:
        os.environ["ASYNCPAR_TEST"] = name
        (tmp_path / str(os.getpid())).touch(exist_ok=False)

    async with ProcessExecutor(2, initializer=initialize, initargs=("ready",)) as executor:
        seen = await pmap(lambda _: os.environ["ASYNCPAR_TEST"], range(20), executor=executor, batch_size=1)
        pids = await pmap(process_id, range(20), executor=executor, batch_size=1)
    assert set(seen) == {"ready"}
    assert set(map(str, pids)) <= {path.name for path in tmp_path.iterdir()}


async def test_a_failing_initializer_fails_the_run_with_its_own_error() -> None:
    def initialize() -> None:
        raise LookupError("no licence")

    async with ProcessExecutor(2, initializer=initialize) as executor:
        for _ in range(2):
            with pytest.raises(LookupError, match="no licence"):
                await pmap(double, range(10), executor=executor)


async def test_an_initializer_that_kills_its_worker_fails_the_run() -> None:
    async with ProcessExecutor(2, initializer=lambda: os._exit(5)) as executor:
        with pytest.raises(ExecutorUnavailableError, match="exited with code 5 before it was ready"):
            await pmap(double, range(10), executor=executor)


async def test_a_worker_that_is_killed_before_it_is_ready_is_replaced(tmp_path: Path) -> None:
    killed = tmp_path / "killed"

    def initialize() -> None:
        if not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    async with ProcessExecutor(1, initializer=initialize) as executor:
        assert await pmap(double, range(10), executor=executor) == [2 * x for x in range(10)]
    assert killed.exists()


async def test_workers_that_are_always_killed_before_they_are_ready_fail_the_run() -> None:
    def initialize() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    async with ProcessExecutor(2, initializer=initialize) as executor:
        with pytest.raises(ExecutorUnavailableError, match="was killed by SIGKILL before it was ready"):
            await pmap(double, range(10), executor=executor)


@on_one_loop
async def test_preloaded_modules_are_there_before_the_first_call() -> None:
    def loaded(_: object) -> bool:
        import sys

        return "wave" in sys.modules

    async with ProcessExecutor(1) as executor:
        assert await pmap(loaded, [0], executor=executor) == [False]
    async with ProcessExecutor(1, preload=["wave"]) as executor:
        assert await pmap(loaded, [0], executor=executor) == [True]


@on_one_loop
async def test_a_module_that_cannot_be_preloaded_is_reported(capfd: pytest.CaptureFixture[str]) -> None:
    async with ProcessExecutor(1, preload=["no_such_module_anywhere"]) as executor:
        with pytest.raises(ExecutorUnavailableError, match="preload="):
            await pmap(double, [1], executor=executor)
    assert "No module named 'no_such_module_anywhere'" in capfd.readouterr().err


@on_one_loop
async def test_workers_draw_different_random_numbers() -> None:
    async with ProcessExecutor(2, preload=["tests.contract.draws_at_import"]) as executor:
        draws = await draw_in_two_workers(executor, draws_at_import.draw)
    for source in draws_at_import.draw(None):
        assert len({numbers[source] for numbers in draws}) == len(draws), source


@on_one_loop
async def test_the_generator_of_torch_is_seeded_in_each_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in, for torch is too large for a test: it has the one function that is called."""
    (tmp_path / "torch.py").write_text("import random\nstate = 0\ndef seed():\n    global state\n    state = random.random()\n")
    monkeypatch.syspath_prepend(tmp_path)

    def state_of_torch(_: object) -> float:
        return float(sys.modules["torch"].state)

    async with ProcessExecutor(2, preload=["torch"]) as executor:
        states = set(await draw_in_two_workers(executor, state_of_torch))
    assert len(states) == 2
    assert 0 not in states


async def draw_in_two_workers(executor: ProcessExecutor, draw: Any) -> list[Any]:
    draws: dict[int, list[Any]] = {}
    while len(draws) < 2:
        for pid, drawn in await pmap(lambda x: (os.getpid(), draw(x)), range(2), executor=executor, batch_size=1):
            draws.setdefault(pid, []).append(drawn)
    return [drawn for in_one_worker in draws.values() for drawn in in_one_worker]


@on_one_loop
async def test_a_function_is_pickled_once_and_sent_to_a_worker_once_per_run() -> None:
    async with ProcessExecutor(1) as executor:
        CountsItsPickles.pickled = 0
        assert await pmap(CountsItsPickles(), range(10), executor=executor, batch_size=1) == [1] * 10
        assert CountsItsPickles.pickled == 1
        assert await pmap(CountsItsPickles(), range(10), executor=executor, batch_size=1) == [2] * 10


@on_one_loop
async def test_a_worker_forgets_the_functions_of_earlier_runs() -> None:
    def objects(_: object) -> int:
        import gc

        return sum(type(thing).__name__ == "Payload" for thing in gc.get_objects())

    class Payload:
        def __init__(self, size: int) -> None:
            self.content = ["x" * size]

        def __call__(self, x: int) -> int:
            return x

    async with ProcessExecutor(1) as executor:
        for size in (10, 1_000_000):
            await pmap(Payload(size), [1], executor=executor)
            assert await pmap(objects, [0], executor=executor) == [0]


async def test_idle_workers_retire_and_come_back_when_needed() -> None:
    before = set(psutil.Process().children(recursive=True))
    async with ProcessExecutor(2, idle_timeout=0.05) as executor:
        assert await pmap(double, range(4), executor=executor) == [0, 2, 4, 6]
        assert set(psutil.Process().children(recursive=True)) > before
        await wait_until(lambda: set(psutil.Process().children(recursive=True)) == before)
        assert await pmap(double, range(4), executor=executor) == [0, 2, 4, 6]


async def test_workers_exit_like_programs_when_the_executor_closes(tmp_path: Path) -> None:
    def promise(path: Path) -> None:
        import atexit

        atexit.register(path.touch)

    async with ProcessExecutor(1, grace=10) as executor:
        await pmap(promise, [tmp_path / "left"], executor=executor)
    assert (tmp_path / "left").exists()


@on_one_loop
async def test_what_a_call_prints_is_not_lost(capfd: pytest.CaptureFixture[str]) -> None:
    async with ProcessExecutor(1) as executor:
        await pmap(print, ["one", "two"], executor=executor)
        assert capfd.readouterr().out == "one\ntwo\n"


@on_one_loop
async def test_workers_read_nothing_from_the_terminal() -> None:
    async with ProcessExecutor(1) as executor:
        assert await pmap(lambda _: os.read(0, 100), [0], executor=executor) == [b""]


async def test_no_more_workers_are_started_than_there_is_work_for() -> None:
    before = len(psutil.Process().children(recursive=True))
    async with ProcessExecutor(8) as executor:
        await pmap(double, [1], executor=executor)
        assert len(psutil.Process().children(recursive=True)) - before == 2  # the zygote and one worker


@pytest.mark.parametrize("n_jobs", [1, 2, 3])
async def test_n_jobs_bounds_the_workers_of_a_run(n_jobs: int) -> None:
    async with ProcessExecutor(4) as executor:
        pids = await pmap(process_id, range(200), executor=executor, batch_size=1, n_jobs=n_jobs)
        assert 1 <= len(set(pids)) <= n_jobs


async def test_an_executor_refuses_work_once_closed(executor: Executor) -> None:
    await executor.aclose()
    await executor.aclose()  # a second time does nothing
    with pytest.raises(ExecutorUnavailableError, match="is closed; keep its `async with` open"):
        await pmap(double, [1], executor=executor)


async def test_several_runs_share_an_executor(executor: Executor) -> None:
    results: dict[int, list[int]] = {}

    async def run(number: int) -> None:
        results[number] = await pmap(double, range(number), executor=executor)

    async with anyio.create_task_group() as group:
        for number in range(0, 200, 20):
            group.start_soon(run, number)
    assert results == {number: [2 * x for x in range(number)] for number in range(0, 200, 20)}


async def test_runs_take_turns_on_the_workers_that_they_share() -> None:
    """Workers are lent for one batch, first come, first served: neither long runs nor a one-item run are starved."""
    finished = [anyio.Event() for _ in range(3)]

    async def consume(executor: Executor, finished: anyio.Event) -> None:
        async with pmap(identity, endless(), executor=executor, batch_size=1) as results:
            for _ in range(10):
                await anext(results)
            finished.set()
            async for _ in results:
                pass  # goes on asking for the worker

    async with ProcessExecutor(1) as executor, anyio.create_task_group() as group:
        for event in finished:
            group.start_soon(consume, executor, event)
        for event in finished:
            await event.wait()
        assert await pmap(double, [4], executor=executor) == [8]
        group.cancel_scope.cancel()


def endless() -> Any:
    while True:
        yield 0


async def test_by_name_the_pool_of_the_event_loop_stays_warm() -> None:
    (first,) = await pmap(process_id, [0], executor="process", n_jobs=1)
    (second,) = await pmap(process_id, [0], executor="process", n_jobs=1)
    assert first == second


async def test_a_named_pool_grows_to_n_jobs() -> None:
    before = len(psutil.Process().children(recursive=True))
    async with pmap(identity, endless(), executor="process", n_jobs=5, batch_size=1) as results:
        await wait_for_children(results, before + 6)


async def wait_for_children(results: Any, count: int) -> None:
    while len(psutil.Process().children(recursive=True)) < count:
        await anext(results)


def test_an_executor_belongs_to_one_event_loop() -> None:
    executor = ProcessExecutor(1)

    async def use() -> list[int]:
        return await pmap(double, [1], executor=executor)

    assert anyio.run(use) == [2]
    with pytest.raises(ExecutorUnavailableError, match="is closed"):  # it ended with its loop
        anyio.run(use)


async def test_an_executor_of_another_loop_is_refused() -> None:
    async with ProcessExecutor(1) as executor:
        await pmap(double, [1], executor=executor)

        async def use_elsewhere() -> None:
            with pytest.raises(ExecutorUnavailableError, match="belongs to another event loop"):
                await pmap(double, [1], executor=executor)

        await anyio.to_thread.run_sync(anyio.run, use_elsewhere)


async def kill_the_worker(executor: Executor) -> None:
    (pid,) = await pmap(process_id, [0], executor=executor)
    psutil.Process(pid).kill()
    await wait_until(lambda: not psutil.pid_exists(pid))


async def test_an_executor_whose_first_user_is_cancelled_at_once_serves_the_next() -> None:
    async def use(executor: ProcessExecutor) -> None:
        await pmap(abs, range(3), executor=executor)

    for turns in range(12):
        async with ProcessExecutor(1) as executor:
            async with anyio.create_task_group() as group:
                group.start_soon(use, executor)
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
            assert await pmap(abs, [-1], executor=executor) == [1]
