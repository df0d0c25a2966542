"""Who ends which connection to Ray, without Ray."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from asyncpar._engines import ray_connection
from asyncpar._engines.ray_connection import connect, disconnect


class PretendedRay:
    """Knows which connection there is, by its number."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self.connection: int | None = None

    def init(self, **_: Any) -> None:
        self.connection = next(self._numbers)

    def shutdown(self) -> None:
        self.connection = None

    def is_initialized(self) -> bool:
        return self.connection is not None

    def get_runtime_context(self) -> PretendedRay:
        return self

    gcs_address = "here:1"

    def get_node_id(self) -> str:
        return "here"

    def get_job_id(self) -> str:
        return str(self.connection)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> PretendedRay:
    monkeypatch.setattr(ray_connection, "_reachable", str)
    return PretendedRay()


def test_the_last_executor_that_is_closed_disconnects(ray: PretendedRay) -> None:
    first, second = connect(ray, "here:1"), connect(ray, "here:1")
    assert first is second
    disconnect(first)
    assert ray.connection == 1
    disconnect(second)
    assert ray.connection is None


def test_an_executor_whose_connection_the_program_has_ended_leaves_that_of_another_one(ray: PretendedRay) -> None:
    first = connect(ray, "here:1")
    ray.shutdown()
    second = connect(ray, "here:1")
    disconnect(first)
    assert ray.connection == 2
    disconnect(second)
    assert ray.connection is None


def test_a_connection_that_the_program_has_made_after_ours_is_its_own(ray: PretendedRay) -> None:
    first = connect(ray, "here:1")
    ray.shutdown()
    ray.init()
    assert connect(ray, "here:1") is None
    disconnect(first)
    assert ray.connection == 2
