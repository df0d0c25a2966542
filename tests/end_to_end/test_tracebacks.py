"""A remote traceback names the file and shows the lines, wherever the function was written."""

from __future__ import annotations

import itertools
import linecache
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

KEEPS_SOURCE = sys.version_info >= (3, 13)  # of the program after -c, and of what is typed

PROGRAM = textwrap.dedent(
    """
    import functools, traceback
    from asyncpar import Parallel, delayed

    def through(fn):
        @functools.wraps(fn)
        def call(*args):
            return fn(*args)  # decorated
        return call

    class Ratio:
        def __init__(self, below):
            self.below = below
        def over(self, above):
            return above / self.below  # method

    @through
    def divide(x):
        def inner(below):
            return Ratio(below).over(x)  # nested
        return inner(0)

    def refuse():
        error = LookupError()
        error.explain = lambda: 1 / 0
        raise error

    def make():
        return divide

    def apply(fn, x):
        return fn(x)

    def show(*call):
        try:
            Parallel(n_jobs=2)([call])
        except ZeroDivisionError as error:
            print(error.__cause__)

    show(*delayed(divide)(1))
    show(*delayed(lambda x: x / 0)(1))
    show(*delayed(apply)(lambda x: x % 0, 1))
    (returned,) = Parallel(n_jobs=2)([delayed(make)()])
    try:
        returned(1)
    except ZeroDivisionError:
        print(traceback.format_exc())
    try:
        Parallel(n_jobs=2)([delayed(refuse)()])
    except LookupError as error:
        explain = error.explain
        print(error.__cause__)
    try:
        explain()
    except ZeroDivisionError:
        print(traceback.format_exc())
    """
)
FRAMES = [
    ("call", "return fn(*args)  # decorated"),
    ("divide", "return inner(0)"),
    ("inner", "return Ratio(below).over(x)  # nested"),
    ("over", "return above / self.below  # method"),
    ("<lambda>", "show(*delayed(lambda x: x / 0)(1))"),
    ("apply", "return fn(x)"),
    ("<lambda>", "show(*delayed(apply)(lambda x: x % 0, 1))"),
    ("call", "return fn(*args)  # decorated"),
    ("divide", "return inner(0)"),
    ("inner", "return Ratio(below).over(x)  # nested"),
    ("over", "return above / self.below  # method"),
    ("refuse", "raise error"),
    ("<lambda>", "error.explain = lambda: 1 / 0"),
]


ASK_FOR_BOTH = """
from asyncpar import Parallel, delayed
for fn in first, second:
    try:
        Parallel(n_jobs=2)([delayed(fn)(1)])
    except ZeroDivisionError as error:
        print(error.__cause__)
"""


def run(*arguments: str, stdin: str = "") -> str:
    done = subprocess.run([sys.executable, *arguments], input=stdin, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


def frames(output: str, file_name: str) -> list[tuple[str, str]]:
    """(function, source line) of each frame in `file_name`; the line is empty where there is none."""
    lines = output.splitlines()
    found = []
    for line, following in itertools.pairwise(lines):
        head, _, function = line.partition(", in ")
        if head.startswith(f'  File "{file_name}", line ') and function != "<module>":
            found.append((function, following.strip() if following.startswith("    ") else ""))
    return found


def without_source(expected: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(function, "") for function, _ in expected]


def test_of_a_script(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(PROGRAM)
    assert frames(run(str(script)), str(script)) == FRAMES


def test_of_a_module_that_is_run(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text(PROGRAM)
    done = subprocess.run([sys.executable, "-m", "package"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert frames(done.stdout, str(tmp_path / "package" / "__main__.py")) == FRAMES


def test_of_a_program_on_the_command_line() -> None:
    output = run("-c", PROGRAM)
    assert frames(output, "<string>") == (FRAMES if KEEPS_SOURCE else without_source(FRAMES))


def test_of_a_program_on_stdin_of_which_python_keeps_no_source() -> None:
    assert frames(run("-", stdin=PROGRAM), "<stdin>") == without_source(FRAMES)


def test_of_what_is_typed_at_a_prompt() -> None:
    typed = "def first(x):\n    return x / 0\n\ndef second(x):\n    return x % 0\n\n" + ASK_FOR_BOTH.lstrip() + "\n"
    done = subprocess.run([sys.executable, "-i", "-q"], input=typed, capture_output=True, text=True, timeout=60, check=True)
    shown = [line.strip() for line in done.stdout.splitlines()]
    assert "ZeroDivisionError: division by zero" in shown
    assert ("return x / 0" in shown and "return x % 0" in shown) == KEEPS_SOURCE


@pytest.mark.skipif(not hasattr(linecache, "_getlines_from_code"), reason="this Python tells sources by file name alone")
def test_no_lines_of_the_program_are_shown_for_other_code_of_the_same_name() -> None:
    program = """
        from asyncpar import Parallel, delayed
        made = {}
        exec("def divide(x):\\n    return x / 0", made)
        def first():
            1 / 0
        for call in delayed(first)(), delayed(made["divide"])(1):
            try:
                Parallel(n_jobs=2)([call])
            except ZeroDivisionError as error:
                print(error.__cause__)
        """
    output = run("-c", textwrap.dedent(program))
    assert frames(output, "<string>") == [("first", "1 / 0"), ("divide", "")]


CELLS = """
import linecache, sys

def compile_cell(number, source):  # as notebooks do
    name = f"<cell {number}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    return compile(source, name, "exec")

namespace = {"__name__": "__main__"}
for number, cell in enumerate(CELLS):
    exec(compile_cell(number, cell), namespace)
"""


def test_of_a_notebook_cell() -> None:
    both = "def first(x):\n    return x / 0\n\ndef second(x):\n    return (x\n        % 0)\n"
    output = run("-c", f"CELLS = {[both, ASK_FOR_BOTH]!r}\n{CELLS}")
    assert frames(output, "<cell 0>") == [("first", "return x / 0"), ("second", "return (x")]
    assert ("        % 0)" in output) == KEEPS_SOURCE  # all lines of an expression, as from 3.13 on


def test_of_a_cell_of_ipython() -> None:
    pytest.importorskip("IPython", reason="IPython is not installed")
    cells = ["def first(x):\n    return x / 0", "def second(x):\n    return x % 0", ASK_FOR_BOTH]
    program = f"""
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance(history_manager=None)
for cell in {cells!r}:
    shell.run_cell(cell).raise_error()
"""
    output = run("-W", "ignore", "-c", program)
    shown = [line.strip() for line in output.splitlines()]
    assert "return x / 0" in shown
    assert "return x % 0" in shown
