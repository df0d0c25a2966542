"""What an item costs in a stream of coroutine calls in the caller's event loop, where each call is a batch of its own.

The calls do nothing but let the event loop turn, a hundred at once. Beside the stream: the same calls awaited as a list, and
what one would write without a library, a task for each call behind a semaphore, whose results are there only at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from tests.benchmarks.frame import Case, Contender, Target, scaled
from tests.benchmarks.timing import Loop, median_seconds_awaited, run_in

_ITEMS = 50_000
_CONCURRENCY = 100
_REPETITIONS = 3
_TARGET = Target(plus=10e-6)


async def _let_others_run(x: int) -> int:
    await asyncio.sleep(0)
    return x


async def _stream(items: range, *, ordered: bool) -> None:
    from asyncpar import pmap

    handed = 0
    async with pmap(_let_others_run, items, concurrency=_CONCURRENCY, ordered=ordered) as results:
        async for _ in results:
            handed += 1
    assert handed == len(items)


async def _list(items: range) -> None:
    from asyncpar import pmap

    assert len(await pmap(_let_others_run, items, concurrency=_CONCURRENCY)) == len(items)


async def _gather(items: range) -> None:
    limit = asyncio.Semaphore(_CONCURRENCY)

    async def limited(x: int) -> int:
        async with limit:
            return await _let_others_run(x)

    assert len(await asyncio.gather(*[limited(x) for x in items])) == len(items)


def _seconds_per_item(consume: Callable[[range], Awaitable[None]], loop: Loop, quick: bool) -> float:
    items = range(scaled(_ITEMS, quick))
    return run_in(loop, lambda: median_seconds_awaited(lambda: consume(items), _REPETITIONS)) / len(items)


_in_order, _as_they_finish = partial(_stream, ordered=True), partial(_stream, ordered=False)

CASES = (
    Case(
        "coroutine-stream",
        "50 000 coroutine calls in the caller's event loop, per item",
        (
            Contender("asyncpar", partial(_seconds_per_item, _in_order, "asyncio"), "asyncpar", (_TARGET,)),
            Contender("asyncpar, unordered", partial(_seconds_per_item, _as_they_finish, "asyncio"), "asyncpar", (_TARGET,)),
            Contender("asyncpar, uvloop", partial(_seconds_per_item, _in_order, "uvloop"), "asyncpar", (_TARGET,)),
            Contender("asyncpar, a list", partial(_seconds_per_item, _list, "asyncio"), "yardstick"),
            Contender("asyncio.gather, a list", partial(_seconds_per_item, _gather, "asyncio"), "yardstick"),
        ),
        reference="asyncpar, a list",
    ),
)
