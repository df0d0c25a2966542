"""Guarantee 1, on every executor and event loop: a parallel map gives what a list comprehension gives."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np
import pytest

from asyncpar import Executor, pmap
from tests.calls.functions_from_anywhere import FUNCTIONS, closure
from tests.calls.in_context import UNSET, look_and_set_soon
from tests.calls.in_context import request as request_of_calls
from tests.functions import add, double, double_soon, identity, odd_only
from tests.loops import on_one_loop

pytestmark = pytest.mark.anyio


class AsyncRange:
    """An async iterable that is no generator."""

    def __init__(self, length: int) -> None:
        self._numbers = iter(range(length))

    def __aiter__(self) -> AsyncRange:
        return self

    async def __anext__(self) -> int:
        try:
            return next(self._numbers)
        except StopIteration:
            raise StopAsyncIteration from None


async def async_numbers(length: int) -> AsyncIterator[int]:
    for number in range(length):
        yield number


def numbers(length: int) -> Iterator[int]:
    yield from range(length)


SOURCES: dict[str, Callable[[], Any]] = {
    "a list": lambda: list(range(50)),
    "a tuple": lambda: tuple(range(50)),
    "a range": lambda: range(50),
    "a generator": lambda: numbers(50),
    "an async generator": lambda: async_numbers(50),
    "an async iterable": lambda: AsyncRange(50),
    "an array": lambda: np.arange(50),
    "dict keys": lambda: dict.fromkeys(range(50)).keys(),
    "a set": lambda: frozenset(range(50)),
    "an iterator": lambda: iter(range(50)),
}


async def test_results_are_those_of_a_comprehension(executor: Executor) -> None:
    for name, source in SOURCES.items():
        for batch_size in ("auto", 1, 7):
            results: list[int] = await pmap(double, source(), executor=executor, batch_size=batch_size)
            assert results == [2 * x for x in range(50)], (name, batch_size)


async def test_a_stream_gives_the_same_results(executor: Executor) -> None:
    for name, source in SOURCES.items():
        for ordered in (True, False):
            async with pmap(double, source(), executor=executor, ordered=ordered) as results:
                got = [result async for result in results]
            assert (got if ordered else sorted(got)) == [2 * x for x in range(50)], (name, ordered)


async def test_nothing_in_gives_nothing_out(executor: Executor) -> None:
    nothing: list[Any] = [[], range(0), iter(()), numbers(0), np.zeros(0)]
    for empty in nothing:
        assert await pmap(double, empty, executor=executor) == [], empty


async def test_an_empty_async_source_gives_nothing(executor: Executor) -> None:
    assert [result async for result in pmap(double, async_numbers(0), executor=executor)] == []


@on_one_loop
@pytest.mark.parametrize("second", [lambda: range(5), lambda: numbers(9), lambda: async_numbers(9)])
async def test_several_iterables_are_zipped(executor: Executor, second: Any) -> None:
    assert await pmap(add, range(5), second(), executor=executor) == [0, 2, 4, 6, 8]


@on_one_loop
async def test_rows_of_an_array_are_items(executor: Executor) -> None:
    table = np.arange(12.0).reshape(4, 3)
    assert await pmap(np.sum, table, executor=executor) == [3.0, 12.0, 21.0, 30.0]


@on_one_loop
async def test_large_arrays_come_back_whole_and_writable(executor: Executor) -> None:
    arrays = [np.full((300, 300), number) for number in range(5)]
    for number, result in enumerate(await pmap(np.negative, arrays, executor=executor)):
        assert (result == -number).all()
        result += 1  # writable


@pytest.mark.parametrize("batch_size", ["auto", 3])
async def test_coroutine_functions_run_in_the_workers_of_a_named_executor(executor: Executor, batch_size: Any) -> None:
    assert await pmap(double_soon, range(40), executor=executor, batch_size=batch_size) == [2 * x for x in range(40)]


@on_one_loop
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())
async def test_functions_may_come_from_anywhere(executor: Executor, function: Any) -> None:
    assert await pmap(function, range(10), executor=executor) == [x + 3 for x in range(10)]


@on_one_loop
async def test_builtins_and_ufuncs_are_functions_too(executor: Executor) -> None:
    assert await pmap(math.sqrt, [1, 4, 9], executor=executor) == [1.0, 2.0, 3.0]
    assert await pmap(np.sqrt, [1, 4, 9], executor=executor) == [1.0, 2.0, 3.0]
    assert await pmap("ab".__contains__, ["a", "c"], executor=executor) == [True, False]


@on_one_loop
async def test_results_may_be_lambdas(executor: Executor) -> None:
    first, second = await pmap(closure, [1, 2], executor=executor)
    assert (first(10), second(10)) == (11, 12)


@pytest.mark.parametrize("batch_size", ["auto", 1, 20])
async def test_failed_calls_can_be_skipped(executor: Executor, batch_size: Any) -> None:
    source = list(range(20))
    expected = [2 * x for x in range(1, 20, 2)]
    assert await pmap(odd_only, source, executor=executor, on_error="skip", batch_size=batch_size) == expected
    streamed = pmap(odd_only, source, executor=executor, on_error="skip", batch_size=batch_size, buffersize=4)
    assert [result async for result in streamed] == expected


async def test_a_window_full_of_skipped_calls_does_not_stop_a_stream(executor: Executor) -> None:
    evens_then_one = [*range(0, 200, 2), 1]
    assert [r async for r in pmap(odd_only, iter(evens_then_one), executor=executor, on_error="skip", buffersize=2)] == [2]


async def test_outcomes_tell_index_value_error_and_duration(executor: Executor) -> None:
    outcomes = [outcome async for outcome in pmap(odd_only, range(6), executor=executor).outcomes()]
    assert [outcome.index for outcome in outcomes] == list(range(6))
    assert [outcome.value for outcome in outcomes] == [None, 2, None, 6, None, 10]
    assert [type(outcome.error).__name__ for outcome in outcomes] == ["ValueError", "NoneType"] * 3
    assert all(outcome.seconds >= 0 and outcome.attempts == 1 and outcome.worker for outcome in outcomes)
    assert outcomes[1].unwrap() == 2
    with pytest.raises(ValueError, match="4 is even"):
        outcomes[4].unwrap()


request: ContextVar[str] = ContextVar("request")


def with_request(x: int) -> tuple[int, str]:
    return x, request.get()


async def with_request_soon(x: int) -> tuple[int, str]:
    return x, request.get()


@pytest.mark.parametrize(
    ("function", "executor"), [(with_request, "thread"), (with_request, "inline"), (with_request_soon, None)]
)
@pytest.mark.parametrize("stream", [True, False])
async def test_calls_in_this_process_see_the_callers_context_variables(function: Any, executor: Any, stream: bool) -> None:
    request.set("mine")
    results = pmap(function, range(20), executor=executor)
    assert ([result async for result in results] if stream else await results) == [(x, "mine") for x in range(20)]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("timeout", [None, 60])
async def test_what_a_coroutine_call_sets_in_its_context_is_seen_by_no_other(
    executor: Executor, stream: bool, timeout: float | None
) -> None:
    results = pmap(look_and_set_soon, range(40), executor=executor, concurrency=3, timeout=timeout)
    assert ([result async for result in results] if stream else await results) == [UNSET] * 40
    assert request_of_calls.get(UNSET) == UNSET


async def test_what_a_single_coroutine_call_sets_in_its_context_is_gone_with_it(executor: Executor) -> None:
    assert await executor.run(look_and_set_soon, 1) == UNSET
    assert await pmap(look_and_set_soon, [1], executor=executor) == [UNSET]
    assert request_of_calls.get(UNSET) == UNSET


async def test_items_are_private_copies_or_the_same_object_as_in_the_comprehension(executor: Executor) -> None:
    shared = [0]
    results = await pmap(identity, [shared, shared], executor=executor, batch_size=2)
    assert results == [[0], [0]]
