"""The Dask executor passes the kit for executors, on asyncio. The portal, in the tests of the doors, runs on uvloop."""

from __future__ import annotations

from typing import Any

import pytest

from asyncpar import DaskExecutor, Executor
from asyncpar.testing import ExecutorContract
from tests.dask.cluster import Cluster


class TestDaskExecutor(ExecutorContract):
    address: str

    @pytest.fixture
    def anyio_backend(self) -> tuple[str, dict[str, Any]]:
        """Of the two that it can run on, since half of a minute is enough."""
        return "asyncio", {"use_uvloop": False}

    @pytest.fixture(autouse=True)
    def cluster_runs(self, cluster: Cluster) -> None:
        self.address = cluster.address

    def make_executor(self) -> Executor:
        return DaskExecutor(self.address)

    def change_places(self, executor: Any, places: int) -> None:
        executor.pool.resize(places)
