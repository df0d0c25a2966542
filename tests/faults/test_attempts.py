"""`Outcome.attempts` counts every execution, also those that a worker's death has hidden from the parent."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from asyncpar import ProcessExecutor, pmap
from asyncpar._processes.zygote_client import ForkedProcess, Zygote
from tests.faults.executions import Executions

pytestmark = pytest.mark.anyio


class LethalOnce:
    """A result that kills the worker which sends it, the first time."""

    def __init__(self, flag: Path) -> None:
        self._flag = flag

    def __reduce__(self) -> Any:
        if not self._flag.exists():
            self._flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return str, ("survived",)


async def test_calls_that_ran_before_their_worker_died_sending_the_results_count_as_attempts(tmp_path: Path) -> None:
    executions = Executions(tmp_path / "executions")

    def call(x: int) -> Any:
        executions.mark(x)
        return LethalOnce(tmp_path / "flag")

    async with ProcessExecutor(1) as executor, pmap(call, range(4), executor=executor, batch_size=2) as results:
        outcomes = [outcome async for outcome in results.outcomes()]
    assert [outcome.unwrap() for outcome in outcomes] == ["survived"] * 4
    assert {outcome.index: outcome.attempts for outcome in outcomes} == executions.by_call() == {0: 2, 1: 2, 2: 1, 3: 1}


async def test_calls_that_ran_between_a_timeout_and_the_kill_count_as_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executions, let_go = Executions(tmp_path / "executions"), tmp_path / "let go"
    kill = Zygote.kill

    def kill_late(zygote: Zygote, worker: ForkedProcess) -> None:
        let_go.touch()  # so that the overdue call ends after all
        while not executions.by_call()[1]:
            pass
        kill(zygote, worker)

    def call(x: int) -> int:
        executions.mark(x)
        while (x == 0 and not let_go.exists()) or (x == 1 and executions.by_call()[1] < 2):
            pass
        return x

    monkeypatch.setattr(Zygote, "kill", kill_late)
    async with ProcessExecutor(1) as executor:
        async with pmap(call, range(4), executor=executor, batch_size=4, timeout=0.2) as results:
            outcomes = [outcome async for outcome in results.outcomes()]
        monkeypatch.undo()
    assert [outcome.error is None for outcome in outcomes] == [False, True, True, True]
    assert {outcome.index: outcome.attempts for outcome in outcomes} == executions.by_call() == {0: 1, 1: 2, 2: 1, 3: 1}
