"""What joblib's documentation shows its users, in asyncpar's names: each of these uses works, and gives the same."""

from __future__ import annotations

import heapq
import math
import operator
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from asyncpar import Parallel, delayed, parallel_config, wrap_non_picklable_objects
from tests.calls.tasks import mean_of, slow_square, total_of


def test_square_roots_in_parallel() -> None:
    assert Parallel(n_jobs=2)(delayed(math.sqrt)(i**2) for i in range(10)) == [float(i) for i in range(10)]


def test_square_roots_in_threads_by_preference() -> None:
    assert Parallel(n_jobs=2, prefer="threads")(delayed(math.sqrt)(i**2) for i in range(10)) == [float(i) for i in range(10)]


def test_square_roots_by_a_parallel_that_is_used_again_until_they_converge() -> None:
    with Parallel(n_jobs=2) as parallel:
        accumulator, rounds = 0.0, 0
        while accumulator < 1000:
            accumulator += sum(parallel(delayed(math.sqrt)(accumulator + i**2) for i in range(5)))
            rounds += 1
    assert rounds > 3


def test_two_results_of_each_call_are_taken_apart_with_zip() -> None:
    results = Parallel(n_jobs=1)(delayed(math.modf)(i / 2.0) for i in range(10))
    fractions, wholes = zip(*results, strict=True)
    assert fractions == (0.0, 0.5) * 5
    assert wholes == (0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0)


def test_a_producer_is_asked_for_tasks_while_others_run(capsys: pytest.CaptureFixture[str]) -> None:
    produced = []

    def producer() -> Iterator[int]:
        for i in range(6):
            produced.append(i)
            yield i

    parallel = Parallel(n_jobs=2, verbose=100, pre_dispatch="1.5*n_jobs", batch_size=1)
    assert parallel(delayed(math.sqrt)(i) for i in producer()) == [math.sqrt(i) for i in range(6)]
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "[Parallel(n_jobs=2)]: Using backend process with 2 concurrent workers."
    assert out[1].startswith("[Parallel(n_jobs=2)]: Done   1 ")
    assert out[-1].startswith("[Parallel(n_jobs=2)]: Done   6 out of   6 | elapsed:")
    assert out[-1].endswith("finished")


def test_a_bad_argument_shows_the_workers_traceback_and_the_argument() -> None:
    with pytest.raises(TypeError) as raised:
        Parallel(n_jobs=2, backend="process")((heapq.nlargest, (2, n), {}) for n in (range(4), "abcde", 3))
    assert "'int' object is not iterable" in str(raised.value)
    assert "in nlargest" in str(raised.value.__cause__)
    assert "item (2, 3)" in raised.value.__notes__[0]


def test_threads_collect_into_a_set_that_they_share() -> None:
    collected: set[int] = set()
    Parallel(n_jobs=2, require="sharedmem")(delayed(collected.add)(i) for i in range(5))
    assert collected == {0, 1, 2, 3, 4}


def test_a_memory_mapped_array_arrives_with_its_content(tmp_path: Path) -> None:
    samples = np.arange(300_000, dtype=float)
    np.save(tmp_path / "samples.npy", samples)
    mapped = np.load(tmp_path / "samples.npy", mmap_mode="r")
    windows = [slice(begin, begin + 1000) for begin in range(0, 10_000, 1000)]
    means = Parallel(n_jobs=2)(delayed(mean_of)(mapped, window) for window in windows)
    assert means == [samples[window].mean() for window in windows]
    del mapped


def test_arrays_larger_than_max_nbytes_arrive_whole() -> None:
    array = np.ones(10**6)
    assert Parallel(n_jobs=2, max_nbytes=1e5)(delayed(total_of)(array) for _ in range(3)) == [1e6] * 3


def test_parallel_calls_in_parallel_calls() -> None:
    rows = Parallel(n_jobs=2)(delayed(_row)(i) for i in range(4))
    assert rows == [[i * j for j in range(4)] for i in range(4)]


def _row(i: int) -> list[int]:
    return Parallel(n_jobs=2)(delayed(operator.mul)(i, j) for j in range(4))


def test_a_generator_gives_results_as_soon_as_they_are_there() -> None:
    parallel = Parallel(n_jobs=2, return_as="generator")
    results = parallel(delayed(slow_square)(i) for i in range(10))
    assert type(results).__name__ == "generator"
    assert sum(results) == sum(i**2 for i in range(10))


def test_a_generator_gives_results_in_any_order_if_that_is_asked_for() -> None:
    results = Parallel(n_jobs=2, return_as="generator_unordered")(delayed(slow_square)(i) for i in range(10))
    assert set(results) == {i**2 for i in range(10)}


def test_a_generator_feeds_another_parallel_call() -> None:
    squares = Parallel(n_jobs=2, return_as="generator")(delayed(operator.pow)(i, 2) for i in range(20))
    assert Parallel(n_jobs=2)(delayed(operator.add)(square, 1) for square in squares) == [i**2 + 1 for i in range(20)]


def test_the_backend_is_set_for_a_library_that_says_nothing() -> None:
    def library() -> list[float]:
        return Parallel()(delayed(math.sqrt)(i) for i in (1, 4, 9))

    with parallel_config(backend="threading", n_jobs=2):
        assert library() == [1.0, 2.0, 3.0]
    with parallel_config(backend="loky", n_jobs=2, inner_max_num_threads=2):
        assert library() == [1.0, 2.0, 3.0]


def test_a_lambda_may_be_wrapped_or_not() -> None:
    twice = wrap_non_picklable_objects(lambda x: 2 * x)
    assert Parallel(n_jobs=2)(delayed(twice)(x) for x in range(3)) == [0, 2, 4]
    assert Parallel(n_jobs=2)(delayed(lambda x: 2 * x)(x) for x in range(3)) == [0, 2, 4]


def test_objects_are_called_by_their_methods_in_threads() -> None:
    lock = threading.Lock()
    log: list[str] = []

    def report(text: str) -> None:
        with lock:
            log.append(text)

    Parallel(n_jobs=2, backend="threading")(delayed(report)(text) for text in "abc")
    assert sorted(log) == ["a", "b", "c"]
