"""Users' modules and path hooks, and descriptors opened at start-up, are left alone and break no worker."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import asyncpar
from tests.faults.test_deaths import started

ROOT = Path(asyncpar.__file__).parents[1]


def output_of(script: Path, **environment: str) -> str:
    """Of a script that must succeed and end soon."""
    full = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    with subprocess.Popen([sys.executable, script], stdout=-1, stderr=-1, text=True, env=full) as program:
        try:
            output, errors = program.communicate(timeout=40)
        finally:
            program.kill()
    assert (program.returncode, errors) == (0, "")
    return output


def write(path: Path, program: str) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(textwrap.dedent(program))
    return path


@pytest.mark.parametrize("preload", [(), ("helper",)])
def test_modules_named_like_those_that_a_worker_needs_are_the_users_own(tmp_path: Path, preload: tuple[str, ...]) -> None:
    for name in ("ctypes", "resource"):
        write(tmp_path / f"{name}.py", f"whose = 'user: {name}'")
    write(tmp_path / "helper.py", "import resource, ctypes; assert resource.whose and ctypes.whose")
    script = write(
        tmp_path / "script.py",
        f"""
        import asyncio
        from asyncpar import ProcessExecutor, pmap
        from asyncpar import WorkerDiedError

        def look(name):
            return __import__(name).whose

        def die(x):
            import os
            os._exit(3)

        async def main():
            async with ProcessExecutor(1, preload={preload!r}, max_memory=1 << 30, max_calls_per_worker=2) as executor:
                for whose in await pmap(look, ["ctypes", "resource"], executor=executor):
                    print(whose)
                (error,) = await pmap(die, [0], executor=executor, on_error="return")
                assert isinstance(error, WorkerDiedError) and error.exit_code == 3 and error.peak_memory, error

        asyncio.run(main())
        """,
    )
    expected = "".join(f"user: {name}\n" for name in ("ctypes", "resource"))
    assert output_of(script) == expected


def test_what_the_program_has_from_the_standard_library_a_worker_has_too(tmp_path: Path) -> None:
    """The program has imported it before a directory that has another came first on its path."""
    write(tmp_path / "late" / "resource.py", "raise ImportError('this one is not asked for')")
    script = write(
        tmp_path / "script.py",
        """
        import asyncio, resource, sys
        from pathlib import Path
        from asyncpar import pmap

        sys.path.insert(0, str(Path(__file__).parent / "late"))

        def look(x):
            import resource
            return resource.__file__

        async def main():
            print(await pmap(look, [0], executor="process") == [resource.__file__])

        asyncio.run(main())
        """,
    )
    assert output_of(script) == "True\n"


TRAPPED = """
import sys
from pathlib import Path
from typing import Any

import numpy, trio
from asyncpar import PicklingError, ProcessExecutor, pmap

async def everything(executor):
    results = []
    results += await pmap(double, [1, 2], executor=executor)
    results += await pmap(double_soon, [1, 2], executor=executor)
    results += [array.tolist()[:2] for array in await pmap(same, [numpy.arange(1 << 18)] * 2, executor=executor, max_nbytes=1)]
    errors = await pmap(refuse, range(4), executor=executor, on_error="return")
    return results, [type(error).__name__ for error in errors]

def double(x):
    return 2 * x

async def double_soon(x):
    return 2 * x

def same(x):
    return x

class Refusal(Exception):
    def __init__(self, a, b):
        super().__init__(a)
        self.lock = b

def refuse(x):
    import threading
    if x == 0:
        return threading.Lock()
    if x == 1:
        raise Refusal(1, 2)
    if x == 2:
        raise Refusal(1, threading.Lock())
    raise ValueError(x)

async def main():
    async with ProcessExecutor(1, max_memory=1 << 30) as executor:
        expected = await everything(executor)  # and the program has then imported whatever it needs itself
    traps = Path(sys.argv[1])
    for name in sys.stdlib_module_names - sys.modules.keys() - {*sys.builtin_module_names}:
        (traps / f"{name}.py").write_text(f"raise RuntimeError('a worker has imported {name} of the user')")
    sys.path.insert(0, str(traps))
    async with ProcessExecutor(1, max_memory=1 << 30) as executor:
        assert await everything(executor) == expected
    print(expected)

