"""The context of calls in workers, made of the values that came from their caller."""

from __future__ import annotations

from contextvars import ContextVar

from asyncpar._child.carried_context import InContext, in_copy_of, taken_apart

name: ContextVar[str] = ContextVar("name", default="nobody")


def test_plain_calls_run_in_a_copy_for_each_batch() -> None:
    call, context = taken_apart(InContext(name.get, [name], [(name, "Ada")]))
    for _ in range(2):
        run = in_copy_of(context)
        assert run(call) == "Ada"
        run(name.set, "Grace")
        assert run(call) == "Grace"
    assert name.get() == "nobody"


def test_without_variables_calls_run_where_they_are() -> None:
    call, context = taken_apart(name.get)
    assert (call, context) == (name.get, None)
    assert in_copy_of(context)(call) == "nobody"
