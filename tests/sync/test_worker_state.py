"""States of workers in code that is not async."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncpar import Parallel, PoolExecutor, delayed
from tests.calls import worker_states as calls
from tests.interpreters import with_interpreters


@pytest.mark.parametrize("kind", ["process", "thread", with_interpreters("interpreter")])
def test_the_workers_of_a_pool_leave_theirs_when_it_is_shut_down(kind: str, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with PoolExecutor(1, executor=kind, initializer=calls.generator, initargs=(notes,)) as pool:
        assert pool.submit(calls.look).result() == (kind, 0, calls.STATE)
    assert calls.notes_in(notes) == ["entered", "left"]


def test_the_workers_of_a_parallel_leave_theirs_at_the_end_of_its_with_block(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with Parallel(n_jobs=2, backend="process", initializer=calls.async_generator, initargs=(notes,), grace=60) as parallel:
        for _ in range(2):
            assert {state for _, _, state in parallel(delayed(calls.look)() for _ in range(4))} == {calls.STATE}
    entered_and_left = calls.notes_in(notes)
    assert entered_and_left.count("entered") == entered_and_left.count("left") == len(entered_and_left) / 2
