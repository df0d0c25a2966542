"""Forks: a copy of the program leaves its original's pool alone and may have one of its own, and a copy of a worker takes no
part in the messages between worker and parent.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import textwrap
from pathlib import Path

import psutil
import pytest

from asyncpar import ProcessExecutor, WorkerDiedError, pmap
from tests.calls.forks import double_in_a_child, fork_and_die, fork_twice, note_and_fork, note_and_fork_soon
from tests.faults.test_deaths import started
from tests.functions import double, process_id
from tests.waiting import wait_until

on_every_loop = pytest.mark.anyio

PREAMBLE = """
import asyncio, multiprocessing, os, sys, threading
from asyncpar import ExecutorUnavailableError, ProcessExecutor, pmap
from tests.functions import double, process_id

async def workers():
    return set(await pmap(process_id, range(50), executor="process", n_jobs=1, batch_size=1))

def run(function):
    if sys.argv[1] == "trio":
        import trio
        trio.run(function)
    elif sys.argv[1] == "uvloop":
        import uvloop
        uvloop.run(function())
    else:
        asyncio.run(function())

def wait_for(pid):
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""
no_uvloop = pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="uvloop has no build for this interpreter")
LOOPS = ["asyncio", pytest.param("uvloop", marks=no_uvloop), "trio"]


def outcome_of(program: str, *arguments: object) -> tuple[int, str, str]:
    with started(PREAMBLE + textwrap.dedent(program), *arguments) as process:
        output, errors = process.communicate(timeout=30)
    return process.returncode, output, errors


FORKS_IN_A_COROUTINE = """
    async def copy():
        assert not await workers() & before

    async def main():
        global before
        before = await workers()
        pid = os.fork()
        if pid == 0:
            try:
                {copy}
            except BaseException as error:
                print("copy:", repr(error), file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        wait_for(pid)
        assert await workers() == before

    run(main)
"""


@pytest.mark.parametrize("loop", LOOPS)
def test_a_copy_that_just_exits_disturbs_nobody(loop: str) -> None:
    assert outcome_of(FORKS_IN_A_COROUTINE.format(copy="pass"), loop) == (0, "", "")


@pytest.mark.parametrize("loop", LOOPS)
def test_a_copy_has_a_pool_of_its_own_in_an_event_loop_of_its_own(loop: str) -> None:
    statement = "run(copy)"
    if loop == "trio":  # which takes a thread for the one in which it runs already, also in a copy
        statement = "thread = threading.Thread(target=run, args=(copy,)); thread.start(); thread.join()"
    assert outcome_of(FORKS_IN_A_COROUTINE.format(copy=statement), loop) == (0, "", "")


def test_a_copy_made_by_multiprocessing_has_a_pool_of_its_own() -> None:
    program = """
        def copy():
            asyncio.run(check())

        async def check():
            assert not await workers() & before

        async def main():
            global before
            before = await workers()
            process = multiprocessing.get_context("fork").Process(target=copy)
            process.start()
            process.join()
            assert process.exitcode == 0
            assert await workers() == before

        asyncio.run(main())
    """
    assert outcome_of(program) == (0, "", "")


def test_a_copy_made_by_another_thread_has_a_pool_of_its_own() -> None:
    program = """
        def fork():
            pid = os.fork()
            if pid == 0:
                asyncio.run(check())
                os._exit(0)
            wait_for(pid)

        async def check():
            assert not await workers() & before

        async def main():
            global before
            before = await workers()
            async with pmap(double, range(10**9), executor="process") as results:  # the pool is at work meanwhile
                assert await anext(results) == 0
                await asyncio.to_thread(fork)
                assert await anext(results) == 2

        asyncio.run(main())
    """
    assert outcome_of(program) == (0, "", "")


@pytest.mark.parametrize("end", ["sys.exit(0)", "return", "asyncio.run(workers())"])
@pytest.mark.parametrize("loop", LOOPS[:2])
def test_a_copy_that_ends_as_programs_do_leaves_the_event_loop_it_has_copied(loop: str, end: str) -> None:
    program = f"""
        def factory():
            if sys.argv[1] == "uvloop":
                import uvloop
                return uvloop.new_event_loop()
            return asyncio.new_event_loop()

        def main():
            with asyncio.Runner(loop_factory=factory) as runner:
                before = runner.run(workers())
                pid = os.fork()
                if pid == 0:
                    {end}
                    return
                wait_for(pid)
                assert runner.run(workers()) == before

        main()
    """
    assert outcome_of(program, loop) == (0, "", "")


