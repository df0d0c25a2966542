"""Modules that map something while they are being imported, and modules that workers cannot import: no call waits forever."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest


def run(folder: Path, program: str, **modules: str) -> str:
    """What a program prints beside which these modules lie; `pkg__sub` is a module of a package."""
    for name, text in modules.items():
        path = folder / f"{name.replace('__', '/', 1)}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
    script = folder / "script.py"
    script.write_text(textwrap.dedent(program))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=40, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


SHAPES = """
import asyncio, functools, math, operator, threading
from asyncpar import ExecutorUnavailableError, Parallel, delayed, pmap

class Point:
    def __init__(self, x, ballast=b""):
        self.x = x
        self.ballast = ballast

class Refusal(Exception):
    pass

def move(point):
    return Point(shifted(point.x))

def shifted(x):
    return x + OFFSET

def make(x):
    from shapes import Point
    return Point(x)

def refuse(x):
    raise Refusal(x)

@functools.cache
def cached(x):
    return x

async def mapped(function, items, **options):
    return await pmap(function, items, **options)

OFFSET = 10
points = [Point(x) for x in range(4)]
"""
PROGRAM = """
import shapes, cloudpickle
print([point.x for point in shapes.result], {type(point) is shapes.Point for point in shapes.result})
assert not cloudpickle.list_registry_pickle_by_value()
"""
MOVED, SAME = "[10, 11, 12, 13] {True}\n", "[0, 1, 2, 3] {True}\n"


@pytest.mark.parametrize(
    ("expression", "printed"),
    [
        ("Parallel(n_jobs=2)(delayed(move)(point) for point in points)", MOVED),
        ("Parallel(n_jobs=2)(delayed(move)(point=point) for point in points)", MOVED),
        ("Parallel(n_jobs=2)(delayed(lambda point: move(point))(point) for point in points)", MOVED),
        ("Parallel(n_jobs=2)(delayed(operator.itemgetter(0))([point]) for point in points)", SAME),
        ("Parallel(n_jobs=2)(delayed(make)(x) for x in range(4))", SAME),
        ("Parallel(n_jobs=2, backend='threading')(delayed(move)(point) for point in points)", MOVED),
        ("list(Parallel(n_jobs=2, return_as='generator')(delayed(move)(point) for point in points))", MOVED),
        ("asyncio.run(mapped(move, points, executor='process'))", MOVED),
        ("asyncio.run(mapped(move, [Point(x, bytes(10**6)) for x in range(4)], executor='process'))", MOVED),
        ("asyncio.run(mapped(move, points, executor='thread'))", MOVED),
        ("Parallel(n_jobs=2)(delayed(math.sqrt)(x) for x in range(4)) and points", SAME),
    ],
)
def test_a_module_may_map_something_while_it_is_imported(tmp_path: Path, expression: str, printed: str) -> None:
    assert run(tmp_path, PROGRAM, shapes=f"{SHAPES}result = {expression}") == printed


def test_another_thread_may_map_a_function_of_the_module_that_waits_for_it(tmp_path: Path) -> None:
    module = f"""{SHAPES}
result = []
def call():
    result.extend(Parallel(n_jobs=2)(delayed(move)(point) for point in points))
thread = threading.Thread(target=call)
thread.start()
thread.join()
"""
    assert run(tmp_path, PROGRAM, shapes=module) == MOVED


def test_an_exception_of_an_unfinished_module_is_raised_as_it_is(tmp_path: Path) -> None:
    module = f"""{SHAPES}
try:
    Parallel(n_jobs=2)([delayed(refuse)(7)] * 4)
except Refusal as error:
    print(error)
result = points
"""
    assert run(tmp_path, PROGRAM, shapes=module) == f"7\n{SAME}"


def test_once_the_module_is_imported_it_goes_by_its_name(tmp_path: Path) -> None:
    """Workers import it then, and do what it does when it is imported, each by itself."""
    module = f"{SHAPES}result = Parallel(n_jobs=2)(delayed(move)(point) for point in points)"
    program = f"""{PROGRAM}
import os
def calls(_):
    import shapes
    return [point.x for point in shapes.result], shapes.move.__module__ in __import__("sys").modules
