"""`ThreadExecutor(inner_max_num_threads=…)`: numerical libraries use fewer threads while calls run."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.to_thread
import numpy as np  # noqa: F401 - it loads a BLAS library
import pytest
import threadpoolctl

from asyncpar import ExecutorUnavailableError, ThreadExecutor, pmap
from asyncpar._platform import inner_threads
from tests.loops import on_one_loop
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

BEFORE = 3


def threads_of_blas(_: object = None) -> set[int]:
    return {library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def libraries_have_three_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in inner_threads._VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    with threadpoolctl.threadpool_limits(BEFORE):
        yield
        assert threads_of_blas() == {BEFORE}
    assert not inner_threads._noted


async def test_calls_have_the_limit_and_the_program_has_what_it_had() -> None:
    async with ThreadExecutor(2, inner_max_num_threads=1) as executor:
        for _ in range(2):
            assert await pmap(threads_of_blas, range(6), executor=executor, batch_size=1) == [{1}] * 6
            assert threads_of_blas() == {BEFORE}
        assert await executor.run(threads_of_blas) == {1}
    assert threads_of_blas() == {BEFORE}


@on_one_loop
async def test_without_a_limit_nothing_changes() -> None:
    async with ThreadExecutor(2) as executor:
        assert await pmap(threads_of_blas, range(4), executor=executor) == [{BEFORE}] * 4


@on_one_loop
async def test_a_limit_only_lowers() -> None:
    async with ThreadExecutor(2, inner_max_num_threads=BEFORE + 5) as executor:
        assert await pmap(threads_of_blas, range(4), executor=executor) == [{BEFORE}] * 4


async def test_of_several_limits_the_lowest_holds() -> None:
    is_running, may_end = threading.Event(), threading.Event()

    def hold() -> set[int]:
        is_running.set()
        may_end.wait()
        return threads_of_blas()

    async with ThreadExecutor(1, inner_max_num_threads=1) as low, ThreadExecutor(1, inner_max_num_threads=2) as high:
        assert await high.run(threads_of_blas) == {2}
        async with anyio.create_task_group() as group:
            group.start_soon(low.run, hold)
            await wait_until(is_running.is_set)
            assert await high.run(threads_of_blas) == {1}
            assert threads_of_blas() == {1}
            may_end.set()
        assert await high.run(threads_of_blas) == {2}


async def test_a_call_that_is_left_to_its_thread_keeps_its_limit_until_it_ends() -> None:
    is_running, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        is_running.set()
        may_end.wait()

    async with ThreadExecutor(1, inner_max_num_threads=1) as executor, anyio.create_task_group() as group:
        group.start_soon(executor.run, hold)
        await wait_until(is_running.is_set)
        group.cancel_scope.cancel()
    assert threads_of_blas() == {1}
    may_end.set()
    await wait_until(lambda: threads_of_blas() == {BEFORE})


@on_one_loop
async def test_a_library_that_the_environment_limits_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in inner_threads._VARIABLES.values():
        monkeypatch.setenv(variable, "3")
    async with ThreadExecutor(1, inner_max_num_threads=1) as executor:
        assert await executor.run(threads_of_blas) == {BEFORE}


class Library:
    """As threadpoolctl shows one. OpenMP has a number for each thread."""

    def __init__(self, user_api: str, count: int | None) -> None:
        self.user_api = self.filepath = user_api
        self.internal_api = "of the test"  # so that no variable of the environment is meant
        self._count = count
        self._of_thread = threading.local()

    def get_num_threads(self) -> int | None:
        return getattr(self._of_thread, "count", self._count) if self.user_api == "openmp" else self._count

    def set_num_threads(self, count: int) -> None:
        if self.user_api == "openmp":
            self._of_thread.count = count
        else:
            self._count = count


async def test_openmp_is_limited_in_the_thread_of_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    openmp, blas, single = Library("openmp", 8), Library("blas", 8), Library("without threads", None)
    libraries: list[Any] = [openmp, blas, single]
    monkeypatch.setattr(inner_threads, "_libraries", lambda: libraries)
    together = threading.Barrier(2)

    def count(_: int) -> list[int | None]:
        together.wait()
        return [library.get_num_threads() for library in libraries]

    async with ThreadExecutor(2, inner_max_num_threads=2) as executor:
        assert await pmap(count, range(4), executor=executor, batch_size=1) == [[2, 2, None]] * 4
    assert [library.get_num_threads() for library in libraries] == [8, 8, None]
    seen = [await anyio.to_thread.run_sync(openmp.get_num_threads) for _ in range(4)]  # in the same threads, perhaps
    assert seen == [8] * 4


@on_one_loop
async def test_libraries_are_searched_for_again_when_modules_have_been_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    searches: list[int] = []

    class Controller(threadpoolctl.ThreadpoolController):  # type: ignore[misc]  # it has no types
        def __init__(self) -> None:
            searches.append(len(sys.modules))
            super().__init__()

    monkeypatch.setattr(threadpoolctl, "ThreadpoolController", Controller)
    async with ThreadExecutor(1, inner_max_num_threads=1) as executor:
        await executor.run(abs, 1)
        searches.clear()
        await executor.run(abs, 1)
        assert not searches
        monkeypatch.setitem(sys.modules, "a_module_of_this_test", sys)
        await executor.run(abs, 1)
        assert len(searches) == 1


@on_one_loop
async def test_without_threadpoolctl_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with pytest.raises(ExecutorUnavailableError, match=r"pip install 'asyncpar\[threads\]'"):
        ThreadExecutor(1, inner_max_num_threads=1)
    async with ThreadExecutor(1) as executor:
        assert await executor.run(abs, -1) == 1


@on_one_loop
@pytest.mark.parametrize("number", [0, -1, True, 1.5, "2"])
async def test_what_is_no_number_of_threads_is_refused(number: Any) -> None:
    with pytest.raises(ValueError, match="inner_max_num_threads must be a number of threads, 1 or more"):
        ThreadExecutor(1, inner_max_num_threads=number)


FORKS = """
import os
import numpy
import asyncpar
from asyncpar._platform import inner_threads


def fork():
    pid = os.fork()
    if pid:
        return pid
    inner_threads.InnerThreads(1).run(lambda: None)
    return None


async def main():
    async with asyncpar.ThreadExecutor(1, inner_max_num_threads=1) as executor:
        pid = await executor.run(lambda: fork() or os._exit(7 if not inner_threads._limits else 8))
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


import asyncio
asyncio.run(main())
"""


@on_one_loop
async def test_a_forked_copy_counts_no_batches_of_its_original() -> None:
    done = await anyio.run_process([sys.executable, "-W", "ignore", "-c", FORKS])
    assert (done.stderr, done.stdout) == (b"", b"7\n")
