"""A call that fails raises its own exception here, whatever the executor, with the worker's lines and a note about the item."""

from __future__ import annotations

import asyncio
import re
import threading
import traceback
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from asyncpar import Executor, ParallelMap, PicklingError, ProcessExecutor, RemoteError, RemoteTraceback, pmap
from tests.calls.errors import (
    DIFFICULT,
    FULL,
    AnswersNothing,
    ChangesItsMessage,
    Exits,
    Model,
    ReadsBadly,
    RefusesAtLength,
    TwoArguments,
    Unprintable,
    awaits_a_cancelled_task,
    raise_cancelled,
    raise_changing,
    raise_difficult,
    raise_from_another,
    raise_full,
    raise_holding_a_lock,
    raise_stop,
    raise_two_arguments,
    raise_unprintable,
    raise_with_an_array,
    return_a_locked_model,
)
from tests.functions import add, double, identity, odd_only, process_id, raise_value_error
from tests.loops import on_one_loop

pytestmark = pytest.mark.anyio


def make_lock(_: object) -> Any:
    return threading.Lock()


@on_one_loop
async def test_the_note_shortens_a_long_item(executor: Executor) -> None:
    with pytest.raises(ValueError) as caught:
        await pmap(raise_value_error, ["x" * 10_000], executor=executor)
    (note,) = caught.value.__notes__
    assert "'xxx" in note
    assert len(note) < 250


@on_one_loop
async def test_the_traceback_shows_the_lines_of_the_worker(executor: Executor) -> None:
    with pytest.raises(ValueError) as caught:
        await pmap(odd_only, [2], executor=executor)
    printed = "".join(traceback.format_exception(caught.value))
    assert 'raise ValueError(f"{x} is even")' in printed


@on_one_loop
async def test_a_process_gives_its_traceback_as_the_cause() -> None:
    with pytest.raises(ValueError) as caught:
        await pmap(raise_from_another, [0], executor="process")
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "KeyError: 'the cause'" in str(caught.value.__cause__)
    assert "run_batch" not in str(caught.value.__cause__)  # our own lines are no news to anybody


@on_one_loop
async def test_an_exception_with_a_finicky_constructor_keeps_its_type(executor: Executor) -> None:
    with pytest.raises(TwoArguments, match="salt and pepper") as caught:
        await pmap(raise_two_arguments, [0], executor=executor)
    assert (caught.value.first, caught.value.second) == ("salt", "pepper")


@on_one_loop
async def test_an_exception_that_cannot_be_pickled_is_named() -> None:
    expected = (
        "HoldsALock: the key is inside (the original exception cannot be pickled because of error.args[1], a _thread.lock)"
    )
    with pytest.raises(RemoteError, match=re.escape(expected)) as caught:
        await pmap(raise_holding_a_lock, [0], executor="process")
    assert caught.value.type_name.endswith("errors.HoldsALock")
    assert "raise HoldsALock" in str(caught.value.__cause__)


@on_one_loop
async def test_an_exception_without_words_still_arrives(executor: Executor) -> None:
    with pytest.raises(Unprintable):
        await pmap(raise_unprintable, [0], executor=executor)


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration])
async def test_stop_iteration_from_a_call_does_not_end_a_loop_silently(executor: Executor, kind: type[Exception]) -> None:
    with pytest.raises(RuntimeError, match=f"a call raised {kind.__name__}") as caught:
        await pmap(raise_stop, [kind], executor=executor)
    assert isinstance(caught.value.__cause__, kind)
    with pytest.raises(RuntimeError, match=f"a call raised {kind.__name__}"):
        _ = [result async for result in pmap(raise_stop, [kind], executor=executor)]


async def test_a_stream_delivers_what_came_before_the_error(executor: Executor) -> None:
    got = []
    with pytest.raises(ValueError, match="4 is even"):
        async for result in pmap(odd_only, [1, 3, 4, 5], executor=executor, n_jobs=1):
            got.append(result)
    assert got == [2, 6]


@on_one_loop
async def test_an_item_that_cannot_be_pickled_fails_only_its_call() -> None:
    items = [1, threading.Lock(), 3]
    results = await pmap(identity, items, executor="process", on_error="return", batch_size=3)
    assert results[::2] == [1, 3]
    assert isinstance(results[1], PicklingError)
    assert "the item of call 1, item <unlocked _thread.lock" in str(results[1])
    assert (results[1].path, results[1].type_name) == ("arguments[0]", "_thread.lock")


@on_one_loop
async def test_an_item_that_refuses_at_great_length_fails_alone() -> None:
    first, second = await pmap(identity, [RefusesAtLength(), 2], executor="process", on_error="return", batch_size=2)
    assert isinstance(first, PicklingError)
    assert second == 2


@on_one_loop
async def test_the_error_names_the_part_that_cannot_be_pickled() -> None:
    async with ProcessExecutor(1) as executor:
        (pid,) = await pmap(process_id, [0], executor=executor)
        second = {"model": Model(threading.Lock())}
        with pytest.raises(PicklingError, match=re.escape("arguments[1]['model'].lock, a _thread.lock, cannot be pickled")):
            await pmap(add, [1], [second], executor=executor)
        with pytest.raises(PicklingError, match=re.escape("result['model'].lock, a _thread.lock, cannot be pickled")):
            await pmap(return_a_locked_model, [0], executor=executor)
        with pytest.raises(PicklingError, match=re.escape("function.__self__.lock, a _thread.lock, cannot be pickled")):
            await pmap(Model(threading.Lock()).predict, [0], executor=executor)
        assert await pmap(process_id, [0], executor=executor) == [pid]


