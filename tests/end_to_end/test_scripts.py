"""As users run it: scripts without a guard, functions typed on stdin, notebook cells; and what importing asyncpar costs."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SCRIPT = textwrap.dedent(
    """
    import dataclasses
    import anyio
    import asyncpar

    OFFSET = 100

    @dataclasses.dataclass
    class Point:
        x: int

        def moved(self):
            return Point(self.x + OFFSET)

    class Refusal(Exception):
        pass

    def move(x):
        if x == 3:
            raise Refusal(f"not {x}")
        return Point(x).moved()

    async def main():
        points = await asyncpar.pmap(move, [1, 2], executor="process")
        assert all(type(point) is Point for point in points)
        print(points)
        try:
            await asyncpar.pmap(move, [3], executor="process")
        except Refusal as error:
            print("refused:", error)

    anyio.run(main)
    """
)
EXPECTED = "[Point(x=101), Point(x=102)]\nrefused: not 3\n"


def run(*arguments: str, stdin: str = "") -> str:
    done = subprocess.run([sys.executable, *arguments], input=stdin, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    assert run(str(tmp_path / "script.py")) == EXPECTED


def test_a_process_that_multiprocessing_spawned_maps_functions_of_its_script(tmp_path: Path) -> None:
    script = """
        import asyncio, multiprocessing, dataclasses
        from asyncpar import pmap

        @dataclasses.dataclass
        class Point:
            x: int

        def make(x):
            return Point(x)

        async def make_all(count):
            points = await pmap(make, range(count), executor="process")
            assert all(type(point) is Point for point in points)
            return points

        def work(count):
            return asyncio.run(make_all(count))

        if __name__ == "__main__":
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(pool.map(work, [2]))
        """
    (tmp_path / "script.py").write_text(textwrap.dedent(script))
    assert run(str(tmp_path / "script.py")) == "[[Point(x=0), Point(x=1)]]\n"


def test_a_function_may_be_typed_on_stdin() -> None:
    assert run("-", stdin=SCRIPT) == EXPECTED


def test_a_function_may_stand_on_the_command_line() -> None:
    assert run("-c", SCRIPT) == EXPECTED


WITHOUT_OUTPUT = """
import os, pathlib, sys
import anyio
from asyncpar import ProcessExecutor, pmap

def talk(x):
    for descriptor in (1, 2):
        os.write(descriptor, b"as libraries in C do" * 1000)
    return os.getpid()

async def main():
    async with ProcessExecutor(1) as executor:
        pids = await pmap(talk, range(3), executor=executor, batch_size=1)
    pathlib.Path(sys.argv[1]).write_text(f"{len(pids)} calls, {len(set(pids))} worker, {sys.stderr}")

anyio.run(main)
"""


def test_a_program_without_stdout_and_stderr_maps_calls_that_write_to_them(tmp_path: Path) -> None:
    command = ["sh", "-c", 'exec "$0" "$@" >&- 2>&-', sys.executable, "-c", WITHOUT_OUTPUT, str(tmp_path / "out")]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0
    assert (tmp_path / "out").read_text() == "3 calls, 1 worker, None"


FLAGS = """
import sys, anyio
from asyncpar import pmap

def flags(_):
    return [getattr(sys.flags, name) for name in ("ignore_environment", "no_user_site", "no_site", "optimize", "utf8_mode")]

async def main():
    print(await pmap(flags, [0], executor="process") == [flags(0)], *flags(0))

anyio.run(main)
"""


@pytest.mark.parametrize("options", [["-E"], ["-s"], ["-OO"], ["-E", "-s", "-X", "utf8", "-O"]])
def test_workers_have_the_options_of_the_interpreter(options: list[str]) -> None:
    seen = run(*options, "-c", FLAGS).split()
    assert seen[0] == "True"
    assert int(seen[1]) == ("-E" in options)


NOTEBOOK = """
import asyncio, sys

async def kernel():
    namespace = {"__name__": "__main__"}
    for number, cell in enumerate(CELLS):
        code = compile(cell, f"<cell {number}>", "exec", flags=0x2000)  # PyCF_ALLOW_TOP_LEVEL_AWAIT, as notebooks do
        pending = eval(code, namespace)
        if pending is not None:
            await pending

CELLS = [
    "from asyncpar import pmap\\nbase = 10\\ndef shift(x):\\n    return x + base",
    "print(await pmap(shift, range(3), executor='process'))",
    "base = 20",
    "print(await pmap(shift, range(3), executor='process'))",
    "def shift(x):\\n    return -x",
    "print(await pmap(shift, range(3), executor='process'))",
]
asyncio.run(kernel())
"""


def test_notebook_cells_may_define_and_redefine_functions() -> None:
    assert run("-c", NOTEBOOK) == "[10, 11, 12]\n[20, 21, 22]\n[0, -1, -2]\n"


STARTED_LAST = """
import asyncio
from asyncpar import pmap

async def consume():
    async for _ in pmap(abs, range(10), executor=EXECUTOR):
        pass

async def main():
    async for _ in pmap(abs, range(3), executor=EXECUTOR):
        pass
    asyncio.create_task(consume())

asyncio.run(main())
"""


@pytest.mark.parametrize("executor", ["process", "thread", "inline"])
def test_a_map_that_begins_as_the_program_ends_does_not_hang_it(executor: str) -> None:
    assert run("-c", STARTED_LAST.replace("EXECUTOR", repr(executor))) == ""


@pytest.mark.parametrize("statement", ["import asyncpar", "import asyncpar; dir(asyncpar)"])
def test_importing_asyncpar_imports_none_of_its_dependencies(statement: str) -> None:
    heavy = {"anyio", "asyncio", "numpy", "uvloop", "cloudpickle", "trio"}
    assert run("-c", f"{statement}; import sys; print(sorted({heavy} & set(sys.modules)))") == "[]\n"


def test_mapping_imports_neither_numpy_nor_uvloop() -> None:
    program = "import sys, anyio; from asyncpar import pmap\n"
    program += "async def main(): return await pmap(abs, [-1], executor='process')\n"
    program += "anyio.run(main); print(sorted({'numpy', 'uvloop'} & set(sys.modules)))"
    assert run("-c", program) == "[]\n"


def test_large_buffers_do_not_import_numpy() -> None:
    program = "import pickle, sys, anyio; from asyncpar import pmap\n"
    program += "content = pickle.PickleBuffer(bytes(2 << 20))\n"
    program += "async def main(): print(await pmap(len, [content] * 3, executor='process'), 'numpy' in sys.modules)\n"
    program += "anyio.run(main)"
    assert run("-c", program) == "[2097152, 2097152, 2097152] False\n"


@pytest.mark.parametrize("options", ["", ", initializer=math.sqrt, initargs=(9,)"])
def test_a_worker_that_computes_a_square_root_stays_light(options: str) -> None:
    program = "import math, sys, anyio; from asyncpar import ProcessExecutor, pmap\n"
    program += "heavy = {'anyio', 'asyncio', 'numpy', 'uvloop', 'multiprocessing', 'concurrent.futures'}\n"
    program += "async def main():\n"
    program += f"    async with ProcessExecutor(1{options}) as executor:\n"
    program += "        await pmap(math.sqrt, [4], executor=executor)\n"
    program += "        print(await pmap(lambda _: sorted(heavy & set(sys.modules)), [0], executor=executor))\n"
    program += "anyio.run(main)"
    assert run("-c", program) == "[[]]\n"
