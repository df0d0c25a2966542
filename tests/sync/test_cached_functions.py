"""`Parallel` over the cached twin of a function."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncpar import Memory, Parallel, delayed
from tests.calls.processes import write_and_square


@pytest.mark.parametrize("backend", ["process", "thread", "inline"])
def test_parallel_over_a_twin_finds_what_earlier_calls_computed(tmp_path: Path, backend: str) -> None:
    memory = Memory(tmp_path / "cache", verbose=0)
    ran = tmp_path / "ran"
    ran.mkdir()
    offset = 5
    twin = memory.cache(lambda folder, x: write_and_square(folder, x) + offset)
    for _ in range(2):
        assert Parallel(n_jobs=2, backend=backend)(delayed(twin)(str(ran), x) for x in range(4)) == [5, 6, 9, 14]
    assert len(list(ran.iterdir())) == 4
