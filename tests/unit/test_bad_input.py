"""Bad input is refused by `pmap` itself, before a worker starts and without an event loop, and the message says what to do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import asyncpar
from asyncpar import pmap


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((3, [1]), {}, TypeError, "pmap maps a function or another callable, not 3"),
        ((abs,), {}, TypeError, "at least one iterable"),
        ((abs, 5), {}, TypeError, r"iterable 0 is 5 \(int\)"),
        ((pow, [1], 5), {}, TypeError, "iterable 1 is 5"),
        ((abs, np.array(5)), {}, TypeError, "iterable 0"),
        ((abs, [1]), {"n_jobs": 0}, ValueError, "n_jobs must be a positive number of workers"),
        ((abs, [1]), {"n_jobs": 1.5}, ValueError, "n_jobs"),
        ((abs, [1]), {"n_jobs": True}, ValueError, "n_jobs"),
        ((abs, [1]), {"batch_size": 0}, ValueError, 'batch_size must be "auto" or a number of calls'),
        ((abs, [1]), {"batch_size": "big"}, ValueError, "batch_size"),
        ((abs, [1]), {"buffersize": -1}, ValueError, "buffersize must be a number of items, 1 or more"),
        ((abs, [1]), {"buffersize": 0}, ValueError, "buffersize"),
        ((abs, [1]), {"executor": "gpu"}, ValueError, "known are 'process', 'thread', 'interpreter', 'inline', 'dask', 'ray'"),
        ((abs, [1]), {"executor": 7}, TypeError, "executor must be a name, an Executor, a concurrent"),
        ((abs, [1]), {"on_error": "ignore"}, ValueError, "'raise', 'return', 'skip'"),
        ((abs, [1]), {"concurrency": 5}, ValueError, "concurrency is for coroutine functions"),
        ((abs, [1]), {"timeout": 0}, ValueError, "timeout must be a positive number of seconds for one call, or None, not 0"),
        ((abs, [1]), {"timeout": -1.5}, ValueError, "timeout"),
        ((abs, [1]), {"timeout": "1s"}, ValueError, "timeout"),
        ((abs, [1]), {"timeout": float("nan")}, ValueError, "timeout"),
        ((abs, [1]), {"timeout": True}, ValueError, "timeout"),
        ((abs, [1]), {"retries": -1}, ValueError, "retries must be a number of further attempts, 0 or more, not -1"),
        ((abs, [1]), {"retries": 1.5}, ValueError, "retries"),
        ((abs, [1]), {"retries": None}, ValueError, "retries"),
        ((abs, [1]), {"retry_on": ValueError("no")}, TypeError, "retry_on must be an exception class or a tuple of them"),
        ((abs, [1]), {"retry_on": [ValueError]}, TypeError, "retry_on"),
        ((abs, [1]), {"retry_wait": -1}, ValueError, "retry_wait must be a number of seconds, 0 or more, not -1"),
        ((abs, [1]), {"retry_wait": float("inf")}, ValueError, "retry_wait"),
    ],
)
def test_pmap_refuses(arguments: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pmap(*arguments, **options)


async def _coroutine(x: int) -> int:
    return x


def test_pmap_refuses_a_concurrency_of_zero() -> None:
    with pytest.raises(ValueError, match="concurrency must be a number of calls"):
        pmap(_coroutine, [1], concurrency=0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_workers": 0}, ValueError, "max_workers must be at least 1"),
        ({"initializer": 5}, TypeError, "initializer must be callable"),
        ({"preload": "numpy"}, TypeError, r"such as \['numpy'\]"),
        ({"idle_timeout": 0}, ValueError, "idle_timeout must be a positive number of seconds"),
        ({"grace": -1}, ValueError, "grace must be a number of seconds"),
        ({"max_calls_per_worker": 0}, ValueError, "max_calls_per_worker must be a number of calls, 1 or more, or None, not 0"),
        ({"max_calls_per_worker": 2.5}, ValueError, "max_calls_per_worker"),
        (
            {"max_memory": 1000},
            ValueError,
            "max_memory must be a number of bytes, or None, not 1000; a worker alone holds up to",
        ),
        ({"max_memory": "1G"}, ValueError, "max_memory"),
        ({"max_shared_bytes": -1}, ValueError, "max_shared_bytes must be a number of bytes, 0 or more, or None, not -1"),
        ({"max_shared_bytes": "1G"}, ValueError, "max_shared_bytes"),
    ],
)
def test_a_process_executor_refuses(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        asyncpar.ProcessExecutor(**options)


def test_a_thread_executor_refuses_to_have_no_worker() -> None:
    with pytest.raises(ValueError, match="max_workers must be at least 1"):
        asyncpar.ThreadExecutor(0)


def test_processes_are_refused_where_descriptors_cannot_be_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("socket.send_fds")
    with pytest.raises(asyncpar.ExecutorUnavailableError, match='executor="thread"'):
        asyncpar.ProcessExecutor()


def test_an_unused_map_is_warned_about() -> None:
    with pytest.warns(RuntimeWarning, match="neither awaited nor iterated over"):
        pmap(abs, [1])


def test_numpy_integers_are_integers() -> None:
    results = pmap(abs, [1], n_jobs=np.int64(1), batch_size=np.int64(1))  # type: ignore[call-overload]
    with pytest.warns(RuntimeWarning):
        del results
