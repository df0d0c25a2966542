"""If there is no Python interpreter to start a zygote with, the error says so, and no program starts itself without end."""

from __future__ import annotations

import shutil
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from asyncpar import ExecutorUnavailableError, ProcessExecutor, pmap
from tests.faults.test_deaths import started
from tests.functions import double

PROGRAM = """
import asyncio, os, sys, time
from asyncpar import ExecutorUnavailableError, pmap

stub, starts = sys.argv[1:3]
with open(starts, "a") as file:
    print(os.getpid(), file=file)
if len(open(starts).readlines()) > 5:
    sys.exit("there is no end to it")

sys.executable = stub

async def main():
    try:
        await pmap(abs, [1], executor="process")
    except ExecutorUnavailableError as error:
        if {catch}:
            print(error, flush=True)
            while len(open(starts).readlines()) > 1 and os.getpid() != int(open(starts).readline()):
                time.sleep(1)  # this one serves on
        else:
            raise

asyncio.run(main())
"""
STUBS = {
    "becomes the program": "exec {python} {script} {stub} {starts}",
    "starts the program": "{python} {script} {stub} {starts}\nexit 1",
    "keeps no descriptor": "exec 3>&-\nexec {python} {script} {stub} {starts}",
}


@pytest.mark.parametrize("catch", [True, False])
@pytest.mark.parametrize("stub_text", STUBS.values(), ids=STUBS)
def test_a_program_that_is_its_own_interpreter_is_not_started_without_end(tmp_path: Path, stub_text: str, catch: bool) -> None:
    stub, script, starts = tmp_path / "stub", tmp_path / "script.py", tmp_path / "starts"
    script.write_text(PROGRAM.format(catch=catch))
    parts = {"python": sys.executable, "script": script, "stub": stub, "starts": starts}
    stub.write_text("#!/bin/sh\n" + stub_text.format(**parts) + "\n")
    stub.chmod(0o755)
    with started("import runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__')", script, stub, starts) as program:
        try:
            output, errors = program.communicate(timeout=40)
        finally:
            pids = [int(line) for line in starts.read_text().split()]
            left = [pid for pid in pids[1:] if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
            for pid in left:
                psutil.Process(pid).kill()
    assert len(pids) <= 2
    assert not left
    said = output if catch else errors
    assert f"started as {stub} (sys.executable), ended before it was ready" in said
    assert "set sys.executable to the path of a Python interpreter" in said
    assert "there is no end to it" not in errors


def test_a_program_in_the_place_of_a_zygote_says_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCPAR_ZYGOTE", "0")
    with pytest.raises(ExecutorUnavailableError, match=f"{sys.executable} is not a Python interpreter: .* set sys.executable"):
        ProcessExecutor(1)


def test_nobody_else_finds_the_mark(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("import os; seen = [name for name in os.environ if 'ASYNCPAR' in name]")
    program = """
        import asyncio, os, subprocess, sys
        from asyncpar import ProcessExecutor, pmap

        sys.path.insert(0, sys.argv[1])

        def look(x):
            import helper
            mine = [name for name in os.environ if "ASYNCPAR" in name]
            return helper.seen, mine, subprocess.run("env", capture_output=True).stdout.count(b"ASYNCPAR")

        def nest(x):
            return asyncio.run(map_once())

        async def map_once():
            async with ProcessExecutor(1) as executor:
                return await pmap(abs, [-1], executor=executor)

        async def main():
            async with ProcessExecutor(1, preload=["helper"]) as executor:
                print(*await pmap(look, [0], executor=executor), *await pmap(nest, [0], executor=executor))

        asyncio.run(main())
    """
    with started(textwrap.dedent(program), tmp_path) as process:
        assert process.communicate(timeout=40) == ("([], [], 0) [1]\n", "")


@pytest.mark.anyio
@pytest.mark.skipif(shutil.which("false") is None, reason="needs a program that fails at once")
async def test_a_program_that_is_no_interpreter_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    false = shutil.which("false")
    async with ProcessExecutor(1) as executor:
        with monkeypatch.context() as patch, pytest.raises(ExecutorUnavailableError, match=rf"started as {false} \(sys\.exec"):
            patch.setattr(sys, "executable", false)
            await pmap(double, range(10), executor=executor)
        with (
            monkeypatch.context() as patch,
            pytest.raises(ExecutorUnavailableError, match=r"/nowhere \(sys\.exec.*could not be"),
        ):
            patch.setattr(sys, "executable", "/nowhere")
            await pmap(double, range(10), executor=executor)
        assert await pmap(double, range(10), executor=executor) == [2 * x for x in range(10)]


def test_a_frozen_program_is_told_what_it_can_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(ExecutorUnavailableError, match=r'this frozen program .* use executor="thread"'):
        ProcessExecutor(1)
