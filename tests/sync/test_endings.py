"""A call ends when its run has: also where an interrupt, the garbage collector or a failing executor comes in between."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

import asyncpar
from asyncpar import Parallel, delayed
from asyncpar._sync.backends import registered
from asyncpar._sync.portal import Task
from tests.functions import Beacon, raise_value_error
from tests.sync.functions import DropsGeneratorsWhenRead, large_result_that_drops_generators


class Interrupted(queue.SimpleQueue[Any]):
    """Ctrl-C comes in the main thread when the last message has been taken out and nobody has seen it yet."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        message = super().get(block, timeout)
        if message is None and threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        return message


@pytest.fixture
def interrupted_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncpar._sync.parallel_call.queue", SimpleNamespace(SimpleQueue=Interrupted))


@pytest.mark.usefixtures("interrupted_at_the_end")
@pytest.mark.parametrize("return_as", ["list", "generator"])
def test_an_interrupt_just_as_the_run_ends_is_raised(return_as: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        list(Parallel(n_jobs=2, backend="thread", return_as=return_as)([delayed(abs)(-1)]))


@pytest.mark.usefixtures("interrupted_at_the_end")
def test_an_interrupt_just_as_a_generator_is_closed_is_raised() -> None:
    results = Parallel(n_jobs=2, backend="process", return_as="generator")(delayed(time.sleep)(x) for x in [0, 1000])
    next(results)
    with pytest.raises(KeyboardInterrupt):
        results.close()


def test_an_interrupt_just_as_the_run_begins_ends_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    beacon = Beacon(tmp_path / "beacon")
    start = Task.start

    def interrupted_start(task: Task) -> None:
        start(task)
        while not beacon.pid:
            pass
        raise KeyboardInterrupt

    monkeypatch.setattr(Task, "start", interrupted_start)
    with pytest.raises(KeyboardInterrupt):
        Parallel(n_jobs=2, backend="process")([delayed(beacon.spin)()])
    assert not psutil.pid_exists(beacon.pid)


def test_an_interrupt_just_before_the_run_begins_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted_start(task: Task) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Task, "start", interrupted_start)
    with pytest.raises(KeyboardInterrupt):
        Parallel(n_jobs=2, backend="process")([delayed(abs)(-1)])


def test_a_generator_may_be_dropped_in_the_thread_that_reads_its_results(tmp_path: Path) -> None:
    calls = [delayed(large_result_that_drops_generators)(tmp_path / "kept")] * 6
    DropsGeneratorsWhenRead.generators.append(Parallel(n_jobs=2, backend="process", return_as="generator")(calls))
    (tmp_path / "kept").touch()
    thread = DropsGeneratorsWhenRead.dropped_in.get()
    assert thread.name not in ("asyncpar portal", threading.main_thread().name)
    assert Parallel(n_jobs=2)(delayed(abs)(x) for x in range(3)) == [0, 1, 2]


class Unclosable(asyncpar.ThreadExecutor):
    async def shut_down(self) -> None:
        await super().shut_down()
        raise OSError("no end")


@pytest.fixture
def unclosable() -> Iterator[str]:
    asyncpar.register_parallel_backend("unclosable", lambda: Unclosable(2))
    yield "unclosable"
    del registered["unclosable"]


@pytest.mark.parametrize("return_as", ["list", "generator"])
def test_what_an_executor_raises_as_it_closes_is_raised(unclosable: str, return_as: Any) -> None:
    with pytest.raises(OSError, match="no end"):
        list(Parallel(n_jobs=2, backend=unclosable, return_as=return_as)([delayed(abs)(-1)]))
    with pytest.raises(OSError, match="no end"), Parallel(n_jobs=2, backend=unclosable) as parallel:
        assert parallel([delayed(abs)(-1)]) == [1]


def test_an_error_of_the_call_goes_before_what_its_executor_raises_as_it_closes(unclosable: str) -> None:
    with pytest.raises(ValueError, match="bad 1"):
        Parallel(n_jobs=2, backend=unclosable)([delayed(raise_value_error)(1)])


@pytest.mark.parametrize("return_as", ["list", "generator"])
def test_an_error_of_the_call_goes_before_what_its_input_raises_as_it_is_closed(return_as: Any) -> None:
    def calls() -> Iterator[Any]:
        try:
            while True:
                yield delayed(raise_value_error)(1)
        finally:
            raise LookupError("not closed")

    with pytest.raises(ValueError, match="bad 1"):
        list(Parallel(n_jobs=2, return_as=return_as)(calls()))


@pytest.mark.parametrize("return_as", ["list", "generator"])
def test_what_print_progress_raises_arrives_when_no_task_is_running_any_more(tmp_path: Path, return_as: Any) -> None:
    beacon = Beacon(tmp_path / "beacon")

    class Broken(Parallel[Any]):
        def print_progress(self) -> None:
            while not beacon.pid:
                pass
            raise LookupError("no terminal")

    with pytest.raises(LookupError, match="no terminal"):
        list(Broken(n_jobs=2, backend="process", return_as=return_as, batch_size=1)([delayed(abs)(1), delayed(beacon.spin)()]))
    assert not psutil.pid_exists(beacon.pid)
