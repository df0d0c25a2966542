"""Turns are never held by more than their limit allows, go to the task that has waited longest, and are not lost."""

from __future__ import annotations

import anyio
import anyio.abc
from hypothesis import given
from hypothesis import strategies as st

from asyncpar._run.turns import Turns

steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.just(0)),
        st.tuples(st.just("give back"), st.just(0)),
        st.tuples(st.just("resize"), st.integers(0, 4)),
        st.tuples(st.just("cancel"), st.integers(0, 3)),
    ),
    max_size=40,
)


@given(st.integers(0, 3), steps)
def test_turns_keep_to_their_limit_and_to_the_order_of_asking(limit: int, steps: list[tuple[str, int]]) -> None:
    anyio.run(_check, limit, steps)


async def _check(limit: int, steps: list[tuple[str, int]]) -> None:
    turns = Turns(limit)
    held: list[int] = []
    waiting: dict[int, anyio.CancelScope] = {}  # in the order of asking

    async def ask(number: int, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        with anyio.CancelScope() as waiting[number]:
            task_status.started()
            await turns.acquire()
            held.append(number)
        del waiting[number]

    async with anyio.create_task_group() as group:
        for number, (step, argument) in enumerate(steps):
            before, asked = list(held), list(waiting)
            if step == "ask":
                await group.start(ask, number)
            elif step == "give back" and held:
                held.pop()
                turns.release()
            elif step == "resize":
                limit = argument
                turns.resize(limit)
            elif step == "cancel" and argument < len(waiting):
                list(waiting.values())[argument].cancel()
            for _ in range(3):
                await anyio.lowlevel.checkpoint()
            new = [number for number in held if number not in before]
            assert len(held) <= max(limit, len(before))
            assert not waiting or len(held) >= limit
            assert new == [number for number in [*asked, *new] if number in new][: len(new)]
        group.cancel_scope.cancel()
