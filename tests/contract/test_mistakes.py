"""Mistakes that are only seen when the program runs: it works after all, or the error says what to write instead."""

from __future__ import annotations

import asyncio
import functools
import operator
import re
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

import asyncpar
from asyncpar import ParallelMap, pmap
from tests.calls.refusing import takes_two, takes_two_soon
from tests.functions import Beacon, add, double, double_soon
from tests.loops import on_one_loop
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

on_asyncio = pytest.mark.parametrize(
    "anyio_backend",
    [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})],
    ids=["asyncio", "uvloop"],
    indirect=True,
)
UNPACK = r"asyncpar: each item is one argument; .* pmap\(f, \*zip\(\*items\)\), or pmap\(lambda item: f\(\*item\), items\)"


# Functions that return coroutines


@on_one_loop
async def test_a_plain_function_that_returns_coroutines_is_refused(executor: Any) -> None:
    with pytest.raises(TypeError, match=r"returned a coroutine \(double_soon\), which nobody awaits; pass pmap a coroutine fu"):
        await pmap(lambda x: double_soon(x), range(20), executor=executor)
    errors = await pmap(lambda x: double_soon(x), range(20), executor=executor, on_error="return")
    assert [type(error) for error in errors] == [TypeError] * 20
    assert await pmap(functools.partial(double_soon), range(3), executor=executor) == [0, 2, 4]


@on_one_loop
async def test_only_the_calls_that_return_coroutines_are_refused(executor: Any) -> None:
    def seldom_async(x: int) -> Any:
        return x if x % 2 else double_soon(x)

    results = await pmap(seldom_async, range(4), executor=executor, batch_size=4, on_error="return")
    assert [result if isinstance(result, int) else type(result) for result in results] == [TypeError, 1, TypeError, 3]


@on_one_loop
async def test_a_map_that_a_plain_function_returns_is_refused(executor: Any) -> None:
    with pytest.raises(TypeError, match=r"returned a coroutine \(ParallelMap\)"):
        await pmap(lambda x: pmap(abs, [x]), [1], executor=executor)


class _Meddler:
    @property  # type: ignore[misc]  # a class that is read only
    def __class__(self) -> Any:
        raise ValueError("it must not be asked")


@on_one_loop
async def test_a_value_is_not_asked_for_its_class() -> None:
    [value] = await pmap(lambda _: _Meddler(), [1], executor="thread")
    assert type(value) is _Meddler


# Maps in the place of coroutines


@on_asyncio
async def test_asyncio_takes_a_map_for_a_coroutine() -> None:
    assert await asyncio.create_task(pmap(double, range(3))) == [0, 2, 4]
    both = await asyncio.gather(pmap(double, range(3)), pmap(double_soon, range(2)))
    assert list(both) == [[0, 2, 4], [0, 2]]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(pmap(double, [x])) for x in range(3)]
    assert [task.result() for task in tasks] == [[0], [2], [4]]
    assert await asyncio.wait_for(pmap(double, [1]), 60) == [2]
    assert await asyncio.shield(pmap(double, [1])) == [2]


def test_asyncio_runs_a_map() -> None:
    assert asyncio.run(pmap(double, range(3))) == [0, 2, 4]


async def test_task_groups_take_pmap_as_it_is() -> None:
    seen: list[int] = []
    async with anyio.create_task_group() as group:
        group.start_soon(pmap, abs, range(3))
        group.start_soon(functools.partial(pmap, seen.append, range(3), executor="inline"))
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("anyio_backend", [("trio", {})], ids=["trio"], indirect=True)
async def test_nurseries_take_pmap_as_it_is() -> None:
    import trio

    seen: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(pmap, seen.append, range(3), executor="inline"))
    assert seen == [0, 1, 2]


@on_asyncio
async def test_cancelling_the_task_of_a_map_ends_its_calls(tmp_path: Any) -> None:
    beacon = Beacon(tmp_path / "beacon")
    async with asyncpar.ProcessExecutor(1) as executor:
        task: asyncio.Task[Any] = asyncio.create_task(pmap(beacon.spin, [1], executor=executor))
        await wait_until(lambda: beacon.count > 0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        count = beacon.count
        assert await pmap(double, [1], executor=executor) == [2]
        assert beacon.count == count


@on_asyncio
async def test_the_task_of_a_map_may_be_cancelled_before_it_begins() -> None:
    results = pmap(double, [1])
    task = asyncio.create_task(results)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(asyncpar.ConsumedError):
        await results


async def test_a_map_that_is_closed_is_not_warned_about() -> None:
    pmap(double, [1]).close()


async def test_closing_a_stream_without_waiting_ends_its_run() -> None:
    ended = anyio.Event()

    async def endless() -> AsyncIterator[int]:
        try:
            while True:
                await anyio.lowlevel.checkpoint()
                yield 1
        finally:
            ended.set()

    results = pmap(double, endless(), executor="inline")
    assert await anext(results) == 2
    results.close()
    await ended.wait()


# Maps outside async code


def use_for(results: Any) -> None:
    for _ in results:
        pass


def use_with(results: Any) -> None:
    with results:
        pass


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (use_for, "write `results = await pmap.* or `async for result in pmap"),
        (list, r"code that is not async has Parallel\(n_jobs=-1\)"),
        (use_with, r"write `async with pmap\(\.\.\.\) as results`"),
    ],
)
async def test_a_map_outside_async_code_says_how_to_consume_it(use: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        use(pmap(abs, [1]))  # a warning that it was not awaited would be an error


async def test_whoever_only_looks_whether_a_map_can_be_iterated_may_await_it_still() -> None:
    results: ParallelMap[int] = pmap(abs, [-1])
    with pytest.raises(TypeError):
        iter(results)  # type: ignore[call-overload]
    assert await results == [1]


# Tuples of arguments


@on_one_loop
@pytest.mark.parametrize("fn", [add, takes_two, operator.add, pow, divmod])
async def test_tuples_for_a_function_of_several_arguments_are_explained(fn: Any, executor: Any) -> None:
    with pytest.raises(TypeError) as caught:
        await pmap(fn, [(1, 2), (3, 4)], executor=executor)
    assert any(re.match(UNPACK, note) for note in caught.value.__notes__)


@on_one_loop
async def test_tuples_for_a_coroutine_function_are_explained() -> None:
    with pytest.raises(TypeError) as caught:
        await pmap(takes_two_soon, [[1, 2]])  # type: ignore[arg-type]
    assert "zip(*items)" in str(caught.value.__notes__)


def calls_another(item: object) -> None:
    takes_two()  # type: ignore[call-arg]


@on_one_loop
@pytest.mark.parametrize(
    ("fn", "item"), [(takes_two, 1), (takes_two, (1,)), (takes_two, []), (calls_another, (1,)), (abs, (1, 2)), (divmod, "ab")]
)
async def test_other_errors_of_type_are_not_explained(fn: Any, item: Any) -> None:
    [error] = await pmap(fn, [item], executor="inline", on_error="return")
    assert isinstance(error, TypeError)
    assert "zip(*items)" not in str(error.__notes__)
