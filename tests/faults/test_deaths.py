"""Guarantees 3, 5 and 8 under fire: workers, the zygote and the parent are killed, and nothing is lost or left."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import psutil
import pytest

from asyncpar import ExecutorUnavailableError, ProcessExecutor, WorkerDiedError, pmap
from asyncpar._contract.executor import Fate
from tests.calls.dying import crash_at_five, fill_and_die, start_a_sleeper
from tests.functions import Beacon, die_on_negative, double, kill_self, process_id
from tests.places import held_place
from tests.waiting import goes_on, not_ended, wait_until

on_every_loop = pytest.mark.anyio


@on_every_loop
async def test_a_killed_worker_fails_the_run_and_names_signal_and_item() -> None:
    async with ProcessExecutor(2) as executor:
        with pytest.raises(WorkerDiedError, match=r"was killed by SIGKILL while it ran call 0, item 'x'") as caught:
            await pmap(kill_self, ["x"], executor=executor)
        assert caught.value.signal == signal.SIGKILL
        assert caught.value.exit_code is None
        assert caught.value.pid
        assert await pmap(double, range(10), executor=executor) == [2 * x for x in range(10)]


@on_every_loop
async def test_a_crash_shows_the_workers_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    async with ProcessExecutor(1) as executor:
        with pytest.raises(WorkerDiedError, match="was killed by SIGSEGV while it ran call 1, item 5") as caught:
            await pmap(crash_at_five, [1, 5], executor=executor)
    assert (caught.value.index, caught.value.item, caught.value.signal) == (1, 5, signal.SIGSEGV)
    assert not caught.value.likely_out_of_memory
    printed = capfd.readouterr().err
    assert "Segmentation fault" in printed
    assert "in crash_at_five" in printed


@on_every_loop
async def test_a_death_tells_how_much_memory_there_was() -> None:
    async with ProcessExecutor(1) as executor:
        with pytest.raises(WorkerDiedError, match=r"its peak memory was \d+ MiB") as caught:
            await pmap(fill_and_die, [64 << 20], executor=executor)
    assert caught.value.exit_code == 3
    assert caught.value.peak_memory is not None
    assert 64 << 20 < caught.value.peak_memory < 1 << 30


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group of 64 MiB, the file to write a process id to that shall be in it."""
    parent = Path("/sys/fs/cgroup/memory")  # of version 1
    limit = "memory.limit_in_bytes"
    if not parent.is_dir():
        parent, limit = Path("/sys/fs/cgroup"), "memory.max"
    group = parent / f"asyncpar-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        pytest.skip("control groups cannot be made here")
    try:
        if not (group / limit).exists():
            pytest.skip("memory cannot be limited by control groups here")
        (group / limit).write_text(str(64 << 20))
        yield group / "cgroup.procs"
    finally:
        group.rmdir()


@on_every_loop
async def test_a_worker_that_the_system_ends_for_lack_of_memory_says_so(small_group: Path) -> None:
    def eat(size: int) -> int:
        if size > 1:
            small_group.write_text(str(os.getpid()))
        return len(os.urandom(size))

    async with ProcessExecutor(1) as executor:
        results: list[Any] = await pmap(eat, [1, 512 << 20, 1], executor=executor, on_error="return")
    assert results[::2] == [1, 1]
    assert isinstance(results[1], WorkerDiedError)
    assert results[1].likely_out_of_memory
    assert "likely ran out of memory" in str(results[1])


@on_every_loop
@pytest.mark.parametrize("batch_size", [1, 5, 20])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_death_costs_one_call_and_spares_the_rest(batch_size: int, stream: bool) -> None:
    items = [0, 1, 2, -3, 4, 5, -6, *range(7, 20)]
    async with ProcessExecutor(2) as executor:
        results = pmap(die_on_negative, items, executor=executor, on_error="return", batch_size=batch_size)
        got = [result async for result in results] if stream else await results
    for item, result in zip(items, got, strict=True):
        if item >= 0:
            assert result == item
        else:
            assert isinstance(result, WorkerDiedError)
            assert result.exit_code == 7
            assert f"item {item}" in str(result)


