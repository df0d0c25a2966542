"""Whole programs: scripts without a guard, on stdin, that are interrupted, that fork, or end in the middle of something."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from tests.functions import Beacon


def run(*arguments: str, stdin: str = "") -> str:
    done = subprocess.run([sys.executable, *arguments], input=stdin, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


SCRIPT = textwrap.dedent(
    """
    import asyncpar as joblib
    from asyncpar import Parallel, delayed

    class Point:
        def __init__(self, x):
            self.x = x
        def moved(self, by):
            return Point(self.x + by)

    def move(point):
        return point.moved(OFFSET)

    OFFSET = 100
    print([point.x for point in Parallel(n_jobs=2)(delayed(move)(Point(x)) for x in range(3))])
    OFFSET = 200
    print([point.x for point in joblib.Parallel(n_jobs=2)(joblib.delayed(move)(Point(x)) for x in range(3))])

    def move(point):
        return point.moved(-1)

    print([type(point) is Point and point.x for point in Parallel(n_jobs=2)(delayed(move)(Point(x)) for x in range(3))])
    print([point.x for point in Parallel(n_jobs=2)(delayed(Point(1).moved)(by) for by in range(3))])
    """
)
EXPECTED = "[100, 101, 102]\n[200, 201, 202]\n[-1, 0, 1]\n[1, 2, 3]\n"


def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    assert run(str(tmp_path / "script.py")) == EXPECTED


def test_functions_may_be_typed_on_stdin_and_redefined() -> None:
    assert run("-", stdin=SCRIPT) == EXPECTED
    assert run("-c", SCRIPT) == EXPECTED


INTERRUPTED = """
import sys
from pathlib import Path
from asyncpar import Parallel, delayed
from tests.functions import Beacon

beacons = [Beacon(Path(path)) for path in sys.argv[1:3]]
try:
    list(Parallel(n_jobs=2, backend="process", return_as=sys.argv[3])(delayed(beacon.spin)() for beacon in beacons))
except KeyboardInterrupt:
    print(Parallel(n_jobs=2)(delayed(abs)(x) for x in [-1, 2]))
    raise
"""


@pytest.mark.parametrize("return_as", ["list", "generator"])
def test_ctrl_c_ends_the_call_and_its_workers_at_once(tmp_path: Path, return_as: str) -> None:
    beacons = [Beacon(tmp_path / "a"), Beacon(tmp_path / "b")]
    arguments = [*(str(beacon.path) for beacon in beacons), return_as]
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", INTERRUPTED, *arguments]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        while not all(beacon.pid for beacon in beacons):
            time.sleep(0.001)
        program.send_signal(signal.SIGINT)
        output, complaint = program.communicate(timeout=20)  # the calls would go on forever
        assert program.returncode == -signal.SIGINT
    assert output == "[1, 2]\n"  # the next call works
    assert complaint.rstrip().endswith("KeyboardInterrupt")
    assert not any(psutil.pid_exists(beacon.pid) for beacon in beacons)


HALF_CONSUMED = """
import itertools, sys, threading
from asyncpar import Parallel, delayed
backend, where = sys.argv[1:]
def consume():
    results = Parallel(n_jobs=2, backend=backend, return_as="generator")(delayed(abs)(x) for x in itertools.count())
    print(next(results), next(results))
    return results
if where == "thread":
    kept, begun = [], threading.Event()
    def keep():
        kept.append(consume())
        begun.set()
        threading.main_thread().join()
    threading.Thread(target=keep).start()
    begun.wait()
else:
    results = consume()
"""


@pytest.mark.parametrize("where", ["main", "thread"])
@pytest.mark.parametrize("backend", ["process", "thread", "inline"])
def test_a_program_may_end_with_a_generator_half_consumed(backend: str, where: str) -> None:
    assert run("-W", "error", "-c", HALF_CONSUMED, backend, where) == "0 1\n"


STUCK = """
import threading
from asyncpar import Parallel, delayed
began = threading.Event()
def stick(x):
    began.set()
    threading.Event().wait()
