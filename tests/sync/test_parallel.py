"""`Parallel` gives what a loop over the calls gives, whatever the backend, the calls, and the caller's thread and its loop."""

from __future__ import annotations

import asyncio
import gc
import itertools
import multiprocessing
import operator
import os
import sys
import threading
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import numpy as np
import psutil
import pytest

import asyncpar
from asyncpar import Parallel, Statistics, delayed
from asyncpar._sync.calls import CallPuller
from tests.calls.tasks import CountsPickling, FailsAtFirst, fail_on_multiples_of_five, second, third, total
from tests.functions import Beacon, add, die_on_negative, double, identity, process_id, raise_value_error
from tests.sync import functions
from tests.sync.functions import Counted, Finicky, Model, double_all, nest, raise_finicky, thread_name, touch_and_wait

# What is called


@pytest.mark.parametrize("return_as", ["list", "generator"])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 1000])
def test_results_are_those_of_a_loop(backend: str, count: int, return_as: Any) -> None:
    results = Parallel(n_jobs=2, backend=backend, return_as=return_as)(delayed(double)(x) for x in range(count))
    assert list(results) == [2 * x for x in range(count)]


@pytest.mark.parametrize("batch_size", ["auto", 1, 7, 1000])
def test_results_do_not_depend_on_the_batch_size(batch_size: Any) -> None:
    assert Parallel(n_jobs=2, batch_size=batch_size)(delayed(double)(x) for x in range(300)) == [2 * x for x in range(300)]


def test_unordered_results_are_all_there(backend: str) -> None:
    results = Parallel(n_jobs=2, backend=backend, return_as="generator_unordered")(delayed(double)(x) for x in range(100))
    assert sorted(results) == [2 * x for x in range(100)]


call: Any = delayed  # type checkers know one signature of dict and of max

CALLS: list[Any] = [
    call(add)(1, 2),
    call(add)(1, b=2),
    call(add)(b=1, a=2),
    call(dict)(),
    call(dict)(a=1),
    (add, (1, 2), {}),
    (add, [1], {"b": 2}),
    call(lambda: 5)(),
    call(partial(add, 1))(2),
    call("a-b".split)("-"),
    call(max)([3, 1], key=operator.neg),
]


@pytest.mark.parametrize("times", [1, 30])
def test_calls_may_differ_in_function_and_arguments(backend: str, times: int) -> None:
    calls = CALLS * times
    expected = [function(*args, **kwargs) for function, args, kwargs in calls]
    assert Parallel(n_jobs=2, backend=backend)(calls) == expected


def test_calls_may_differ_in_long_stretches() -> None:
    calls = [*[delayed(double)(x) for x in range(500)], *[delayed(add)(x, b=1) for x in range(500)], delayed(add)(1, 1)]
    assert Parallel(n_jobs=2)(calls) == [*range(0, 1000, 2), *range(1, 501), 2]


def test_each_call_may_have_a_function_of_its_own() -> None:
    calls = (delayed(lambda x, n=n: x + n)(1) for n in range(500))
    assert Parallel(n_jobs=2)(calls) == [1 + n for n in range(500)]


def test_a_function_is_pickled_once_for_many_calls() -> None:
    function = Counted()
    Counted.pickled = 0
    assert Parallel(n_jobs=2)(delayed(function)(x) for x in range(2000)) == list(range(1, 2001))
    assert Counted.pickled == 1


def test_a_method_of_a_large_object_is_sent_once_for_many_calls() -> None:
    weights = np.arange(200_000, dtype=float)
    xs = [np.full(200_000, float(x)) for x in range(3)]
    assert Model(weights).fit(xs) == [float(weights @ x) for x in xs]


def test_a_decorated_function_keeps_its_name_and_makes_calls() -> None:
    @delayed
    def shift(x: int, by: int = 1) -> int:
        """Moves x."""
        return x + by

    assert shift.__name__ == "shift"
    assert shift.__doc__ == "Moves x."
    assert Parallel(n_jobs=2)(shift(x, by=2) for x in range(3)) == [2, 3, 4]


def test_a_decorated_method_gets_its_object() -> None:
    class Adder:
        @delayed
        def add(self, x: int) -> int:
            return x + 1

    assert Parallel(n_jobs=1)(Adder().add(x) for x in range(3)) == [1, 2, 3]