@on_one_loop
async def test_a_result_that_cannot_be_pickled_fails_only_its_call() -> None:
    results = await pmap(
        lambda x: threading.Lock() if x == 1 else x, range(3), executor="process", on_error="return", batch_size=3
    )
    assert results[::2] == [0, 2]
    assert isinstance(results[1], PicklingError)
    assert "the result, a lock, cannot be sent between processes" in str(results[1])


@on_one_loop
async def test_a_function_that_cannot_be_pickled_is_named() -> None:
    lock = threading.Lock()
    with pytest.raises(PicklingError, match='run it with executor="thread"'):
        await pmap(lambda x: lock, [1, 2], executor="process")
    assert await pmap(double, [1], executor="process") == [2]


@on_one_loop
async def test_an_exception_may_hold_what_cannot_be_compared(executor: Executor) -> None:
    results = await pmap(raise_with_an_array, range(3), executor=executor, on_error="return")
    assert results[::2] == [0, 2]
    assert isinstance(results[1], ValueError)
    assert results[1].args[1].tolist() == [0, 1, 2]


@on_one_loop
async def test_an_exception_that_changes_its_message_arrives_unchanged(executor: Executor) -> None:
    with pytest.raises(ChangesItsMessage) as caught:
        await pmap(raise_changing, [5], executor=executor)
    assert caught.value.args == ("code 5",)


@on_one_loop
async def test_difficult_exceptions_cost_their_calls_and_not_the_run(executor: Executor) -> None:
    results = await pmap(raise_difficult, [(x, "y") for x in range(200)], executor=executor, on_error="return")
    for x, result in enumerate(results):
        kind = type(DIFFICULT[x % 20]) if x % 20 < len(DIFFICULT) else int
        if kind in (Exits, AnswersNothing) and type(executor) is ProcessExecutor:  # they cannot be pickled
            kind = RemoteError
        assert issubclass(type(result), kind)


@on_one_loop
async def test_an_object_that_many_calls_raise_has_one_note(executor: Executor) -> None:
    FULL.__notes__ = []
    results: list[Any] = await pmap(raise_full, range(2000), executor=executor, on_error="return")
    assert all(type(result) is ValueError and len(result.__notes__) == 1 for result in results)
    assert "call 1999" in results[-1].__notes__[0] or not isinstance(executor, ProcessExecutor)
    FULL.__traceback__ = None


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("executor", [None, "inline", "thread", "process"])
@pytest.mark.parametrize("function", [awaits_a_cancelled_task, raise_cancelled])
async def test_a_cancellation_that_a_call_ran_into_is_that_calls_error(executor: Any, function: Any) -> None:
    if function is raise_cancelled and executor is None:
        executor = "inline"
    results = await pmap(function, range(8), executor=executor, on_error="return")
    assert [x for x in results if isinstance(x, int)] == [0, 1, 2, 4, 5, 6, 7]
    assert isinstance(results[3], asyncio.CancelledError)
    with pytest.raises(asyncio.CancelledError):
        await pmap(function, range(8), executor=executor)
    with pytest.raises(asyncio.CancelledError):
        _ = [result async for result in pmap(function, range(8), executor=executor)]
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]  # this is a task


@on_one_loop
async def test_what_cannot_be_read_back_fails_only_its_call() -> None:
    inward = await pmap(identity, [1, ReadsBadly(), 3], executor="process", on_error="return", batch_size=3)
    outward = await pmap(
        lambda x: ReadsBadly() if x == 2 else x, [1, 2, 3], executor="process", on_error="return", batch_size=3
    )
    for results in (inward, outward):
        assert results[::2] == [1, 3]
        assert isinstance(results[1], ValueError)
        assert any("raised by unpickling" in note for note in results[1].__notes__)


class HalfWay(Exception):
    pass


def breaks_half_way(length: int) -> Iterator[int]:
    yield from range(length)
    raise HalfWay


async def breaks_half_way_async(length: int) -> AsyncIterator[int]:
    for number in range(length):
        yield number
    raise HalfWay


@pytest.mark.parametrize("source", [breaks_half_way, breaks_half_way_async])
async def test_a_source_that_raises_half_way_delivers_what_was_computed(executor: Executor, source: Any) -> None:
    sizes: list[Any] = ["auto", 1, 100]
    for batch_size in sizes:
        got = []
        with pytest.raises(HalfWay):
            async for result in pmap(double, source(30), executor=executor, batch_size=batch_size):
                got.append(result)
        assert got == [2 * x for x in range(30)], batch_size
        with pytest.raises(HalfWay):
            await pmap(double, source(30), executor=executor, batch_size=batch_size)


async def test_one_object_serves_one_run(executor: Executor) -> None:
    awaited = pmap(double, [1], executor=executor)
    assert await awaited == [2]
    streamed = pmap(double, [1], executor=executor)
    assert [result async for result in streamed] == [2]
    for used in (awaited, streamed):
        with pytest.raises(RuntimeError, match="has been used already; call pmap"):
            await used
        with pytest.raises(RuntimeError, match="has been used already"):
            _ = [result async for result in used]
        with pytest.raises(RuntimeError, match="has been used already"):
            used.outcomes()


async def test_a_stream_may_be_begun_with_anext_and_continued_with_a_loop(executor: Executor) -> None:
    results: ParallelMap[int]
    async with pmap(double, range(5), executor=executor) as results:
        first = await anext(results)
        rest = [result async for result in results]
    assert [first, *rest] == [0, 2, 4, 6, 8]


async def test_a_failed_run_leaves_the_executor_usable(executor: Executor) -> None:
    for _ in range(5):
        with pytest.raises(ValueError):
            await pmap(raise_value_error, range(10), executor=executor)
        assert await pmap(double, range(10), executor=executor) == [2 * x for x in range(10)]
