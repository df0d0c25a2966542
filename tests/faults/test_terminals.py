"""The calls of a program at a terminal have no terminal: using one fails at once, and stops no process."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.faults.test_deaths import family_of, started

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a session gets its terminal in another way elsewhere")

PROGRAM = """
import os, sys
terminal = os.open(sys.argv[1], os.O_RDWR)  # it leads a session without one: this is it, from now on
for descriptor in range(3):
    os.dup2(terminal, descriptor)

import asyncio, subprocess, termios
from asyncpar import CallTimeoutError, pmap

settings = termios.tcgetattr(0)
settings[3] |= termios.TOSTOP
termios.tcsetattr(0, termios.TCSANOW, settings)

def read(x):
    try:
        return open("/dev/tty").readline()
    except OSError as error:
        return error.strerror

def print_something(x):
    print("from a call", flush=True)
    subprocess.run(["echo", "from a program"])
    return "printed"

def run_stty(x):
    on_terminal = subprocess.run(["stty", "-F", "/dev/tty", "-echo"], stderr=subprocess.DEVNULL).returncode
    on_stderr = subprocess.run(["stty", "tostop"], stdin=2).returncode
    return bool(on_terminal), on_stderr

def read_and_forget(x):
    read(x)
    while True:
        pass

async def main():
    if sys.argv[2] == "time_out":
        try:
            await pmap(read_and_forget, [0], timeout=0.5)
        except CallTimeoutError:
            print("timed out")
    else:
        print(*await pmap(globals()[sys.argv[2]], [0], executor="process"))
    print("the end", flush=True)

asyncio.run(main())
"""


@pytest.fixture
def terminal() -> Iterator[tuple[int, str]]:
    """A terminal's output can be read from the descriptor. The name is for the program that runs at the terminal."""
    ours, theirs = pty.openpty()
    yield ours, os.ttyname(theirs)
    os.close(ours)
    os.close(theirs)


def shown(terminal: int, ending: str) -> str:
    text, deadline = "", time.monotonic() + 20
    while not text.endswith(ending) and (left := deadline - time.monotonic()) > 0:
        if select.select([terminal], [], [], left)[0]:
            text += os.read(terminal, 4096).decode().replace("\r\n", "\n")
    return text


def end_all(pid: int) -> None:
    for process in [psutil.Process(pid), *family_of(pid)]:
        process.kill()


@pytest.mark.parametrize(
    ("call", "output"),
    [
        ("read", "No such device or address\n"),
        ("print_something", "from a call\nfrom a program\nprinted\n"),
        ("run_stty", "(True, 0)\n"),
        ("time_out", "timed out\n"),
    ],
)
def test_calls_have_no_terminal_and_nothing_stops(terminal: tuple[int, str], call: str, output: str) -> None:
    ours, name = terminal
    with started(PROGRAM, name, call, start_new_session=True) as program:
        try:
            assert shown(ours, "the end\n") == f"{output}the end\n"
            assert program.wait(20) == 0
        finally:
            if program.poll() is None:
                end_all(program.pid)


def test_ctrl_c_ends_a_program_whose_call_has_read_the_terminal(terminal: tuple[int, str], tmp_path: Path) -> None:
    ours, name = terminal
    program_text = PROGRAM.replace("    while True:", f"    open({str(tmp_path / 'busy')!r}, 'w').close()\n    while True:")
    with started(program_text, name, "read_and_forget", start_new_session=True) as program:
        try:
            deadline = time.monotonic() + 20
            while not (tmp_path / "busy").exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            os.write(ours, b"\x03")
            assert program.wait(20) == -signal.SIGINT
        finally:
            if program.poll() is None:
                end_all(program.pid)
