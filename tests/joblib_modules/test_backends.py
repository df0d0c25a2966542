"""joblib's classes of backends, and those that others derive from them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from asyncpar._sync.backends import registered
from asyncpar.joblib import parallel as joblib_parallel
from asyncpar.joblib.parallel import (
    FallbackToBackend,
    LokyBackend,
    MultiprocessingBackend,
    Parallel,
    ParallelBackendBase,
    SequentialBackend,
    ThreadingBackend,
    delayed,
    get_active_backend,
    parallel_backend,
    parallel_config,
    register_parallel_backend,
)
from tests.functions import double, process_id
from tests.sync.functions import put_into_environment


class Threads(ParallelBackendBase):
    """As one writes a backend for joblib, with a note of what is called."""

    supports_retrieve_callback = True
    supports_sharedmem = True

    def __init__(self, size: int = 2, **others: Any) -> None:
        super().__init__(**others)
        self.size = size
        self.called: list[str] = []
        self.terminated = threading.Event()

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        return self.size

    def configure(self, n_jobs: int | None = 1, parallel: Any = None, prefer: Any = None, require: Any = None, **_: Any) -> int:
        self.called.append(f"configure {n_jobs}")
        self.pool = ThreadPoolExecutor(self.size)
        return self.size

    def start_call(self) -> None:
        self.called.append("start_call")

    def stop_call(self) -> None:
        self.called.append("stop_call")

    def submit(self, func: Any, callback: Any = None) -> Future[Any]:
        future = self.pool.submit(func)
        future.add_done_callback(callback)
        return future

    def terminate(self) -> None:
        self.called.append("terminate")
        self.pool.shutdown()
        self.terminated.set()

    @contextmanager
    def retrieval_context(self) -> Iterator[None]:
        self.called.append("retrieve")
        yield


class OlderFuture:
    def __init__(self, future: Future[Any]) -> None:
        self._future = future

    def get(self) -> Any:
        return self._future.result()


class OlderThreads(ParallelBackendBase):
    """As one wrote a backend before results came with the callback."""

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        return n_jobs or 1

    def configure(self, n_jobs: int | None = 1, parallel: Any = None, prefer: Any = None, require: Any = None, **_: Any) -> int:
        self.pool = ThreadPoolExecutor(n_jobs)
        return n_jobs or 1

    def apply_async(self, func: Any, callback: Any = None) -> Any:
        return OlderFuture(self.pool.submit(func))

    def terminate(self) -> None:
        self.pool.shutdown()


class AtOnce(SequentialBackend):
    """Makes a call when it is submitted."""


class Refusing(Threads):
    def configure(self, n_jobs: int | None = 1, parallel: Any = None, prefer: Any = None, require: Any = None, **_: Any) -> int:
        raise ConnectionError("no cluster")


class FallingBack(Threads):
    def configure(self, n_jobs: int | None = 1, parallel: Any = None, prefer: Any = None, require: Any = None, **_: Any) -> int:
        raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))


class CallsBackTwice(Threads):
    """In a thread that ends with the first error of a callback."""

    def submit(self, func: Any, callback: Any = None) -> Future[Any]:
        future = self.pool.submit(func)

        def call_back(future: Future[Any]) -> None:
            try:
                callback(future)
                callback(future)
            except Exception:
                self.called.append("a callback failed")

        future.add_done_callback(call_back)
        return future


class CannotStart(Threads):
    def start_call(self) -> None:
        raise ConnectionError("no cluster")


class CannotStop(Threads):
    def stop_call(self) -> None:
        raise ConnectionError("no cluster")


class Counted(LokyBackend):
    calls = 0

    def start_call(self) -> None:
        self.calls += 1
        super().start_call()


@pytest.fixture(autouse=True)
def registrations_end() -> Iterator[None]:
    yield
    registered.clear()


@pytest.mark.parametrize("kind", [Threads, OlderThreads, AtOnce, Counted, FallingBack])
@pytest.mark.parametrize("return_as", ["list", "generator", "generator_unordered"])
def test_a_backend_that_somebody_has_written_makes_the_calls(kind: type[Any], return_as: Any) -> None:
    register_parallel_backend("theirs", kind)
    results = Parallel(2, backend="theirs", return_as=return_as)(delayed(double)(x) for x in range(50))
    assert sorted(results) == list(range(0, 100, 2))
    assert list(Parallel(2, backend=kind())(delayed(double)(x) for x in range(3))) == [0, 2, 4]


@pytest.mark.parametrize("kind", [Threads, OlderThreads, AtOnce])
def test_an_error_of_a_task_is_raised_as_it_is_and_the_next_call_works(kind: type[Any]) -> None:
    parallel = Parallel(2, backend=kind())
    with pytest.raises(ZeroDivisionError):
        parallel(delayed(divmod)(1, x) for x in [1, 0, 2])
    assert parallel([delayed(double)(2)]) == [4]


def test_a_backend_that_cannot_begin_says_why() -> None:
    with pytest.raises(ConnectionError, match="no cluster"):
        Parallel(2, backend=Refusing())([delayed(double)(2)])


@pytest.mark.parametrize("kind", [CannotStart, CannotStop])
def test_a_backend_that_fails_after_it_has_begun_is_ended_and_says_why(kind: type[Any]) -> None:
    backend = kind()
    with pytest.raises(ConnectionError, match="no cluster"):
        Parallel(2, backend=backend)([delayed(double)(2)])
    assert backend.called[-1] == "terminate"


def test_a_second_callback_for_a_batch_is_not_heard() -> None:
    backend = CallsBackTwice()
    assert Parallel(2, backend=backend)(delayed(double)(x) for x in range(5)) == [0, 2, 4, 6, 8]
    assert "a callback failed" not in backend.called


def test_its_methods_are_called_as_joblib_calls_them() -> None:
    backend = Threads()
    Parallel(2, backend=backend)(delayed(double)(x) for x in range(5))
    assert backend.called == ["retrieve", "configure 2", "start_call", "stop_call", "terminate"]


def test_a_context_makes_one_backend_with_its_parameters() -> None:
    register_parallel_backend("theirs", Threads)
    with parallel_config("theirs", size=3) as settings:
        backend: Any = settings["backend"]
        assert (type(backend), backend.size) == (Threads, 3)
        called: list[str] = backend.called
        assert Parallel()._backend is backend is get_active_backend()[0]
        assert Parallel().n_jobs == joblib_parallel.effective_n_jobs(7) == 3
        assert Parallel()([delayed(double)(1)]) == [2]
    assert called[0] == "retrieve"
    with parallel_backend("theirs", n_jobs=5) as (other, n_jobs):
        assert (type(other), n_jobs) == (Threads, 5)


def test_memory_is_shared_where_the_backend_says_so() -> None:
    seen: list[int] = []
    Parallel(2, backend=Threads(), require="sharedmem")(delayed(seen.append)(x) for x in range(20))
    assert sorted(seen) == list(range(20))
    with pytest.raises(ValueError, match="shared memory"):
        Parallel(2, backend=OlderThreads(), require="sharedmem")
    with parallel_config(OlderThreads()):
        assert type(Parallel(require="sharedmem")._backend) is ThreadingBackend


def test_one_without_workers_or_without_inner_threads_is_refused() -> None:
    with pytest.raises(RuntimeError, match="Threads has no active worker"):
        Parallel(2, backend=Threads(size=0))
    register_parallel_backend("theirs", Threads)
    with pytest.raises(AssertionError, match="does not accept inner_max_num_threads"):
        parallel_config("theirs", inner_max_num_threads=1)
    with pytest.raises(ValueError, match="only supported when backend is a string"):
        parallel_config(Threads(), size=3)
    with pytest.raises(AssertionError, match="to be given to Threads"):
        Parallel(2, backend=Threads(), inner_max_num_threads=1)


def test_parameters_of_a_call_go_to_its_configure() -> None:
    seen: dict[str, Any] = {}

    class Configured(Threads):
        def configure(
            self, n_jobs: int | None = 1, parallel: Any = None, prefer: Any = None, require: Any = None, **others: Any
        ) -> int:
            seen.update(others, n_jobs=n_jobs, parallel=type(parallel))
            return super().configure(n_jobs)

    assert Parallel(2, backend=Configured(), queue="fast")([delayed(double)(2)]) == [4]
    assert seen == {"queue": "fast", "n_jobs": 2, "parallel": Parallel}


def test_a_factory_may_be_a_function() -> None:
    made: list[Threads] = []

    def make(**params: Any) -> Threads:
        made.append(Threads(**params))
        return made[-1]

    register_parallel_backend("theirs", make)
    assert Parallel(2, backend="theirs")([delayed(double)(4)]) == [8]
    assert "terminate" in made[0].called


@pytest.mark.parametrize(
    ("name", "kind", "shares"),
    [
        ("loky", LokyBackend, False),
        ("multiprocessing", MultiprocessingBackend, False),
        ("threading", ThreadingBackend, True),
        ("sequential", SequentialBackend, True),
    ],
)
def test_joblibs_own_backends_stand_for_asyncpars_executors(name: str, kind: type[Any], shares: bool) -> None:
    assert joblib_parallel.BACKENDS[name] is kind
    for backend in [name, kind()]:
        with parallel_config(backend, n_jobs=2):
            assert type(get_active_backend()[0]) is type(Parallel()._backend) is kind
            pids = {*Parallel()(delayed(process_id)(x) for x in range(4))}
            assert (pids == {os.getpid()}) is shares
    assert get_active_backend()[0].supports_sharedmem is False


def test_a_backend_in_a_task_is_of_threads() -> None:
    def below() -> tuple[str, int | None]:
        backend = get_active_backend()[0]
        return type(backend).__name__, backend.nesting_level

    assert Parallel(2)(delayed(below)() for _ in range(2)) == [("ThreadingBackend", 1)] * 2


def test_what_is_derived_from_a_backend_of_joblibs_has_its_methods_called() -> None:
    backend = Counted()
    pids = Parallel(2, backend=backend)(delayed(process_id)(x) for x in range(4))
    assert os.getpid() not in pids
    assert backend.calls == 1


@pytest.mark.parametrize("of_call", [True, False])
def test_what_is_derived_from_a_backend_of_joblibs_has_its_parameters(of_call: bool) -> None:
    params: dict[str, Any] = {"initializer": put_into_environment, "initargs": ("MARK", "1"), "idle_worker_timeout": 60}
    parallel = Parallel(2, backend=Counted(), **params) if of_call else Parallel(2, backend=Counted(**params))
    assert parallel([delayed(os.getenv)("MARK")]) == ["1"]


def test_a_call_that_is_dropped_ends_the_backend() -> None:
    backend, began, go_on = Threads(), threading.Event(), threading.Event()

    def wait(x: int) -> int:
        began.set()
        go_on.wait(10)
        return x

    results = Parallel(2, backend=backend, return_as="generator")(delayed(wait)(x) for x in range(10))
    began.wait(10)
    go_on.set()
    results.close()  # which does not wait for a call that is running in a thread
    assert backend.terminated.wait(10)
    assert backend.called[-1] == "terminate"
