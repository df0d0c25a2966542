"""Large arrays go through shared memory, both ways: the same results, one copy at most, nothing left."""

from __future__ import annotations

import functools
import gc
import os
import pickle
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncpar import PicklingError, ProcessExecutor, ThreadExecutor, pmap
from tests.belongings import mappings, shared_bytes
from tests.calls.arrays import (
    Frame,
    HasAGap,
    add_one,
    keep,
    keep_nothing,
    kill_some,
    large,
    total,
    total_of_two,
    what_was_kept,
    where,
    write,
)
from tests.functions import double, identity
from tests.loops import on_one_loop
from tests.waiting import wait_until

on_every_loop = pytest.mark.anyio

MIB = 1 << 20
NUMPY = ["numpy"]  # preloaded, it is imported once, and not by each worker


def nested(array: Any) -> Any:
    return {"array": array, "list": [array[::2].copy(), (array, "text")], "frame": Frame("f", array + 1, {"x": array[:5]})}


PAYLOADS: dict[str, Any] = {
    "array": large(),
    "nested": nested(large()),
    "structured": np.zeros(100_000, dtype=[("a", "i4"), ("b", "f8"), ("c", "S8")]),
    "Fortran": np.asfortranarray(large().reshape(500, 600)),
    "transposed": large().reshape(500, 600).T,
    "strided": large()[::3],
    "empty": np.empty((0, 5)),
    "zero dimensions": np.array(5.0),
    "read-only": np.frombuffer(bytes(3 * MIB), dtype=np.uint8),
    "of objects": np.array([large(), {"a": 1}], dtype=object),
    "masked": np.ma.masked_array(large(), large() > 0.5),
    "bytes": os.urandom(3 * MIB),
    "bytearray": bytearray(os.urandom(3 * MIB)),
    "view of bytes": pickle.PickleBuffer(os.urandom(3 * MIB)),
    "dates": np.arange("2000-01-01", "2800-01-01", dtype="datetime64[D]"),
}


def assert_same(got: Any, sent: Any) -> None:
    if isinstance(sent, pickle.PickleBuffer):
        assert bytes(got) == bytes(sent)
    elif isinstance(sent, Frame):
        assert_same([got.name, got.values, got.more], [sent.name, sent.values, sent.more])
    elif isinstance(sent, dict):
        assert list(got) == list(sent)
        assert_same(list(got.values()), list(sent.values()))
    elif isinstance(sent, list | tuple) or (isinstance(sent, np.ndarray) and sent.dtype == object):
        assert type(got) is type(sent)
        assert len(got) == len(sent)
        for one, other in zip(got, sent, strict=True):
            assert_same(one, other)
    else:
        assert type(got) is type(sent)
        np.testing.assert_array_equal(got, sent)


@pytest.mark.anyio
@on_one_loop
@pytest.mark.parametrize("mode", ["r", "r+", "c", None])
async def test_whatever_pickles_with_buffers_comes_back_the_same(mode: Any, subtests: pytest.Subtests) -> None:
    for name, payload in PAYLOADS.items():
        with subtests.test(name):
            assert_same(await pmap(identity, [payload, 1], executor="process", mmap_mode=mode), [payload, 1])


@on_every_loop
async def test_results_are_writable_and_live_as_long_as_anybody_looks() -> None:
    async with ProcessExecutor(2, preload=NUMPY) as executor:
        first, second = await pmap(large, [1, 2], executor=executor)
        (returned,) = await pmap(identity, [first], executor=executor)
        for _ in range(5):
            await pmap(large, range(4), executor=executor)
    part = second[100:200]
    del second
    gc.collect()
    for array in (first, returned):
        np.testing.assert_array_equal(array, large(1))
        array += 1
    np.testing.assert_array_equal(part, large(2)[100:200])


@on_one_loop
@on_every_loop
async def test_an_object_that_many_calls_share_is_copied_once() -> None:
    array = large()
    async with ProcessExecutor(2, preload=NUMPY) as executor:
        results = pmap(total, [array] * 40, range(40), executor=executor, batch_size=3)
        assert await results == [float(array.sum()) + index for index in range(40)]
        statistics = results.statistics()
        assert statistics.zero_copy_hits == statistics.batches - 1
        assert results.statistics().shared_bytes == statistics.batches * array.nbytes
        assert results.statistics().inline_bytes < 100_000
        bound = pmap(functools.partial(total, array), range(40), executor=executor)
        assert await bound == [float(array.sum()) + index for index in range(40)]
        assert bound.statistics().shared_bytes <= 2 * array.nbytes  # once for each worker
        closed_over = pmap(lambda index: float(array.sum()) + index, range(40), executor=executor)
        assert await closed_over == await bound_again(array, executor)