results = Parallel(n_jobs=2, backend="thread", return_as="generator")([delayed(stick)(0)])
began.wait()
"""


def test_a_program_may_end_while_a_thread_is_stuck_in_a_call() -> None:
    assert run("-c", STUCK) == ""


STILL_CALLING = """
import threading, time
from asyncpar import Parallel, delayed
def call():
    threading.main_thread().join()
    for _ in range(3):
        print(Parallel(n_jobs=2)(delayed(abs)(x) for x in range(3)))
print(Parallel(n_jobs=2)([delayed(abs)(-1)]))
threading.Thread(target=call).start()
"""


def test_a_thread_may_go_on_calling_after_the_main_one_has_ended() -> None:
    assert run("-c", STILL_CALLING) == "[1]\n" + "[0, 1, 2]\n" * 3


AT_EXIT = """
import atexit, sys
from asyncpar import ExecutorUnavailableError, Parallel, delayed
def end():
    try:
        print(Parallel(n_jobs=2, backend=sys.argv[1])(delayed(abs)(x) for x in [-1, 2]))
    except ExecutorUnavailableError as error:
        print(error)
atexit.register(end)
if sys.argv[2] == "again":
    print(Parallel(n_jobs=2)([delayed(abs)(-3)]))
"""


@pytest.mark.parametrize("backend", ["process", "thread"])
@pytest.mark.parametrize("which", ["first", "again"])
def test_an_atexit_callback_may_call_parallel_or_is_told_what_to_do(backend: str, which: str) -> None:
    output = run("-c", AT_EXIT, backend, which).removeprefix("[3]\n")
    if sys.version_info[:2] == (3, 12):  # some of its releases start no thread then
        assert (
            output == "[1, 2]\n"
            or "could not be started: can't create new thread at interpreter shutdown; use n_jobs=1" in output
        )
    else:
        assert output == "[1, 2]\n"


NO_THREADS = """
import resource, threading
from asyncpar import ExecutorUnavailableError, Parallel, delayed
resource.setrlimit(resource.RLIMIT_AS, (1 << 32, 1 << 32))
threading.stack_size(1 << 33)
try:
    Parallel(n_jobs=2)([delayed(abs)(-1)])
except ExecutorUnavailableError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux is sure to hold a program to a limit of its address space")
def test_where_no_thread_can_be_started_parallel_says_so() -> None:
    assert "could not be started: can't start new thread; use n_jobs=1, which needs no thread" in run("-c", NO_THREADS)


FORKED = """
import os, warnings
from asyncpar import Parallel, delayed
warnings.simplefilter("ignore", DeprecationWarning)  # CPython's, about forks of programs with threads
def double(x):
    return 2 * x
with Parallel(n_jobs=2) as parallel:
    results = Parallel(n_jobs=2, return_as="generator")(delayed(double)(x) for x in range(1000))
    print(next(results), parallel(delayed(double)(x) for x in range(3)), flush=True)
    pid = os.fork()
    if pid == 0:
        try:
            next(results)
        except RuntimeError as error:
            print("child:", error)
        print("child:", parallel(delayed(double)(x) for x in range(3)), flush=True)
    else:
        assert os.waitpid(pid, 0)[1] == 0
        print("parent:", parallel(delayed(double)(x) for x in range(3)), sum(results))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_fork_has_a_face_of_its_own_and_leaves_its_parents_alone() -> None:
    assert run("-c", FORKED).splitlines() == [
        "0 [0, 2, 4]",
        "child: this generator belongs to the process that this one was forked from",
        "child: [0, 2, 4]",
        "parent: [0, 2, 4] 999000",
    ]


LIGHT = """
import sys
from asyncpar import Parallel, delayed
print(sorted({"anyio", "asyncio", "numpy", "uvloop", "cloudpickle"} & set(sys.modules)))
print(Parallel(n_jobs=2)(delayed(lambda: sorted({"anyio", "asyncio", "numpy"} & set(sys.modules)))() for _ in range(2)))
"""


def test_importing_the_names_is_cheap_here_and_in_workers() -> None:
    assert run("-c", LIGHT) == "[]\n[[], []]\n"
