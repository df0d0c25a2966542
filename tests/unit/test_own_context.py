"""Coroutine calls that are stepped through contexts of their own are awaited like any others."""

from __future__ import annotations

import gc
import types
import weakref
from collections.abc import Awaitable, Generator
from contextvars import Context, ContextVar
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpar._basics.own_context import OwnContexts

name: ContextVar[str] = ContextVar("name", default="nobody")


class Pause:
    """Awaited, it gives `self` to whoever drives the call, and returns what that sends."""

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield self)


class Iterated:
    """An awaitable whose `__await__` returns a plain iterator, with no `send`."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __await__(self) -> Any:
        return iter([None] * self.steps)


def in_ada(function: Any, *arguments: Any) -> Any:
    """The call, in a context where the name is Ada."""
    context = Context()
    context.run(name.set, "Ada")
    return OwnContexts(context).call(function, *arguments)


def drive(coroutine: Any, answers: list[Any]) -> list[Any]:
    """What the coroutine yields, and at last what it returns or raises; an answer that is an error is thrown in."""
    seen: list[Any] = []
    step: Any = lambda: coroutine.send(None)  # noqa: E731
    for answer in [*answers, None]:
        try:
            seen.append(type(step()))
        except StopIteration as end:
            return [*seen, end.value]
        except BaseException as error:
            return [*seen, repr(error)]
        step = lambda: (  # noqa: E731
            coroutine.throw(answer) if isinstance(answer, BaseException) else coroutine.send(answer)  # noqa: B023
        )
    coroutine.close()
    return seen


async def converse(pauses: int) -> list[Any]:
    heard: list[Any] = []
    for _ in range(pauses):
        try:
            heard.append(await Pause())
        except ValueError as error:
            heard.append(str(error))
    return heard


answers = st.one_of(st.none(), st.integers(), st.builds(ValueError, st.text(max_size=3)), st.builds(KeyError, st.integers()))


@given(st.integers(0, 6), st.lists(answers, max_size=8))
def test_a_call_hears_and_says_the_same(pauses: int, given_answers: list[Any]) -> None:
    assert drive(in_ada(converse, pauses), given_answers) == drive(converse(pauses), given_answers)


def test_each_call_has_the_values_from_its_first_step_to_its_last() -> None:
    async def call(own: str) -> list[str]:
        seen = [name.get()]
        name.set(own)
        await Pause()
        seen.append(name.get())
        return seen

    first, second = in_ada(call, "first"), in_ada(call, "second")
    first.send(None)
    second.send(None)
    for coroutine, own in ((first, "first"), (second, "second")):
        with pytest.raises(StopIteration) as end:
            coroutine.send(None)
        assert end.value.value == ["Ada", own]
    assert name.get() == "nobody"


def test_a_call_that_is_closed_ends_in_its_context() -> None:
    seen: list[str] = []

    async def call() -> None:
        try:
            await Pause()
        finally:
            seen.append(name.get())

    coroutine = in_ada(call)
    coroutine.send(None)
    coroutine.close()
    assert seen == ["Ada"]


def test_what_is_awaited_may_be_any_iterator() -> None:
    assert drive(in_ada(Iterated, 2), []) == [type(None)]
    assert drive(in_ada(Iterated, 1), [None]) == [type(None), None]


def test_an_error_that_was_thrown_in_and_comes_out_does_not_refer_to_itself() -> None:
    class Refusal(Exception):
        pass

    def throw() -> weakref.ref[Refusal]:
        coroutine = in_ada(converse, 1)
        coroutine.send(None)
        try:
            coroutine.throw(Refusal())
        except Refusal as error:
            return weakref.ref(error)
        raise AssertionError("unreachable: it is not caught")

    gc.disable()
    try:
        assert throw()() is None
    finally:
        gc.enable()


async def set_and_look(value: str) -> tuple[str, str]:
    seen = name.get()
    name.set(value)
    await anyio.lowlevel.checkpoint()
    return seen, name.get()


@types.coroutine
def set_as_a_generator(value: str) -> Generator[Any, Any, tuple[str, str]]:
    return (yield from set_and_look(value).__await__())


def set_at_once(value: str) -> Awaitable[tuple[str, str]]:
    """Sets it before there is anything to await."""
    seen = name.get()
    name.set(value)

    async def look() -> tuple[str, str]:
        await anyio.lowlevel.checkpoint()
        return seen, name.get()

    return look()


@pytest.mark.anyio
@pytest.mark.parametrize("fn", [set_and_look, set_as_a_generator, set_at_once])
async def test_without_a_context_calls_see_that_of_the_task_and_what_they_have_set_themselves(fn: Any) -> None:
    name.set("Grace")
    contexts = OwnContexts()
    assert [await contexts.call(fn, value) for value in "abc"] == [("Grace", value) for value in "abc"]
    assert name.get() == "Grace"


@pytest.mark.anyio
async def test_a_cancelled_call_cleans_up_in_its_own_context() -> None:
    seen = []

    async def wait() -> None:
        name.set("mine")
        try:
            await anyio.sleep(60)
        finally:
            seen.append(name.get())

    with anyio.move_on_after(0) as scope:
        await OwnContexts().call(wait)
    assert scope.cancelled_caught
    assert seen == ["mine"]


@pytest.mark.anyio
async def test_it_is_known_whether_a_call_has_let_the_event_loop_turn() -> None:
    async def never_wait() -> None:
        pass

    contexts = OwnContexts()
    await contexts.call(never_wait)
    assert not contexts.let_others_run
    await contexts.call(set_and_look, "a")
    assert contexts.let_others_run
