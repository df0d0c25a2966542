"""Ranges, sequences and arrays are sent as slices, and the results do not show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from asyncpar import ProcessExecutor, pmap
from tests.calls.describing import describe, describe_both

scalars = st.one_of(st.integers(), st.floats(allow_nan=False), st.text(), st.binary(), st.none(), st.booleans())
sequences = st.one_of(
    st.builds(range, st.integers(-50, 50), st.integers(-50, 50), st.sampled_from([-7, -1, 1, 3])),
    st.lists(scalars, max_size=60),
    st.lists(st.lists(scalars, max_size=3), max_size=20),
    st.lists(scalars, max_size=30).map(tuple),
    st.text(max_size=60),
    st.binary(max_size=60),
    arrays.arrays(
        st.one_of(arrays.integer_dtypes(), arrays.floating_dtypes(), arrays.unicode_string_dtypes(max_len=5)),
        arrays.array_shapes(max_dims=3, max_side=20),
        elements={"allow_nan": False},
    ),
    arrays.arrays(np.dtype(object), st.integers(0, 20), elements=scalars),
)
batch_sizes = st.one_of(st.just("auto"), st.integers(1, 70))


@given(columns=st.lists(st.tuples(sequences, batch_sizes), min_size=40, max_size=40))
@settings(max_examples=10)
@pytest.mark.parametrize("kind", ["process", "thread", "inline"])
def test_a_sequence_gives_what_its_items_one_by_one_give(kind: str, columns: list[tuple[Sequence[Any], Any]]) -> None:
    async def main() -> None:
        for sequence, batch_size in columns:
            whole = await pmap(describe, sequence, executor=kind, n_jobs=2, batch_size=batch_size)
            single = await pmap(describe, (item for item in sequence), executor=kind, n_jobs=2, batch_size=batch_size)
            assert whole == single == [describe(item) for item in sequence]

    anyio.run(main)


@given(columns=st.lists(st.tuples(sequences, sequences, batch_sizes), min_size=40, max_size=40))
@settings(max_examples=5)
def test_sequences_of_different_kinds_and_lengths_are_zipped(columns: list[tuple[Sequence[Any], Sequence[Any], Any]]) -> None:
    async def main() -> None:
        async with ProcessExecutor(2) as executor:
            for first, second, batch_size in columns:
                results = await pmap(describe_both, first, second, executor=executor, batch_size=batch_size)
                assert results == [describe_both(*pair) for pair in zip(first, second, strict=False)]

    anyio.run(main)
