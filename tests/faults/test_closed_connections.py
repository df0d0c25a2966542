"""A worker whose connection ends while its process lives is killed. One that ends by itself keeps its exit code or signal."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import psutil
import pytest

from asyncpar import ExecutorUnavailableError, ProcessExecutor, WorkerDiedError, pmap
from asyncpar._processes.zygote_client import ForkedProcess, Zygote
from tests.calls.closed_connections import (
    LONG,
    become_a_sleeper,
    close_everything,
    hold_up_the_report_and_die,
    hold_up_the_report_and_exit,
    note_and_close_everything,
)
from tests.functions import double
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

CLOSED = r"closed its connection to its parent, as os\.execv or os\.closerange in a call do, and was killed for that"


@pytest.mark.parametrize("function", [become_a_sleeper, close_everything])
@pytest.mark.parametrize("timeout", [None, 60])
async def test_a_call_that_closes_the_connection_of_its_worker_fails(
    function: Callable[[object], None], timeout: float | None
) -> None:
    async with ProcessExecutor(1) as executor:
        with pytest.raises(WorkerDiedError, match=rf"worker process \d+ {CLOSED} while it ran call 0, item 7") as caught:
            await pmap(function, [7], executor=executor, timeout=timeout)
        assert (caught.value.signal, caught.value.exit_code) == (signal.SIGKILL, None)
        assert not caught.value.likely_out_of_memory
        assert caught.value.pid is not None
        assert not psutil.pid_exists(caught.value.pid)
        assert await pmap(double, range(10), executor=executor) == [2 * x for x in range(10)]


async def test_an_initializer_that_closes_the_connection_is_not_tried_again(tmp_path: Path) -> None:
    async with ProcessExecutor(1, initializer=note_and_close_everything, initargs=(tmp_path / "notes",)) as executor:
        with pytest.raises(ExecutorUnavailableError, match=f"a new worker process {CLOSED} before it was ready"):
            await pmap(double, [1], executor=executor)
    assert (tmp_path / "notes").read_text() == "x"


@pytest.mark.parametrize(
    ("function", "message"),
    [(hold_up_the_report_and_exit, "exited with code 7"), (hold_up_the_report_and_die, "was killed by SIGKILL")],
)
async def test_an_end_that_is_reported_late_is_reported_as_it_was(
    monkeypatch: pytest.MonkeyPatch, function: Callable[[object], None], message: str
) -> None:
    kill = Zygote.kill

    def kill_and_let_report(zygote: Zygote, worker: ForkedProcess) -> None:
        kill(zygote, worker)
        os.kill(zygote._pid, signal.SIGCONT)

    monkeypatch.setattr(Zygote, "kill", kill_and_let_report)
    async with ProcessExecutor(1) as executor:
        with pytest.raises(WorkerDiedError, match=message):
            await pmap(function, [0], executor=executor)


async def test_an_idle_worker_that_loses_its_connection_is_replaced_unnoticed(tmp_path: Path) -> None:
    answered, closed = tmp_path / "answered", tmp_path / "closed"

    def close_afterwards(_: object) -> int:
        def close() -> None:
            while not answered.exists():
                time.sleep(0.001)
            os.closerange(3, 1000)
            closed.touch()
            time.sleep(float(LONG))

        threading.Thread(target=close).start()
        return os.getpid()

    async with ProcessExecutor(1) as executor:
        (pid,) = await pmap(close_afterwards, [0], executor=executor)
        answered.touch()
        await wait_until(closed.exists)
        with anyio.fail_after(20):
            assert await pmap(double, range(10), executor=executor) == [2 * x for x in range(10)]
        assert not psutil.pid_exists(pid)
