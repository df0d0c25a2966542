"""Programs that calls have started end with their worker, however it ends. Only those that have left the session go on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import psutil
import pytest

from asyncpar import CallTimeoutError, ProcessExecutor, WorkerDiedError, pmap
from tests.calls.programs import Programs, exit_with_three, goes_on, start_and_die
from tests.faults.test_deaths import started
from tests.functions import double, kill_self

on_every_loop = pytest.mark.anyio
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="orphans can be adopted, and found by their group, on Linux only")


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    directory = tmp_path / "programs"
    directory.mkdir()
    programs = Programs(directory)
    yield programs
    for pid in programs.all():
        if goes_on(pid):
            os.kill(pid, signal.SIGKILL)


@on_every_loop
@pytest.mark.parametrize("start", [Programs.run, Programs.run_in_multiprocessing])
async def test_a_timeout_ends_what_its_call_was_waiting_for(programs: Programs, start: Callable[..., None]) -> None:
    async with ProcessExecutor(1) as executor:
        with pytest.raises(CallTimeoutError):
            await pmap(start, [programs], executor=executor, timeout=1)
        await programs.have_gone()
        assert await pmap(double, range(10), executor=executor) == [2 * x for x in range(10)]


@on_every_loop
async def test_cancelling_ends_what_calls_were_waiting_for(programs: Programs) -> None:
    async with ProcessExecutor(2) as executor, anyio.create_task_group() as group:

        async def run() -> None:
            await pmap(programs.run, range(2), executor=executor, batch_size=1)

        group.start_soon(run)
        await programs.have_begun(2)
        group.cancel_scope.cancel()
    await programs.have_gone()


@on_every_loop
@pytest.mark.parametrize("die", [kill_self, exit_with_three])
async def test_a_worker_that_dies_takes_along_what_it_has_started(programs: Programs, die: Callable[[object], None]) -> None:
    async with ProcessExecutor(1) as executor:
        with pytest.raises(WorkerDiedError):
            await pmap(start_and_die, [programs], [die], executor=executor)
        await programs.have_gone()


@on_every_loop
async def test_programs_that_nobody_waits_for_end_with_their_worker(programs: Programs) -> None:
    async with ProcessExecutor(1) as executor:
        await pmap(programs.start, [0], executor=executor)
        (program,) = programs.all()
        assert goes_on(program)
        await executor.aclose()
        await programs.have_gone()


@on_every_loop
async def test_copies_of_a_worker_and_their_programs_end_with_it(programs: Programs) -> None:
    async with ProcessExecutor(1) as executor, anyio.create_task_group() as group:

        async def run() -> None:
            await pmap(programs.fork, [0], executor=executor)

        group.start_soon(run)
        await programs.have_begun(2)
        group.cancel_scope.cancel()
    await programs.have_gone()


@on_linux
@on_every_loop
@pytest.mark.skipif(shutil.which("timeout") is None, reason="needs a program that leads a process group of its own")
async def test_what_has_left_the_group_of_its_worker_ends_with_the_executor(programs: Programs) -> None:
    async with ProcessExecutor(1) as executor:
        async with anyio.create_task_group() as group:

            async def run() -> None:
                await pmap(programs.run_beside_group, [0], executor=executor)

            group.start_soon(run)
            await programs.have_begun()
            group.cancel_scope.cancel()
        assert await pmap(double, range(10), executor=executor) == [2 * x for x in range(10)]
        await executor.aclose()
        await programs.have_gone()


@on_linux
@on_every_loop
async def test_a_killed_zygote_takes_along_what_calls_have_started(programs: Programs) -> None:
    async with ProcessExecutor(1) as executor:
        async with anyio.create_task_group() as group:

            async def run() -> None:
                with pytest.raises(WorkerDiedError, match="ended together with the process that forks workers"):
                    await pmap(programs.run, [0], executor=executor)

            group.start_soon(run)
            await programs.have_begun()
            (zygote,) = psutil.Process().children()
            zygote.kill()
        await programs.have_gone()
        assert await pmap(double, range(10), executor=executor) == [2 * x for x in range(10)]


@on_every_loop
async def test_a_program_with_a_session_of_its_own_goes_on(programs: Programs) -> None:
    def start(_: object) -> None:
        command = f"echo $$ > {programs.directory}/$$ && exec sleep 50"
        subprocess.Popen(["/bin/sh", "-c", command], start_new_session=True)
        while not programs.all():
            pass

    async with ProcessExecutor(1) as executor:
        await pmap(start, [0], executor=executor)
    (program,) = programs.all()
    assert goes_on(program)


PARENT = """
import sys
from pathlib import Path
import anyio
from asyncpar import pmap
from tests.calls.programs import Programs

async def main():
    await pmap(getattr(Programs(Path(sys.argv[1])), sys.argv[2]), [0], executor="process")

anyio.run(main)
"""


@pytest.mark.parametrize("call", ["run", pytest.param("run_beside_group", marks=on_linux)])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_calls_were_waiting_for_does_not_outlive_a_killed_program(
    programs: Programs, number: signal.Signals, call: str
) -> None:
    async def kill_and_wait(parent: subprocess.Popen[str]) -> None:
        await programs.have_begun()
        parent.send_signal(number)
        await programs.have_gone()

    with started(PARENT, programs.directory, call) as parent:
        anyio.run(kill_and_wait, parent)
