"""A census of Python's own standard library: every file parsed, every function measured, in parallel processes.

    python examples/stdlib_census.py                    # the library of the Python that runs this
    python examples/stdlib_census.py --root src         # any other tree
    python examples/stdlib_census.py --executor thread  # the same work in threads, to compare, or in interpreters
    python examples/stdlib_census.py --executor dask    # on a Dask cluster: DASK_SCHEDULER_ADDRESS, or one of its own
    python examples/stdlib_census.py --executor ray     # on a Ray of its own

It prints the longest functions and those with the most branches, totals, the files that do not parse, and how much faster
several workers were than one. What it shows about asyncpar:

- Results are streamed as they finish, so the progress line moves and no list of all records is ever held.
- Workers return small plain records, and never a syntax tree, so that sending results back costs next to nothing.
- A file that does not parse is a result like any other. An unexpected error would stop the census.
- One `ProcessExecutor` serves several maps, each with as many of its workers (`n_jobs`) as it likes.
"""

from __future__ import annotations

import argparse
import ast
import heapq
import importlib.util
import io
import sys
import sysconfig
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, TypeAlias, TypedDict

import anyio

from asyncpar import (
    DaskExecutor,
    Executor,
    InlineExecutor,
    InterpreterExecutor,
    ProcessExecutor,
    RayExecutor,
    ThreadExecutor,
    cpu_count,
    pmap,
)

KINDS = ("process", "thread", "interpreter", "inline", "dask", "ray")
TOP = 10
OTHERS = {"site-packages", "dist-packages"}  # what is installed there does not belong to the standard library
PROGRESS_SECONDS = 0.1


class Function(TypedDict):
    """One function. A typed dict is a plain dict when it is pickled: the cheapest record to send."""

    name: str  # with the names of the classes and functions around it
    line: int
    lines: int
    branches: int


class FileRecord(TypedDict):
    """What a worker returns for one file. `problem` says why it did not parse; everything else is then empty."""

    path: str
    problem: str
    lines: int
    functions: int
    classes: int
    longest: list[Function]  # at most ten, since only these can be among the ten longest of all
    most_branching: list[Function]


# In the workers


def examine(path: str) -> FileRecord:
    """The record of one file."""
    record: FileRecord = {
        "path": path,
        "problem": "",
        "lines": 0,
        "functions": 0,
        "classes": 0,
        "longest": [],
        "most_branching": [],
    }
    try:
        source = Path(path).read_bytes()
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OSError) as error:
        record["problem"] = describe_problem(error)
        return record
    functions, classes = survey(tree)
    record["lines"] = len(source.splitlines())
    record["functions"] = len(functions)
    record["classes"] = classes
    record["longest"] = heapq.nlargest(TOP, functions, key=lambda function: (function["lines"], -function["line"]))
    record["most_branching"] = heapq.nlargest(TOP, functions, key=lambda function: (function["branches"], -function["line"]))
    return record


def survey(tree: ast.AST) -> tuple[list[Function], int]:
    """Every function in the tree, and how many classes there are.

    A branch counts for the innermost function around it. There is no recursion, since code can be nested deeply.
    """
    functions: list[Function] = []
    classes = 0
    to_visit: list[tuple[ast.AST, str, Function | None]] = [(tree, "", None)]  # (node, names around it, function around it)
    while to_visit:
        node, names, owner = to_visit.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            owner = {"name": names + node.name, "line": node.lineno, "lines": lines, "branches": 0}
            functions.append(owner)
            names = f"{names}{node.name}."
        elif isinstance(node, ast.ClassDef):
            classes += 1
            names = f"{names}{node.name}."
        elif owner is not None:
            owner["branches"] += count_branches(node)
        to_visit.extend((child, names, owner) for child in ast.iter_child_nodes(node))
    return functions, classes


def count_branches(node: ast.AST) -> int:
    """How many paths this node alone adds to a function. Their sum is McCabe's complexity minus one.

    Each `if`, `for`, `while`, `except`, `case` and conditional expression adds one, as does each `and` or `or`, and each `for`
    and `if` of a comprehension.
    """
    match node:
        case ast.If() | ast.IfExp() | ast.For() | ast.AsyncFor() | ast.While() | ast.ExceptHandler() | ast.match_case():
            return 1
        case ast.BoolOp():
            return len(node.values) - 1
        case ast.comprehension():
            return 1 + len(node.ifs)
    return 0


def describe_problem(error: Exception) -> str:
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {error.msg}" if error.lineno else str(error.msg)
    return f"{type(error).__name__}: {error}"


def read_once(path: str) -> int:
    """Warms up by bringing one file into the system's cache."""
    try:
        return len(Path(path).read_bytes())
    except OSError:  # the census itself will report it
        return 0


def silence_parser() -> None:
    """Keeps this process from warning about invalid escapes and the like in the code that it parses."""
    for category in (SyntaxWarning, DeprecationWarning):  # the latter up to Python 3.11
        warnings.simplefilter("ignore", category)


# In the parent

Location: TypeAlias = tuple[str, Function]  # (path, function)


