"""`contextvars=`: calls in workers see what their caller's context holds, and what they set is gone with their run."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar, copy_context
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import cloudpickle
import numpy as np
import pytest

from asyncpar import CallTimeoutError, Executor, InterpreterExecutor, PicklingError, ProcessExecutor, pmap
from asyncpar._wire.context_variables import home_of
from tests.calls import in_context
from tests.calls.in_context import (
    UNSET,
    VARIABLES,
    LooksBy,
    append_to_request,
    append_to_request_soon,
    change,
    locale,
    look,
    look_and_change,
    look_and_change_soon,
    look_and_count,
    look_everywhere,
    look_soon,
    raise_soon,
    request,
    sleep_if_late,
    tenant,
)
from tests.functions import die_on_negative
from tests.interpreters import with_interpreters
from tests.loops import on_one_loop
from tests.waiting import wait_until

pytestmark = pytest.mark.anyio

KINDS: dict[str, Any] = {"process": ProcessExecutor, "interpreter": InterpreterExecutor}
kinds = pytest.mark.parametrize("kind", ["process", with_interpreters("interpreter")])


@pytest.fixture(params=["process", with_interpreters("interpreter")])
async def carrying(request: pytest.FixtureRequest, anyio_backend: object) -> AsyncIterator[Executor]:
    """An executor with one worker, so that what calls leave there would be found."""
    async with KINDS[request.param](1, contextvars=VARIABLES) as executor:
        yield executor


async def test_calls_see_the_values_of_their_caller(carrying: Executor) -> None:
    request.set("a request")
    assert await pmap(look, range(3), executor=carrying) == [("a request", "nobody")] * 3
    assert await pmap(look_soon, range(3), executor=carrying) == [("a request", "nobody")] * 3
    assert await pmap(look, [1], executor=carrying) == [("a request", "nobody")]
    assert [seen async for seen in pmap(look, range(3), executor=carrying)] == [("a request", "nobody")] * 3
    assert await carrying.run(look) == ("a request", "nobody")
    assert await carrying.run(look_soon) == ("a request", "nobody")


async def test_variables_that_the_caller_has_not_set_are_not_set(carrying: Executor) -> None:
    assert await pmap(look, [1, 2], executor=carrying) == [(UNSET, "nobody")] * 2
    assert await carrying.run(look) == (UNSET, "nobody")


async def test_what_calls_set_reaches_no_later_run_and_no_other_batch(carrying: Executor) -> None:
    for value in ("first", "second"):
        request.set(value)
        assert await pmap(look_and_change, range(4), executor=carrying, batch_size=1) == [(value, "nobody")] * 4
        assert await carrying.run(look_and_change, 1) == (value, "nobody")
        assert request.get() == value
    context = copy_context()
    assert tenant not in context


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_coroutine_calls_do_not_see_what_others_set(carrying: Executor, concurrency: int) -> None:
    request.set("a request")
    seen = await pmap(look_and_change_soon, range(9), executor=carrying, concurrency=concurrency, batch_size=9)
    assert seen == [("a request", "nobody")] * 9


async def test_variables_that_are_not_carried_do_not_pass_from_run_to_run_either(carrying: Executor) -> None:
    locale.set("not carried")
    for _ in range(2):
        assert await pmap(look_everywhere, [1], executor=carrying) == [[UNSET, "nobody", UNSET]]


@on_one_loop
async def test_coroutine_calls_of_a_process_do_not_begin_with_what_the_one_before_them_has_set() -> None:
    async with ProcessExecutor(1) as executor:
        seen = await pmap(look_and_change_soon, range(5), executor=executor, concurrency=1, batch_size=5)
    assert seen == [(UNSET, "nobody")] * 5


@on_one_loop
async def test_single_calls_have_the_value_of_their_own_moment(carrying: Executor) -> None:
    """Their sessions are kept, and workers with them."""
    by_value = partial(lambda look, _: look(), look)
    for value in ("first", "second", "first", "third"):
        request.set(value)
        assert await carrying.run(look) == (value, "nobody")
        assert await carrying.run(by_value, 1) == (value, "nobody")


@on_one_loop
async def test_what_a_single_call_changes_in_place_reaches_no_other_caller(carrying: Executor) -> None:
    for _ in range(3):
        request.set([])
        assert await carrying.run(append_to_request, 1) == [1]
        assert await carrying.run(append_to_request_soon, 2) == [2]


async def test_calls_of_two_callers_at_the_same_time_see_their_own(carrying: Executor) -> None:
    async def ask(value: str) -> None:
        request.set(value)
        for _ in range(5):
            assert await carrying.run(look_and_change, 1) == (value, "nobody")
            assert await pmap(look_and_change_soon, [1, 2], executor=carrying) == [(value, "nobody")] * 2

    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(ask, f"request {number}")


async def test_a_run_keeps_the_values_with_which_it_began(carrying: Executor) -> None:
    request.set("at the beginning")
    async with pmap(look, range(200), executor=carrying, batch_size=1, buffersize=1) as results:
        first = await anext(results)
        request.set("later")
        assert {first, *[seen async for seen in results]} == {("at the beginning", "nobody")}


@on_one_loop
@kinds
async def test_the_workers_own_context_stays(kind: str) -> None:
    """An initializer's settings are seen, but for the variables whose values come from the caller."""
    async with KINDS[kind](1, contextvars=VARIABLES, initializer=change, initargs=("set by the initializer",)) as executor:
        for _ in range(2):
            assert await pmap(look_everywhere, [1], executor=executor) == [[UNSET, "nobody", "set by the initializer"]]
        tenant.set("somebody")
        assert await pmap(look_everywhere, [1], executor=executor) == [[UNSET, "somebody", "set by the initializer"]]


