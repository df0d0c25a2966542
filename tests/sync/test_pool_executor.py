"""`PoolExecutor`: what a `concurrent.futures.Executor` does, and what the pools of the standard library do not."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import itertools
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil
import pytest

import asyncpar
from asyncpar import PoolExecutor, ProcessExecutor, WorkerDiedError
from asyncpar._sync.portal import close_portal
from tests.calls.timeouts import Stuck, nap_in_asyncio
from tests.functions import Beacon, add, double, kill_self, odd_only, raise_value_error


@pytest.fixture(params=["process", "thread"])
def pool(request: pytest.FixtureRequest) -> Iterator[PoolExecutor]:
    with PoolExecutor(2, executor=request.param) as pool:
        yield pool


@pytest.fixture
def processes() -> Iterator[PoolExecutor]:
    with PoolExecutor(2) as pool:
        yield pool


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_results_and_errors_are_in_the_futures(pool: PoolExecutor) -> None:
    assert pool.submit(add, 1, b=2).result(30) == 3
    error = pool.submit(raise_value_error, 7).exception(30)
    assert isinstance(error, ValueError)
    assert "raised by the call raise_value_error(7)" in error.__notes__[-1]
    assert isinstance(pool.submit(3).exception(30), TypeError)  # type: ignore[arg-type]  # the mistake


def test_processes_make_calls_of_coroutine_functions(processes: PoolExecutor) -> None:
    assert processes.submit(nap_in_asyncio, 0.0).result(30) == 0.0  # type: ignore[comparison-overlap]  # it was awaited there


def test_the_standard_librarys_functions_know_the_futures(pool: PoolExecutor) -> None:
    futures = [pool.submit(double, number) for number in range(50)]
    assert {future.result() for future in concurrent.futures.as_completed(futures, 30)} == {2 * x for x in range(50)}
    assert concurrent.futures.wait(futures, 30).done == set(futures)
    assert all(not future.running() and not future.cancelled() for future in futures)


def test_map_gives_what_the_built_in_one_does(pool: PoolExecutor) -> None:
    for options in ({}, {"chunksize": 7}, {"buffersize": 3}, {"chunksize": 5, "buffersize": 1}):
        assert list(pool.map(add, range(30), itertools.count(1), **options)) == [2 * x + 1 for x in range(30)]
    with pytest.raises(ValueError, match="2 is even"):
        list(pool.map(odd_only, [1, 2, 3]))


def test_map_submits_no_more_than_its_buffer_ahead(pool: PoolExecutor) -> None:
    items = itertools.count()
    results = pool.map(double, items, buffersize=4)
    assert [next(results) for _ in range(3)] == [0, 2, 4]
    assert next(items) == 3 + 4


def test_map_gives_up_in_time_and_stops_its_calls(processes: PoolExecutor, tmp_path: Path) -> None:
    beacon = Beacon(tmp_path / "beacon")
    with pytest.raises(TimeoutError):
        list(processes.map(beacon.spin, [1], timeout=0.2))
    wait_for(lambda: not psutil.pid_exists(beacon.pid))


@pytest.mark.parametrize(
    ("options", "error"),
    [({"chunksize": 0}, ValueError), ({"buffersize": 0}, ValueError), ({"buffersize": 1.5}, TypeError)],
)
def test_map_refuses_what_makes_no_sense(pool: PoolExecutor, options: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        pool.map(double, [1], **options)


def test_a_running_call_can_be_cancelled_and_no_other_is_disturbed(processes: PoolExecutor, tmp_path: Path) -> None:
    beacon, stuck = Beacon(tmp_path / "beacon"), Stuck(tmp_path)
    spinning, other = processes.submit(beacon.spin), processes.submit(stuck, -4)
    wait_for(lambda: beacon.pid and (tmp_path / "marks").exists())
    assert spinning.running()
    assert spinning.cancel()
    assert spinning.cancelled()
    assert not spinning.running()
    concurrent.futures.wait([spinning], 30)
    assert not psutil.pid_exists(beacon.pid)
    with pytest.raises(concurrent.futures.CancelledError):
        spinning.result()
    assert not other.done()
    stuck.let_go()
    assert other.result(30) == -8
    assert not other.cancel()


def test_a_waiting_call_that_is_cancelled_never_begins(tmp_path: Path) -> None:
    stuck = Stuck(tmp_path)
    with PoolExecutor(1, executor="thread") as pool:
        held = pool.submit(stuck, -1)
        wait_for((tmp_path / "marks").exists)
        waiting = [pool.submit(stuck, number) for number in range(10)]
        assert all(future.cancel() for future in waiting[1:])
        assert concurrent.futures.wait(waiting[1:], 30).not_done == set()
        stuck.let_go()
        assert (held.result(30), waiting[0].result(30)) == (-2, 0)
    assert stuck.marks == [-1, 0]


def test_a_worker_that_dies_costs_only_its_call(processes: PoolExecutor) -> None:
    futures: list[Future[Any]] = [processes.submit(double if number % 5 else kill_self, number) for number in range(20)]
    for number, future in enumerate(futures):
        if number % 5:
            assert future.result(30) == 2 * number
        else:
            assert isinstance(future.exception(30), WorkerDiedError)
    assert not isinstance(futures[0].exception(), concurrent.futures.BrokenExecutor)


def test_asyncio_runs_calls_in_it_and_cancels_them(processes: PoolExecutor, tmp_path: Path) -> None:
    beacon = Beacon(tmp_path / "beacon")

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        spinning = loop.run_in_executor(processes, beacon.spin)
        while not beacon.pid:
            await asyncio.sleep(0.001)
        spinning.cancel()
        results: list[int] = await asyncio.gather(*[loop.run_in_executor(processes, double, number) for number in range(10)])
        return results

    assert asyncio.run(main()) == [2 * number for number in range(10)]
    wait_for(lambda: not psutil.pid_exists(beacon.pid))


def test_shutting_down_finishes_what_was_submitted(pool: PoolExecutor) -> None:
    futures = [pool.submit(double, number) for number in range(50)]
    pool.shutdown()
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        pool.submit(double, 1)
    pool.shutdown()


def test_shutting_down_may_cancel_what_has_not_begun(tmp_path: Path) -> None:
    stuck = Stuck(tmp_path)
    pool = PoolExecutor(1)
    futures = [pool.submit(stuck, -1) for _ in range(20)]
    wait_for((tmp_path / "marks").exists)
    pool.shutdown(wait=False, cancel_futures=True)
    wait_for(lambda: sum(future.cancelled() for future in futures) == 18)
    stuck.let_go()
    pool.shutdown()
    assert [future.result() for future in futures if not future.cancelled()] == [-2, -2]


def test_several_threads_may_shut_it_down(pool: PoolExecutor) -> None:
    pool.submit(double, 1)
    threads = [threading.Thread(target=pool.shutdown) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_a_pool_that_nobody_has_any_more_ends_after_its_calls() -> None:
    pool = PoolExecutor(1)
    future = pool.submit(os.getpid)
    gone = weakref.ref(pool)
    del pool
    gc.collect()
    assert gone() is None
    pid = future.result(30)
    wait_for(lambda: not psutil.pid_exists(pid))


def test_arguments_and_results_are_not_kept(pool: PoolExecutor) -> None:
    class Thing:
        pass

    thing = Thing()
    gone = weakref.ref(thing)
    pool.submit(isinstance, thing, int).result(30)
    del thing
    wait_for(lambda: gc.collect() >= 0 and gone() is None)


def test_an_executor_that_is_given_is_not_closed() -> None:
    executor = ProcessExecutor(1)
    with PoolExecutor(executor=executor) as pool:
        pid = pool.submit(os.getpid).result(30)
    assert asyncpar.call(os.getpid, executor=executor) == pid


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"executor": "inline"}, ValueError),
        ({"executor": "fork"}, ValueError),
        ({"executor": asyncpar.InlineExecutor()}, ValueError),
        ({"max_workers": 0}, ValueError),
        ({"prelod": ["json"]}, TypeError),
    ],
)
def test_bad_input_is_refused(arguments: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        PoolExecutor(**arguments)


def test_when_the_portal_ends_nothing_hangs(tmp_path: Path) -> None:
    stuck = Stuck(tmp_path)
    pool = PoolExecutor(1)
    futures = [pool.submit(stuck, -1) for _ in range(3)]
    wait_for((tmp_path / "marks").exists)
    close_portal()
    assert isinstance(futures[0].exception(30), asyncpar.ExecutorUnavailableError)
    with pytest.raises(RuntimeError, match="the program is ending"):
        pool.submit(double, 1)
    pool.shutdown()


LEFT_OPEN = """
import sys
import time
import asyncpar
pool = asyncpar.PoolExecutor(2, executor={executor!r})
def late(x):
    time.sleep(0.05)
    sys.stdout.write(str(x) + "\\n")
    sys.stdout.flush()
futures = [pool.submit(late, number) for number in (1, 1, 1, 1)]
"""


@pytest.mark.parametrize("executor", ["process", "thread"])
def test_a_program_ends_when_its_calls_have(executor: str) -> None:
    command = [sys.executable, "-c", LEFT_OPEN.format(executor=executor)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert (done.stdout, done.stderr) == ("1\n1\n1\n1\n", "")


def test_a_forked_child_is_told_to_make_its_own() -> None:
    program = """
import os, sys
import asyncpar
pool = asyncpar.PoolExecutor(1)
assert pool.submit(abs, -1).result() == 1
child = os.fork()
if child == 0:
    try:
        pool.submit(abs, -1)
    except RuntimeError as error:
        assert "another process" in str(error)
        os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert pool.submit(abs, -2).result() == 2
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], timeout=30, check=True)
