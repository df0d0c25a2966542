"""Ctrl-C and signals that end a program, while workers are busy or not there yet: it ends soon, quietly, and leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import anyio
import psutil
import pytest

from asyncpar import ExecutorUnavailableError, ProcessExecutor, pmap
from tests.faults.test_deaths import family_of, started, wait_for_spinning
from tests.faults.test_forks import LOOPS
from tests.functions import Beacon, double
from tests.waiting import not_ended, wait_until

PROGRAM = """
import asyncio, re, sys
from pathlib import Path
from asyncpar import ProcessExecutor, pmap
from tests.functions import Beacon

beacons = [Beacon(Path(path)) for path in sys.argv[3:]]

def spin(x):
    beacons[x].spin()

def hold_the_gil(x):
    beacons[x].nap(x)
    sum(range(10**12))

def backtrack(x):
    beacons[x].nap(x)
    re.match("(a+)+$", "a" * 100 + "b")

async def busy():
    async with ProcessExecutor(2) as executor:
        await pmap(globals()[sys.argv[2]], range(2), executor=executor, batch_size=1)

async def in_initializer():
    async with ProcessExecutor(1, initializer=spin, initargs=(0,)) as executor:
        await pmap(abs, range(2), executor=executor)

async def in_preload():
    async with ProcessExecutor(1, preload=["tests.faults.gated_to_load"]) as executor:
        await pmap(abs, range(2), executor=executor)

main = globals().get("in_" + sys.argv[2], busy)
if sys.argv[1] == "trio":
    import trio
    trio.run(main)
elif sys.argv[1] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""
CALLS = ["hold_the_gil", "backtrack"]
FATAL_SIGNALS = [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL]


@pytest.fixture
def beacons(tmp_path: Path) -> list[Beacon]:
    return [Beacon(tmp_path / "first"), Beacon(tmp_path / "second")]


@pytest.fixture
def loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that appears when `gated_to_load` is being loaded; loading it ends when `gate`, beside it, is there."""
    monkeypatch.setenv("ASYNCPAR_TEST_LOADING", str(tmp_path / "loading"))
    monkeypatch.setenv("ASYNCPAR_TEST_GATE", str(tmp_path / "gate"))
    return tmp_path / "loading"


def wait_for_file(path: Path) -> None:
    async def wait() -> None:
        await wait_until(path.exists)

    anyio.run(wait)


def end(program: subprocess.Popen[str], number: signal.Signals, *, times: int = 1) -> str:
    """Signals the whole process group, as a terminal does; returns what was said when all that could speak are gone."""
    family = family_of(program.pid)
    assert family
    for _ in range(times):
        os.killpg(program.pid, number)
        time.sleep(0.05 if times > 1 else 0)  # an impatient user; whatever it falls into, the outcome is the same
    _, errors = program.communicate(timeout=20)  # workers and zygote, too, hold the pipe; no call ends by itself meanwhile
    alive = not_ended(family)
    for survivor in alive:
        survivor.kill()
    assert not alive
    return errors


def assert_only_the_program_was_interrupted(errors: str) -> None:
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert errors.splitlines().count("KeyboardInterrupt") == 1
    assert "asyncpar/_child" not in errors


def check_that_ctrl_c_ends_calls(beacons: list[Beacon], loop: str, call: str) -> None:
    with started(PROGRAM, loop, call, *(beacon.path for beacon in beacons), process_group=0) as program:
        wait_for_spinning(*beacons)
        assert_only_the_program_was_interrupted(end(program, signal.SIGINT))


@pytest.mark.parametrize("loop", LOOPS)
def test_ctrl_c_ends_busy_calls(beacons: list[Beacon], loop: str) -> None:
    check_that_ctrl_c_ends_calls(beacons, loop, "spin")


@pytest.mark.parametrize("call", CALLS)  # which are the worker's affair, and the loop is the parent's
def test_ctrl_c_ends_calls_that_hold_the_gil(beacons: list[Beacon], call: str) -> None:
    check_that_ctrl_c_ends_calls(beacons, "asyncio", call)


@pytest.mark.parametrize("loop", LOOPS)
def test_ctrl_c_during_an_initializer(beacons: list[Beacon], loop: str) -> None:
    with started(PROGRAM, loop, "initializer", beacons[0].path, process_group=0) as program:
        wait_for_spinning(beacons[0])
        assert_only_the_program_was_interrupted(end(program, signal.SIGINT))


@pytest.mark.parametrize("loop", LOOPS)
def test_ctrl_c_during_a_preload(loading: Path, loop: str) -> None:
    with started(PROGRAM, loop, "preload", process_group=0) as program:
        wait_for_file(loading)
        assert_only_the_program_was_interrupted(end(program, signal.SIGINT))


@pytest.mark.parametrize("loop", LOOPS)
def test_ctrl_c_twice_leaves_nothing_either(beacons: list[Beacon], loop: str) -> None:
    with started(PROGRAM, loop, "hold_the_gil", *(beacon.path for beacon in beacons), process_group=0) as program:
        wait_for_spinning(*beacons)
        assert "asyncpar/_child" not in end(program, signal.SIGINT, times=2)


@pytest.mark.parametrize("number", FATAL_SIGNALS)
@pytest.mark.parametrize("call", CALLS)
def test_calls_that_hold_the_gil_do_not_outlive_the_program(beacons: list[Beacon], call: str, number: signal.Signals) -> None:
    with started(PROGRAM, "asyncio", call, *(beacon.path for beacon in beacons), process_group=0) as program:
        wait_for_spinning(*beacons)
        assert end(program, number) == ""


@pytest.mark.parametrize("number", FATAL_SIGNALS)
def test_a_zygote_that_preloads_does_not_outlive_the_program(loading: Path, number: signal.Signals) -> None:
    with started(PROGRAM, "asyncio", "preload", process_group=0) as program:
        wait_for_file(loading)
        assert end(program, number) == ""


@pytest.mark.anyio
async def test_a_cancelled_run_does_not_wait_for_the_preload_and_the_next_one_has_it(loading: Path) -> None:
    async with ProcessExecutor(1, preload=["tests.faults.gated_to_load"]) as executor:

        async def run() -> None:
            await pmap(double, [1], executor=executor)

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await wait_until(loading.exists)
            group.cancel_scope.cancel()
        before = psutil.Process().children()
        (loading.parent / "gate").touch()
        assert await pmap(double, [1], executor=executor) == [2]
        assert psutil.Process().children() == before


@pytest.mark.anyio
async def test_a_zygote_killed_as_it_preloads_is_reported_and_replaced(loading: Path) -> None:
    async with ProcessExecutor(1, preload=["tests.faults.gated_to_load"]) as executor:

        async def run() -> None:
            with pytest.raises(ExecutorUnavailableError, match="ended before it was ready"):
                await pmap(double, [1], executor=executor)

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await wait_until(loading.exists)
            (zygote,) = psutil.Process().children()
            zygote.kill()
        (loading.parent / "gate").touch()
        assert await pmap(double, [1], executor=executor) == [2]
