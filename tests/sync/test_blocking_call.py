"""`asyncpar.call`: one call that blocks."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

import asyncpar
from asyncpar import CallTimeoutError, PicklingError, ProcessExecutor, WorkerDiedError
from tests.functions import Beacon, add, double, double_soon, kill_self, process_id, raise_value_error


def test_it_returns_what_the_call_returns(backend: str) -> None:
    assert asyncpar.call(double, 4, executor=backend) == 8
    assert asyncpar.call(add, 1, b=2, executor=backend) == 3
    assert asyncpar.call(dict, executor=backend) == {}


def test_by_default_it_runs_in_another_process_and_in_the_same_the_next_time() -> None:
    pid = asyncpar.call(process_id, 0)
    assert pid != os.getpid()
    assert asyncpar.call(process_id, 0) == pid


def test_inline_it_runs_in_this_thread() -> None:
    assert asyncpar.call(threading.current_thread, executor="inline") is threading.current_thread()
    assert asyncpar.call(threading.current_thread, executor=asyncpar.InlineExecutor()) is threading.current_thread()
    with pytest.raises(TypeError, match="returned a coroutine"):
        asyncpar.call(lambda: double_soon(3), executor="inline")


def test_a_coroutine_function_runs_in_this_process() -> None:
    async def where() -> tuple[int, str]:
        await anyio.lowlevel.checkpoint()
        return os.getpid(), threading.current_thread().name

    assert asyncpar.call(where) == (os.getpid(), "asyncpar portal")


def test_an_error_arrives_and_shows_the_call() -> None:
    with pytest.raises(ValueError, match="bad 7") as caught:
        asyncpar.call(raise_value_error, 7)
    assert "raised by the call raise_value_error(7), in process worker" in caught.value.__notes__[-1]
    with pytest.raises(WorkerDiedError):
        asyncpar.call(kill_self, 0)
    with pytest.raises(PicklingError):
        asyncpar.call(double, threading.Lock())


def test_a_call_that_takes_too_long_is_ended(backend: str, tmp_path: Path) -> None:
    with pytest.raises(CallTimeoutError, match=r"the call sleep\(0.3\) took longer than its timeout of 0.1 s"):
        asyncpar.call(time.sleep, 0.3, timeout=0.1, executor=backend)
    beacon = Beacon(tmp_path / "beacon")
    with pytest.raises(CallTimeoutError):
        asyncpar.call(beacon.spin, timeout=0.1, executor="process")
    assert not psutil.pid_exists(beacon.pid)


def test_an_executor_may_be_given_and_belongs_to_asyncpars_own_loop_then() -> None:
    executor = ProcessExecutor(1)
    assert asyncpar.call(double, 4, executor=executor) == 8

    async def main() -> None:
        with pytest.raises(asyncpar.ExecutorUnavailableError, match="another event loop"):
            await executor.run(double, 4)

    asyncio.run(main())


def test_threads_call_at_the_same_time() -> None:
    results: list[int] = []
    threads = [threading.Thread(target=lambda x=x: results.append(asyncpar.call(double, x))) for x in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [2 * x for x in range(20)]


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [((3,), {}, TypeError), ((abs, 1), {"timeout": 0}, ValueError), ((abs, 1), {"executor": "processes"}, ValueError)],
)
def test_bad_input_is_refused(arguments: Any, options: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        asyncpar.call(*arguments, **options)


def test_in_asyncpars_own_loop_it_is_refused() -> None:
    async def careless() -> Any:
        return asyncpar.call(double, 1)

    with pytest.raises(RuntimeError, match=r"asyncpar.call was called in asyncpar's own event loop"):
        asyncpar.call(careless)
