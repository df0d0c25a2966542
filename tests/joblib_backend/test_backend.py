"""joblib on asyncpar: the results, the order and the settings are those of joblib's own backends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]  # it has no type information
import numpy as np
import psutil
import pytest
from joblib import Parallel, delayed

from asyncpar._platform.cpus import cpu_count
from tests.functions import add, double, identity, process_id, raise_value_error
from tests.joblib_backend.functions import (
    are_one,
    environment,
    is_read_only,
    where,
    where_below,
    where_far_below,
    where_here_and_in_multiprocessing,
    write_to,
)

variable: ContextVar[str] = ContextVar("variable", default="unset")


@pytest.mark.parametrize("batch_size", ["auto", 1, 7])
@pytest.mark.parametrize("pre_dispatch", ["2 * n_jobs", "all", 3])
def test_results_come_in_order(batch_size: Any, pre_dispatch: Any) -> None:
    parallel = Parallel(n_jobs=2, backend="asyncpar", batch_size=batch_size, pre_dispatch=pre_dispatch)
    assert parallel(delayed(add)(x, b=1) for x in range(100)) == list(range(1, 101))
    assert parallel(delayed(double)(x) for x in range(30)) == list(range(0, 60, 2))
    assert parallel([]) == []


@pytest.mark.parametrize("n_jobs", [2, 3, -1])
def test_a_with_serves_many_calls(n_jobs: int) -> None:
    with joblib.parallel_config(backend="asyncpar", n_jobs=n_jobs), Parallel() as parallel:
        for size in [1, 10, 200]:
            assert parallel(delayed(double)(x) for x in range(size)) == list(range(0, 2 * size, 2))


def test_the_older_name_of_the_context_manager_works() -> None:
    with joblib.parallel_backend("asyncpar", n_jobs=2):
        assert os.getpid() not in Parallel()(delayed(process_id)(x) for x in range(4))


@pytest.mark.parametrize("n_jobs", [None, 1])
def test_one_worker_is_a_loop_in_this_process(n_jobs: int | None) -> None:
    assert set(Parallel(n_jobs=n_jobs, backend="asyncpar")(delayed(process_id)(x) for x in range(4))) == {os.getpid()}


def test_workers_are_counted_as_joblib_counts_them() -> None:
    with joblib.parallel_config(backend="asyncpar"):
        assert joblib.effective_n_jobs(3) == 3
        assert joblib.effective_n_jobs(-1) == cpu_count()
        assert joblib.effective_n_jobs(None) == 1
        assert joblib.effective_n_jobs(2.5) == 2
        with pytest.raises(ValueError, match="n_jobs == 0"):
            joblib.effective_n_jobs(0)


def test_functions_and_classes_may_be_local() -> None:
    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

    points = Parallel(n_jobs=2, backend="asyncpar")(delayed(lambda x: Point(x))(x) for x in range(5))
    assert [point.x for point in points] == list(range(5))
    assert type(points[0]) is Point


@pytest.mark.parametrize("return_as", ["generator", "generator_unordered"])
def test_generators_give_all_results(return_as: str) -> None:
    results = Parallel(n_jobs=2, backend="asyncpar", return_as=return_as)(delayed(double)(x) for x in range(50))
    values = list(results)
    assert sorted(values) == list(range(0, 100, 2))
    assert return_as == "generator_unordered" or values == sorted(values)


@pytest.mark.parametrize("return_as", ["generator", "generator_unordered"])
def test_a_generator_and_a_second_call_may_overlap(return_as: str) -> None:
    with joblib.parallel_config(backend="asyncpar", n_jobs=2):
        first = Parallel(return_as=return_as)(delayed(double)(x) for x in range(50))
        seen = [next(first)]
        second = Parallel(return_as=return_as)(delayed(add)(x, 1) for x in range(50))
        assert Parallel()(delayed(identity)(x) for x in range(9)) == list(range(9))
        seen += first
        assert sorted(second) == list(range(1, 51))
    assert sorted(seen) == list(range(0, 100, 2))


def test_threads_may_call_at_once() -> None:
    answers: list[Any] = []

    def call(factor: int) -> None:
        with joblib.parallel_config(backend="asyncpar", n_jobs=2):
            answers.append((factor, Parallel()(delayed(double)(x * factor) for x in range(40))))

    threads = [threading.Thread(target=call, args=(factor,)) for factor in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [(factor, [2 * x * factor for x in range(40)]) for factor in range(4)]


def test_the_iterable_is_pulled_in_the_context_of_the_call_and_as_far_as_pre_dispatch_allows() -> None:
    pulled: list[str] = []

    def tasks() -> Iterator[Any]:
        for x in range(40):
            pulled.append(variable.get())
            yield delayed(identity)(x)

    variable.set("set")
    parallel = Parallel(n_jobs=2, backend="asyncpar", return_as="generator", pre_dispatch=4, batch_size=1)
    assert list(parallel(tasks())) == list(range(40))
    assert pulled == ["set"] * 40


def test_a_batch_is_one_pickle_and_so_what_its_tasks_share_is_one_object() -> None:
    shared = [object]
    assert all(Parallel(n_jobs=2, backend="asyncpar", batch_size=2)(delayed(are_one)(shared, b=shared) for _ in range(4)))


@pytest.mark.usefixtures("warm_loky")
@pytest.mark.parametrize("backend", ["asyncpar", "loky"])
def test_a_parallel_in_a_task_uses_threads_and_one_in_that_a_loop(backend: str) -> None:
    below = Parallel(n_jobs=2, backend=backend)(delayed(where_below)() for _ in range(2))
    for wheres in below:
        assert len({where.pid for where in wheres}) == 1
        assert {where.thread for where in wheres} != {"MainThread"}
    far_below = Parallel(n_jobs=2, backend=backend)(delayed(where_far_below)() for _ in range(2))
    for outer in far_below:
        for wheres in outer:
            assert len({(where.pid, where.thread) for where in wheres}) == 1


def test_processes_do_not_multiply_where_a_task_names_the_backend() -> None:
    for wheres in Parallel(n_jobs=2, backend="asyncpar")(delayed(where_below)("asyncpar") for _ in range(2)):
        assert len({where.pid for where in wheres}) == 1
    for wheres in Parallel(n_jobs=2, backend="threading")(delayed(where_below)("asyncpar") for _ in range(2)):
        assert {where.pid for where in wheres} == {os.getpid()}
    (outer,) = Parallel(n_jobs=2, backend="asyncpar")([delayed(where_far_below)("asyncpar")])
    for wheres in outer:
        assert len({(where.pid, where.thread) for where in wheres}) == 1


@pytest.mark.usefixtures("warm_loky")
@pytest.mark.parametrize("backend", ["asyncpar", "loky"])
def test_a_task_that_asks_for_multiprocessing_gets_a_loop(backend: str) -> None:
    for wheres in Parallel(n_jobs=2, backend=backend)(delayed(where_here_and_in_multiprocessing)() for _ in range(2)):
        assert len({(where.pid, where.thread) for where in wheres}) == 1


def test_a_worker_is_as_before_for_other_calls() -> None:
    from asyncpar import map as parallel_map

    before = list(parallel_map(where, range(2), n_jobs=1, executor="process"))
    Parallel(n_jobs=2, backend="asyncpar")(delayed(where)() for _ in range(4))
    after = list(parallel_map(where, range(2), n_jobs=1, executor="process"))
    assert {where.backend for where in before} == {where.backend for where in after} == {"LokyBackend"}


def test_what_needs_shared_memory_gets_threads() -> None:
    with joblib.parallel_config(backend="asyncpar", n_jobs=2):
        assert set(Parallel(require="sharedmem")(delayed(process_id)(x) for x in range(4))) == {os.getpid()}
    with pytest.raises(ValueError, match="shared memory"):
        Parallel(n_jobs=2, backend="asyncpar", require="sharedmem")


def test_inner_threads_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with joblib.parallel_config(backend="asyncpar", n_jobs=2, inner_max_num_threads=3):
        assert Parallel()(delayed(environment)("OMP_NUM_THREADS") for _ in range(2)) == ["3", "3"]
    with joblib.parallel_config(backend="asyncpar", n_jobs=cpu_count() + 1):
        assert Parallel()(delayed(environment)("OMP_NUM_THREADS") for _ in range(2)) == ["1", "1"]


def test_large_arrays_are_shared_as_joblibs_options_say() -> None:
    array = np.arange(1000.0)
    for max_nbytes, read_only in [(100, True), (None, False), ("1M", False)]:
        parallel = Parallel(n_jobs=2, backend="asyncpar", mmap_mode="r", temp_folder="/nowhere", max_nbytes=max_nbytes)
        assert parallel(delayed(is_read_only)(array) for _ in range(3)) == [read_only] * 3
    for mode in ["c", "r+", "w+"]:
        parallel = Parallel(n_jobs=2, backend="asyncpar", mmap_mode=mode, max_nbytes=100)
        assert parallel(delayed(write_to)(array) for _ in range(2)) == [7, 7]
    assert Parallel(n_jobs=2, backend="asyncpar", mmap_mode=None, max_nbytes=100)([delayed(is_read_only)(array)]) == [False]


def test_parameters_of_the_backend_are_those_of_the_process_executor(tmp_path: Path) -> None:
    with joblib.parallel_config(backend="asyncpar", n_jobs=2, initializer=(tmp_path / "begun").touch):
        assert Parallel()(delayed(double)(x) for x in range(3)) == [0, 2, 4]
        with Parallel() as parallel:
            pids = [{*parallel(delayed(process_id)(x) for x in range(4))} for _ in range(2)]
    assert (tmp_path / "begun").exists()
    assert len(pids[0] | pids[1]) <= 2
    assert not any(psutil.pid_exists(pid) for pid in pids[0] | pids[1])
    with joblib.parallel_config(backend="asyncpar", n_jobs=2, idle_worker_timeout=1):
        assert Parallel()([delayed(double)(2)]) == [4]
    with joblib.parallel_config(backend="asyncpar", n_jobs=2, colour=1), pytest.raises(TypeError, match="colour"):
        Parallel()([delayed(double)(2)])


def test_progress_is_printed_as_joblib_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert Parallel(n_jobs=2, backend="asyncpar", verbose=51)(delayed(double)(x) for x in range(8)) == list(range(0, 16, 2))
    printed = capsys.readouterr().out
    assert "Using backend AsyncparBackend with 2 concurrent workers" in printed
    assert "Done   8 out of   8" in printed


def test_a_cached_function_finds_its_results_in_workers(tmp_path: Path) -> None:
    memory = joblib.Memory(tmp_path, verbose=0)
    cached = memory.cache(double)
    for _ in range(2):
        assert Parallel(n_jobs=2, backend="asyncpar")(delayed(cached)(x) for x in range(6)) == list(range(0, 12, 2))
    assert cached.check_call_in_cache(5)


def test_joblib_is_imported_only_with_the_backend_and_asked_for_where_it_is_missing() -> None:
    script = """