trio.run(main)
"""


def test_nothing_of_asyncpar_imports_a_users_module_for_one_of_the_standard_library(tmp_path: Path) -> None:
    with started(TRAPPED, tmp_path) as program:
        output, errors = program.communicate(timeout=40)
    assert (program.returncode, errors) == (0, "")
    assert output == ("([2, 4, 2, 4, [0, 1], [0, 1]], ['PicklingError', 'Refusal', 'RemoteError', 'ValueError'])\n")


def test_packages_beside_asyncpar_do_not_come_before_the_standard_library(tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(ROOT / "asyncpar", site / "asyncpar")
    for name in ("dataclasses", "enum", "typing", "contextvars", "socket"):
        write(site / f"{name}.py", "raise ImportError('this backport is for older Pythons')")
    script = write(
        tmp_path / "script.py",
        f"""
        import os, sys
        library = os.path.dirname(os.__file__)
        last = max(sys.path.index(entry) for entry in (library, library + "/lib-dynload") if entry in sys.path)
        sys.path.insert(last + 1, {str(site)!r})  # before any other site-packages
        import asyncio, asyncpar

        def look(x):
            import dataclasses, enum, typing
            return asyncpar.__file__

        async def main():
            print(*await asyncpar.pmap(look, [0], executor="process"))

        asyncio.run(main())
        """,
    )
    assert output_of(script, PYTHONPATH="") == f"{site / 'asyncpar' / '__init__.py'}\n"


def test_workers_have_asyncpar_and_cloudpickle_from_where_the_program_has_them(tmp_path: Path) -> None:
    vendored = tmp_path / "vendored"
    shutil.copytree(ROOT / "asyncpar", vendored / "one" / "asyncpar")
    shutil.copytree(Path(cloudpickle.__file__).parent, vendored / "two" / "cloudpickle")
    script = write(
        tmp_path / "script.py",
        f"""
        import sys
        sys.path[:0] = [{str(vendored / "one")!r}, {str(vendored / "two")!r}]
        import asyncio, asyncpar

        def look(x):
            return [sys.modules[name].__file__ for name in ("asyncpar._child.zygote", "cloudpickle")]

        async def main():
            print(*(await asyncpar.pmap(look, [0], executor="process"))[0], sep="\\n")

        asyncio.run(main())
        """,
    )
    here = [vendored / "one" / "asyncpar" / "_child" / "zygote.py", vendored / "two" / "cloudpickle" / "__init__.py"]
    assert output_of(script) == "".join(f"{path}\n" for path in here)


def test_descriptors_that_are_opened_at_start_up_stay_what_they_are(tmp_path: Path) -> None:
    """An agent, or a handler of logs, opens its file in sitecustomize and holds on to its number."""
    write(
        tmp_path / "site" / "sitecustomize.py",
        """
        import os
        log = os.open(os.environ["LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        more = [os.dup(log) for _ in range(10)]
        """,
    )
    script = write(
        tmp_path / "script.py",
        """
        import asyncio, os, sitecustomize
        from asyncpar import pmap

        def log(x):
            for descriptor in (sitecustomize.log, *sitecustomize.more):
                os.write(descriptor, b"x")
            return x

        async def main():
            print(await pmap(log, [1, 2], executor="process"))

        asyncio.run(main())
        """,
    )
    log = tmp_path / "log"
    assert output_of(script, PYTHONPATH=f"{tmp_path / 'site'}:{ROOT}", LOG=str(log)) == "[1, 2]\n"
    assert log.read_text() == "x" * 22


@pytest.mark.anyio
async def test_what_the_program_has_left_inheritable_is_closed_in_workers(tmp_path: Path) -> None:
    def has(path: Path) -> bool:
        names = os.listdir("/proc/self/fd")
        return any(os.path.realpath(f"/proc/self/fd/{name}") == str(path) for name in names)

    path = tmp_path / "file"
    with path.open("w") as file:
        os.set_inheritable(file.fileno(), True)
        async with asyncpar.ProcessExecutor(1) as executor:
            assert await asyncpar.pmap(has, [path], executor=executor) == [False]
        assert has(path)


@pytest.mark.anyio
async def test_a_descriptor_that_another_thread_closes_meanwhile_is_no_hindrance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some systems refuse to start a program for which a descriptor is to be closed that is not open."""
    spawn, refusals = os.posix_spawn, [OSError(errno.EBADF, os.strerror(errno.EBADF))]

    def spawn_unless_refused(*arguments: Any, **options: Any) -> int:
        if refusals:
            raise refusals.pop()
        return spawn(*arguments, **options)

    monkeypatch.setattr("os.posix_spawn", spawn_unless_refused)
    async with asyncpar.ProcessExecutor(1) as executor:
        assert await asyncpar.pmap(abs, [-1], executor=executor) == [1]
    assert not refusals