@on_one_loop
async def test_calls_that_run_again_after_a_death_see_the_same(tmp_path: Path) -> None:
    def die_once(item: int) -> Any:
        if item == 3 and not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            die_on_negative(-1)
        return look()

    request.set("a request")
    async with ProcessExecutor(2, contextvars=VARIABLES) as executor:
        assert await pmap(die_once, range(8), executor=executor, retries=1, batch_size=8) == [("a request", "nobody")] * 8


# Coroutine calls are awaited step by step, in contexts of their own


@on_one_loop
async def test_coroutine_calls_end_as_without_variables(carrying: Executor) -> None:
    request.set("a request")
    with pytest.raises(ValueError, match=r"7 in \('a request', 'nobody'\)"):
        await pmap(raise_soon, [7], executor=carrying)
    outcomes = await pmap(sleep_if_late, ["a", "late", "b"], executor=carrying, timeout=1.0, on_error="return")
    assert [outcomes[0], outcomes[2]] == ["a for a request", "b for a request"]
    assert isinstance(outcomes[1], CallTimeoutError)


async def test_cancelling_ends_coroutine_calls(carrying: Executor) -> None:
    request.set("a request")
    with anyio.move_on_after(0.3):
        await pmap(sleep_if_late, ["late"], executor=carrying)
    assert await pmap(look, [1], executor=carrying) == [("a request", "nobody")]


# Values


@on_one_loop
async def test_a_value_that_cannot_be_pickled_is_named_before_a_worker_starts() -> None:
    async with ProcessExecutor(1, contextvars=VARIABLES) as executor:
        tenant.set({"lock": threading.Lock()})
        words = r"^the value of the context variable 'tenant' .*: tenant\.get\(\)\['lock'\], a _thread\.lock"
        with pytest.raises(PicklingError, match=words):
            await pmap(look, [1, 2, 3], executor=executor)
        with pytest.raises(PicklingError, match=words):
            await executor.run(look)
        assert not executor._workers


@on_one_loop
@pytest.mark.usefixtures("by_value")
async def test_a_default_that_cannot_be_pickled_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = threading.Lock()
    locked = ContextVar("locked", default=lock)
    monkeypatch.setattr(in_context, "locked", locked, raising=False)
    async with ProcessExecutor(1, contextvars=[locked]) as executor:
        with pytest.raises(PicklingError, match=r"^the context variable 'locked' .*a _thread\.lock"):
            await pmap(abs, [1, 2], executor=executor)


@on_one_loop
async def test_a_function_that_cannot_be_pickled_is_named_as_ever() -> None:
    lock = threading.Lock()
    request.set("a request")
    async with ProcessExecutor(1, contextvars=VARIABLES) as executor:
        with pytest.raises(PicklingError, match=r"^the function .*: function\.__closure__\['lock'\], a _thread\.lock"):
            await pmap(lambda _: lock, [1, 2, 3], executor=executor)


async def test_large_values_travel_too() -> None:
    array = np.arange(1 << 20)
    request.set(array)
    tenant.set([str(number) for number in range(100_000)])
    async with ProcessExecutor(2, contextvars=VARIABLES) as executor:
        for _ in range(2):
            sums = await pmap(lambda _: (int(request.get().sum()), len(tenant.get())), range(3), executor=executor)
            assert sums == [(int(array.sum()), 100_000)] * 3
            assert await executor.run(lambda: len(tenant.get())) == 100_000


async def test_large_values_of_many_calls_at_the_same_time_all_arrive() -> None:
    async def ask(number: int) -> None:
        request.set(value := f"{number} " * 50_000)
        for _ in range(3):
            assert (await executor.run(look_soon))[0] == value

    async with ProcessExecutor(1, contextvars=VARIABLES) as executor, anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(ask, number)


# Variables


@kinds
@on_one_loop
async def test_what_workers_could_not_find_is_refused_at_once(kind: str) -> None:
    nowhere: ContextVar[int] = ContextVar("nowhere")
    with pytest.raises(ValueError, match="contextvars has the variable 'nowhere', which workers could not find"):
        KINDS[kind](1, contextvars=[request, nowhere])
    for wrong in (request, 5):
        with pytest.raises(TypeError, match="contextvars must be a list of ContextVar objects, not"):
            KINDS[kind](1, contextvars=wrong)
    with pytest.raises(TypeError, match="contextvars must be a list of ContextVar objects, and 'request' is none"):
        KINDS[kind](1, contextvars=["request"])
    with pytest.raises(TypeError, match=r"it belongs to an executor: executor=ProcessExecutor\(contextvars=…\)"):
        pmap(look, [1], contextvars=[request])  # type: ignore[call-overload]