def test_a_coroutine_in_the_calling_thread_does_not_matter() -> None:
    async def handler() -> list[int]:
        return double_all([1, 2, 3])

    assert asyncio.run(handler()) == [2, 4, 6]
    assert anyio.run(handler, backend="trio") == [2, 4, 6]


# The input


def test_the_input_is_pulled_lazily_and_not_beyond_the_window() -> None:
    pulled = []

    def calls() -> Iterator[Any]:
        for x in itertools.count():
            pulled.append(x)
            yield delayed(double)(x)

    results = Parallel(n_jobs=2, backend="threading", return_as="generator", pre_dispatch=6)(calls())
    for handed, result in enumerate(itertools.islice(results, 50)):
        assert result == 2 * handed
        assert len(pulled) <= handed + 1 + 6
    results.close()


def test_a_call_that_is_slow_to_come_is_delivered_at_once_after_many_fast_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = [0.0]

    def calls() -> Iterator[Any]:
        for x in itertools.count():
            seconds[0] += x >= 3000
            yield delayed(double)(x)

    monkeypatch.setattr("asyncpar._sync.calls.time", SimpleNamespace(monotonic=lambda: seconds[0]))
    puller = CallPuller(calls())
    assert [puller.pull(10_000).calls for _ in range(3)] == [3001, 1, 1]


def test_the_input_is_pulled_in_the_callers_thread() -> None:
    threads = set()

    def calls() -> Iterator[Any]:
        for x in range(300):
            threads.add(threading.current_thread())
            yield delayed(double)(x)

    Parallel(n_jobs=2)(calls())
    assert threads == {threading.current_thread()}


def test_the_input_may_itself_come_from_parallel_calls() -> None:
    calls = (delayed(double)(sum(double_all([x, x]))) for x in range(10))
    assert Parallel(n_jobs=2)(calls) == [8 * x for x in range(10)]
    calls = (delayed(double)(sum(double_all([x, x]))) for x in range(10))
    assert list(Parallel(n_jobs=2, return_as="generator")(calls)) == [8 * x for x in range(10)]


@pytest.mark.parametrize("return_as", ["list", "generator"])
def test_what_the_input_raises_is_raised(backend: str, return_as: Any) -> None:
    def calls() -> Iterator[Any]:
        yield delayed(double)(1)
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        list(Parallel(n_jobs=2, backend=backend, return_as=return_as)(calls()))


def test_results_before_the_inputs_error_are_handed_out_by_a_generator() -> None:
    def calls() -> Iterator[Any]:
        yield from (delayed(double)(x) for x in range(20))
        raise LookupError("no more")

    results = Parallel(n_jobs=2, return_as="generator")(calls())
    received = []
    with pytest.raises(LookupError):
        for result in results:
            received.append(result)  # noqa: PERF402 - extend() could lose what came before the error
    assert received == [2 * x for x in range(20)]


def test_a_generator_gives_nothing_that_comes_after_the_call_that_failed() -> None:
    others_are_done = threading.Event()

    def call(x: int) -> int:
        if x == 1:
            others_are_done.wait(30)
            raise ZeroDivisionError
        if x == 9:  # what came before it has been taken in
            others_are_done.set()
        return x

    parallel = Parallel(n_jobs=2, backend="threading", return_as="generator", batch_size=1, pre_dispatch=20)
    results = parallel(delayed(call)(x) for x in range(20))
    received = []
    with pytest.raises(ZeroDivisionError):
        for result in results:
            received.append(result)  # noqa: PERF402 - as above
    assert received == [0]


def test_the_error_of_a_call_arrives_after_many_that_did_not_fail(backend: str) -> None:
    def call(x: int) -> int:
        if x >= 2000:
            raise ValueError(x)
        return x

    with pytest.raises(ValueError) as caught:
        Parallel(n_jobs=2, backend=backend)(delayed(call)(x) for x in range(3000))
    assert caught.value.args[0] >= 2000


