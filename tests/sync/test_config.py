"""Settings from the context: which take precedence, where they apply, and how processors are counted."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import asyncpar
from asyncpar import Parallel, cpu_count, delayed, effective_n_jobs, parallel_backend, parallel_config
from asyncpar._contract.executor import Hints
from asyncpar._sync import backends
from asyncpar._sync.settings import current_settings
from tests.functions import double
from tests.sync.functions import double_all, environment, thread_name, where


@pytest.fixture(autouse=True)
def settings_of_its_own() -> Iterator[None]:
    before = current_settings()
    yield
    assert current_settings() == before, "the test left settings behind"


def test_an_argument_goes_before_the_context_and_that_before_the_default() -> None:
    assert Parallel().n_jobs == 1
    with parallel_config(n_jobs=3, verbose=5):
        assert Parallel().n_jobs == 3
        assert Parallel().verbose == 5
        assert Parallel(n_jobs=2, verbose=0).n_jobs == 2
        assert Parallel(verbose=0).verbose == 0
    assert Parallel().n_jobs == 1


def test_settings_hold_without_with_until_they_are_unregistered() -> None:
    config = parallel_config(n_jobs=3)
    assert Parallel().n_jobs == 3
    config.unregister()
    assert Parallel().n_jobs == 1


def test_settings_may_be_nested_and_inherit_what_they_do_not_say() -> None:
    with parallel_config("threading", n_jobs=2):
        with parallel_config(n_jobs=3):
            assert Parallel().n_jobs == 3
            assert Parallel()([delayed(where)()])[0][1] != threading.current_thread().name
        assert Parallel().n_jobs == 2


def test_a_backend_alone_means_one_worker_and_parallel_backend_all() -> None:
    with parallel_config("threading"):
        assert Parallel().n_jobs == 1
    with parallel_backend("threading") as (backend, n_jobs):
        assert (backend, n_jobs) == ("threading", -1)
        assert Parallel().n_jobs == cpu_count()


def test_threads_and_tasks_do_not_see_each_others_settings() -> None:
    seen = []
    with parallel_config(n_jobs=3):
        thread = threading.Thread(target=contextvars.Context().run, args=(lambda: seen.append(Parallel().n_jobs),))
        thread.start()
        thread.join()

    async def task(n_jobs: int) -> int:
        with parallel_config(n_jobs=n_jobs):
            await asyncio.sleep(0)
            return Parallel().n_jobs

    async def main() -> list[int]:
        return list(await asyncio.gather(task(2), task(3), task(4)))

    assert seen == [1]
    assert asyncio.run(main()) == [2, 3, 4]


def test_calls_in_workers_do_not_see_their_callers_settings() -> None:
    with parallel_config("threading", n_jobs=3):
        assert Parallel(n_jobs=2)(delayed(lambda: Parallel().n_jobs)() for _ in range(2)) == [1, 1]


@pytest.mark.parametrize(("alias", "same"), [("loky", "process"), ("multiprocessing", "process"), ("threading", "thread")])
def test_joblibs_names_are_known(alias: str, same: str) -> None:
    calls = [delayed(where)()] * 2
    here, there = Parallel(n_jobs=2, backend=alias)(calls)[0], Parallel(n_jobs=2, backend=same)(calls)[0]
    assert here[0] == there[0] or alias != "threading"
    assert here[2] == there[2] == 1


def test_sequential_means_one_worker() -> None:
    assert Parallel(n_jobs=4, backend="sequential").n_jobs == 1
    assert Parallel(n_jobs=4, backend="sequential")([delayed(thread_name)()]) == [threading.current_thread().name]


def test_preferences_choose_where_no_backend_is_named() -> None:
    calls = [delayed(where)()] * 2
    pid = Parallel(n_jobs=2, backend="inline")(calls)[0][0]
    assert Parallel(n_jobs=2, prefer="threads")(calls)[0][0] == pid
    assert Parallel(n_jobs=2, require="sharedmem")(calls)[0][0] == pid
    assert Parallel(n_jobs=2, backend="threading", require="sharedmem")(calls)[0][0] == pid
    assert Parallel(n_jobs=2, backend="process", prefer="threads")(calls)[0][0] != pid
    with parallel_config("process", n_jobs=2):
        assert Parallel(require="sharedmem")(calls)[0][0] == pid


def test_a_process_executor_has_no_memory_to_share() -> None:
    executor = asyncpar.ProcessExecutor(2)
    with pytest.raises(ValueError, match="has no shared memory"):
        Parallel(n_jobs=2, backend=executor, require="sharedmem")
    with parallel_config(executor, n_jobs=2):
        assert Parallel(require="sharedmem")([delayed(where)()] * 2)[0][0] == os.getpid()


@pytest.mark.parametrize(("n_jobs", "workers"), [(2.9, 2), ("3", 3), (-1, 4), (-2, 3), (-100, 1), (None, 1), (True, 1)])
def test_n_jobs_is_what_int_makes_of_it(monkeypatch: pytest.MonkeyPatch, n_jobs: Any, workers: int) -> None:
    monkeypatch.setattr("asyncpar._platform.cpus.cpu_count", lambda: 4)
    assert Parallel(n_jobs=n_jobs).n_jobs == workers
    assert effective_n_jobs(n_jobs) == workers


def test_n_jobs_of_none_in_a_context_is_one_and_not_given_is_that_of_the_surrounding_context() -> None:
    with parallel_config(n_jobs=3):
        with parallel_config("threading"):
            assert Parallel().n_jobs == 3
        with parallel_config(n_jobs=None):
            assert Parallel().n_jobs == effective_n_jobs(None) == 1
        assert Parallel().n_jobs == 3


def test_effective_n_jobs_knows_the_context() -> None:
    with parallel_config(n_jobs=3):
        assert effective_n_jobs(None) == 3
    with parallel_config("sequential"):
        assert effective_n_jobs(5) == 1
    assert effective_n_jobs() == cpu_count()


def test_threads_of_libraries_are_limited_in_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "17")
    calls = [delayed(environment)(name) for name in ("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "MKL_NUM_THREADS")]
    share = str(max(cpu_count() // 2, 1))
    assert Parallel(n_jobs=2, backend="process")(calls) == [share, share, "17"]
    with parallel_config("loky", inner_max_num_threads=5):
        assert Parallel(n_jobs=2)(calls) == ["5", "5", "17"]


@pytest.fixture
def registered() -> Iterator[list[Any]]:
    made: list[Any] = []

    def factory(**params: Any) -> asyncpar.Executor:
        made.append(params)
        return asyncpar.ThreadExecutor(2)

    asyncpar.register_parallel_backend("mine", factory)
    yield made
    del backends.registered["mine"]
    backends.default_backend.clear()


def test_a_registered_backend_is_used_by_its_name(registered: list[Any]) -> None:
    assert Parallel(n_jobs=2, backend="mine")(delayed(double)(x) for x in range(3)) == [0, 2, 4]
    with parallel_config("mine", n_jobs=2, colour="red"):
        assert Parallel()(delayed(double)(x) for x in range(3)) == [0, 2, 4]
    assert registered == [{}, {"colour": "red"}]


def test_a_registered_backend_may_be_the_default(registered: list[Any]) -> None:
    asyncpar.register_parallel_backend("mine", lambda: asyncpar.InlineExecutor(), make_default=True)
    assert Parallel(n_jobs=2)(delayed(thread_name)() for _ in range(2)) == ["asyncpar portal"] * 2


def test_a_preference_for_threads_goes_before_a_default_that_nobody_named(registered: list[Any]) -> None:
    asyncpar.register_parallel_backend("mine", lambda: asyncpar.InlineExecutor(), make_default=True)
    names = Parallel(n_jobs=2, prefer="threads")(delayed(thread_name)() for _ in range(2))
    assert "asyncpar portal" not in names
    assert Parallel(n_jobs=2, prefer="processes")([delayed(thread_name)()]) == ["asyncpar portal"]


def test_a_call_in_the_portals_thread_may_not_wait_for_another_there(registered: list[Any]) -> None:
    asyncpar.register_parallel_backend("mine", lambda: asyncpar.InlineExecutor())
    with pytest.raises(RuntimeError, match="which cannot wait for itself"):
        Parallel(n_jobs=2, backend="mine")([delayed(double_all)([1], "thread")])
    assert Parallel(n_jobs=2)([delayed(double)(1)]) == [2]


def test_a_factory_must_make_executors(registered: list[Any]) -> None:
    asyncpar.register_parallel_backend("mine", lambda: 5)  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match="must return an Executor, not 5"):
        Parallel(n_jobs=2, backend="mine")([delayed(double)(1)])


def test_sizes_and_modes_come_from_the_context_too() -> None:
    assert Parallel()._hints == Hints(1 << 20, "r")
    with parallel_config(max_nbytes=None, mmap_mode="c", temp_folder="/tmp"):
        assert Parallel()._hints == Hints(None, "c")
        assert Parallel(max_nbytes="1.5K", mmap_mode=None)._hints == Hints(1536, None)
