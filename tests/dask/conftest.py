"""What the tests of the Dask executor share: one cluster with two workers. Where distributed is not installed, they are skipped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from asyncpar import DaskExecutor
from tests.dask.cluster import Cluster


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Dask needs asyncio."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(2)
    yield cluster
    cluster.close()


@pytest.fixture
async def executor(cluster: Cluster, anyio_backend: object) -> AsyncIterator[DaskExecutor]:
    async with DaskExecutor(cluster.address) as executor:
        yield executor
