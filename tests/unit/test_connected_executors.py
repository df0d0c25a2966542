"""What becomes of an executor over an engine that fails by itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from asyncpar import ProcessExecutor, pmap
from asyncpar._child.pool_main import PoolAnswer, run_in_pool
from asyncpar._contract.executor import FREE, Fate
from asyncpar._engines.engine import Engine, Work
from asyncpar._engines.executor import ConnectedExecutor
from asyncpar.testing.functions import double

pytestmark = pytest.mark.anyio


class FailingEngine(Engine):
    """Makes the calls here. `fails_at`: the method that raises an error."""

    def __init__(self, fails_at: str) -> None:
        self.fails_at = fails_at

    async def live(self) -> None:
        if self.fails_at == "live":
            raise OSError("it is gone")
        await anyio.sleep_forever()

    async def close(self) -> None:
        if self.fails_at == "close":
            raise OSError("it is gone")

    async def submit(self, work: Work) -> Callable[[], PoolAnswer]:
        return partial(run_in_pool, work.program_id, work.program, work.mode, work.depth, work.parts)

    async def result(self, task: Callable[[], PoolAnswer]) -> PoolAnswer:
        return task()

    def cancel(self, task: Any, ended: Callable[[], object]) -> Fate:
        return FREE

    def is_loss(self, error: BaseException) -> bool:
        return False


@pytest.mark.parametrize("fails_at", ["live", "close"])
async def test_an_engine_that_fails_by_itself_ends_no_other_executor_and_says_so_when_it_is_closed(fails_at: str) -> None:
    async with ProcessExecutor(1) as other:
        executor = ConnectedExecutor(FailingEngine(fails_at))
        assert await pmap(double, range(5), executor=executor) == [0, 2, 4, 6, 8]
        await anyio.lowlevel.checkpoint()
        with pytest.raises(OSError, match="it is gone"):
            await executor.aclose()
        assert await pmap(double, range(5), executor=other) == [0, 2, 4, 6, 8]
