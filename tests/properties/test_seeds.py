"""However a map with a seed is run, its calls draw what their seed and their index say."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncpar import InlineExecutor, ProcessExecutor, ThreadExecutor, pmap
from tests.calls.seeded import Drawn, DrawsThenFails, all_drawn, draw_soon

seeds = st.integers(0, 2**70)
batch_sizes = st.sampled_from(["auto", 1, 3, 16])


@settings(max_examples=25)
@given(
    seed=seeds,
    count=st.integers(1, 30),
    batch_size=batch_sizes,
    ordered=st.booleans(),
    failures=st.dictionaries(st.integers(0, 29), st.integers(1, 2), max_size=6),
    retry_wait=st.sampled_from([0.0, 1e-4]),
)
@pytest.mark.parametrize("kind", [ProcessExecutor, ThreadExecutor, InlineExecutor])
def test_streams_depend_on_nothing_but_seed_and_index(
    kind: Any, seed: int, count: int, batch_size: Any, ordered: bool, failures: dict[int, int], retry_wait: float
) -> None:
    async def main() -> list[Drawn]:
        async with kind() if kind is InlineExecutor else kind(2) as executor:
            options = {"batch_size": batch_size, "ordered": ordered, "retry_wait": retry_wait}
            with tempfile.TemporaryDirectory() as folder:
                failing = DrawsThenFails(Path(folder), failures)
                return await pmap(failing, range(count), executor=executor, seed=seed, retries=2, **options)

    assert sorted(anyio.run(main)) == all_drawn(seed, range(count))


@settings(max_examples=25)
@given(seed=seeds, count=st.integers(1, 30), concurrency=st.integers(1, 8))
def test_nor_on_the_calls_that_are_under_way_at_the_same_time(seed: int, count: int, concurrency: int) -> None:
    async def main() -> list[Drawn]:
        return await pmap(draw_soon, range(count), seed=seed, concurrency=concurrency)

    assert anyio.run(main) == all_drawn(seed, range(count))
