"""Guarantee 1 when many calls fail in patterns that `test_kit.py` has not: each error and each value is that of its item."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncpar import Executor, pmap
from tests.calls.refusing import Refused, Refusing
from tests.conftest import EXECUTORS, make_executor
from tests.loops import on_one_loop

pytestmark = pytest.mark.anyio

COUNT = 2000
RATES: dict[str, Callable[[int], bool]] = {
    "5 %": lambda x: x * 7919 % 100 < 5,
    "every other one": lambda x: x % 2 == 1,
    "all of them": lambda x: True,
    "sixty of a thousand in a row": lambda x: x % 1000 < 60,
}


def named(result: Any) -> Any:
    """A result, or what there is to compare of an exception."""
    return ("refused", *result.args) if isinstance(result, Refused) else result


@pytest.mark.parametrize(
    ("rate", "batch_size"),
    [("5 %", 1000), ("sixty of a thousand in a row", "auto")],
)
async def test_each_error_stands_in_the_place_of_its_item(
    executor: Executor, rate: str, batch_size: int | Literal["auto"]
) -> None:
    call = Refusing(RATES[rate])
    results = await pmap(call, range(COUNT), executor=executor, on_error="return", batch_size=batch_size)
    assert list(map(named, results)) == list(map(call.expected, range(COUNT)))


@on_one_loop
@pytest.mark.parametrize("rate", ["sixty of a thousand in a row"])
async def test_what_fails_is_left_out_and_nothing_else(executor: Executor, rate: str) -> None:
    call = Refusing(RATES[rate])
    results = pmap(call, range(COUNT), executor=executor, on_error="skip")
    assert [result async for result in results] == [x * x for x in range(COUNT) if not call.fails(x)]
    statistics = results.statistics()
    assert (statistics.finished, statistics.failed) == (COUNT, sum(map(call.fails, range(COUNT))))


@on_one_loop
@pytest.mark.parametrize("where", ["process", "thread", "inline", None])
async def test_errors_of_coroutine_calls_stand_in_their_places(where: str | None) -> None:
    call = Refusing(RATES["every other one"])
    results = await pmap(call.soon, range(COUNT), executor=where, on_error="return")
    assert list(map(named, results)) == list(map(call.expected, range(COUNT)))


@on_one_loop
@pytest.mark.parametrize("rate", ["5 %", "all of them"])
async def test_what_fails_is_tried_again_and_nothing_else(executor: Executor, rate: str) -> None:
    call = Refusing(RATES[rate])
    results = pmap(call, range(300), executor=executor, on_error="return", retries=2)
    assert list(map(named, await results)) == list(map(call.expected, range(300)))
    assert results.statistics().retried == 2 * sum(map(call.fails, range(300)))


@settings(max_examples=20)
@given(pattern=st.lists(st.booleans(), min_size=1, max_size=200), kind=st.sampled_from(EXECUTORS))
def test_any_pattern_of_failures_gives_what_a_loop_gives(pattern: list[bool], kind: str) -> None:
    call = Refusing(lambda x: pattern[x % len(pattern)])

    async def main() -> list[Any]:
        async with make_executor(kind) as executor:
            return await pmap(call, range(500), executor=executor, on_error="return")

    assert list(map(named, anyio.run(main))) == list(map(call.expected, range(500)))