async def bound_again(array: Any, executor: Any) -> list[float]:
    return await pmap(functools.partial(total, array), range(40), executor=executor)


@pytest.mark.anyio
@on_one_loop
async def test_arguments_are_read_only_unless_told_otherwise() -> None:
    array = large()
    async with ProcessExecutor(1) as executor:
        with pytest.raises(ValueError, match="read-only") as caught:
            await pmap(write, [array], executor=executor)
        assert any('mmap_mode="c"' in note for note in caught.value.__notes__)
        for mode in ("c", None):
            assert await pmap(write, [array] * 3, executor=executor, mmap_mode=mode) == [array[0]] * 3
        seen = await pmap(write, [array] * 3, executor=executor, mmap_mode="r+")
        assert seen == [array[0], array[0] + 1, array[0] + 2]
    np.testing.assert_array_equal(array, large())


@pytest.mark.anyio
@on_one_loop
async def test_below_the_threshold_nothing_is_shared_and_none_shares_nothing() -> None:
    array = large()
    for max_nbytes, shared in ((array.nbytes, True), (array.nbytes + 1, False), ("2M", True), ("3M", False), (None, False)):
        results = pmap(identity, [array], executor="process", max_nbytes=max_nbytes)
        assert_same(await results, [array])
        assert bool(results.statistics().shared_bytes) == shared


@pytest.mark.anyio
@on_one_loop
async def test_statistics_tell_what_was_sent_and_what_was_shared_there_and_back() -> None:
    array = large()
    async with ProcessExecutor(1) as executor:
        for items, shared in (([array], 2), ([array[:5]], 0), ([array, array[:5]], 2)):
            results = pmap(identity, items, executor=executor, batch_size=1)
            await results
            assert results.statistics().shared_bytes == shared * array.nbytes
            assert 0 < results.statistics().inline_bytes < 5000
        results = pmap(np.sum, [array], executor=executor)  # large there, small back, after an answer that was large
        await results
        assert results.statistics().shared_bytes == array.nbytes
        assert 0 < results.statistics().inline_bytes < 5000


@pytest.mark.anyio
@on_one_loop
@pytest.mark.parametrize("name", ["bytes", "bytearray", "view of bytes", "text", "nested bytes", "many texts", "many bytes"])
async def test_what_pickles_large_goes_through_shared_memory(name: str) -> None:
    content = os.urandom(3 * MIB)
    parts = [content[begin : begin + 10_000] for begin in range(0, len(content), 10_000)]
    sent: Any = {
        "text": [content.hex()],
        "nested bytes": [{"x": [content]}],
        "many bytes": parts,
        "many texts": [part.hex() for part in parts],
    }.get(name) or [PAYLOADS[name]]
    results = pmap(identity, sent, executor="process", batch_size=len(sent))
    assert_same(await results, sent)
    assert results.statistics().shared_bytes > 3 * MIB
    assert results.statistics().inline_bytes < 100_000


@pytest.mark.anyio
@on_one_loop
async def test_rows_of_a_large_array_share_one_block() -> None:
    table = np.arange(600_000.0).reshape(60, 10_000)
    results = pmap(np.sum, table, executor="process", batch_size=20, max_nbytes=100_000)
    assert await results == [row.sum() for row in table]
    assert results.statistics().shared_bytes == table.nbytes


@pytest.mark.anyio
@on_one_loop
@pytest.mark.parametrize("batch_size", [1, 100])
async def test_small_rows_are_each_calls_own_however_many_travel_together(batch_size: int) -> None:
    modes: list[Any] = ["r", "r+", "c", None]
    for mode in modes:
        table = np.zeros((200, 1000))
        done = pmap(add_one, table, executor="process", batch_size=batch_size, max_nbytes="100K", mmap_mode=mode)
        assert await done == [1.0] * 200, mode
        assert not table.any(), mode


@pytest.mark.anyio
@on_one_loop
async def test_an_array_in_any_order_is_copied_once() -> None:
    array = np.asfortranarray(large().reshape(500, 600))
    for shared in (array, large().reshape(500, 600).T):
        done = pmap(np.sum, [shared] * 10, executor="process", n_jobs=2, batch_size=2)
        np.testing.assert_allclose(await done, [shared.sum()] * 10)
        assert done.statistics().zero_copy_hits == 4  # of 5 batches


@on_every_loop
async def test_hits_are_counted_once_where_packing_is_begun_anew_in_a_thread() -> None:
    array, others = large(), [large(seed) for seed in range(10)]
    done = pmap(total_of_two, [array] * 10, others, executor="process", batch_size=2)
    np.testing.assert_allclose(await done, [array.sum() + other.sum() for other in others])
    assert done.statistics().zero_copy_hits == 4  # of 5 batches


