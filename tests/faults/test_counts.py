"""Guarantee 5 in numbers: a thousand runs cost the parent as much as one. The soak makes ten times as many."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.faults.growth import Growth, growth_of_cancelled_runs, growth_of_killed_workers, growth_of_runs

RUNS = 1000
CANCELLED_RUNS = 200
KILLED_WORKERS = 100
MEMORY = 8 << 20  # bytes; many times what the allocator moves by


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("measure", "times"),
    [
        pytest.param(growth_of_runs, RUNS, id="runs"),
        pytest.param(growth_of_cancelled_runs, CANCELLED_RUNS, id="cancelled"),
        pytest.param(growth_of_killed_workers, KILLED_WORKERS, id="killed"),
    ],
)
async def test_many_in_a_row_leave_nothing(
    measure: Callable[[int, Path], Awaitable[Growth]], times: int, tmp_path: Path
) -> None:
    growth = await measure(times, tmp_path)
    assert growth.processes <= 0
    assert growth.threads <= 0
    assert growth.descriptors <= 0
    assert growth.memory < MEMORY