@on_every_loop
async def test_an_idle_worker_that_was_killed_is_replaced_unnoticed() -> None:
    async with ProcessExecutor(2) as executor:
        pids = set(await pmap(process_id, range(20), executor=executor, batch_size=1))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        await wait_until(lambda: not any(map(psutil.pid_exists, pids)))
        assert await pmap(double, range(10), executor=executor) == [2 * x for x in range(10)]


@on_every_loop
async def test_workers_that_were_killed_before_their_first_call_are_no_calls_fault() -> None:
    async with ProcessExecutor(3) as executor:
        async with held_place(executor), held_place(executor), held_place(executor):
            (zygote,) = psutil.Process().children()
            workers = zygote.children()
        for worker in workers:
            worker.kill()
        await wait_until(lambda: not any(worker.is_running() for worker in workers))
        assert len(workers) == 3
        assert await pmap(double, [21], executor=executor) == [42]


@on_every_loop
async def test_a_killed_zygote_is_replaced() -> None:
    async with ProcessExecutor(2) as executor:
        await pmap(double, range(10), executor=executor)
        (zygote,) = psutil.Process().children()
        workers = zygote.children()
        zygote.kill()
        await wait_until(lambda: not any(map(goes_on, workers)))  # they die with it
        assert await pmap(double, range(10), executor=executor) == [2 * x for x in range(10)]


@on_every_loop
async def test_a_killed_zygote_is_replaced_also_for_a_worker_more() -> None:
    async with ProcessExecutor(2) as executor:
        await pmap(double, [1], executor=executor)
        (zygote,) = psutil.Process().children()
        zygote.kill()
        await wait_until(lambda: zygote.status() == psutil.STATUS_ZOMBIE)
        assert await pmap(double, range(50), executor=executor, batch_size=1) == [2 * x for x in range(50)]


@on_every_loop
async def test_one_zygote_takes_its_place_however_many_workers_are_wanted() -> None:
    async with ProcessExecutor(4) as executor:
        await pmap(double, [1], executor=executor)
        (zygote,) = psutil.Process().children()
        zygote.kill()
        await wait_until(lambda: zygote.status() == psutil.STATUS_ZOMBIE)
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(lease_for_a_moment, executor)
        (successor,) = psutil.Process().children()
        assert successor != zygote


async def lease_for_a_moment(executor: ProcessExecutor) -> None:
    async with held_place(executor):
        await anyio.lowlevel.checkpoint()


@on_every_loop
async def test_a_function_that_could_not_be_loaded_is_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "comes_late.py"
    module.write_text("def f(x):\n    return x + 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import comes_late  # type: ignore[import-not-found]

    module.rename(tmp_path / "hidden")
    async with ProcessExecutor(1) as executor:
        with pytest.raises(ModuleNotFoundError, match="comes_late"):
            await pmap(comes_late.f, range(3), executor=executor)
        (tmp_path / "hidden").rename(module)
        await pmap(lambda _: importlib.invalidate_caches(), [0], executor=executor)
        assert await pmap(comes_late.f, range(3), executor=executor) == [1, 2, 3]


@on_every_loop
async def test_a_blocked_sigchld_is_not_inherited() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:
        async with ProcessExecutor(1) as executor:
            with pytest.raises(WorkerDiedError):
                await pmap(kill_self, [0], executor=executor)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})


