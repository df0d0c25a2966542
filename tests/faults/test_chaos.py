"""A few seconds of chaos on each event loop; `python -m tests.faults.soak` goes on for longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.chaos import chaos

SECONDS = 5.0


@pytest.mark.anyio
@pytest.mark.timeout(180)  # the chaos has its own watch, which says more
@pytest.mark.parametrize("seed", [20])
async def test_nothing_is_lost_or_left_whatever_is_killed_cancelled_or_raised(seed: int, tmp_path: Path) -> None:
    figures = await chaos(seed, SECONDS, tmp_path)
    print(figures)
    assert not figures.complaints, "\n".join(figures.complaints)
    assert (figures.lost, figures.duplicated, figures.left, figures.hangs) == (0, 0, 0, 0)
    assert figures.runs >= 20
    assert figures.kills >= 1
    assert figures.cancels >= 5