import sys, asyncpar.joblib
asyncpar.Parallel(n_jobs=2)([asyncpar.delayed(abs)(-1)] * 3)
assert "joblib" not in sys.modules
sys.modules["joblib"] = None
try:
    asyncpar.joblib.register()
except ImportError as error:
    print(error)
"""
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "install joblib" in answer.stdout


def test_an_error_ends_the_call_and_the_next_one_works() -> None:
    parallel = Parallel(n_jobs=2, backend="asyncpar")
    with pytest.raises(ValueError, match="bad 1") as caught:
        parallel(delayed(raise_value_error)(x) for x in range(1, 2))
    assert any("task 0, raise_value_error(1)" in note for note in caught.value.__notes__)
    assert parallel(delayed(double)(x) for x in range(3)) == [0, 2, 4]


@pytest.mark.parametrize("return_as", ["list", "generator"])
def test_joblib_does_not_look_every_10_ms_for_ordered_results(monkeypatch: pytest.MonkeyPatch, return_as: str) -> None:
    def refuse(seconds: float) -> None:
        raise AssertionError("joblib sleeps")

    monkeypatch.setattr("joblib.parallel.time.sleep", refuse)
    parallel = Parallel(n_jobs=2, backend="asyncpar", return_as=return_as)
    assert list(parallel(delayed(double)(x) for x in range(200))) == list(range(0, 400, 2))