print(shapes.Parallel(n_jobs=2)(shapes.delayed(shapes.move)(point) for point in shapes.points)[3].x)
print(shapes.Parallel(n_jobs=2)(shapes.delayed(calls)(x) for x in range(1)))
"""
    assert run(tmp_path, program, shapes=module) == f"{MOVED}13\n[([10, 11, 12, 13], True)]\n"


def test_a_package_may_import_a_module_that_maps_something(tmp_path: Path) -> None:
    init = """
        class Early:
            def __init__(self, x):
                self.x = x

        from pkg import finished, sub
        """
    finished = """
        class Finished:
            def __init__(self, x):
                self.x = x

        def negate(x):
            return -x
        """
    sub = """
        from asyncpar import Parallel, delayed
        from pkg import Early, finished

        def call(early):
            from pkg import finished as imported_late
            return imported_late.Finished(finished.negate(early.x))

        result = Parallel(n_jobs=2)(delayed(call)(Early(x)) for x in range(4))
        """
    program = """
        import pkg
        print([x.x for x in pkg.sub.result], {type(x) is pkg.finished.Finished for x in pkg.sub.result})
        """
    assert run(tmp_path, program, pkg____init__=init, pkg__finished=finished, pkg__sub=sub) == "[0, -1, -2, -3] {True}\n"


@pytest.mark.parametrize(
    "statement",
    [
        "Parallel(n_jobs=2)(delayed(cached)(x) for x in range(4))",
        "Parallel(n_jobs=2)(delayed(move)(cached) for x in range(4))",
        "asyncio.run(mapped(cached, range(4), executor='process'))",
    ],
)
def test_what_can_only_go_by_its_name_is_refused_during_the_import(tmp_path: Path, statement: str) -> None:
    module = f"""{SHAPES}
result = points
try:
    {statement}
except ExecutorUnavailableError as error:
    print(error)
"""
    output = run(tmp_path, PROGRAM, shapes=module)
    assert output.startswith(
        "cached, a _lru_cache_wrapper, cannot be sent between processes while its module 'shapes' is being imported; "
        "call Parallel or pmap in a function"
    )
    assert output.endswith(SAME)


def test_what_another_thread_imports_meanwhile_goes_by_its_name(tmp_path: Path) -> None:
    slow = """
        import threading
        class Thing: pass
        begun, may_end = threading.Event(), threading.Event()
        begun.set()
        may_end.wait(30)
        """
    program = """
        import sys, threading
        from asyncpar import Parallel, delayed
        import cloudpickle
        thread = threading.Thread(target=lambda: __import__("slow"))
        thread.start()
        while not hasattr(sys.modules.get("slow"), "may_end"):
            pass
        def items():
            for x in range(100):  # most of them are asked for when some are computed already
                yield delayed(abs)(-x)
                assert not cloudpickle.list_registry_pickle_by_value()
        print(Parallel(n_jobs=2)(items()) == list(range(100)))
        sys.modules["slow"].may_end.set()
        thread.join()
        """
    assert run(tmp_path, program, slow=slow) == "True\n"


MADE = {
    "from nothing": """
        import sys, types
        plugin = sys.modules["plugin"] = types.ModuleType("plugin")
        exec(CODE, plugin.__dict__)
        """,
    "from a file": """
        import importlib.util, pathlib, sys
        pathlib.Path(__file__).with_name("plugin_1.py").write_text(CODE)
        spec = importlib.util.spec_from_file_location("plugin", pathlib.Path(__file__).with_name("plugin_1.py"))
        plugin = sys.modules["plugin"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(plugin)
        """,
}


@pytest.mark.parametrize("how", MADE)
@pytest.mark.parametrize("call", ["delayed(plugin.double)(2)", "delayed(abs)(plugin.Number(-2))"])
def test_a_module_that_workers_cannot_import_is_named_with_the_remedy(tmp_path: Path, how: str, call: str) -> None:
    code = "class Number(int):\n    pass\ndef double(x):\n    return Number(2 * x)\n"
    program = f"""
CODE = {code!r}
{textwrap.dedent(MADE[how])}
from asyncpar import Parallel, delayed
try:
    Parallel(n_jobs=2)([{call}] * 2)
except ModuleNotFoundError as error:
    print(error, *error.__notes__, sep="\\n")
import cloudpickle
cloudpickle.register_pickle_by_value(sys.modules['plugin'])
print({{type(x) for x in Parallel(n_jobs=2)([{call}] * 2)}} <= {{int, plugin.Number}})
"""
    output = run(tmp_path, program)
    assert output.startswith("No module named 'plugin'\n")
    assert "Put its folder on sys.path" in output
    assert "cloudpickle.register_pickle_by_value(sys.modules['plugin'])" in output
    assert output.endswith("True\n")
