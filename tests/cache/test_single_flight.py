"""A key that many tasks, threads and processes ask for at the same time is computed once."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from asyncpar import Memory
from asyncpar._cache import flights
from asyncpar._cache.locks import locks_of
from tests.cache.programs import compute_slowly, make_array, record
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]


def until(condition: Callable[[], object]) -> None:
    """Waits for what other processes do."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


class Programs:
    """Processes that run one of the programs, and are killed at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: list[subprocess.Popen[str]] = []

    def start(self, name: str, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.cache.programs", name, str(self.folder), *arguments]
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.running.append(process)
        return process

    def begin(self) -> None:
        """Lets all of them go at once."""
        for process in self.running:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in self.running:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()

    def output(self) -> list[str]:
        return [process.communicate(timeout=50)[0].strip() for process in self.running]

    def computed(self, pattern: str) -> list[Path]:
        return sorted(self.folder.glob(pattern))


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    programs = Programs(tmp_path)
    yield programs
    for process in programs.running:
        process.kill()
        process.communicate()


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path / "cache", verbose=0)


async def until_boarded(count: int) -> None:
    """Waits until so many callers wait for one flight."""
    await wait_until(lambda: [len(flight._callbacks) for flight in flights._flights.values()] == [count])


async def ask_and_count(cached: Any, landed: list[Any], *arguments: Any) -> None:
    landed.append(await cached(*arguments))


class Gated:
    """A coroutine function that waits for a gate; it has a key of its own."""

    def __init__(self) -> None:
        self.began = anyio.Event()
        self.gate = anyio.Event()
        self.calls = 0
        self.cancelled = False

    def __reduce__(self) -> Any:
        return Gated, ()

    async def compute(self, x: int) -> int:
        self.calls += 1
        self.began.set()
        try:
            await self.gate.wait()
        except BaseException:
            self.cancelled = True
            raise
        return x


async def test_many_tasks_that_ask_at_once_compute_once(memory: Memory) -> None:
    async def compute(x: int, gated: Gated) -> list[int]:
        return [await gated.compute(x)]

    gated = Gated()
    cached = memory.cache(compute, ignore=["gated"])
    landed: list[list[int]] = []
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(ask_and_count, cached, landed, 3, gated)
        await gated.began.wait()
        await until_boarded(20)
        gated.gate.set()
    assert gated.calls == 1
    assert landed == [[3]] * 20
    assert len({id(result) for result in landed}) == 20


async def test_a_caller_that_is_cancelled_disturbs_no_other(memory: Memory) -> None:
    gated = Gated()
    cached = memory.cache(gated.compute)
    landed: list[int] = []
    async with anyio.create_task_group() as group:
        async with anyio.create_task_group() as first:
            first.start_soon(ask_and_count, cached, landed, 3)
            await gated.began.wait()
            group.start_soon(ask_and_count, cached, landed, 3)
            await until_boarded(2)
            first.cancel_scope.cancel()
        gated.gate.set()
    assert landed == [3]
    assert gated.calls == 1
    assert not gated.cancelled


async def test_when_the_last_caller_has_left_the_computing_is_cancelled(memory: Memory) -> None:
    gated = Gated()
    cached = memory.cache(gated.compute)
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(cached, 3)
        await gated.began.wait()
        group.cancel_scope.cancel()
    while not gated.cancelled:
        await anyio.sleep(0.001)
    while flights._flights:
        await anyio.sleep(0.001)
    gated.gate.set()
    assert await cached(3) == 3
    assert gated.calls == 2


async def double(x: int) -> int:
    await anyio.lowlevel.checkpoint()
    return 2 * x


def double_in_a_thread(x: int) -> int:
    return 2 * x


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_call_that_is_cancelled_at_any_point_leaves_nothing(memory: Memory, is_async: bool) -> None:
    call: Any = memory.cache(double) if is_async else memory.cache(double_in_a_thread).acall
    for steps in range(40):
        async with anyio.create_task_group() as group:
            group.start_soon(call, steps)
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        await wait_until(lambda: not flights._flights)
        assert await call(steps) == 2 * steps
    assert memory._store is not None
    assert memory._store.locks._users == 0


async def test_a_call_that_waits_for_another_process_can_be_cancelled_at_any_point(memory: Memory, programs: Programs) -> None:
    process = programs.start("hold", str(memory.location))
    assert process.stdout is not None
    process.stdout.readline()
    cached = memory.cache(double)
    for steps in range(20):
        async with anyio.create_task_group() as group:
            group.start_soon(cached, 7)
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        await wait_until(lambda: not flights._flights)
    async with anyio.create_task_group() as group:
        landed: list[int] = []
        group.start_soon(ask_and_count, cached, landed, 7)
        await until_boarded(1)
        process.kill()
    assert landed == [14]
    assert memory._store is not None
    locks = memory._store.locks
    await wait_until(lambda: locks._users == 0)


async def test_an_error_reaches_all_who_waited_and_is_not_kept(memory: Memory) -> None:
    gated = Gated()

    async def fail(gated: Gated) -> None:
        await gated.compute(1)
        raise KeyError("no")

    cached = memory.cache(fail, ignore=["gated"])
    errors: list[BaseException] = []

    async def ask() -> None:
        try:
            await cached(gated)
        except KeyError as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(ask)
        await gated.began.wait()
        await until_boarded(3)
        gated.gate.set()
    assert len(errors) == 3
    assert gated.calls == 1
    with pytest.raises(KeyError):
        await cached(gated)
    assert gated.calls == 2


async def test_a_plain_function_goes_on_when_its_callers_are_cancelled_and_its_result_is_kept(memory: Memory) -> None:
    began, gate = threading.Event(), threading.Event()
    calls: list[int] = []

    def compute(x: int, calls: list[int], began: threading.Event, gate: threading.Event) -> int:
        calls.append(x)
        began.set()
        gate.wait()
        return x

    cached = memory.cache(compute, ignore=["calls", "began", "gate"])
    async with anyio.create_task_group() as group:
        group.start_soon(cached.acall, 3, calls, began, gate)
        while not began.is_set():
            await anyio.sleep(0.001)
        group.cancel_scope.cancel()
    landed: list[int] = []
    async with anyio.create_task_group() as group:
        group.start_soon(ask_and_count, cached.acall, landed, 3, calls, began, gate)
        await until_boarded(1)
        gate.set()
    assert landed == [3]
    assert calls == [3]


async def test_a_plain_call_in_the_event_loop_does_not_wait_for_a_task_of_that_loop(memory: Memory) -> None:
    def compute(x: int, go: threading.Event) -> int:
        go.wait(30)
        return x * x

    cached = memory.cache(compute, ignore=["go"])
    go = threading.Event()
    results: list[int] = []

    async def ask() -> None:
        results.append(await cached.acall(3, go))

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await wait_until(lambda: bool(flights._flights))
        go.set()
        results.append(cached(3, go))  # which would wait for ever for what this loop has to end
    assert results == [9, 9]


def test_threads_that_ask_at_once_compute_once(memory: Memory, tmp_path: Path) -> None:
    cached = memory.cache(record)
    barrier = threading.Barrier(8)
    results: list[int] = []

    def ask() -> None:
        barrier.wait()
        results.append(cached(str(tmp_path), 5))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [25] * 8
    assert len(list(tmp_path.glob("computed-*"))) == 1


def test_a_call_that_asks_for_its_own_result_is_told(memory: Memory) -> None:
    twins: dict[str, Any] = {}

    def loop(x: int, others: Any) -> Any:
        return twins["loop"](x, others) if x else twins["loop"](x - 1, others)

    twins["loop"] = memory.cache(loop, ignore=["others"])
    with pytest.raises(RuntimeError, match="asks for its own result"):
        twins["loop"](3, None)


def test_coroutines_of_four_processes_compute_once_though_half_of_them_are_cancelled(programs: Programs) -> None:
    processes = [programs.start("many_coroutines") for _ in range(4)]
    programs.begin()
    assert [process.stdout and process.stdout.readline() for process in processes] == ["asked\n"] * 4
    (programs.folder / "go-7").touch()
    assert programs.output() == [str([49] * 10)] * 4
    assert len(programs.computed("began-*")) == 1


def test_when_the_computing_process_is_killed_another_takes_over(programs: Programs) -> None:
    processes = [programs.start("one_call") for _ in range(3)]
    programs.begin()
    until(lambda: bool(programs.computed("began-*")))
    (first,) = programs.computed("began-*")
    victim = next(process for process in processes if f"-{process.pid}-" in first.name)
    time.sleep(0.1)  # the others wait for the lock by then, or will find it free, which makes no difference
    victim.send_signal(signal.SIGKILL)
    until(lambda: len(programs.computed("began-*")) == 2)
    (programs.folder / "go-7").touch()
    assert [line.split()[0] for line in programs.output() if line] == ["49", "49"]
    assert len(programs.computed("began-*")) == 2


def test_eight_processes_of_four_threads_compute_each_key_once(programs: Programs) -> None:
    for seed in range(8):
        programs.start("contend", str(seed))
    programs.begin()
    assert programs.output() == ["[]"] * 8
    assert len(programs.computed("computed-*")) == 30


def test_a_writer_that_is_killed_at_any_moment_leaves_whole_entries_only(programs: Programs, memory: Memory) -> None:
    for delay in (0.0, 0.003, 0.01, 0.02, 0.05):
        process = programs.start("write_for_ever")
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(delay)
        process.kill()
        process.wait()
    cached = memory.cache(make_array)
    for key in range(5):
        assert (cached(key) == key).all()


def test_waiters_that_were_cancelled_leave_no_lock(programs: Programs, memory: Memory) -> None:
    process = programs.start("one_call")
    programs.begin()
    until(lambda: bool(programs.computed("began-*")))
    cached = memory.cache(compute_slowly)

    async def give_up() -> None:
        with anyio.move_on_after(0.05):
            await cached.acall(str(programs.folder), 7)

    anyio.run(give_up)
    (programs.folder / "go-7").touch()
    process.communicate(timeout=20)
    assert cached(str(programs.folder), 7) == 49
    until(lambda: not any("cache lock" in thread.name for thread in threading.enumerate()))
    locks = memory._store.locks if memory._store is not None else None
    assert locks is not None
    assert locks._users == 0


def test_the_locks_of_a_removed_folder_are_not_taken_for_those_of_its_successor(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    old = locks_of(str(first))
    assert locks_of(str(first)) is old
    first.rename(second)  # as if the file system had given the number of a removed folder to a new one
    claim = locks_of(str(second)).try_claim(b"k" * 20)
    assert claim is not None
    assert (second / "locks").exists()
    claim.release()


def test_a_flight_of_a_loop_that_is_closed_before_it_has_taken_off_is_lost(programs: Programs) -> None:
    programs.start("close_a_loop_early")
    programs.begin()
    assert programs.output() == ["0 49"]


async def cancel_myself(x: int) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(30)


def test_a_function_that_cancels_the_task_it_runs_in_ends_its_callers_as_it_would_without_the_cache(memory: Memory) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            await memory.cache(cancel_myself)(1)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())


# anyio drops the coroutine of a task that asyncio cancels before its first step
@pytest.mark.filterwarnings("ignore:coroutine '_Keeper.run' was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:.*_Keeper.run:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("steps", range(12))
def test_an_event_loop_that_ends_at_any_point_of_a_call_ends(memory: Memory, steps: int) -> None:
    cached = memory.cache(compute_at_once)

    async def main() -> None:
        tasks = [asyncio.create_task(cached(key)) for key in range(3)]
        while not flights._flights:
            await asyncio.sleep(0)
        for _ in range(steps):
            await asyncio.sleep(0)
        assert len(tasks) == 3

    asyncio.run(main())  # which cancels all tasks, ours that have not begun included, and waits for them
    assert flights._flights == {}


async def compute_at_once(x: int) -> int:
    return x


reported: list[int] = []


async def report(customer: int) -> dict[str, int]:
    reported.append(customer)
    return {"customer": customer}


async def test_a_result_that_is_being_kept_when_it_is_looked_for_is_not_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_written, may_appear = threading.Event(), threading.Event()
    replace = os.replace

    def replace_later(*paths: Any) -> None:
        is_written.set()
        assert may_appear.wait(30)
        replace(*paths)

    reported.clear()
    cached = Memory(tmp_path, verbose=0, age_limit=3600).cache(report)
    await cached(0)  # what is found out about the function is known
    results: list[dict[str, int]] = []

    async def ask() -> None:
        results.append(await cached(7))

    monkeypatch.setattr(os, "replace", replace_later)
    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await wait_until(is_written.is_set)
        group.start_soon(ask)
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        may_appear.set()
    assert results == [{"customer": 7}] * 2
    assert reported == [0, 7]
