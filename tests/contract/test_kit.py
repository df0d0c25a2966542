"""Our own executors, and pools of others, pass the kit that we give to those who write executors; broken ones do not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from asyncpar import Executor, FuturesExecutor, InlineExecutor, ProcessExecutor, ThreadExecutor
from asyncpar.testing import ExecutorContract
from tests.helper_processes import FORKSERVER, helper_processes
from tests.loops import on_one_loop

on_two_loops = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])


@pytest.fixture(scope="module", autouse=True)
def helpers_run() -> Iterator[None]:
    with helper_processes():
        yield


class ResizedByItsPool(ExecutorContract):
    def change_places(self, executor: Any, places: int) -> None:
        executor.pool.resize(places)


class TestInlineExecutor(ExecutorContract):
    holds_event_loop = True

    def make_executor(self) -> Executor:
        return InlineExecutor()


class TestThreadExecutor(ResizedByItsPool):
    def make_executor(self) -> Executor:
        return ThreadExecutor(2)


class TestProcessExecutor(ExecutorContract):
    def make_executor(self) -> Executor:
        return ProcessExecutor(2, grace=0.05)


@on_one_loop
class TestDeviceExecutor(ExecutorContract):
    """The first program on the page about executors."""

    def make_executor(self) -> Executor:
        program = (Path(__file__).parents[2] / "docs" / "executors.md").read_text().split("```python\n")[1].split("```")[0]
        names: dict[str, Any] = {}
        exec(program.replace("anyio.run(main)", ""), names)
        executor: Executor = names["DeviceExecutor"](["first", "second"])
        return executor


@on_one_loop
class TestCommandExecutor(ResizedByItsPool):
    """The example in `examples`, which that page shows too."""

    def make_executor(self) -> Executor:
        example: Any = import_module("examples.command_executor")
        executor: Executor = example.CommandExecutor([sys.executable, example.__file__, "--serve"], workers=2)
        return executor


@on_two_loops
class TestFuturesExecutorWithThreads(ResizedByItsPool):
    def make_executor(self) -> Executor:
        return FuturesExecutor(lambda: ThreadPoolExecutor(2))


@on_two_loops
class TestFuturesExecutorWithProcesses(ResizedByItsPool):
    def make_executor(self) -> Executor:
        return FuturesExecutor(lambda: ProcessPoolExecutor(2, mp_context=FORKSERVER))
