"""`Parallel` and `asyncpar.map` over the cached twins of functions, and over other calls beside them."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import asyncpar
from asyncpar import Memory, Parallel, ProcessExecutor, Statistics, delayed
from tests.cache.mapped import calls_noted, fail_on_odd, listed, square, wide
from tests.calls.processes import write_and_square


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path / "cache", verbose=0)


@pytest.mark.parametrize("backend", ["process", "thread", "inline"])
def test_parallel_over_a_twin_finds_what_earlier_calls_computed(tmp_path: Path, backend: str) -> None:
    memory = Memory(tmp_path / "cache", verbose=0)
    ran = tmp_path / "ran"
    ran.mkdir()
    offset = 5
    twin = memory.cache(lambda folder, x: write_and_square(folder, x) + offset)
    for _ in range(2):
        assert Parallel(n_jobs=2, backend=backend)(delayed(twin)(str(ran), x) for x in range(4)) == [5, 6, 9, 14]
    assert len(list(ran.iterdir())) == 4


@pytest.mark.parametrize("backend", ["process", "thread"])
@pytest.mark.parametrize("how", [list, iter])
def test_equal_tasks_are_computed_once_in_whatever_form_they_come(
    tmp_path: Path, memory: Memory, backend: str, how: Any
) -> None:
    folder, twin = str(tmp_path), memory.cache(square)
    tasks: list[Any] = [delayed(twin)(folder, 3), delayed(twin)(folder, x=3), delayed(twin)(x=3, folder=folder)] * 5
    tasks += [delayed(abs)(-3), delayed(dict)(), delayed(twin)(folder, 4)] * 20
    random.Random(1).shuffle(tasks)
    expected = [abs(-3) if task[0] is abs else {} if task[0] is dict else (16 if 4 in task[1] else 9) for task in tasks]
    for _ in range(2):
        assert Parallel(n_jobs=2, backend=backend)(how(tasks)) == expected
    assert calls_noted(folder) == ["3", "4"]


@pytest.mark.parametrize("backend", ["process", "thread"])
def test_twins_of_different_functions_and_memories_are_told_apart(tmp_path: Path, memory: Memory, backend: str) -> None:
    folder, other = str(tmp_path), Memory(tmp_path / "other", verbose=0)
    tasks = [delayed(one.cache(function))(folder, 3) for function in (square, listed) for one in (memory, other)] * 10
    for _ in range(2):
        assert Parallel(n_jobs=2, backend=backend)(tasks) == ([9] * 2 + [[3] * 3] * 2) * 10
    assert calls_noted(folder) == ["3"] * 4


@pytest.mark.parametrize("backend", ["process", "thread"])
def test_methods_and_calls_without_arguments_are_cached_too(tmp_path: Path, memory: Memory, backend: str) -> None:
    class Scaled:
        def __init__(self, factor: int) -> None:
            self.factor = factor

        def __reduce__(self) -> Any:
            return Scaled, (self.factor,)

    def times(self: Any, x: int) -> int:
        write_and_square(str(tmp_path), x)
        return int(self.factor * x)

    def nothing() -> int:
        write_and_square(str(tmp_path), 99)
        return 7

    Scaled.times = memory.cache(times)  # type: ignore[attr-defined]
    scaled: Any = Scaled(3)
    for _ in range(2):
        assert Parallel(n_jobs=2, backend=backend)(delayed(scaled.times)(x) for x in (1, 2, 1)) == [3, 6, 3]
        assert Parallel(n_jobs=2, backend=backend)(delayed(memory.cache(nothing))() for _ in range(5)) == [7] * 5
    assert sorted(path.name.rpartition("-")[2] for path in tmp_path.glob("*-*")) == ["1", "2", "99"]


def test_a_parallel_of_which_all_is_cached_starts_no_worker(tmp_path: Path, memory: Memory) -> None:
    twin = memory.cache(square)
    for x in range(20):
        twin(str(tmp_path), x)
    executor = ProcessExecutor(2)
    parallel = Parallel(n_jobs=2, backend=executor)
    assert parallel(delayed(twin)(str(tmp_path), x) for x in range(20)) == [x * x for x in range(20)]
    assert list(Parallel(2, executor, return_as="generator")(delayed(twin)(str(tmp_path), x) for x in range(3))) == [0, 1, 4]
    assert executor._zygote is None


@pytest.mark.parametrize("backend", ["process", "thread"])
@pytest.mark.parametrize("pre_dispatch", [1, 3, "2 * n_jobs", "all"])
def test_generators_and_windows_work_as_without_a_cache(
    tmp_path: Path, memory: Memory, backend: str, pre_dispatch: Any
) -> None:
    twin = memory.cache(listed)
    for x in range(0, 40, 2):
        twin(str(tmp_path), x)
    seen: list[Statistics] = []
    for return_as in ("generator", "generator_unordered"):
        parallel = Parallel(2, backend, return_as, pre_dispatch=pre_dispatch, progress=seen.append)
        results = list(parallel(delayed(twin)(str(tmp_path), x) for x in range(40)))
        assert sorted(results) == [[x] * 3 for x in range(40)]
        assert seen[-1].finished == 40
    assert len(calls_noted(tmp_path)) == 40
    assert seen[-1].cache_hits == 40


@pytest.mark.parametrize("backend", ["process", "thread"])
def test_errors_of_cached_tasks_are_not_kept(tmp_path: Path, memory: Memory, backend: str) -> None:
    twin = memory.cache(fail_on_odd)
    for times in (1, 2):
        with pytest.raises(ValueError, match="is odd"):
            Parallel(n_jobs=2, backend=backend)(delayed(twin)(str(tmp_path), x) for x in (2, 1))
        results = Parallel(2, backend, on_error="return")(delayed(twin)(str(tmp_path), x=x) for x in (2, 3, 3))
        assert [str(result) for result in results] == ["2", "3 is odd", "3 is odd"]
        assert calls_noted(tmp_path).count("3") == 2 * times
    assert calls_noted(tmp_path).count("2") == 1


def test_large_results_of_tasks_are_mapped(tmp_path: Path) -> None:
    twin = Memory(tmp_path / "cache", verbose=0, mmap_mode="r").cache(wide)
    for _ in range(2):
        results = Parallel(n_jobs=2)(delayed(twin)(str(tmp_path), x) for x in (1, 2, 1))
        assert [int(result[0]) for result in results] == [1, 2, 1]
        assert not any(result.flags.writeable for result in results)
    assert calls_noted(tmp_path) == ["1", "2"]
    del results


@pytest.mark.parametrize("executor", ["process", "thread", "inline"])
def test_map_finds_what_earlier_maps_computed(tmp_path: Path, memory: Memory, executor: str) -> None:
    folder = str(tmp_path)
    for _ in range(2):
        results = asyncpar.map(square, [folder] * 9, [1, 2, 1, 3, 2, 4, 5, 6, 1], cache=memory, executor=executor)
        assert list(results) == [1, 4, 1, 9, 4, 16, 25, 36, 1]
    assert calls_noted(folder) == list("123456")


def test_map_pulls_in_the_thread_that_iterates(tmp_path: Path, memory: Memory) -> None:
    def items() -> Iterator[int]:
        yield from range(100)

    for _ in range(2):
        results = asyncpar.map(square, [str(tmp_path)] * 100, items(), cache=memory, executor="thread")
        assert next(results) == 0
        assert list(results) == [x * x for x in range(1, 100)]


SCRIPT = """
import sys, tempfile
from asyncpar import Memory, Parallel, delayed, map

memory = Memory(sys.argv[1], verbose=0)
calls = sys.argv[2]

class Point:
    def __init__(self, x, size=0):
        self.x = x
        self.weight = bytes(size)

@memory.cache
def doubled(point):
    with open(calls, "a") as file:
        print(point.x, file=file)
    return Point(2 * point.x, 100_000 if point.x == 3 else 0)

if __name__ == "__main__":
    for _ in range(2):
        print([p.x for p in Parallel(n_jobs=2)(delayed(doubled)(Point(x)) for x in (1, 2, 1))])
        print([p.x for p in map(doubled, [Point(3), Point(3)], executor="process")])
        print(type(next(map(doubled, [Point(3)], executor="process"))) is Point)
"""


def test_twins_and_classes_of_a_script_are_known_to_its_workers(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tmp_path / "cache"), str(tmp_path / "calls")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.stdout == "[2, 4, 2]\n[6, 6]\nTrue\n" * 2, done.stderr
    assert calls_noted(tmp_path) == ["1", "2", "3"]