@on_every_loop
async def test_a_budget_is_used_again_while_a_list_of_arrays_travels() -> None:
    arrays = [large(seed) for seed in range(20)]
    budget = 20 * arrays[0].nbytes  # half of it for arguments
    async with ProcessExecutor(2, preload=NUMPY, max_shared_bytes=budget) as executor:
        done = pmap(np.sum, arrays, executor=executor, batch_size=1, n_jobs=2)
        np.testing.assert_allclose(await done, [array.sum() for array in arrays])
        assert done.statistics().shared_bytes == 20 * arrays[0].nbytes


@pytest.mark.anyio
@on_one_loop
async def test_rows_that_do_not_lie_in_one_piece_are_shared_as_well() -> None:
    table = large().reshape(3000, 100).T
    done = pmap(np.sum, table, executor="process", batch_size=50)
    np.testing.assert_allclose(await done, table.sum(axis=1))
    assert done.statistics().shared_bytes == table.nbytes


@pytest.mark.anyio
@on_one_loop
@pytest.mark.parametrize("max_nbytes", ["1M", None])
async def test_rows_of_a_memmap_are_those_of_the_file(tmp_path: Path, max_nbytes: Any) -> None:
    for batch_size in (1, 50, 200):
        path = tmp_path / f"numbers for {batch_size}"
        np.zeros((200, 1000)).tofile(path)
        table = np.memmap(path, dtype=float, mode="r+", shape=(200, 1000))
        for items in (table, list(table), table[::2], table[1::2]):
            await pmap(add_one, items, executor="process", batch_size=batch_size, max_nbytes=max_nbytes)
        assert (np.fromfile(path) == 3).all(), batch_size


@pytest.mark.anyio
@on_one_loop
async def test_only_errors_of_shared_arrays_get_a_note_about_them() -> None:
    def refuse(_: object) -> None:
        raise ValueError("this setting is read-only")

    with pytest.raises(ValueError, match="read-only") as caught:
        await pmap(refuse, [1], executor="process")
    assert not any("mmap_mode" in note for note in caught.value.__notes__)


@on_one_loop
@on_every_loop
async def test_beyond_the_budget_arrays_travel_all_the_same() -> None:
    arrays: list[Any] = [large(seed) for seed in range(8)]
    for budget in (0, 3 * MIB, 12 * MIB):
        async with ProcessExecutor(2, preload=NUMPY, max_shared_bytes=budget) as executor:
            results = pmap(identity, arrays, executor=executor)
            assert_same(await results, arrays)
            assert (results.statistics().shared_bytes > 0) == (budget == 12 * MIB)


@pytest.mark.anyio
@on_one_loop
async def test_beyond_the_budget_what_pickles_large_travels_all_the_same() -> None:
    texts = [f"{number}" * 3 * MIB for number in range(4)]
    async with ProcessExecutor(1, max_shared_bytes=MIB) as executor:
        results = pmap(identity, [[text] for text in texts], executor=executor)
        assert await results == [[text] for text in texts]
        assert results.statistics().shared_bytes == 0


@pytest.mark.anyio
@on_one_loop
@pytest.mark.parametrize("size", [100, 4 * MIB])
async def test_a_buffer_with_gaps_costs_its_call(size: int) -> None:
    results = await pmap(identity, [1, HasAGap(size), 3], executor="process", on_error="return", batch_size=3)
    assert results[::2] == [1, 3]
    assert isinstance(results[1], PicklingError)
    assert "the item of call 1" in str(results[1])


@on_every_loop
async def test_the_share_of_a_worker_becomes_smaller_when_there_may_be_more_workers() -> None:
    async with ProcessExecutor(1, max_shared_bytes=16 * MIB) as executor:  # half of it for results
        results = pmap(bytes, [4 * MIB], executor=executor)
        assert await results == [bytes(4 * MIB)]
        assert results.statistics().shared_bytes >= 4 * MIB
        executor.grow(4)
        results = pmap(bytes, [4 * MIB] * 8, executor=executor, batch_size=1)
        assert await results == [bytes(4 * MIB)] * 8
        assert results.statistics().shared_bytes == 0
        results = pmap(bytes, [MIB] * 8, executor=executor, batch_size=1)
        assert await results == [bytes(MIB)] * 8
        assert results.statistics().shared_bytes >= MIB


@on_one_loop
@on_every_loop
async def test_a_worker_that_keeps_a_view_keeps_its_block() -> None:
    async with ProcessExecutor(1) as executor:
        await pmap(keep, [large(1)], executor=executor)
        for seed in range(2, 8):
            await pmap(keep_nothing, [large(seed)], executor=executor)
        (kept,) = await pmap(what_was_kept, [0], executor=executor)
        np.testing.assert_array_equal(kept, large(1)[5:1000])


