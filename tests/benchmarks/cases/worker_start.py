"""How long until one more worker process gives its first result, when others run already.

That is the price of replacing a worker that was killed for a timeout or a cancellation. Every worker that was started stays
busy (lent, that is), so that the next lease has to start another. For information: what a new process costs
`multiprocessing`, by fork (unsafe in a program with threads, and an event loop usually has some) and by its fork server.
"""

from __future__ import annotations

import math
from contextlib import AsyncExitStack
from functools import partial
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from tests.benchmarks.frame import Case, Contender, Target, scaled
from tests.benchmarks.timing import median_seconds, run_in
from tests.places import held_place

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_REPETITIONS = 30


def _asyncpar(quick: bool) -> float:
    from asyncpar import ProcessExecutor, pmap

    repetitions = scaled(_REPETITIONS, quick)

    async def main() -> float:
        async with ProcessExecutor(1 + repetitions) as executor, AsyncExitStack() as held:
            return median([await first_result(held, executor) for _ in range(1 + repetitions)][1:])

    async def first_result(held: AsyncExitStack, executor: ProcessExecutor) -> float:
        began = perf_counter()
        assert await pmap(math.sqrt, [4], executor=executor) == [2.0]
        taken = perf_counter() - began
        await held.enter_async_context(held_place(executor))
        return taken

    return run_in("asyncio", main)


def _process(method: Literal["fork", "forkserver"], quick: bool) -> float:
    import multiprocessing

    context: Any = multiprocessing.get_context(method)

    def first_result() -> None:
        ours, theirs = context.Pipe()
        process = context.Process(target=_send_result, args=(theirs,))
        process.start()
        assert ours.recv() == 2.0
        started.append(process)

    started: list[Any] = []
    try:
        return median_seconds(first_result, scaled(_REPETITIONS, quick))
    finally:
        for process in started:
            process.join()


def _send_result(connection: Connection) -> None:
    connection.send(math.sqrt(4))


CASES = (
    Case(
        "worker-start",
        "one more worker process until its first result",
        (
            Contender("asyncpar", _asyncpar, "asyncpar", (Target(plus=5e-3),)),
            Contender("multiprocessing, fork", partial(_process, "fork"), "yardstick"),
            Contender("multiprocessing, forkserver", partial(_process, "forkserver")),
        ),
    ),
)
