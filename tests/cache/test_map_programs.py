"""Programs that map with a cache: killed and started again, or two at the same time."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cache.mapped import calls_noted

ROOT = Path(__file__).parents[2]
ALL = sorted(map(str, range(200)))

Start = Callable[[], subprocess.Popen[str]]


@pytest.fixture(params=["pmap", "Parallel"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    """Starts the program, which has its workers killed with it."""
    running: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.cache.programs", "map_slowly", str(tmp_path), request.param]
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        running.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def begin(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def until_noted(folder: Path, calls: int) -> None:
    deadline = time.monotonic() + 30
    while len(calls_noted(folder)) < calls:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_program_that_was_killed_computes_what_is_missing_when_it_is_started_again(start: Start, tmp_path: Path) -> None:
    for least in (20, 90):
        process = start()
        begin(process)
        until_noted(tmp_path, least)
        process.send_signal(signal.SIGKILL)
        process.wait()
    process = start()
    begin(process)
    assert process.communicate(timeout=40)[0] == "True\n"
    counts = Counter(calls_noted(tmp_path))
    assert sorted(counts) == ALL
    assert sum(counts.values()) <= 200 + 2 * 2  # at each kill, two workers were in a call


def test_two_programs_at_once_compute_each_call_once(start: Start, tmp_path: Path) -> None:
    processes = [start(), start()]
    for process in processes:
        begin(process)
    assert [process.communicate(timeout=40)[0] for process in processes] == ["True\n"] * 2
    assert calls_noted(tmp_path) == ALL


def test_when_one_of_two_programs_is_killed_the_other_takes_over(start: Start, tmp_path: Path) -> None:
    processes = [start(), start()]
    for process in processes:
        begin(process)
    until_noted(tmp_path, 20)
    processes[0].send_signal(signal.SIGKILL)
    assert processes[1].communicate(timeout=40)[0] == "True\n"
    counts = Counter(calls_noted(tmp_path))
    assert sorted(counts) == ALL
    assert sum(counts.values()) <= 200 + 2
