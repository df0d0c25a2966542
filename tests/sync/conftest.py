"""The synchronous face keeps a thread and warm workers for the whole program; here they end with each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from asyncpar._sync.portal import close_portal


@pytest.fixture(autouse=True)
def the_portal_ends_with_the_test(nothing_is_left_behind: None) -> Iterator[None]:
    yield
    close_portal()


@pytest.fixture(params=["process", "thread", "inline"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name
