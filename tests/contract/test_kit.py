"""Our own executors, and pools of others, pass the kit that we give to those who write executors; broken ones do not."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from importlib import import_module
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

import pytest

from asyncpar import Executor, FuturesExecutor, InlineExecutor, ProcessExecutor, ThreadExecutor
from asyncpar.testing import ExecutorContract

FORKSERVER = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module", autouse=True)
def multiprocessing_has_its_helpers() -> Iterator[None]:
    """They stay until the program ends."""
    FORKSERVER.set_forkserver_preload(["asyncpar._child.pool_main", "asyncpar.testing.functions"])
    resource_tracker.ensure_running()
    forkserver.ensure_running()
    yield
    FORKSERVER.set_forkserver_preload(["__main__"])


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


class TestDeviceExecutor(ExecutorContract):
    """The first program on the page about executors."""

    def make_executor(self) -> Executor:
        program = (Path(__file__).parents[2] / "docs" / "executors.md").read_text().split("```python\n")[1].split("```")[0]
        names: dict[str, Any] = {}
        exec(program.replace("anyio.run(main)", ""), names)
        executor: Executor = names["DeviceExecutor"](["first", "second"])
        return executor


class TestCommandExecutor(ResizedByItsPool):
    """The example in `examples`, which that page shows too."""

    def make_executor(self) -> Executor:
        example: Any = import_module("examples.command_executor")
        executor: Executor = example.CommandExecutor([sys.executable, example.__file__, "--serve"], workers=2)
        return executor


class TestFuturesExecutorWithThreads(ResizedByItsPool):
    def make_executor(self) -> Executor:
        return FuturesExecutor(lambda: ThreadPoolExecutor(2))


class TestFuturesExecutorWithProcesses(ResizedByItsPool):
    def make_executor(self) -> Executor:
        return FuturesExecutor(lambda: ProcessPoolExecutor(2, mp_context=FORKSERVER))
