"""However a program ends that has left an executor open, the states of its workers are left."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.calls.worker_states import notes_in
from tests.interpreters import with_interpreters

PROGRAM = """
import asyncio, sys, threading
from pathlib import Path
import asyncpar
from tests.calls import worker_states as calls

kind, initializer, end, notes = sys.argv[1:]
options = {"initializer": getattr(calls, initializer), "initargs": (Path(notes),)}

async def main():
    if kind == "process":
        executor = asyncpar.ProcessExecutor(1, grace=60, **options)
    else:
        executor = (asyncpar.ThreadExecutor if kind == "thread" else asyncpar.InterpreterExecutor)(1, **options)
    calls.kept = executor
    assert await executor.run(calls.look) == (kind, 0, calls.STATE)
    if end == "exits":
        sys.exit()
    if end == "fails":
        raise LookupError

if end == "runs to its end" or end == "exits" or end == "fails":
    asyncio.run(main())
elif end == "runs on trio":
    import trio
    trio.run(main)
else:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    if end == "closes its loop":
        loop.close()
    else:
        calls.kept_loop = loop
"""


@pytest.mark.parametrize("kind", ["process", "thread", with_interpreters("interpreter")])
@pytest.mark.parametrize("initializer", ["generator", "async_generator"])
@pytest.mark.parametrize(
    "end", ["runs to its end", "runs on trio", "exits", "fails", "closes its loop", "leaves its loop open"]
)
def test_the_state_is_left_at_the_end_of_a_program(kind: str, initializer: str, end: str, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    command = [sys.executable, "-c", PROGRAM, kind, initializer, end, str(notes)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == (1 if end == "fails" else 0), ended.stderr
    assert ended.stderr == "" or (end == "fails" and "LookupError" in ended.stderr)
    deadline = time.monotonic() + 30  # a worker process may outlive its program for a moment
    while notes_in(notes) != ["entered", "left"] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert notes_in(notes) == ["entered", "left"]