def test_a_generator_as_input_is_closed_after_an_error() -> None:
    closed = []

    def calls() -> Iterator[Any]:
        try:
            while True:
                yield delayed(raise_value_error)(1)
        finally:
            closed.append(threading.current_thread())

    with pytest.raises(ValueError, match="bad 1"):
        Parallel(n_jobs=2)(calls())
    assert closed == [threading.current_thread()]


# One worker, and nesting


def test_one_worker_is_a_loop_in_the_callers_thread() -> None:
    assert Parallel(n_jobs=1)(delayed(thread_name)() for _ in range(2)) == [threading.current_thread().name] * 2
    with pytest.raises(ValueError, match="bad 3") as raised:
        Parallel()([delayed(raise_value_error)(3)])
    assert raised.value.__cause__ is None
    assert not hasattr(raised.value, "__notes__")
    assert not any(thread.name == "asyncpar portal" for thread in threading.enumerate())


def test_calls_in_calls_use_threads_and_then_none() -> None:
    outer, first, second, third = Parallel(n_jobs=2, backend="process")([delayed(nest)(3)] * 2)[0]
    assert outer[0] != os.getpid()
    assert (outer[2], first[2], second[2], third[2]) == (1, 2, 2, 2)
    assert first[0] == second[0] == third[0] == outer[0]
    assert first[1] != outer[1]
    assert second[1] == third[1] == first[1]


@pytest.mark.parametrize("inner", [None, "thread", "process"])
def test_calls_in_threads_may_make_parallel_calls(inner: str | None) -> None:
    calls = [delayed(double_all)([x, x + 1], inner) for x in range(8)]
    assert Parallel(n_jobs=2, backend="thread")(calls) == [[2 * x, 2 * x + 2] for x in range(8)]


def test_a_parallel_may_be_called_in_its_own_tasks() -> None:
    parallel = Parallel(n_jobs=2, backend="thread")

    def outer(x: int) -> list[int]:
        return parallel(delayed(double)(y) for y in (x, x + 1))

    assert parallel(delayed(outer)(x) for x in range(6)) == [[2 * x, 2 * x + 2] for x in range(6)]


def test_calls_in_an_inline_executor_run_in_the_callers_thread_and_may_make_parallel_calls() -> None:
    parallel = Parallel(n_jobs=2, backend=asyncpar.InlineExecutor())
    assert parallel.n_jobs == 1
    assert parallel([delayed(thread_name)()]) == [threading.current_thread().name]
    assert parallel(delayed(double_all)([x], "thread") for x in range(3)) == [[0], [2], [4]]


def test_threads_that_tasks_start_may_call_too() -> None:
    def outer(x: int) -> list[int]:
        results: list[list[int]] = []
        thread = threading.Thread(target=lambda: results.append(double_all([x, x + 1], "thread")))
        thread.start()
        thread.join()
        return results[0]

    assert Parallel(n_jobs=3, backend="thread")(delayed(outer)(x) for x in range(6)) == [[2 * x, 2 * x + 2] for x in range(6)]


def test_an_object_that_holds_a_parallel_may_be_sent_to_workers() -> None:
    class Holder:
        def __init__(self) -> None:
            self.parallel = Parallel(n_jobs=2)

        def outer(self, x: int) -> list[int]:
            return self.parallel(delayed(double)(y) for y in (x, x + 1))

        def all(self) -> list[list[int]]:
            return self.parallel(delayed(self.outer)(x) for x in range(3))

    assert Holder().all() == [[0, 2], [2, 4], [4, 6]]


# Errors


@pytest.mark.parametrize("return_as", ["list", "generator", "generator_unordered"])
def test_an_error_arrives_as_it_is_with_the_workers_traceback(return_as: Any) -> None:
    with pytest.raises(ValueError, match="bad 0") as raised:
        list(Parallel(n_jobs=2, backend="process", return_as=return_as)(delayed(raise_value_error)(0) for _ in range(3)))
    assert "raise_value_error" in str(raised.value.__cause__)
    assert "item 0" in raised.value.__notes__[0]


def test_an_exception_with_a_finicky_constructor_arrives() -> None:
    with pytest.raises(Finicky) as raised:
        Parallel(n_jobs=2, backend="process")([delayed(raise_finicky)("no")] * 2)
    assert raised.value.code == 7


