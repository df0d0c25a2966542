"""What tests of the synchronous face share."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["process", "thread", "inline"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name
