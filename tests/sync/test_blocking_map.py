"""`asyncpar.map`: an iterator that blocks."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import asyncpar
from asyncpar import CallTimeoutError, Statistics
from asyncpar._sync.portal import close_portal
from tests.calls.rates import begin
from tests.calls.tasks import die_at_three, double_in_asyncio
from tests.functions import Beacon, add, double, double_soon, odd_only
from tests.properties.test_token_bucket import most_at_once


class Counted:
    """An endless source that knows how far it was pulled, in which thread, and whether it was closed."""

    def __init__(self) -> None:
        self.pulled = 0
        self.threads: set[threading.Thread] = set()
        self.closed = False

    def numbers(self) -> Iterator[int]:
        try:
            for number in itertools.count():
                self.pulled += 1
                self.threads.add(threading.current_thread())
                yield number
        finally:
            self.closed = True


@pytest.mark.parametrize("items", [range(500), list(range(500)), tuple(range(500)), "generator"])
def test_the_results_are_those_of_the_built_in_map(backend: str, items: Any) -> None:
    given = (number for number in range(500)) if items == "generator" else items
    assert list(asyncpar.map(double, given, executor=backend)) == [2 * number for number in range(500)]


def test_several_iterables_are_zipped(backend: str) -> None:
    assert list(asyncpar.map(add, range(100), itertools.count(5), executor=backend)) == [x + x + 5 for x in range(100)]


def test_unordered_results_are_all_there(backend: str) -> None:
    results = asyncpar.map(double, iter(range(300)), ordered=False, executor=backend)
    assert sorted(results) == [2 * number for number in range(300)]


@pytest.mark.parametrize("executor", [None, "process", "thread", "inline"])
def test_coroutine_functions_are_awaited(executor: Any) -> None:
    fn = double_soon if executor in (None, "inline") else double_in_asyncio
    assert list(asyncpar.map(fn, range(20), executor=executor)) == [2 * number for number in range(20)]


@pytest.mark.parametrize("buffersize", [1, 7, 40])
def test_it_is_lazy_bounded_and_pulls_in_the_thread_that_iterates(backend: str, buffersize: int) -> None:
    source = Counted()
    results = asyncpar.map(double, source.numbers(), buffersize=buffersize, executor=backend)
    assert source.pulled == 0
    for taken, result in enumerate(itertools.islice(results, 100), 1):
        assert result == 2 * (taken - 1)
        assert source.pulled <= taken + buffersize
    results.close()
    assert source.closed
    assert source.threads == {threading.current_thread()}


@pytest.mark.parametrize("leave", ["close", "collect", "with"])
def test_leaving_early_ends_the_run(leave: str, tmp_path: Path) -> None:
    beacon, source = Beacon(tmp_path / "beacon"), Counted()
    results = asyncpar.map(beacon.nap, source.numbers(), executor="process", ordered=False)
    if leave == "with":
        with contextlib.closing(results):
            next(results)
    else:
        next(results)
        if leave == "close":
            results.close()
    del results
    gc.collect()
    assert source.closed
    count = beacon.count
    time.sleep(0.02)  # long enough for ten more calls
    assert beacon.count == count
    assert list(asyncpar.map(double, [4])) == [8]


def test_an_error_of_a_call_is_raised_after_the_results_before_it(backend: str) -> None:
    results = asyncpar.map(odd_only, [1, 3, 4, 5], executor=backend, n_jobs=1)
    assert [next(results), next(results)] == [2, 6]
    with pytest.raises(ValueError, match="4 is even") as caught:
        next(results)
    assert "asyncpar: raised by call 2, item 4, in " in caught.value.__notes__[-1]
    assert list(results) == []


def test_errors_may_be_returned_skipped_or_retried(backend: str) -> None:
    returned = list(asyncpar.map(odd_only, range(4), executor=backend, on_error="return"))
    assert [type(result) for result in returned] == [ValueError, int, ValueError, int]
    assert list(asyncpar.map(odd_only, range(6), executor=backend, on_error="skip", retries=1)) == [2, 6, 10]


def test_an_error_of_the_source_comes_after_what_it_has_given(backend: str) -> None:
    def source() -> Iterator[int]:
        yield from range(3)
        raise LookupError("the source broke")

    results = asyncpar.map(double, source(), executor=backend)
    assert [next(results), next(results), next(results)] == [0, 2, 4]
    with pytest.raises(LookupError, match="the source broke"):
        next(results)


def test_a_call_that_takes_too_long_fails(backend: str) -> None:
    with pytest.raises(CallTimeoutError):
        list(asyncpar.map(time.sleep, [0.3], timeout=0.1, executor=backend))


def test_a_worker_that_dies_costs_only_its_call() -> None:
    results = list(asyncpar.map(die_at_three, range(10), executor="process", on_error="return"))
    assert [result for result in results if not isinstance(result, BaseException)] == [x for x in range(10) if x != 3]
    assert type(results[3]) is asyncpar.WorkerDiedError


def test_progress_is_called_in_the_thread_that_iterates(backend: str) -> None:
    seen: list[tuple[int, threading.Thread]] = []

    def progress(statistics: Statistics) -> None:
        seen.append((statistics.finished, threading.current_thread()))

    assert len(list(asyncpar.map(double, range(50), progress=progress, executor=backend))) == 50
    assert seen[-1][0] == 50
    assert {thread for _, thread in seen} == {threading.current_thread()}


def test_maps_in_threads_may_make_maps_and_calls() -> None:
    def nested(x: int) -> int:
        total: int = asyncpar.call(double, x) + sum(asyncpar.map(double, range(3)))
        return total

    assert list(asyncpar.map(nested, range(8), executor="thread")) == [2 * x + 6 for x in range(8)]


def test_a_running_event_loop_does_not_matter() -> None:
    async def main() -> list[int]:
        return list(asyncpar.map(double, range(3)))

    assert asyncio.run(main()) == [0, 2, 4]


def test_in_asyncpars_own_loop_it_is_refused() -> None:
    async def careless(x: int) -> list[int]:
        return list(asyncpar.map(double, [x]))

    with pytest.raises(RuntimeError, match=r"asyncpar.map was called in asyncpar's own event loop.* write `await"):
        list(asyncpar.map(careless, [1]))


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        ((3, [1]), {}, TypeError, "function"),
        ((double,), {}, TypeError, "at least one iterable"),
        ((double, 3), {}, TypeError, "iterate over"),
        ((double, [1]), {"buffersiz": 3}, TypeError, "buffersize"),
        ((double, [1]), {"timeout": -3}, ValueError, "timeout"),
    ],
)
def test_bad_input_is_refused_at_once(arguments: Any, options: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        asyncpar.map(*arguments, **options)


def test_async_iterables_are_refused() -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(TypeError, match="iterate over pmap"):
        asyncpar.map(double, numbers())  # type: ignore[call-overload]  # the mistake


def test_when_the_portal_ends_the_map_says_so(tmp_path: Path) -> None:
    results = asyncpar.map(double, Counted().numbers(), buffersize=2)
    next(results)
    close_portal()
    with pytest.raises(asyncpar.ExecutorUnavailableError, match="ended before"):
        list(results)


INTERRUPTED = """
import sys
from pathlib import Path
import asyncpar
from tests.functions import Beacon

