"""A full disk, two versions of a function at once, a program that is killed in the middle, and forks."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from asyncpar import Memory

ROOT = Path(__file__).parents[2]


def start(folder: Path, program: str, *, name: str = "program") -> subprocess.Popen[str]:
    script = folder / f"{name}.py"
    script.write_text(textwrap.dedent(program))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, script, str(folder)], env=environment, stdout=subprocess.PIPE, text=True)


def output(folder: Path, program: str, *, name: str = "program") -> str:
    process = start(folder, program, name=name)
    printed, _ = process.communicate(timeout=50)
    assert process.returncode == 0
    return printed


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.glob("cache/v1/*/??/*") if path.is_file()]


def power(base: int, exponent: int) -> int:
    return int(base**exponent)


FULL = """
    import resource, signal, sys, warnings
    from asyncpar import Memory
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))  # as if the disk were full from there on
    cached = Memory(sys.argv[1] + "/cache", verbose=0).cache(lambda n: bytes(n))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        print([len(cached(n)) for n in (10, 10**5, 2 * 10**6, 10)])
    print([str(warning.message).split(":")[0].split(" in ")[0] for warning in warned])
"""


def test_a_full_disk_costs_only_the_cache(tmp_path: Path) -> None:
    assert output(tmp_path, FULL) == "[10, 100000, 2000000, 10]\n['results cannot be kept']\n"
    assert [path.stat().st_size < 1000 for path in entries(tmp_path)] == [True]
    assert list((tmp_path / "cache" / "v1" / "new").iterdir()) == []


VERSION = """
    import sys
    from asyncpar import Memory
    def f(x):
        return x + {}
    print(Memory(sys.argv[1] + "/cache", verbose=0).cache(f)(1))
"""


def test_two_versions_of_a_function_do_not_disturb_each_other(tmp_path: Path) -> None:
    assert [output(tmp_path, VERSION.format(number)) for number in (1, 2, 1)] == ["2\n", "3\n", "2\n"]
    assert len(entries(tmp_path)) == 2


MAP = """
    import pathlib, sys, time
    from asyncpar import Memory, Parallel, delayed

    folder = sys.argv[1]
    memory = Memory(folder + "/cache", verbose=0)

    def work(x):
        (pathlib.Path(folder) / f"ran-{x}-{time.monotonic_ns()}").touch()
        return x * x

    print("begin", flush=True)
    results = Parallel(n_jobs=2, pre_dispatch=8)(delayed(memory.cache(work))(x) for x in range(400))
    print(sum(results))
"""


def test_a_map_that_was_killed_goes_on_where_it_stopped(tmp_path: Path) -> None:
    process = start(tmp_path, MAP)
    assert process.stdout is not None
    process.stdout.readline()
    while len(list(tmp_path.glob("ran-*"))) < 50:
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = len(entries(tmp_path))
    ran_before = len(list(tmp_path.glob("ran-*")))
    assert output(tmp_path, MAP).splitlines()[-1] == str(sum(x * x for x in range(400)))
    ran_after = len(list(tmp_path.glob("ran-*")))
    assert ran_after - ran_before <= 400 - kept
    assert len(entries(tmp_path)) == 400


FORK = """
    import os, sys
    from asyncpar import Memory

    def power(base, exponent):
        return base**exponent

    memory = Memory(sys.argv[1] + "/cache", verbose=0)
    cached = memory.cache(power)
    locks = memory._store.locks
    key = b"k" * 20

    def in_a_child(function):
        child = os.fork()
        if not child:
            os._exit(function())
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    cached(2, 2)
    claim = locks.try_claim(key)
    print(in_a_child(lambda: 1 if locks.try_claim(key) is None else 0))  # the parent has it
    print(in_a_child(lambda: cached(2, 5)))  # opens and closes the file of the locks
    print(in_a_child(lambda: 1 if locks.try_claim(key) is None else 0))  # the parent still has it
    claim.release()
    print(in_a_child(lambda: 1 if locks.try_claim(key) is None else 0), cached(2, 5))
"""


def test_a_forked_child_uses_the_cache_and_leaves_its_parents_locks(tmp_path: Path) -> None:
    assert output(tmp_path, FORK).split() == ["1", "32", "1", "0", "32"]


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    cached = Memory(tmp_path / "cache", verbose=0).cache(power)
    before = len(os.listdir("/proc/self/fd"))
    for x in range(20):
        cached(x, 2)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif(sys.version_info < (3, 13), reason="a map holds a descriptor before Python 3.13")
def test_mapped_results_hold_no_descriptors(tmp_path: Path) -> None:
    import numpy as np

    cached = Memory(tmp_path / "cache", verbose=0, mmap_mode="r").cache(lambda x: np.zeros(10_000))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, limit[1]))
    try:
        held = [cached(x) for x in range(200)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert len(held) == 200


def test_a_cache_that_cannot_note_when_it_was_pruned_returns_its_results(tmp_path: Path) -> None:
    (tmp_path / "cache" / "v1" / "pruned").mkdir(parents=True)
    (tmp_path / "cache").chmod(0o700)
    cached = Memory(tmp_path / "cache", verbose=0, size_limit=1, age_limit=1).cache(power)
    assert [cached(2, 3), cached(2, 3)] == [8, 8]


def test_a_program_that_ends_at_once_has_pruned_its_cache(tmp_path: Path) -> None:
    program = """
        import sys
        from asyncpar import Memory

        memory = Memory(f"{sys.argv[1]}/cache", verbose=0, size_limit=100_000)
        cached = memory.cache(lambda x: bytes(1000))
        for x in range(97):
            cached(x)
    """
    assert output(tmp_path, program) == ""
    assert 50 < len(entries(tmp_path)) < 95