@on_every_loop
async def test_a_program_that_a_call_started_keeps_nothing_open(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    try:
        async with ProcessExecutor(1) as executor:
            with pytest.raises(WorkerDiedError, match="exited with code 3"):
                await pmap(start_a_sleeper, [pid_file], executor=executor)
    finally:
        os.kill(int(pid_file.read_text()), signal.SIGKILL)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("turns", [0, 1, 5])
async def test_a_cancelled_aclose_goes_on_in_the_background(turns: int) -> None:
    executor = ProcessExecutor(2)
    await pmap(double, range(10), executor=executor)
    closing = asyncio.ensure_future(executor.aclose())
    for _ in range(turns):
        await anyio.lowlevel.checkpoint()
    closing.cancel()
    await asyncio.wait([closing])
    await executor.aclose()
    assert not psutil.Process().children(recursive=True)


@on_every_loop
async def test_more_workers_than_the_control_socket_holds_requests() -> None:
    async with ProcessExecutor(320, preload=["tests.faults.slow_to_load"]) as executor:
        async with pmap(double, range(320), executor=executor, batch_size=1) as results:
            assert await anext(results) == 0
        assert await pmap(double, range(10), executor=executor) == [2 * x for x in range(10)]


@on_every_loop
async def test_a_zygote_killed_during_a_run_ends_the_run_or_heals(tmp_path: Path) -> None:
    beacon = Beacon(tmp_path / "beacon")
    async with ProcessExecutor(1) as executor:

        async def run() -> None:
            with pytest.raises((WorkerDiedError, ExecutorUnavailableError)):
                await pmap(beacon.spin, [0], executor=executor)

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await wait_until(lambda: beacon.count > 0)
            (zygote,) = psutil.Process().children()
            zygote.kill()
        assert await pmap(double, range(10), executor=executor) == [2 * x for x in range(10)]


PARENT = """
import sys, anyio, asyncpar
from pathlib import Path
from tests.functions import Beacon

async def main(preload=()):
    beacons = [Beacon(Path(path)) for path in sys.argv[2:]]
    async with asyncpar.ProcessExecutor(len(beacons), preload=preload) as executor:
        await asyncpar.pmap(lambda x: beacons[x].spin(), range(len(beacons)), executor=executor, batch_size=1)

async def unaided():
    await main(preload=["tests.faults.no_death_signal"])

async def idle():
    beacon = Beacon(Path(sys.argv[2]))
    pids = await asyncpar.pmap(beacon.nap, range(2), executor="process")
    print("idle", flush=True)
    await anyio.sleep_forever()

async def normal():
    beacon = Beacon(Path(sys.argv[2]))
    await asyncpar.pmap(beacon.nap, range(2), executor="process")

async def never_closed():
    beacon = Beacon(Path(sys.argv[2]))
    executor = asyncpar.ProcessExecutor(1)
    await asyncpar.pmap(beacon.nap, range(2), executor=executor)

anyio.run({"busy": main, "unaided": unaided, "idle": idle, "normal": normal, "never_closed": never_closed}[sys.argv[1]])
"""


@contextlib.contextmanager
def started(program: str, *arguments: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A Python program that is killed when the test is through with it, however that comes."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **(pipes | options)) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_spinning(*beacons: Beacon) -> list[int]:
    async def wait() -> None:
        await wait_until(lambda: all(beacon.count > 0 for beacon in beacons))

    anyio.run(wait)
    return [beacon.pid for beacon in beacons]


def family_of(pid: int) -> list[psutil.Process]:
    return [*psutil.Process(pid).children(recursive=True)]


def assert_all_end(processes: list[psutil.Process]) -> None:
    assert len(processes) >= 2  # a zygote and a worker at the least
    alive = not_ended(processes)
    for survivor in alive:  # one failing test is enough: it must not slow down all that follow
        survivor.kill()
    assert not alive


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_busy_workers_do_not_outlive_their_parent(tmp_path: Path, number: signal.Signals) -> None:
    beacons = [Beacon(tmp_path / "first"), Beacon(tmp_path / "second")]
    with started(PARENT, "busy", *(beacon.path for beacon in beacons)) as parent:
        wait_for_spinning(*beacons)
        family = family_of(parent.pid)
        assert len(family) == 3
        parent.send_signal(number)
        parent.communicate(timeout=20)
        assert_all_end(family)


def test_idle_workers_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    with started(PARENT, "idle", Beacon(tmp_path / "beacon").path) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "idle\n"
        family = family_of(parent.pid)
        parent.kill()
        assert_all_end(family)


@pytest.mark.parametrize("mode", ["normal", "never_closed"])
def test_a_program_that_ends_leaves_nothing_and_says_nothing(tmp_path: Path, mode: str) -> None:
    with started(PARENT, mode, Beacon(tmp_path / "beacon").path) as parent:
        output, errors = parent.communicate(timeout=20)
    assert (parent.returncode, output, errors) == (0, "", "")
    assert not psutil.pid_exists(Beacon(tmp_path / "beacon").pid)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_zygote_ends_busy_workers_also_where_the_kernel_would_not(tmp_path: Path, number: signal.Signals) -> None:
    """Linux kills the workers of a dead zygote by itself; elsewhere it is the zygote that must, before it exits."""
    beacons = [Beacon(tmp_path / "first"), Beacon(tmp_path / "second")]
    with started(PARENT, "unaided", *(beacon.path for beacon in beacons)) as parent:
        wait_for_spinning(*beacons)
        family = family_of(parent.pid)
        parent.send_signal(number)
        parent.communicate(timeout=20)
        assert_all_end(family)


HOLDER = """
import os, sys, time, anyio, asyncpar
from pathlib import Path
from tests.functions import Beacon

async def main():
    beacon = Beacon(Path(sys.argv[1]))
    async with asyncpar.ProcessExecutor(1) as executor:
        await asyncpar.pmap(abs, [1], executor=executor)
        if os.fork() == 0:  # a copy that keeps every descriptor of its parent open
            time.sleep(60)
            os._exit(0)
        await asyncpar.pmap(beacon.spin, [0], executor=executor)

anyio.run(main)
"""


def test_workers_end_with_their_parent_even_if_a_forked_copy_of_it_lives_on(tmp_path: Path) -> None:
    beacon = Beacon(tmp_path / "beacon")
    with started(HOLDER, beacon.path) as parent:
        (worker,) = wait_for_spinning(beacon)
        zygote = psutil.Process(worker).parent()
        (copy,) = (child for child in psutil.Process(parent.pid).children() if child != zygote)
        family = [process for process in family_of(parent.pid) if process.pid != copy.pid]
        parent.kill()
        assert_all_end(family)
        copy.kill()


INTERRUPTED = """
import sys, anyio, asyncpar
from pathlib import Path
from tests.functions import Beacon

async def main():
    await asyncpar.pmap(Beacon(Path(sys.argv[1])).spin, [0], executor="process")

anyio.run(main)
"""


def test_ctrl_c_raises_keyboard_interrupt_and_no_worker_says_a_word(tmp_path: Path) -> None:
    beacon = Beacon(tmp_path / "beacon")
    with started(INTERRUPTED, beacon.path, process_group=0) as parent:
        (worker,) = wait_for_spinning(beacon)
        os.killpg(parent.pid, signal.SIGINT)  # as a terminal does: to the whole foreground group
        _, errors = parent.communicate(timeout=20)
        assert errors.rstrip().endswith("KeyboardInterrupt")
        assert errors.splitlines().count("KeyboardInterrupt") == 1  # the parent's
        assert not psutil.pid_exists(worker)


@on_every_loop
async def test_a_worker_that_is_lent_and_unused_when_its_executor_closes_is_not_forgotten() -> None:
    before = descriptors()
    async with ProcessExecutor(1) as executor:
        await pmap(double, [1], executor=executor)
        async with anyio.create_task_group() as group, held_place(executor) as worker:
            group.start_soon(executor.aclose)
            await wait_until(lambda: worker.fate is Fate.GONE)
    assert descriptors() == before


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