beacon = Beacon(Path(sys.argv[1]))
try:
    list(asyncpar.map(beacon.spin, iter([1]))) if sys.argv[2] == "map" else asyncpar.call(beacon.spin)
except KeyboardInterrupt:
    print(list(asyncpar.map(abs, [-1, 2])))
    raise
"""


@pytest.mark.parametrize("door", ["map", "call"])
def test_an_interrupt_ends_the_calls_and_then_the_program(door: str, tmp_path: Path) -> None:
    beacon = Beacon(tmp_path / "beacon")
    command = [sys.executable, "-c", INTERRUPTED, str(beacon.path), door]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        while not beacon.pid:
            time.sleep(0.001)
        program.send_signal(signal.SIGINT)
        output, errors = program.communicate(timeout=30)
    assert program.returncode == -signal.SIGINT
    assert output == "[1, 2]\n"
    assert "KeyboardInterrupt" in errors
    assert not psutil.pid_exists(beacon.pid)


LEFT_OPEN = """
import itertools
import asyncpar
results = asyncpar.map(abs, itertools.count())
print(next(results), next(results))
"""


def test_a_program_may_end_in_the_middle_of_a_map() -> None:
    done = subprocess.run([sys.executable, "-c", LEFT_OPEN], capture_output=True, text=True, timeout=30, check=True)
    assert (done.stdout, done.stderr) == ("0 1\n", "")


def test_an_error_is_not_kept_alive_by_the_map() -> None:
    results = asyncpar.map(odd_only, [2])
    with pytest.raises(ValueError, match="2 is even"):
        next(results)
    assert next(results, None) is None


def test_a_rate_limits_how_many_coroutine_calls_begin() -> None:
    begun = list(asyncpar.map(begin, range(40), rate=200, burst=2))
    assert most_at_once([(when, 1) for when in begun], 200) <= 2 + 200 * 0.1
