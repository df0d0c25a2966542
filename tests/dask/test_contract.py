"""The Dask executor passes the kit for executors, on the event loops that it can run on."""

from __future__ import annotations

from typing import Any

import pytest

from asyncpar import DaskExecutor, Executor
from asyncpar.testing import ExecutorContract
from tests.dask.cluster import Cluster


class TestDaskExecutor(ExecutorContract):
    address: str

    @pytest.fixture(params=["asyncio", "uvloop"])
    def anyio_backend(self, request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
        return "asyncio", {"use_uvloop": request.param == "uvloop"}

    @pytest.fixture(autouse=True)
    def cluster_runs(self, cluster: Cluster) -> None:
        self.address = cluster.address

    def make_executor(self) -> Executor:
        return DaskExecutor(self.address)

    def change_places(self, executor: Any, places: int) -> None:
        executor.pool.resize(places)
