"""A run that begins after a module was reloaded gets the new code, however its function refers to the module."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from asyncpar import ProcessExecutor, pmap
from tests.calls.exits import linger
from tests.functions import process_id
from tests.loops import on_one_loop
from tests.places import open_session
from tests.reloaded import NEW, WAYS, Source, make_source
from tests.waiting import wait_until

ways = pytest.mark.parametrize("way", WAYS)
again = pytest.mark.parametrize("load_again", [Source.reload, Source.import_anew])


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    yield from make_source(tmp_path, monkeypatch)


@ways
@again
@pytest.mark.anyio
@on_one_loop
async def test_a_map_gets_the_new_code(source: Source, way: Any, load_again: Callable[[Source], None]) -> None:
    async with ProcessExecutor(2) as executor:
        assert await pmap(way(source), [1, 2], executor=executor, batch_size=1) == [("old", 1), ("old", 2)]
        source.write(NEW)
        load_again(source)
        assert await pmap(way(source), [1, 2], executor=executor, batch_size=1) == [("new", 1), ("new", 2)]


@ways
@pytest.mark.anyio
@on_one_loop
async def test_preloaded_modules_are_preloaded_anew(source: Source, way: Any) -> None:
    preload = [source.name, f"{source.name}_user"]
    async with ProcessExecutor(2, preload=preload) as executor:
        assert await pmap(way(source), [1, 2], executor=executor) == [("old", 1), ("old", 2)]
        (old_zygote,) = psutil.Process().children()
        source.write(NEW)
        source.reload()
        assert await pmap(way(source), [1, 2], executor=executor) == [("new", 1), ("new", 2)]
        await wait_until(lambda: not old_zygote.is_running())


@pytest.mark.anyio
@on_one_loop
async def test_a_function_that_was_patched_in_place_runs_its_new_code(source: Source) -> None:
    answer = source.module.answer
    async with ProcessExecutor(1) as executor:
        assert await pmap(answer, [1], executor=executor) == [("old", 1)]
        source.write(NEW)
        source.reload()
        answer.__code__ = source.module.answer.__code__
        assert await pmap(answer, [1], executor=executor) == [("new", 1)]
        source.module.answer = answer
        assert await pmap(answer, [1], executor=executor) == [("new", 1)]


@pytest.mark.anyio
@on_one_loop
async def test_a_function_of_the_old_module_goes_on_doing_what_it_did(source: Source) -> None:
    answer = source.module.answer
    async with ProcessExecutor(1) as executor:
        assert await pmap(answer, [1], executor=executor) == [("old", 1)]
        source.write(NEW)
        source.reload()
        assert answer(1) == ("old", 1)
        assert await pmap(answer, [1], executor=executor) == [("old", 1)]


GATED = """
import time
from pathlib import Path

def answer(path):
    Path(path).touch()
    while not Path(path + ".open").exists():
        time.sleep(0.001)
    return {answer!r}
