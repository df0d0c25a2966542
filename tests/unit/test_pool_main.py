"""What the workers of other people's pools keep of the runs that they serve."""

from __future__ import annotations

from typing import Any

import pytest

from asyncpar._child.pool_main import _KEPT_BYTES, _KEPT_PROGRAMS, Server


def known_after(sizes: list[int]) -> list[int]:
    """Which of the programs of these sizes are known when each has been used once."""
    server, program = Server(), Any
    for number, size in enumerate(sizes):
        server.server.adopt(number, program)  # type: ignore[arg-type]
        server.note_use(number, size)
    return [number for number in range(len(sizes)) if server.server.knows(number)]


@pytest.mark.parametrize(
    ("sizes", "known"),
    [
        ([1] * (_KEPT_PROGRAMS + 2), list(range(2, _KEPT_PROGRAMS + 2))),
        ([_KEPT_BYTES // 2] * 4, [2, 3]),
        ([1, 2 * _KEPT_BYTES], [1]),
        ([2 * _KEPT_BYTES, 1], [1]),
    ],
)
def test_the_programs_used_last_are_kept_up_to_a_number_and_a_size(sizes: list[int], known: list[int]) -> None:
    assert known_after(sizes) == known
