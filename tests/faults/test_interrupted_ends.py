"""What must happen at an end happens, also when it is interrupted just then: by asyncio's `Task.cancel`, or by the end of
something else. Each of these was found by the chaos.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from asyncpar import Executor, pmap
from asyncpar.executors.inline import InlineWorker
from tests.functions import double

pytestmark = pytest.mark.anyio
on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@on_asyncio
async def test_leaving_a_stream_waits_for_its_source_also_if_the_task_is_cancelled_meanwhile() -> None:
    closing, let_go, closed = anyio.Event(), anyio.Event(), False

    async def source() -> AsyncIterator[int]:
        nonlocal closed
        try:
            for number in range(1000):
                yield number
        finally:
            closing.set()
            with anyio.CancelScope(shield=True):
                await let_go.wait()
            closed = True

    async def leave() -> None:
        async with pmap(double, source(), executor="inline", buffersize=2) as results:
            await anext(results)

    leaving = asyncio.ensure_future(leave())
    await closing.wait()
    leaving.cancel()
    for _ in range(10):
        await anyio.lowlevel.checkpoint()
    assert not leaving.done()
    let_go.set()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert closed


class _CancelsAScopeOfItsOwn(InlineWorker):
    def __init__(self, let_go: anyio.Event) -> None:
        self._let_go = let_go

    async def run(self, parcel: Any) -> Any:
        async def end() -> None:
            await self._let_go.wait()
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(end)
            await anyio.sleep_forever()
        return await super().run(parcel)


class _TwoPlaces(Executor[_CancelsAScopeOfItsOwn]):
    def __init__(self, let_go: anyio.Event) -> None:
        super().__init__(capacity=2)
        self._let_go = let_go

    async def _start_worker(self) -> _CancelsAScopeOfItsOwn:
        return _CancelsAScopeOfItsOwn(self._let_go)


@on_asyncio
@pytest.mark.parametrize("turns", range(5))
async def test_a_cancellation_that_coincides_with_that_of_a_scope_is_not_taken_for_the_end_of_the_run(turns: int) -> None:
    let_go = anyio.Event()
    running = asyncio.ensure_future(_run(double, _TwoPlaces(let_go), range(4)))
    for _ in range(20):
        await anyio.lowlevel.checkpoint()
    let_go.set()
    for _ in range(turns):
        await anyio.lowlevel.checkpoint()
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()


async def _run(fn: Any, executor: Executor[Any], items: Iterable[int] = (0,)) -> list[Any]:
    return await pmap(fn, items, executor=executor, batch_size=1)