def test_an_argument_that_cannot_be_pickled_is_named() -> None:
    with pytest.raises(asyncpar.PicklingError, match=r"arguments\[0\]\['lock'\]"):
        Parallel(n_jobs=2, backend="process")([delayed(double)({"lock": threading.Lock()})] * 2)


@pytest.mark.parametrize(
    ("bad", "path"),
    [
        (call(double)({"lock": threading.Lock()}), r"arguments\[0\]\['lock'\]"),
        (call(double)(x={"lock": threading.Lock()}), r"keywords\['x'\]\['lock'\]"),
    ],
)
def test_it_is_also_named_where_functions_alternate(bad: Any, path: str) -> None:
    with pytest.raises(asyncpar.PicklingError, match=path):
        Parallel(n_jobs=2, backend="process")([delayed(abs)(1), bad] * 4)


def test_a_function_that_cannot_be_pickled_is_named() -> None:
    lock = threading.Lock()
    with pytest.raises(asyncpar.PicklingError, match=r"function.*lock"):
        Parallel(n_jobs=2, backend="process")(delayed(lambda x: lock)(x) for x in range(3))


def test_a_dead_worker_is_an_error_that_names_the_task_and_the_next_call_works() -> None:
    parallel = Parallel(n_jobs=2, backend="process")
    with pytest.raises(asyncpar.WorkerDiedError, match="exited with code 7") as raised:
        parallel(delayed(die_on_negative)(x) for x in [1, 2, -3, 4])
    assert raised.value.item == -3
    assert parallel(delayed(die_on_negative)(x) for x in [1, 2]) == [1, 2]


@pytest.mark.parametrize(
    ("failing", "item"),
    [
        (call(raise_value_error)(5), 5),
        (call(raise_value_error)(x=5), 5),
        (call(operator.truediv)(5, 0), (5, 0)),
        (call(max)(), ()),
    ],
)
def test_an_error_shows_the_arguments_also_where_functions_alternate(failing: Any, item: object) -> None:
    with pytest.raises((ValueError, ZeroDivisionError, TypeError)) as raised:
        Parallel(n_jobs=2, backend="process")([delayed(double)(1), failing, delayed(double)(1), failing])
    assert f"item {item!r}" in raised.value.__notes__[0]


def test_an_error_of_a_call_without_arguments_shows_none() -> None:
    with pytest.raises(TypeError) as raised:
        Parallel(n_jobs=2, backend="process")([call(max)()] * 2)
    assert "item ()" in raised.value.__notes__[0]


@pytest.mark.parametrize("error", [TimeoutError, multiprocessing.TimeoutError, asyncpar.CallTimeoutError])
def test_a_task_that_takes_too_long_ends_the_call(tmp_path: Path, error: type[Exception]) -> None:
    beacon = Beacon(tmp_path / "beacon")
    with pytest.raises(error, match=r"took longer than its timeout of 0\.3 s"):
        Parallel(n_jobs=2, backend="process", timeout=0.3)([delayed(abs)(1), delayed(beacon.spin)()])
    assert not psutil.pid_exists(beacon.pid)


# Generators


def test_a_second_call_while_a_generator_runs_is_refused(backend: str) -> None:
    parallel = Parallel(n_jobs=2, backend=backend, return_as="generator")
    results = parallel(delayed(double)(x) for x in itertools.count())
    assert next(results) == 0
    with pytest.raises(RuntimeError, match="has not ended"):
        parallel([delayed(double)(1)])
    results.close()
    assert list(parallel([delayed(double)(1)])) == [2]


def test_closing_a_generator_ends_its_calls(tmp_path: Path) -> None:
    beacon = Beacon(tmp_path / "beacon")
    results = Parallel(n_jobs=2, backend="process", return_as="generator")([delayed(abs)(-1), delayed(beacon.spin)()])
    assert next(results) == 1
    while not beacon.pid:
        pass
    results.close()
    assert not psutil.pid_exists(beacon.pid)


@pytest.mark.parametrize("consumed", [0, 1])
def test_dropping_a_generator_ends_its_calls(tmp_path: Path, consumed: int) -> None:
    beacon = Beacon(tmp_path / "beacon")
    results = Parallel(n_jobs=2, backend="process", return_as="generator")([delayed(abs)(-1), delayed(beacon.spin)()])
    for _ in range(consumed):
        next(results)
    while not beacon.pid:
        pass
    gone = weakref.ref(results)
    del results
    gc.collect()
    assert gone() is None
    assert not psutil.pid_exists(beacon.pid)


