"""Tables of pandas and Arrow, and other buffers that are not numpy's, go through shared memory as arrays do."""

from __future__ import annotations

import gc
import os
import weakref
from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from asyncpar import ProcessExecutor, pmap
from tests.calls.tables import Blob, length_and_more
from tests.functions import identity
from tests.loops import on_one_loop
from tests.waiting import wait_until

pytestmark = [pytest.mark.anyio, on_one_loop]

ROWS = 200_000


def frame() -> Any:
    import pandas

    table = pandas.DataFrame({name: np.arange(ROWS) * 1.5 for name in "abc"})
    return table.assign(text="some text", when=pandas.Timestamp("2000-01-01"), number=range(ROWS))


def arrow() -> Any:
    import pyarrow

    return pyarrow.table({"x": np.arange(ROWS) * 1.5, "y": range(ROWS), "text": ["some text"] * ROWS})


@pytest.mark.parametrize("make", [frame, arrow])
async def test_tables_come_back_the_same(make: Any) -> None:
    table = make()
    for mode in ("r", "r+", "c", None):
        results = pmap(identity, [table], executor="process", mmap_mode=mode)
        (result,) = await results
        assert result.equals(table)
        assert results.statistics().shared_bytes > 2 * 3 * ROWS * 8


async def test_a_frame_that_comes_back_can_be_written_to() -> None:
    (table,) = await pmap(identity, [frame()], executor="process")
    table.loc[7, "b"] = -1.0
    assert table["b"].sum() == frame()["b"].sum() - 7 * 1.5 - 1


@pytest.mark.parametrize("make", [frame, arrow, lambda: Blob(os.urandom(1 << 21)), lambda: Blob(bytearray(1 << 21))])
async def test_a_table_that_many_calls_share_is_copied_once(make: Any) -> None:
    table = make()
    once = pmap(length_and_more, [table], [0], executor="process")
    assert await once == [len(table)]
    copied = once.statistics().shared_bytes
    results = pmap(length_and_more, [table] * 12, range(12), executor="process", n_jobs=2, batch_size=2)
    assert await results == [len(table) + more for more in range(12)]
    statistics = results.statistics()
    assert statistics.shared_bytes == pytest.approx(statistics.batches * copied, rel=1e-3)  # pickles differ by a few bytes
    assert statistics.zero_copy_hits > 0
    assert statistics.zero_copy_hits % (statistics.batches - 1) == 0  # all but the first of each buffer


async def test_a_buffer_may_be_resized_when_its_result_is_there() -> None:
    blobs = [Blob(bytearray(1 << 21)) for _ in range(4)]
    async with ProcessExecutor(1) as executor, pmap(len, blobs, executor=executor, batch_size=1) as results:
        async for result in results:
            assert result == 1 << 21
            blobs.pop(0).content.extend(b"more")


async def test_memory_is_let_go_although_the_calls_that_follow_are_small() -> None:
    watched: list[weakref.ref[Any]] = []

    def items() -> Iterator[Any]:
        content = array("b", bytes(1 << 21))
        watched.append(weakref.ref(content))
        yield Blob(content)
        del content
        yield from [b"small"] * 20

    async with ProcessExecutor(1) as executor, pmap(len, items(), executor=executor, batch_size=1) as results:
        assert await anext(results) == 1 << 21
        for _ in range(4):
            await anext(results)
        gc.collect()
        assert watched[0]() is None


async def test_a_table_that_nobody_needs_any_longer_is_let_go_while_the_run_goes_on() -> None:
    import pyarrow

    part = arrow()
    pool = pyarrow.proxy_memory_pool(pyarrow.default_memory_pool())  # its count is not other tests' affair
    most = 0

    def tables() -> Any:
        nonlocal most
        for _ in range(20):
            most = max(most, pool.bytes_allocated())
            yield pyarrow.concat_tables([part] * 2).combine_chunks(memory_pool=pool)

    async with ProcessExecutor(1) as executor:
        results = pmap(len, tables(), executor=executor, batch_size=1)
        assert await results == [2 * ROWS] * 20
        assert results.statistics().zero_copy_hits == 0
        gc.collect()
        await wait_until(lambda: pool.bytes_allocated() == 0)  # the thread that packed the last one may not have let go yet
    assert 0 < most < 10 * 2 * part.nbytes
