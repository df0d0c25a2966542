"""Coroutine calls that are stepped through contexts of their own are awaited like any others."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Generator
from contextvars import ContextVar
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpar._child.carried_context import InContext, in_copy_of, taken_apart

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


def in_context(function: Any, value: str = "Ada") -> Any:
    call, context = taken_apart(InContext(function, [name], [(name, value)]), awaits=True)
    assert context is None  # each call has its own
    return call


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
    assert drive(in_context(converse)(pauses), given_answers) == drive(converse(pauses), given_answers)


def test_each_call_has_the_values_from_its_first_step_to_its_last() -> None:
    async def call(own: str) -> list[str]:
        seen = [name.get()]
        name.set(own)
        await Pause()
        seen.append(name.get())
        return seen

    function = in_context(call)
    first, second = function("first"), function("second")
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

    coroutine = in_context(call)()
    coroutine.send(None)
    coroutine.close()
    assert seen == ["Ada"]


def test_what_is_awaited_may_be_any_iterator() -> None:
    assert drive(in_context(Iterated)(2), []) == [type(None)]
    assert drive(in_context(Iterated)(1), [None]) == [type(None), None]


def test_an_error_that_was_thrown_in_and_comes_out_does_not_refer_to_itself() -> None:
    class Refusal(Exception):
        pass

    def throw() -> weakref.ref[Refusal]:
        coroutine = in_context(converse)(1)
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


def test_plain_calls_run_in_a_copy_for_each_batch() -> None:
    call, context = taken_apart(InContext(name.get, [name], [(name, "Ada")]), awaits=False)
    for _ in range(2):
        run = in_copy_of(context)
        assert run(call) == "Ada"
        run(name.set, "Grace")
        assert run(call) == "Grace"
    assert name.get() == "nobody"


def test_without_variables_calls_run_where_they_are() -> None:
    call, context = taken_apart(name.get, awaits=False)
    assert (call, context) == (name.get, None)
    assert in_copy_of(context)(call) == "nobody"
