"""What `Parallel` and its like refuse, with a message that names the valid values."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest

import asyncpar
from asyncpar import Parallel, delayed, parallel_backend, parallel_config, register_parallel_backend
from asyncpar._sync.pre_dispatch import evaluate_pre_dispatch
from tests.functions import double, double_soon


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_jobs": "2.3"}, ValueError, "n_jobs must be a number of workers, 1 or more, a negative one .* not '2.3'"),
        ({"n_jobs": "many"}, ValueError, "n_jobs"),
        ({"n_jobs": [2]}, ValueError, "n_jobs"),
        ({"backend": "gpu"}, ValueError, "known are 'process', 'thread', 'interpreter', 'inline', 'dask', 'ray', 'loky'"),
        ({"backend": 5}, ValueError, "Invalid backend: 5"),
        ({"return_as": "set"}, ValueError, "return_as must be one of 'list', 'generator', 'generator_unordered', not 'set'"),
        ({"verbose": "much"}, ValueError, "verbose must be a number"),
        ({"timeout": 0}, ValueError, "timeout must be a positive number of seconds for one task, or None, not 0"),
        ({"timeout": "1s"}, ValueError, "timeout"),
        ({"batch_size": 0}, ValueError, "batch_size must be .auto. or a number of calls, 1 or more, not 0"),
        ({"batch_size": 1.5}, ValueError, "batch_size"),
        (
            {"pre_dispatch": 0},
            ValueError,
            "pre_dispatch must be 'all', a number of tasks, 1 or more, or arithmetic over n_jobs",
        ),
        ({"pre_dispatch": -3}, ValueError, "pre_dispatch"),
        ({"pre_dispatch": None}, ValueError, "pre_dispatch"),
        ({"pre_dispatch": "none"}, ValueError, "pre_dispatch"),
        (
            {"max_nbytes": "1T"},
            ValueError,
            "max_nbytes must be a number of bytes, 0 or more, a text such as '100K'",
        ),
        ({"max_nbytes": -1}, ValueError, "max_nbytes"),
        ({"mmap_mode": "w"}, ValueError, r"mmap_mode must be one of 'r', 'r\+', 'c', None, 'w\+', not 'w'"),
        (
            {"prefer": "speed"},
            ValueError,
            "prefer=speed is not a valid backend hint: it must be 'processes', 'threads'",
        ),
        ({"require": "speed"}, ValueError, "require=speed is not a valid backend constraint: it must be 'sharedmem' or None"),
        ({"prefer": "processes", "require": "sharedmem"}, ValueError, "are inconsistent settings"),
        ({"backend": "loky", "require": "sharedmem", "n_jobs": 2}, ValueError, "no shared memory.*use 'threading'"),
        ({"progress": 5}, TypeError, "progress must be True, False, None or something to call"),
        ({"inner_max_num_threads": 0}, ValueError, "inner_max_num_threads must be a number of threads, 1 or more"),
        ({"backend": "sequential", "inner_max_num_threads": 2}, AssertionError, "does not accept inner_max_num_threads"),
        ({"backend": "threading", "inner_max_num_threads": 0}, ValueError, "inner_max_num_threads must be"),
        ({"initialiser": int}, TypeError, "no parameter initialiser; the 'process' backend has idle_worker_timeout, init"),
        ({"backend": "sequential", "initializer": int}, TypeError, "backend 'sequential' has no parameters"),
        ({"backend": "threading", "grace": 1}, TypeError, "no parameter grace; the 'thread' backend has initializer, initargs"),
        ({"backend": "threading", "initializer": 5}, TypeError, "initializer"),
    ],
)
def test_parallel_refuses(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Parallel(**options)


def test_no_worker_is_refused_when_it_is_called() -> None:
    parallel = Parallel(n_jobs=0)
    with pytest.raises(ValueError, match="n_jobs must be a number of workers"):
        parallel([delayed(double)(1)])


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize(
    ("calls", "message"),
    [
        (5, "takes an iterable of delayed"),
        ([5], r"takes calls, delayed\(f\)\(...\) or \(function, args, kwargs\) tuples, not 5"),
        ([delayed(double)], "write delayed"),
        ([delayed(double(3))(1)], "not"),
        ([(double, (1,))], "takes calls"),
        ([delayed(double)(1), (double, 5, {})], "takes calls|must be an iterable"),
    ],
)
def test_what_is_no_call_is_refused(n_jobs: int, calls: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Parallel(n_jobs=n_jobs)(calls)


@pytest.mark.parametrize(
    ("expression", "tasks"),
    [
        ("all", None),
        (" 2*n_jobs ", None),
        (5, 5),
        ("3*n_jobs", 12),
        ("1.5 * n_jobs", 6),
        ("n_jobs ** 2 // 3 + 1", 6),
        ("-(-n_jobs)", 4),
        ("7 % n_jobs", 3),
    ],
)
def test_pre_dispatch_may_be_arithmetic(expression: Any, tasks: int | None) -> None:
    found = evaluate_pre_dispatch(expression, 4)
    assert found == tasks or (tasks is None and found in (None, sys.maxsize))


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "n_jobs +",
        "x",
        "__import__('os')",
        "n_jobs.real",
        "'a' * n_jobs",
        "n_jobs - 4",
        "1 / 0",
        "9 ** 9 ** 9",
        "1e400",
        "[1][0]",
    ],
)
def test_pre_dispatch_is_arithmetic_and_nothing_else(expression: str) -> None:
    with pytest.raises(ValueError, match="pre_dispatch must be 'all'"):
        evaluate_pre_dispatch(expression, 4)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((), {"inner_max_num_threads": 2}, ValueError, "inner_max_num_threads is only supported when backend is not None"),
        ((), {"initializer": int}, ValueError, "initializer is only supported when backend is not None"),
        (("gpu",), {}, ValueError, "Invalid backend: 'gpu'"),
        (("sequential",), {"inner_max_num_threads": 2}, AssertionError, "inner_max_num_threads"),
        (("loky",), {"colour": "red"}, TypeError, "no parameter colour"),
        ((), {"n_jobs": "x"}, ValueError, "n_jobs"),
        ((), {"prefer": "x"}, ValueError, "prefer"),
        ((), {"require": "x"}, ValueError, "require"),
        ((), {"mmap_mode": "x"}, ValueError, "mmap_mode"),
        ((), {"max_nbytes": "x"}, ValueError, "max_nbytes"),
    ],
)
def test_settings_refuse(arguments: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parallel_config(*arguments, **options)
    assert Parallel().n_jobs == 1  # nothing was set


def test_parallel_backend_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="Invalid backend"):
        parallel_backend("gpu")


def test_a_factory_must_be_callable() -> None:
    with pytest.raises(TypeError, match="factory must be something to call"):
        register_parallel_backend("mine", 5)  # type: ignore[arg-type]


def test_a_timeout_with_one_worker_is_warned_about() -> None:
    with pytest.warns(UserWarning, match="does not support timeout: with one worker"):
        assert Parallel(n_jobs=1, timeout=1)([delayed(double)(1)]) == [2]


def test_wrapped_objects_are_themselves() -> None:
    lock = threading.Lock()
    assert asyncpar.wrap_non_picklable_objects(lock) is lock


@pytest.mark.parametrize("backend", ["process", "thread"])
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_calls_of_coroutine_functions_are_refused(n_jobs: int, backend: str) -> None:
    with pytest.raises(TypeError, match=r"asyncio\.run\(double_soon\(item\)\) gives the result"):
        Parallel(n_jobs=n_jobs, backend=backend)(delayed(double_soon)(x) for x in range(3))
