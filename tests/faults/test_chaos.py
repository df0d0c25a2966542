"""A few seconds of chaos on each event loop; `python -m tests.faults.soak` goes on for longer."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.faults.chaos import Figures, chaos

SECONDS = 2.5
RUNS = 40  # which are about as many as these seconds have on a machine that is idle


@pytest.mark.anyio
@pytest.mark.timeout(180)  # the chaos has its own watch, which says more
async def test_nothing_is_lost_or_left_whatever_is_killed_cancelled_or_raised(tmp_path: Path) -> None:
    figures = Figures()
    for seed in itertools.count(20):  # until enough has happened, however slow the machine is
        directory = tmp_path / str(seed)
        directory.mkdir()
        figures += await chaos(seed, SECONDS, directory)
        print(figures)
        assert not figures.complaints, "\n".join(figures.complaints)
        assert (figures.lost, figures.duplicated, figures.wrong, figures.shifted) == (0, 0, 0, 0)
        assert (figures.left, figures.hangs) == (0, 0)
        if figures.runs >= RUNS and figures.kills >= 1 and figures.cancels >= 5 and figures.failures >= 200:
            break