"""


@pytest.mark.parametrize("preloads", [False, True])
@pytest.mark.anyio
@on_one_loop
async def test_a_run_that_is_under_way_goes_on(source: Source, tmp_path: Path, preloads: bool) -> None:
    source.write(GATED.format(answer="old"))
    paths = [str(tmp_path / name) for name in "abc"]
    Path(f"{paths[2]}.open").touch()
    answers: dict[str, list[str]] = {}

    async def run(name: str, paths: list[str]) -> None:
        answers[name] = await pmap(source.module.answer, paths, executor=executor, batch_size=1)

    async with ProcessExecutor(3, preload=[source.name] if preloads else [], grace=0) as executor:
        async with anyio.create_task_group() as group:
            group.start_soon(run, "before", paths)
            await wait_until(lambda: all(map(os.path.exists, paths)))  # no worker imports a file that is half written
            (zygote,) = psutil.Process().children()
            old = [*zygote.children(), *([zygote] if preloads else [])]
            source.write(GATED.format(answer="new, and better"))
            source.reload()
            await run("after", [paths[2]])
            for path in paths[:2]:
                Path(f"{path}.open").touch()
        assert answers["before"] == ["old"] * 3
        assert answers["after"] == ["new, and better"]
        await wait_until(lambda: not any(process.is_running() for process in old))


@pytest.mark.anyio
@on_one_loop
async def test_workers_with_old_code_that_do_not_leave_are_killed(source: Source) -> None:
    async with ProcessExecutor(2, initializer=linger) as executor:
        (old,) = await pmap(process_id, [0], executor=executor)
        source.reload()
        (new,) = await pmap(process_id, [0], executor=executor)  # at once
        assert new != old
        await wait_until(lambda: not psutil.pid_exists(old))


@pytest.mark.anyio
@on_one_loop
async def test_an_executor_may_be_closed_before_they_have_left(source: Source) -> None:
    async with ProcessExecutor(2, initializer=linger, preload=[source.name], grace=0.05) as executor:
        await pmap(process_id, [0], executor=executor)
        (zygote,) = psutil.Process().children()
        old = [zygote, *zygote.children()]
        source.reload()
        open_session(executor, process_id)  # as a run does when it begins
    assert not any(process.is_running() for process in old)


@pytest.mark.anyio
@on_one_loop
async def test_ordinary_imports_cost_no_worker(source: Source, tmp_path: Path) -> None:
    async with ProcessExecutor(1) as executor:
        (before,) = await pmap(process_id, [0], executor=executor)
        assert source.user
        for _ in range(3):
            with pytest.raises(ImportError):
                importlib.import_module("a_module_that_is_not_there")
        assert await pmap(process_id, [0], executor=executor) == [before]
        (tmp_path / "looked_for_first.py").touch()
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(tmp_path)
            assert importlib.util.find_spec("looked_for_first") is not None
            importlib.import_module("looked_for_first")
            assert await pmap(process_id, [0], executor=executor) == [before]
            del sys.modules["looked_for_first"]
            importlib.import_module("looked_for_first")  # which a worker may have loaded by now
            assert await pmap(process_id, [0], executor=executor) != [before]


def test_the_first_function_that_goes_by_value_costs_no_worker(tmp_path: Path) -> None:
    """In a fresh program, which has not loaded the pickler for such functions."""
    program = """
        import asyncio, os
        from asyncpar import ProcessExecutor, pmap

        async def main():
            async with ProcessExecutor(1) as executor:
                pids = [*(await pmap(os.getpgid, [0], executor=executor))]
                for _ in range(2):
                    pids += await pmap(lambda _: os.getpid(), [0], executor=executor)
                print(len(set(pids)))

        asyncio.run(main())
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(program))
    done = subprocess.run([sys.executable, tmp_path / "program.py"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("1\n", "")


@pytest.mark.anyio
@on_one_loop
async def test_finders_that_come_first_do_not_hide_a_reload(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ProcessExecutor(1) as executor:
        assert await pmap(source.module.answer, [1], executor=executor) == [("old", 1)]
        monkeypatch.setattr(sys, "meta_path", [importlib.machinery.PathFinder, *sys.meta_path])
        await pmap(abs, [1], executor=executor)
        source.write(NEW)
        source.reload()
        assert await pmap(source.module.answer, [1], executor=executor) == [("new", 1)]


NOTEBOOK = """
import os, sys, time
from pathlib import Path
from IPython.core.interactiveshell import InteractiveShell
sys.path.insert(0, str(Path.cwd()))

shell = InteractiveShell.instance(history_manager=None)
for number, cell in enumerate(CELLS):
    if isinstance(cell, str):
        shell.run_cell(cell).raise_error()
    else:
        path = Path("edited.py")
        path.write_text(cell[0])
        os.utime(path, (time.time() + number, time.time() + number))  # as if time had passed
"""
ASK = """
from asyncpar import Parallel, delayed
calls = [delayed(edited.answer)(1), delayed(lambda: edited.answer(1))(), delayed(answer)(1)]
print(*Parallel(n_jobs=2)(calls))
"""


@pytest.mark.parametrize("mode", ["2", "complete", "explicit --full"])
@pytest.mark.parametrize("loads_late", [False, True])
def test_a_notebook_with_autoreload_gets_what_was_edited(tmp_path: Path, mode: str, loads_late: bool) -> None:
    pytest.importorskip("IPython", reason="IPython is not installed")
    load = f"%load_ext autoreload\n%autoreload {mode}"
    if mode.startswith("explicit"):
        load += "\n%aimport edited"
    cells: list[Any] = [["def answer(x):\n    return 'first'\n"], "import edited\nfrom edited import answer"]
    cells += [ASK, load] if loads_late else [load, ASK]
    cells += [["def answer(x):\n    return 'second'\n"], ASK]
    cells += [["added = 'third one'\ndef answer(x):\n    return added\n"], ASK]
    command = [sys.executable, "-W", "ignore", "-c", f"CELLS = {cells!r}\n{textwrap.dedent(NOTEBOOK)}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["first first first", "second second second", "third one third one third one"]
