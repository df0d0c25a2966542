"""Whatever goes wrong: joblib's users see the error that they expect, nothing runs on, and the next call works."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]  # it has no type information
import psutil
import pytest
from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError  # type: ignore[import-untyped]

from asyncpar import CallTimeoutError, ExecutorUnavailableError, PicklingError, WorkerDiedError
from tests.functions import Beacon, add, double, identity, kill_self, raise_value_error
from tests.joblib_backend.functions import die_once, exit_by_itself, fail_when_spinning, stop_iterating, wait_for

RETURN_AS = ["list", "generator", "generator_unordered"]


@pytest.fixture
def beacon(tmp_path: Path) -> Beacon:
    return Beacon(tmp_path / "beacon")


def works(parallel: Any) -> bool:
    return sorted(parallel(delayed(double)(x) for x in range(9))) == list(range(0, 18, 2))


@pytest.mark.parametrize("return_as", RETURN_AS)
def test_a_task_that_kills_its_worker_is_named(return_as: str) -> None:
    parallel = Parallel(n_jobs=2, backend="asyncpar", return_as=return_as, batch_size=4)
    with pytest.raises(TerminatedWorkerError, match=r"SIGKILL.*task 5, kill_self\(5\)") as caught:
        list(parallel(delayed(kill_self if x == 5 else identity)(x) for x in range(20)))
    error = caught.value
    assert isinstance(error, WorkerDiedError)
    assert (error.index, error.signal) == (5, signal.SIGKILL)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert works(parallel)


@pytest.mark.parametrize("return_as", RETURN_AS)
def test_an_error_ends_tasks_that_are_running(return_as: str, beacon: Beacon) -> None:
    with Parallel(n_jobs=2, backend="asyncpar", return_as=return_as) as parallel:
        with pytest.raises(LookupError, match="not found"):
            list(parallel([delayed(beacon.spin)(), delayed(fail_when_spinning)(beacon)]))
        assert not psutil.pid_exists(beacon.pid)
        assert works(parallel)


def test_nothing_is_pulled_once_a_task_has_failed(tmp_path: Path) -> None:
    pulled: list[int] = []

    def tasks() -> Iterator[Any]:
        for x in range(9):
            pulled.append(x)
            yield delayed(raise_value_error)(x) if x else delayed(wait_for)(tmp_path / "go")

    parallel = Parallel(n_jobs=2, backend="asyncpar", return_as="generator", pre_dispatch=2, batch_size=1)
    results = parallel(tasks())
    jobs = parallel._backend._jobs
    while jobs._failed is None:
        time.sleep(0.001)
    (tmp_path / "go").touch()
    while jobs._unsettled:
        time.sleep(0.001)
    assert pulled == [0, 1]
    assert next(results) is None
    with pytest.raises(ValueError, match="bad 1"):
        next(results)


def test_a_batch_ends_between_two_tasks_when_the_call_fails(beacon: Beacon) -> None:
    naps = [delayed(beacon.nap)(x) for x in range(2000)]
    failing = [delayed(fail_when_spinning)(beacon)] * 2000
    with pytest.raises(LookupError, match="not found"):
        Parallel(n_jobs=2, backend="asyncpar", batch_size=2000, pre_dispatch="all")(naps + failing)
    assert 0 < beacon.count < 2000
    assert psutil.pid_exists(beacon.pid)


def test_tasks_after_one_that_fails_are_not_made(beacon: Beacon) -> None:
    parallel = Parallel(n_jobs=2, backend="asyncpar", batch_size=3, pre_dispatch="all")
    with pytest.raises(ValueError, match="bad 3"):
        parallel([delayed(identity)(x) for x in range(3)] + [delayed(raise_value_error)(3)] + [delayed(beacon.nap)(0)] * 2)
    assert beacon.count == 0


def test_what_a_failed_call_has_not_dispatched_is_not_left_to_the_next(beacon: Beacon) -> None:
    parallel = Parallel(n_jobs=2, backend="asyncpar", batch_size=4)
    with pytest.raises(ValueError, match="bad 5"):
        parallel(delayed({2: beacon.spin, 5: raise_value_error}.get(x, identity))(x) for x in range(28))
    assert works(parallel)


@pytest.mark.parametrize("return_as", RETURN_AS)
def test_a_task_that_cannot_be_pickled_is_named(return_as: str) -> None:
    parallel = Parallel(n_jobs=2, backend="asyncpar", return_as=return_as)
    with pytest.raises(pickle.PicklingError, match=r"the task to send.*task 1, identity\(") as caught:
        list(parallel(delayed(identity)(x) for x in [0, {"model": threading.Lock()}]))
    assert isinstance(caught.value, PicklingError)
    assert caught.value.type_name == "_thread.lock"
    assert works(parallel)


@pytest.mark.parametrize(
    ("task", "path"),
    [
        (delayed(identity)({"model": threading.Lock()}), "arguments[0]['model']"),
        (delayed(add)(1, b=threading.Lock()), "keywords['b']"),
        (delayed([threading.Lock()].count)(1), "function.__self__[0]"),
    ],
)
def test_what_cannot_be_pickled_is_found_in_the_task_as_it_is_written(task: Any, path: str) -> None:
    with pytest.raises(PicklingError, match=f': {re.escape(path)}, a _thread.lock, .*backend="threading"') as caught:
        Parallel(n_jobs=2, backend="asyncpar")([task])
    assert caught.value.path == path
    assert "the workers: task 0, " in str(caught.value)


def test_a_result_that_cannot_be_pickled_is_an_error() -> None:
    parallel = Parallel(n_jobs=2, backend="asyncpar")
    with pytest.raises(pickle.PicklingError):
        parallel(delayed(threading.Lock)() for _ in range(3))
    assert works(parallel)


@pytest.mark.usefixtures("warm_loky")
@pytest.mark.parametrize(
    "tasks", [[1], [(identity,)], [(5, (), {})], [(identity, (1,), None)], [(identity, 1, {})], [delayed(identity)(1, 2)]]
)
def test_what_is_no_task_fails_as_with_joblibs_own_workers(tasks: list[Any]) -> None:
    errors = []
    for backend in ["loky", "asyncpar"]:
        with pytest.raises((TypeError, ValueError)) as caught:
            Parallel(n_jobs=2, backend=backend)(tasks)
        errors.append((type(caught.value), str(caught.value)))
    assert errors[0] == errors[1]
    assert any("raised by task 0" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("seconds", [float("inf"), 1e20])
def test_a_timeout_may_be_longer_than_a_thread_can_wait(seconds: float) -> None:
    assert works(Parallel(n_jobs=2, backend="asyncpar", timeout=seconds))


@pytest.mark.parametrize("return_as", RETURN_AS)
def test_a_timeout_ends_the_tasks(return_as: str, beacon: Beacon) -> None:
    parallel = Parallel(n_jobs=2, backend="asyncpar", return_as=return_as, timeout=0.3)
    with pytest.raises(multiprocessing.TimeoutError) as caught:
        list(parallel([delayed(beacon.spin)(), delayed(beacon.spin)()]))
    assert return_as == "generator_unordered" or isinstance(caught.value, CallTimeoutError)
    assert not psutil.pid_exists(beacon.pid)
    assert works(Parallel(n_jobs=2, backend="asyncpar"))


def test_a_task_that_exits_does_not_end_the_program() -> None:
    parallel = Parallel(n_jobs=2, backend="asyncpar")
    with pytest.raises(RuntimeError, match=r"task 0, exit_by_itself.* raised SystemExit: 5"):
        parallel([delayed(exit_by_itself)()])
    with pytest.raises(RuntimeError, match="StopIteration"):
        parallel([delayed(stop_iterating)()])
    assert works(parallel)


@pytest.mark.parametrize("return_as", RETURN_AS)
def test_an_error_of_the_iterable_is_raised(return_as: str, beacon: Beacon) -> None:
    def tasks() -> Iterator[Any]:
        for x in range(10):
            yield delayed(identity)(x)
        raise LookupError("no more")

    parallel = Parallel(n_jobs=2, backend="asyncpar", return_as=return_as)
    with pytest.raises(LookupError, match="no more"):
        list(parallel(tasks()))
    assert works(parallel)


@pytest.mark.parametrize("return_as", RETURN_AS)
def test_an_iterable_that_exits_ends_the_call(return_as: str) -> None:
    def tasks() -> Iterator[Any]:
        for x in range(10):
            yield delayed(identity)(x)
        raise SystemExit(7)

    parallel = Parallel(n_jobs=2, backend="asyncpar", return_as=return_as)
    with pytest.raises(SystemExit, match="7"):
        list(parallel(tasks()))
    assert works(parallel)


@pytest.mark.parametrize("return_as", RETURN_AS)
def test_an_error_of_print_progress_is_raised(return_as: str) -> None:
    class Broken(Parallel):  # type: ignore[misc]  # its type is not known
        def print_progress(self) -> None:
            raise LookupError("no terminal")

    with pytest.raises(LookupError, match="no terminal"):
        list(Broken(n_jobs=2, backend="asyncpar", return_as=return_as)(delayed(identity)(x) for x in range(9)))


@pytest.mark.filterwarnings("ignore:.*tasks which were still being processed")
@pytest.mark.parametrize("return_as", RETURN_AS[1:])
def test_dropping_a_generator_ends_its_tasks(return_as: str, beacon: Beacon) -> None:
    parallel = Parallel(n_jobs=2, backend="asyncpar", return_as=return_as)
    results = parallel([delayed(identity)(1), delayed(beacon.spin)()])
    assert next(results) == 1
    while not beacon.pid:
        pass
    del results
    assert not psutil.pid_exists(beacon.pid)
    assert works(parallel)


def test_a_generator_that_outlives_its_with_gives_what_is_done_and_says_what_has_become_of_the_rest(beacon: Beacon) -> None:
    with Parallel(n_jobs=2, backend="asyncpar", return_as="generator", batch_size=1) as parallel:
        results = parallel([delayed(identity)(x) for x in range(3)] + [delayed(beacon.spin)()])
        assert next(results) == 0
        while not beacon.pid or len(parallel._backend._jobs._unsettled) > 1:
            time.sleep(0.001)
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(ExecutorUnavailableError, match="ended before this result was there"):
        next(results)


@pytest.mark.filterwarnings("ignore:.*tasks ")
def test_a_callback_that_is_stuck_in_the_iterable_does_not_hold_up_the_end(beacon: Beacon) -> None:
    go_on: queue.SimpleQueue[None] = queue.SimpleQueue()
    reached: queue.SimpleQueue[None] = queue.SimpleQueue()

    def tasks() -> Iterator[Any]:
        for x in range(4):
            yield delayed(identity)(x)
        reached.put(None)
        go_on.get()
        yield delayed(beacon.spin)()

    parallel = Parallel(n_jobs=2, backend="asyncpar", return_as="generator", pre_dispatch=4, batch_size=1)
    results = parallel(tasks())
    reached.get()
    results.close()
    go_on.put(None)
    assert works(parallel)
    assert parallel.n_completed_tasks == 9
    assert not beacon.pid


def test_tasks_of_a_worker_that_died_before_them_are_made_elsewhere(tmp_path: Path) -> None:
    """The first of a batch ends its worker, and is blamed; nothing that has been made is lost in the next call."""
    parallel = Parallel(n_jobs=2, backend="asyncpar", batch_size=2)
    with pytest.raises(TerminatedWorkerError, match="die_once"):
        parallel([delayed(die_once)(tmp_path / "died")] * 2)
    assert parallel([delayed(die_once)(tmp_path / "died")] * 2) == ["lived", "lived"]


def test_a_worker_that_is_killed_between_two_calls_is_replaced() -> None:
    parallel = Parallel(n_jobs=2, backend="asyncpar")
    for pid in set(parallel(delayed(os.getpid)() for _ in range(4))):
        os.kill(pid, signal.SIGKILL)
    assert works(parallel)


def test_ctrl_c_ends_a_script_and_its_tasks(beacon: Beacon) -> None:
    script = f"""
import asyncpar.joblib, joblib
from pathlib import Path
from tests.functions import Beacon
asyncpar.joblib.register()
beacon = Beacon(Path({str(beacon.path)!r}))
try:
    joblib.Parallel(n_jobs=2, backend="asyncpar")([joblib.delayed(beacon.spin)()] * 2)
except KeyboardInterrupt:
    print("interrupted", joblib.Parallel(n_jobs=2, backend="asyncpar")([joblib.delayed(abs)(-1)] * 3))
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        while not beacon.pid:
            time.sleep(0.01)
        spinning = beacon.pid
        program.send_signal(signal.SIGINT)
        answer, complaint = program.communicate()
    assert (answer, complaint) == ("interrupted [1, 1, 1]\n", "")
    assert not psutil.pid_exists(spinning)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_nothing_runs_in_a_forked_copy_of_a_call(tmp_path: Path) -> None:
    results = Parallel(n_jobs=2, backend="asyncpar", return_as="generator")(delayed(identity)(x) for x in range(40))
    assert list(results) == list(range(40))
    pid = os.fork()
    if not pid:
        with joblib.parallel_config(backend="asyncpar", n_jobs=2):
            os._exit(0 if works(Parallel()) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
