"""What the tests of the Dask executor share: one cluster. Where distributed is not installed, they are skipped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from asyncpar import DaskExecutor
from tests.dask.cluster import Cluster
from tests.helper_processes import helper_processes

if find_spec("distributed") is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Dask needs asyncio."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(2)
    yield cluster
    cluster.close()


@pytest.fixture(scope="session", autouse=True)
def what_stays_is_there() -> Iterator[None]:
    """The helper process of multiprocessing, and a thread in which distributed does what takes long."""
    from distributed.utils import _offload_executor  # not at the top: it may not be installed

    _offload_executor.submit(int).result()
    with helper_processes():
        yield


@pytest.fixture
async def executor(cluster: Cluster, anyio_backend: object) -> AsyncIterator[DaskExecutor]:
    async with DaskExecutor(cluster.address) as executor:
        yield executor
