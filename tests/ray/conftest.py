"""What the tests of the Ray executor share: one cluster, to which this process is connected. Without ray, they are skipped."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec

import pytest

from asyncpar import RayExecutor
from tests.ray.cluster import Cluster

if find_spec("ray") is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """Its address. A process can be connected to one Ray at a time, so all tests share the connection."""
    import ray

    os.environ["RAY_AUTH_MODE"] = "disabled"  # as there
    cluster = Cluster(2)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster.address
    ray.shutdown()
    cluster.close()


@pytest.fixture(scope="session", autouse=True)
def descriptors_do_not_count(cluster: str) -> Iterator[None]:
    """Ray closes its connections to workers some time after these have ended."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("asyncpar.testing.leftovers._descriptors", set)
        yield


@pytest.fixture
async def executor(cluster: str, anyio_backend: object) -> AsyncIterator[RayExecutor]:
    async with RayExecutor() as executor:
        yield executor