@pytest.mark.anyio
@on_one_loop
async def test_a_memmap_travels_as_the_place_in_its_file(tmp_path: Path) -> None:
    path = tmp_path / "numbers"
    np.arange(500_000.0).tofile(path)
    for mode in ("r", "r+"):
        mapped = np.memmap(path, dtype=float, mode=mode)
        for array in (mapped, mapped[1000:400_000], mapped.reshape(500, 1000), mapped.reshape(500, 1000)[3:9]):
            results = pmap(where, [array], executor="process")
            assert await results == [("memmap", mode, float(array.sum()))]
            assert results.statistics().inline_bytes < 2000
            assert results.statistics().shared_bytes == 0
    await pmap(write, [np.memmap(path, dtype=float, mode="r+", offset=800)], executor="process")
    assert np.fromfile(path)[100] == 101
    private = np.memmap(path, dtype=float, mode="c")
    private[0] = 7
    assert await pmap(write, [private], executor="process", mmap_mode="c") == [7.0]
    assert await pmap(float, [mapped[::1000].sum()], executor="process") == [mapped[::1000].sum()]


@pytest.mark.anyio
@on_one_loop
async def test_a_memmap_whose_file_is_gone_travels_with_its_content(tmp_path: Path) -> None:
    path = tmp_path / "numbers"
    np.arange(500_000.0).tofile(path)
    mapped = np.memmap(path, dtype=float, mode="r")
    path.unlink()
    for array in (mapped, mapped[1000:400_000], mapped + 1):
        assert await pmap(np.sum, [array], executor="process") == [array.sum()]


@on_one_loop
@on_every_loop
async def test_threads_see_the_very_object() -> None:
    array = large()
    async with ThreadExecutor(2) as executor:
        (result,) = await pmap(identity, [array], executor=executor)
    assert result is array


@on_every_loop
async def test_an_idle_executor_holds_no_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncpar.executors.process._REST_SECONDS", 0.2)
    async with ProcessExecutor(2, preload=NUMPY) as executor:
        for _ in range(2):
            results = await pmap(double, [large(seed) for seed in range(6)], executor=executor)
            assert shared_bytes() > MIB
            del results
            await wait_until(lambda: shared_bytes() < MIB)
            await wait_until(lambda: not any(worker.shares for worker in executor.pool.idle))
        assert_same(await pmap(identity, [large()], executor=executor), [large()])


@on_every_loop
async def test_nothing_is_left_mapped_when_results_and_executor_are_gone() -> None:
    gc.collect()
    before = mappings()
    async with ProcessExecutor(2, preload=NUMPY) as executor:
        results = await pmap(double, [large(seed) for seed in range(6)], executor=executor)
        assert mappings() > before
    del results
    gc.collect()
    assert mappings() == before


@on_every_loop
async def test_a_killed_worker_costs_its_loans_and_nothing_else() -> None:
    array = large()
    async with ProcessExecutor(2, preload=NUMPY, max_shared_bytes=80 * array.nbytes) as executor:
        for _ in range(4):
            results: list[Any] = await pmap(
                kill_some, [array] * 6, range(6), executor=executor, on_error="return", batch_size=2
            )
            assert_same([results[index] for index in (0, 1, 2, 4, 5)], [array] * 5)
        done = pmap(identity, [array], executor=executor)
        assert_same(await done, [array])
        assert done.statistics().shared_bytes == 2 * array.nbytes


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20) | st.binary(max_size=100)
)
arrays = st.builds(
    lambda seed, size, dtype, order: np.asarray(
        np.random.default_rng(seed).integers(0, 100, size).astype(dtype).reshape(-1, 1 + size % 2 * 0), order=order
    ),
    st.integers(0, 2**32),
    st.integers(0, 3000),
    st.sampled_from(["u1", "i4", "f8", "c16"]),
    st.sampled_from(["C", "F"]),
)
nests = st.recursive(
    scalars | arrays,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4) | st.tuples(inner, inner)
    ),
    max_leaves=12,
)


maps = st.tuples(
    st.lists(nests, max_size=8),
    st.sampled_from([1, 100, 5000, "10K", None]),
    st.sampled_from(["r", "r+", "c", None]),
    st.sampled_from(["auto", 1, 3]),
    st.booleans(),
)


@settings(max_examples=5)
@given(st.lists(maps, min_size=5, max_size=5))
def test_nests_of_arrays_and_scalars_come_back_equal(maps: list[tuple[list[Any], Any, Any, Any, bool]]) -> None:
    async def main() -> None:
        for items, max_nbytes, mmap_mode, batch_size, twice in maps:
            sent = items * (1 + twice)
            got = await pmap(
                identity, sent, executor="process", n_jobs=2, max_nbytes=max_nbytes, mmap_mode=mmap_mode, batch_size=batch_size
            )
            assert_same(got, sent)

    anyio.run(main)
