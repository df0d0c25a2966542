"""The event loops that tests run on: all of them, unless a test says that one is enough."""

from __future__ import annotations

import pytest

EVENT_LOOPS = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
    pytest.param(("trio", {}), id="trio"),
]

# For tests of what no event loop has a part in beyond carrying the run: what calls, errors and results look like when they
# arrive. What is about waiting, cancelling, leaving early, or the life of processes is tested on every loop.
on_one_loop = pytest.mark.parametrize("anyio_backend", ["asyncio"])