@on_one_loop
async def test_a_variable_that_is_in_no_module_cannot_be_sent() -> None:
    nowhere: ContextVar[int] = ContextVar("nowhere")
    async with ProcessExecutor(1) as executor:
        with pytest.raises(PicklingError, match="it is not an attribute of any module"):
            await pmap(lambda _: nowhere.get(1), [1, 2], executor=executor)


@on_one_loop
@kinds
async def test_a_variable_of_a_module_is_the_modules_own_in_the_worker(kind: str) -> None:
    async with KINDS[kind](1) as executor:
        for value, variable in await pmap(LooksBy(request), [1, 2], executor=executor):
            assert (value, variable) == (UNSET, request)
        assert (await pmap(lambda given: given is in_context.request, [request] * 2, executor=executor)) == [True, True]


@pytest.fixture
def by_value() -> Iterator[None]:
    """The module's functions, and so its variables, are sent as those of a script."""
    cloudpickle.register_pickle_by_value(in_context)
    yield
    cloudpickle.unregister_pickle_by_value(in_context)


@pytest.mark.usefixtures("by_value")
async def test_a_worker_has_one_object_for_each_variable_of_the_script(carrying: Executor) -> None:
    request.set("a request")
    assert await pmap(look, range(3), executor=carrying) == [("a request", "nobody")] * 3
    assert await pmap(look_and_change_soon, range(3), executor=carrying) == [("a request", "nobody")] * 3
    assert await carrying.run(look) == ("a request", "nobody")
    assert await pmap(LooksBy(request), [1, 2], executor=carrying) == [("a request", request)] * 2
    numbers = [await carrying.run(lambda variable: id(variable), variable) for variable in (request, request, tenant)]
    assert numbers[0] == numbers[1] != numbers[2]


@on_one_loop
@pytest.mark.usefixtures("by_value")
async def test_a_variable_that_was_made_anew_is_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ProcessExecutor(1) as executor:
        assert await executor.run(look) == (UNSET, "nobody")
        monkeypatch.setattr(in_context, "tenant", ContextVar("tenant", default="somebody else"))
        assert await executor.run(look) == (UNSET, "somebody else")
        assert await executor.run(LooksBy(in_context.tenant), 1) == (UNSET, in_context.tenant)


@on_one_loop
@kinds
async def test_a_variable_that_a_reloaded_module_has_anew_does_not_get_the_value_of_the_old_one(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with KINDS[kind](1, contextvars=[tenant]) as executor:
        tenant.set("somebody")
        assert await executor.run(look) == (UNSET, "somebody")
        monkeypatch.setattr(in_context, "tenant", ContextVar("tenant", default="nobody"))
        assert await executor.run(look) == (UNSET, "nobody")


# Other doors


@on_one_loop
async def test_a_large_map_runs_in_one_context_a_batch() -> None:
    request.set("a request")
    async with ProcessExecutor(2, contextvars=VARIABLES) as executor:
        results = pmap(look, range(20_000), executor=executor)
        assert set(await results) == {("a request", "nobody")}
        assert results.statistics().batches < 2_000
        assert os.getpid() not in await pmap(lambda _: os.getpid(), range(4), executor=executor)
        await wait_until(lambda: len(executor.pool.idle) == len(executor._workers))


@on_one_loop
async def test_a_map_with_a_seed_carries_them_too(carrying: Executor) -> None:
    request.set("a request")
    assert await pmap(look_and_count, [1, 2], executor=carrying, seed=3) == [("a request", 0), ("a request", 1)]
    assert await carrying.run(look, _=1) == ("a request", "nobody")


@on_one_loop
async def test_looking_for_a_variable_loads_no_module_and_survives_what_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lazy(ModuleType):
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError("it is loaded")

    class NoModule:
        __slots__ = ()

    hidden: ContextVar[int] = ContextVar("hidden")
    monkeypatch.setitem(sys.modules, "a_lazy_module", Lazy("a_lazy_module"))
    monkeypatch.setitem(sys.modules, "no_module", NoModule())
    with pytest.raises(ValueError, match="'hidden', which workers could not find"):
        ProcessExecutor(1, contextvars=[hidden])


@on_one_loop
async def test_a_variable_that_the_script_has_imported_is_found_in_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    shared: ContextVar[int] = ContextVar("shared")
    module = ModuleType("a_module_of_this_test")
    monkeypatch.setattr(sys.modules["__main__"], "shared", shared, raising=False)
    monkeypatch.setattr(module, "found_here", shared, raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert home_of(shared) == ("a_module_of_this_test", "found_here")