def test_a_generators_run_goes_on_while_nobody_takes_results(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    results = Parallel(n_jobs=2, return_as="generator")([delayed(touch_and_wait)(paths[0], paths[1])])
    functions.wait_for(paths[0])
    paths[1].touch()
    assert list(results) == [True]


def test_leaving_with_closes_a_generator() -> None:
    with Parallel(n_jobs=2, return_as="generator") as parallel:
        results = parallel(delayed(double)(x) for x in itertools.count())
        next(results)
    assert list(results) == []


# Workers that stay


def test_with_keeps_workers() -> None:
    with Parallel(n_jobs=2, backend="process", initializer=functions.put_into_environment, initargs=("MARK", "1")) as parallel:
        first = parallel([delayed(process_id)(0)])
        assert parallel([delayed(process_id)(0)]) == first
        assert parallel([delayed(functions.environment)("MARK")]) == ["1"]
    assert not psutil.pid_exists(first[0])


def test_without_with_workers_stay_warm() -> None:
    calls = [delayed(process_id)(0)]
    assert Parallel(n_jobs=2, backend="process")(calls) == Parallel(n_jobs=2, backend="process")(calls)


def pid_with(initializer: Any, *initargs: Any, **options: Any) -> int:
    parallel = Parallel(n_jobs=2, backend="process", initializer=initializer, initargs=initargs, **options)
    return parallel([delayed(process_id)(0)])[0]


def test_calls_with_the_same_initializer_and_the_same_arguments_have_the_same_workers() -> None:
    first = pid_with(functions.put_into_environment, "MARK", "1")
    assert pid_with(functions.put_into_environment, "MARK", "1") == first
    other = pid_with(functions.put_into_environment, "MARK", "2")
    assert other != first
    assert not psutil.pid_exists(first)  # there is one such pool at a time
    assert pid_with(functions.put_into_environment, "MARK", "2", idle_worker_timeout=60) != other


@pytest.mark.parametrize(
    ("first", "second"),
    [(1, True), ((1,), (1.0,)), (0.0, -0.0), (frozenset([1]), frozenset([True])), ("1", b"1")],
)
def test_arguments_that_are_equal_and_differ_have_workers_of_their_own(first: Any, second: Any) -> None:
    before = pid_with(identity, first)
    assert pid_with(identity, first) == before
    assert pid_with(identity, second) != before


class RefusesToCompare:
    """As arrays do that compare their elements, and can be hashed."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")


def test_an_argument_of_an_initializer_that_cannot_be_pickled_is_named() -> None:
    with pytest.raises(asyncpar.PicklingError, match=r"function abs>, the initializer, cannot be sent .* _thread.lock"):
        pid_with(abs, threading.Lock())


def test_arguments_of_an_initializer_that_cannot_be_compared_are_not_compared() -> None:
    assert pid_with(identity, RefusesToCompare()) != pid_with(identity, RefusesToCompare())


def test_arguments_of_an_initializer_may_come_from_an_iterator() -> None:
    for backend in ["process", "thread"]:
        parallel = Parallel(n_jobs=2, backend=backend, initializer=dict, initargs=iter([{"factor": 3}]))
        assert parallel([delayed(functions.scale_by_state)(2)]) == [6]


def test_a_call_while_another_one_has_these_workers_has_workers_of_its_own() -> None:
    results = Parallel(n_jobs=2, backend="process", initializer=int, return_as="generator")(
        delayed(process_id)(x) for x in range(4)
    )
    other = pid_with(int)
    assert other not in {*results}


@pytest.mark.parametrize(
    ("initializer", "initargs", "options"),
    [
        (functions.yields_state, (), {}),  # it is left when the worker ends
        (dict, ([("a", 1)],), {}),  # which may have changed at the next call
        (identity, (Model([1]),), {}),  # so may this
        (identity, ((1, [2]),), {}),
        (partial(dict, [("a", 1)]), (), {}),
        ([].append, (1,), {}),
        (int, (), {"max_calls_per_worker": 100}),
    ],
)
def test_other_calls_with_an_initializer_leave_no_worker(initializer: Any, initargs: Any, options: Any) -> None:
    assert not psutil.pid_exists(pid_with(initializer, *initargs, **options))


def test_a_call_with_an_initializer_that_fails_leaves_no_worker() -> None:
    before = psutil.Process().children(recursive=True)
    with pytest.raises(ValueError, match="bad"):
        Parallel(n_jobs=2, backend="process", initializer=int)(delayed(raise_value_error)(x) for x in range(3))
    assert psutil.Process().children(recursive=True) == before


@pytest.mark.parametrize("backend", ["thread", "threading"])
def test_threads_have_an_initializer(backend: str) -> None:
    with Parallel(n_jobs=2, backend=backend, initializer=dict, initargs=[{"factor": 3}]) as parallel:
        assert parallel(delayed(functions.scale_by_state)(x) for x in range(5)) == [0, 3, 6, 9, 12]
    with asyncpar.parallel_config(backend, n_jobs=2, initializer=dict, initargs=[{"factor": 2}]):
        assert Parallel()(delayed(functions.scale_by_state)(x) for x in range(3)) == [0, 2, 4]


def test_the_threads_of_libraries_are_limited_in_threads() -> None:
    pytest.importorskip("threadpoolctl")
    calls = [delayed(functions.blas_threads)() for _ in range(4)]
    assert {*Parallel(n_jobs=2, backend="threading", inner_max_num_threads=1)(calls)} <= {1}


def test_what_cannot_be_sent_is_said_in_joblibs_words() -> None:
    with pytest.raises(asyncpar.PicklingError, match=r"Could not pickle the task to send.*arguments\[0\]") as caught:
        Parallel(n_jobs=2, backend="process")(delayed(id)(threading.Lock()) for _ in range(3))
    assert caught.value.path == "arguments[0]"
    with pytest.raises(asyncpar.PicklingError, match=r"Could not pickle the result of a task to send"):
        Parallel(n_jobs=2, backend="process")(delayed(threading.Lock)() for _ in range(3))


def test_a_second_call_while_a_generator_runs_is_refused_in_joblibs_words() -> None:
    parallel = Parallel(n_jobs=2, backend="threading", return_as="generator")
    results = parallel(delayed(double)(x) for x in range(4))
    with pytest.raises(RuntimeError, match="This Parallel instance is already running"):
        parallel([delayed(double)(1)])
    assert list(results) == [0, 2, 4, 6]


def test_what_an_initializer_raises_is_raised() -> None:
    with pytest.raises(ValueError, match="bad 5"):
        Parallel(n_jobs=2, backend="process", initializer=raise_value_error, initargs=(5,))([delayed(abs)(1)] * 2)


def test_an_executor_may_be_the_backend() -> None:
    parallel = Parallel(backend=asyncpar.ThreadExecutor(3))
    assert parallel.n_jobs == 3
    assert parallel(delayed(double)(x) for x in range(5)) == [0, 2, 4, 6, 8]


def test_a_multiprocessing_context_means_processes() -> None:
    (pid,) = Parallel(n_jobs=2, backend=multiprocessing.get_context("spawn"))([delayed(process_id)(0)])
    assert pid != os.getpid()


# Shared memory


def test_an_array_that_many_calls_share_is_copied_once_and_the_statistics_say_so() -> None:
    snapshots: list[Statistics] = []
    array: Any = np.arange(200_000.0)
    results = Parallel(n_jobs=2, progress=snapshots.append)(delayed(np.take)(array, x) for x in range(10))
    assert results == array[:10].tolist()
    assert snapshots[-1].shared_bytes >= array.nbytes
    assert snapshots[-1].zero_copy_hits == snapshots[-1].batches - 1


def test_max_shared_bytes_bounds_what_is_shared() -> None:
    snapshots: list[Statistics] = []
    array: Any = np.arange(200_000.0)
    parallel = Parallel(n_jobs=2, progress=snapshots.append, max_shared_bytes=0)
    assert parallel([delayed(np.sum)(array)]) == [array.sum()]
    assert snapshots[-1].shared_bytes == 0
    assert snapshots[-1].inline_bytes > array.nbytes


# Several callers


def test_many_threads_may_call_at_once() -> None:
    wrong: list[object] = []

    def caller(number: int) -> None:
        for turn in range(20):
            expected = [2 * (number + turn), number]
            if Parallel(n_jobs=2)([delayed(double)(number + turn), delayed(abs)(number)]) != expected:
                wrong.append((number, turn))

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_one_parallel_may_be_called_again_and_from_several_threads_at_once() -> None:
    results: dict[int, list[int]] = {}
    with Parallel(n_jobs=2) as parallel:

        def caller(number: int) -> None:
            for _ in range(20):
                results[number] = parallel(delayed(double)(x) for x in range(number))

        threads = [threading.Thread(target=caller, args=(number,)) for number in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == {number: [2 * x for x in range(number)] for number in range(1, 5)}


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("return_as", ["list", "generator"])
def test_failed_tasks_may_be_returned_or_left_out(n_jobs: int, return_as: Any, backend: str) -> None:
    calls = [delayed(fail_on_multiples_of_five)(x) for x in range(200)]
    options: dict[str, Any] = {"n_jobs": n_jobs, "backend": backend, "return_as": return_as}
    returned: list[Any] = list(Parallel(on_error="return", **options)(calls))
    assert [x if isinstance(x, int) else x.args[0] for x in returned] == list(range(200))
    assert [x for x, result in enumerate(returned) if isinstance(result, ValueError)] == list(range(0, 200, 5))
    assert list(Parallel(on_error="skip", **options)(calls)) == [x for x in range(200) if x % 5]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_failed_tasks_are_tried_again(n_jobs: int, backend: str, tmp_path: Path) -> None:
    call = FailsAtFirst(tmp_path, 2)
    options: dict[str, Any] = {"n_jobs": n_jobs, "backend": backend, "retry_wait": 1e-6}
    assert Parallel(retries=2, retry_on=OSError, **options)(delayed(call)(x) for x in range(20)) == list(range(20))
    with pytest.raises(ConnectionError):
        Parallel(retries=1, **options)(delayed(call)(x) for x in range(20, 40))
    with pytest.raises(ConnectionError):
        Parallel(retries=2, retry_on=ValueError, **options)(delayed(call)(x) for x in range(40, 60))


def test_many_functions_with_large_arrays_are_called_in_turn() -> None:
    functions = [partial(np.sum, np.full(30_000, float(number))) for number in range(150)]
    calls = [delayed(functions[0 if turn % 2 else number])() for number in range(150) for turn in range(4)]
    expected = [30_000.0 * (0 if turn % 2 else number) for number in range(150) for turn in range(4)]
    assert Parallel(n_jobs=2, backend="process", batch_size=1)(calls) == expected


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_task_that_exits_does_not_end_the_program_where_errors_are_returned(n_jobs: int, backend: str) -> None:
    results: list[Any] = Parallel(n_jobs=n_jobs, backend=backend, on_error="return")([delayed(sys.exit)(3), delayed(abs)(-1)])
    assert type(results[0]) is RuntimeError
    assert "SystemExit: 3" in str(results[0])
    assert results[1] == 1


def test_what_recurs_in_explicit_calls_is_pickled_once_a_batch() -> None:
    pickled: list[None] = []
    model = CountsPickling(pickled)
    calls = [delayed(identity)(model) for _ in range(40)]
    mixed = [delayed(function)(model, **keywords) for function in (second, third) for keywords in ({}, {"more": 1})] * 10
    for tasks in (calls, mixed):
        pickled.clear()
        Parallel(n_jobs=2, batch_size=10)(tasks)
        assert len(pickled) <= 2 * 4, "twice for each of four batches: in the event loop, and again in a thread"


@pytest.mark.parametrize("backend", ["process", "thread"])
def test_a_function_may_be_called_with_different_numbers_of_arguments(backend: str) -> None:
    tasks = [delayed(total)(x) for x in range(40)] + [delayed(total)(x, x) for x in range(40)] + [delayed(total)()]
    assert Parallel(n_jobs=2, backend=backend)(tasks) == [*range(40), *range(0, 80, 2), 0]
