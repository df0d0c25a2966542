"""Programs that have interpreters end, whatever these are doing, and are warned before they fork."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

import pytest

from tests.interpreters import needs_interpreters

pytestmark = needs_interpreters

BEGINNING = """
import asyncio, os, signal, sys, threading, time
from asyncpar import InterpreterExecutor, call

def spin(pipe):
    os.write(pipe, b"!")
    while True: pass

def leave_thread(pipe):
    threading.Thread(target=spin, args=(pipe,)).start()

def sleep(pipe):
    os.write(pipe, b"!")
    time.sleep(60)

reader, writer = os.pipe()
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    script = BEGINNING + textwrap.dedent(program)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=40, check=False)


@pytest.mark.parametrize("fn", ["spin", "sleep", "leave_thread"])
def test_a_program_ends_although_a_call_of_an_executor_that_nobody_closes_does_not(fn: str) -> None:
    done = run(f"""
        async def main():
            global executor, task
            executor = InterpreterExecutor(1)
            task = asyncio.ensure_future(executor.run({fn}, writer))
            await asyncio.to_thread(os.read, reader, 1)

        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        print("the end", flush=True)
        sys.exit(3)
    """)
    assert (done.returncode, done.stdout) == (3, "the end\n")
    assert "Fatal" not in done.stderr
    assert "subinterpreters" not in done.stderr


@pytest.mark.parametrize("close_loop", [False, True])
def test_a_program_ends_while_an_interpreter_waits_for_a_thread_that_a_call_has_left(close_loop: bool) -> None:
    done = run(f"""
        def leave_thread(pipe):
            threading.Thread(target=time.sleep, args=(3,)).start()

        async def main():
            global executor
            executor = InterpreterExecutor(1)
            await executor.run(leave_thread, writer)

        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        if {close_loop}:
            loop.close()
        sys.exit(3)
    """)
    assert (done.returncode, done.stderr) == (3, "")


@pytest.mark.parametrize("fn", ["spin", "sleep"])
def test_ctrl_c_ends_a_program_that_waits_for_a_call(fn: str) -> None:
    done = run(f"""
        def interrupt():
            os.read(reader, 1)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt).start()
        call({fn}, writer, executor="interpreter")
    """)
    assert done.returncode == -signal.SIGINT
    assert done.stderr.splitlines()[-1] == "KeyboardInterrupt"


def test_a_program_that_forks_while_an_interpreter_lives_is_warned() -> None:
    done = run("""
        import warnings

        async def main():
            async with InterpreterExecutor(1) as executor:
                await executor.run(abs, 1)
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    pid = os.fork()
                    if not pid:
                        os._exit(0)
                    os.waitpid(pid, 0)
                print([str(warning.message) for warning in caught if "InterpreterExecutor" in str(warning.message)])
            with warnings.catch_warnings():
                warnings.simplefilter("error", RuntimeWarning)
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
                if not pid:
                    os._exit(7)
                print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

        asyncio.run(main())
    """)
    warned, after = done.stdout.splitlines()
    assert "this process forks while an interpreter of an InterpreterExecutor lives" in warned
    assert 'use executor="process"' in warned
    assert after == "7"


def test_calls_that_a_thread_of_the_program_waits_for_are_finished_at_its_end() -> None:
    done = run("""
        def work(pipe):
            spinning = time.monotonic() + 0.3
            os.write(pipe, b"!")
            while time.monotonic() < spinning: pass
            return "done"

        async def main():
            async with InterpreterExecutor(1) as executor:
                print(await executor.run(work, writer))

        threading.Thread(target=lambda: asyncio.run(main())).start()
        os.read(reader, 1)  # and the main thread ends
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