def test_an_executor_belongs_to_the_process_that_made_it() -> None:
    program = """
        async def use():
            try:
                await pmap(double, [1], executor=executor)
            except ExecutorUnavailableError as error:
                print(error, flush=True)
            await executor.aclose()

        async def main():
            global executor
            async with ProcessExecutor(1) as executor:
                assert await pmap(double, [1], executor=executor) == [2]
                pid = os.fork()
                if pid == 0:
                    asyncio.run(use())
                    os._exit(0)
                wait_for(pid)
                assert await pmap(double, [1], executor=executor) == [2]

        asyncio.run(main())
    """
    message = "this ProcessExecutor belongs to the process from which this one was forked; make one in each process"
    code, output, errors = outcome_of(program)
    assert (code, errors) == (0, "")
    assert output.startswith(message)


def test_an_executor_that_has_not_been_used_stays_with_its_process_too() -> None:
    program = """
        async def use():
            try:
                await pmap(double, [1], executor=executor)
            except ExecutorUnavailableError:
                os._exit(3)

        async def main():
            global executor
            executor = ProcessExecutor(1)
            pid = os.fork()
            if pid == 0:
                asyncio.run(use())
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
            async with executor:
                assert await pmap(double, [1], executor=executor) == [2]

        asyncio.run(main())
    """
    assert outcome_of(program) == (0, "", "")


@pytest.mark.parametrize("loop", LOOPS)
def test_a_copy_holds_nothing_of_the_pool(loop: str) -> None:
    program = """
        def descriptors():
            links = set()
            for name in os.listdir("/proc/self/fd"):
                try:
                    links.add(os.readlink(f"/proc/self/fd/{name}"))
                except FileNotFoundError:
                    continue
            return {link for link in links if link.startswith("socket:")}

        async def main():
            others = descriptors()
            await pmap(double, range(3), executor="process")
            mine = descriptors() - others
            assert len(mine) >= 2  # a zygote's, and a worker's
            pid = os.fork()
            if pid == 0:
                with open("/proc/self/maps") as maps:
                    os._exit(bool(descriptors() & mine) or "asyncpar-control" in maps.read())
            wait_for(pid)

        run(main)
    """
    assert outcome_of(program, loop) == (0, "", "")


# Calls that fork


@on_every_loop
async def test_the_death_of_a_worker_shows_even_if_a_forked_copy_of_it_lives_on(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    async with ProcessExecutor(1) as executor:
        try:
            with pytest.raises(WorkerDiedError, match="was killed by SIGKILL"):
                await pmap(fork_and_die, [pid_file], executor=executor)
        finally:
            os.kill(int(pid_file.read_text()), signal.SIGKILL)
        assert await pmap(double, range(10), executor=executor) == [2 * x for x in range(10)]


@on_every_loop
@pytest.mark.parametrize("function", [note_and_fork, note_and_fork_soon])
@pytest.mark.parametrize("batch_size", [1, 10])
async def test_a_copy_of_a_worker_that_returns_from_its_call_ends_and_answers_nobody(
    tmp_path: Path, function: object, batch_size: int
) -> None:
    notes = tmp_path / "notes"
    async with ProcessExecutor(1) as executor:
        before = await pmap(process_id, [0], executor=executor)
        got = await pmap(function, [notes] * 10, range(10), executor=executor, batch_size=batch_size)  # type: ignore[call-overload]
        assert got == [2 * x for x in range(10)]
        assert notes.read_text().split() == [str(x) for x in range(10)]  # the copies made none of the calls that followed
        assert await pmap(process_id, [0], executor=executor) == before


@on_every_loop
async def test_an_initializer_may_fork(tmp_path: Path) -> None:
    async with ProcessExecutor(1, initializer=note_and_fork, initargs=(tmp_path / "notes", 0)) as executor:
        assert await pmap(double, range(10), executor=executor) == [2 * x for x in range(10)]


@on_every_loop
async def test_a_call_may_use_multiprocessing() -> None:
    async with ProcessExecutor(2) as executor:
        assert await pmap(double_in_a_child, range(10), executor=executor, batch_size=2) == [2 * x for x in range(10)]


@on_every_loop
async def test_a_daemon_that_a_call_has_started_holds_up_nobody(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    pid_file.touch()
    async with ProcessExecutor(1) as executor:
        await pmap(fork_twice, [pid_file], executor=executor)
        await wait_until(pid_file.read_text)
    daemon = psutil.Process(int(pid_file.read_text()))
    daemon.kill()