@dataclass
class Census:
    """The sum of the records so far. It holds ten functions of each kind, however many files there are."""

    seconds: float = 0.0
    files: int = 0
    lines: int = 0
    functions: int = 0
    classes: int = 0
    longest: list[Location] = field(default_factory=list)
    most_branching: list[Location] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)  # (path, why it did not parse)

    def add(self, record: FileRecord) -> None:
        path = record["path"]
        self.files += 1
        self.lines += record["lines"]
        self.functions += record["functions"]
        self.classes += record["classes"]
        if record["problem"]:
            self.problems.append((path, record["problem"]))
        self.longest += [(path, function) for function in record["longest"]]
        self.longest.sort(key=lambda location: (-location[1]["lines"], location[0], location[1]["line"]))
        del self.longest[TOP:]
        self.most_branching += [(path, function) for function in record["most_branching"]]
        self.most_branching.sort(key=lambda location: (-location[1]["branches"], location[0], location[1]["line"]))
        del self.most_branching[TOP:]


class Progress:
    """One line on stderr that is rewritten again and again. If stderr is not a terminal, nothing is written."""

    def __init__(self, total: int, what: str) -> None:
        self._total = total
        self._what = what
        self._visible = sys.stderr.isatty()
        self._shown_at = 0.0

    def show(self, done: int) -> None:
        now = time.monotonic()
        if self._visible and now - self._shown_at >= PROGRESS_SECONDS:
            self._shown_at = now
            print(f"\r{done} of {self._total} files, {self._what}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._visible:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


async def take_census(files: Sequence[str], executor: Executor, workers: int) -> Census:
    """Examines the files in up to `workers` workers."""
    census = Census()
    progress = Progress(len(files), "one worker" if workers == 1 else f"{workers} workers")
    began = time.perf_counter()
    try:
        async with pmap(examine, files, executor=executor, n_jobs=workers, ordered=False) as records:
            async for record in records:
                census.add(record)
                progress.show(census.files)
    finally:
        progress.clear()
    census.seconds = time.perf_counter() - began
    return census


async def run(root: Path, files: Sequence[str], kind: str, jobs: int) -> None:
    """Takes the census with all workers, then with one for comparison, and prints the first census."""
    async with make_executor(kind, jobs) as executor:
        await pmap(read_once, files, executor=executor)
        census = await take_census(files, executor, executor.workers)
        alone = None if executor.workers == 1 else await take_census(files, executor, 1)
    print_census(census, root)
    print(describe_speed(census, alone, kind, executor.workers))


def make_executor(kind: str, jobs: int) -> Executor:
    if kind == "process":
        return ProcessExecutor(jobs, initializer=silence_parser, preload=["ast"])
    if kind == "interpreter":
        return InterpreterExecutor(jobs, initializer=silence_parser)
    if kind == "dask":
        return DaskExecutor()
    if kind == "ray":
        return RayExecutor()
    silence_parser()
    return ThreadExecutor(jobs) if kind == "thread" else InlineExecutor()


def print_census(census: Census, root: Path) -> None:
    print(f"Longest functions of {root}, in lines:")
    print_locations(census.longest, "lines", root)
    print("\nMost branching functions:")
    print_locations(census.most_branching, "branches", root)
    print(f"\n{census.files} files, {census.lines} lines, {census.functions} functions, {census.classes} classes")
    print(f"{len(census.problems)} did not parse")
    for path, problem in sorted(census.problems):
        print(f"  {Path(path).relative_to(root)}: {problem}")


def print_locations(locations: list[Location], what: str, root: Path) -> None:
    for path, function in locations:
        size = function["lines"] if what == "lines" else function["branches"]
        print(f"{size:7}  {function['name']}  {Path(path).relative_to(root)}:{function['line']}")


def describe_speed(census: Census, alone: Census | None, kind: str, workers: int) -> str:
    """How long it took, and how that was measured."""
    if alone is None:
        return f"\n{census.seconds:.2f} s with one worker ({kind})"
    return (
        f"\n{census.seconds:.2f} s with {workers} workers ({kind}), {alone.seconds:.2f} s with one of them: "
        f"{alone.seconds / census.seconds:.2f} times as fast\n"
        "Each is the time of one whole census, from first file to last record. Before that, an untimed reading of every file\n"
        "had started the workers and put the files into the system's cache."
    )


def find_files(root: Path) -> list[str]:
    """All .py files under `root`, except for what is installed in a site-packages below it."""
    return sorted(
        str(path) for path in root.rglob("*.py") if path.is_file() and OTHERS.isdisjoint(path.relative_to(root).parts)
    )


class ArgumentParser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(description="Measures every function of the standard library, in parallel.")
    parser.add_argument("--jobs", type=int, default=cpu_count(), metavar="N", help="workers (default: one per processor)")
    parser.add_argument("--executor", choices=KINDS, default="process", help="what they are")
    parser.add_argument("--root", type=Path, metavar="DIR", help="another tree (default: the standard library)")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error(f"--jobs must be 1 or more, not {options.jobs}")
    root: Path = options.root or Path(sysconfig.get_path("stdlib"))
    if not root.is_dir():
        parser.error(f"--root {root} is not a directory")
    files = find_files(root)
    if not files:
        parser.error(f"there is no .py file under --root {root}")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names in any script, on any terminal
    has_uvloop = importlib.util.find_spec("uvloop") is not None
    anyio.run(run, root, files, options.executor, options.jobs, backend_options={"use_uvloop": has_uvloop})
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
