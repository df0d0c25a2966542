"""The Ray executor passes the kit for executors, on asyncio and on trio."""

from __future__ import annotations

from typing import Any

import pytest

from asyncpar import Executor, RayExecutor
from asyncpar.testing import ExecutorContract


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
class TestRayExecutor(ExecutorContract):
    @pytest.fixture(autouse=True)
    def cluster_runs(self, cluster: str) -> None: ...

    def make_executor(self) -> Executor:
        return RayExecutor()

    def change_places(self, executor: Any, places: int) -> None:
        executor.engine.changed = int  # from now on, the workers of the cluster do not count
        executor.pool.resize(places)
