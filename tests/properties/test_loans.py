"""Shared memory: space is never given twice, loans end when the last view goes, and what a view shows never changes."""

from __future__ import annotations

import gc
import mmap
import os
import pickle
import threading
import weakref
from array import array
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from asyncpar._child.control import make_nameless_file
from asyncpar._memory import placer
from asyncpar._memory.blocks import PAGE, Area, Block, FreeSpace
from asyncpar._memory.buffers import Shared
from asyncpar._memory.loans import RESULTS, Loans, Mappings, map_ledgers
from asyncpar._memory.placer import Placer

LIMIT = 40 * PAGE


class Space(RuleBasedStateMachine):
    """Whatever is allocated and released in whatever order, ranges in use never overlap, and free ones coalesce."""

    def __init__(self) -> None:
        super().__init__()
        self.space = FreeSpace(PAGE, LIMIT)
        self.used: dict[int, int] = {}

    @rule(length=st.integers(1, 12 * PAGE))
    def allocate(self, length: int) -> None:
        begin = self.space.allocate(length)
        if begin is None:
            limit = self.space.limit
            longest = max([min(end, limit) - begin for begin, end in self.space.free], default=0)
            assert max(longest, limit - self.space.end) < length
        else:
            assert begin % PAGE == 0
            assert begin >= PAGE
            assert begin + length <= self.space.limit
            assert all(begin + length <= other or other + size <= begin for other, size in self.used.items())
            self.used[begin] = length

    @rule(pages=st.integers(1, 40))
    def limit(self, pages: int) -> None:
        self.space.limit = pages * PAGE

    @precondition(lambda self: self.used)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        begin = data.draw(st.sampled_from(sorted(self.used)))
        self.space.release(begin, self.used.pop(begin))

    @invariant()
    def free_ranges_are_sorted_apart_and_before_the_end(self) -> None:
        bounds = [bound for free in self.space.free for bound in free]
        assert bounds == sorted(set(bounds))
        assert all(bound < self.space.end for bound in bounds)

    @invariant()
    def everything_is_used_or_free(self) -> None:
        used = sum(-(-length // PAGE) * PAGE for length in self.used.values())
        free = sum(end - begin for begin, end in self.space.free)
        assert PAGE + used + free == self.space.end


TestSpace = Space.TestCase


class Ends:
    """An owner and a borrower of one file, in one process."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.descriptor = make_nameless_file(RESULTS)
        lent, _ = map_ledgers(self.descriptor)
        self.page = lent
        self.loans = Loans(lent)
        self.area = Area(self.descriptor, RESULTS, RESULTS + limit, self.loans.collect)
        self.mappings = Mappings(self.descriptor, lent)

    def close(self) -> None:
        self.area.close()
        self.loans.end()
        self.mappings.let_go()
        self.mappings.end()
        self.page = memoryview(b"")

    @property
    def held_bytes(self) -> int:
        return os.fstat(self.descriptor).st_size - RESULTS

    def lend(self, block: Block) -> Shared:
        shared = self.loans.lend(block)
        assert shared is not None
        return shared


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    yield ends
    ends.close()


def test_a_file_that_may_no_longer_be_so_long_shrinks_as_blocks_go(ends: Ends) -> None:
    first, second, third = (ends.area.copy(memoryview(content_of(n, 8 * PAGE))) for n in range(3))
    assert ends.held_bytes == 24 * PAGE
    del second
    ends.area.limit(RESULTS + 10 * PAGE)
    assert ends.held_bytes == 24 * PAGE  # the third is behind
    assert ends.area.copy(memoryview(content_of(4, 4 * PAGE))) is None  # there is room, but not within the limit
    del third
    ends.area.limit(RESULTS + 10 * PAGE)
    assert ends.held_bytes == 8 * PAGE
    assert ends.area.copy(memoryview(content_of(5, 2 * PAGE))) is not None
    del first


def content_of(number: int, length: int) -> bytes:
    return np.random.default_rng(number).bytes(length)


@settings(max_examples=40)
@given(st.data())
def test_what_is_borrowed_shows_what_was_lent_for_as_long_as_anybody_looks(data: st.DataObject) -> None:
    ends = Ends()
    views: dict[int, memoryview] = {}
    lengths: dict[int, int] = {}
    try:
        for number in range(data.draw(st.integers(1, 15))):
            lengths[number] = data.draw(st.integers(1, 5 * PAGE))
            block = ends.area.copy(memoryview(content_of(number, lengths[number])))
            if block is not None:
                mode: Any = data.draw(st.sampled_from(["r", "r+", "c", None]))
                views[number] = ends.mappings.map_again(ends.lend(block), mode)
            del block
            if data.draw(st.booleans()):
                ends.mappings.let_go()
            for gone in data.draw(st.lists(st.sampled_from(sorted(views)), unique=True)) if views else ():
                del views[gone]
            assert {kept: bytes(views[kept]) for kept in views} == {kept: content_of(kept, lengths[kept]) for kept in views}
        views.clear()
        ends.mappings.let_go()
        gc.collect()
        ends.loans.collect()
        ends.area.trim()
        assert ends.held_bytes == 0
    finally:
        views.clear()
        ends.close()


def test_a_loan_ends_with_the_last_view_of_an_array_made_from_it(ends: Ends) -> None:
    block = ends.area.copy(memoryview(np.arange(PAGE)).cast("B"))
    assert block is not None
    shared = ends.lend(block)
    array = np.frombuffer(ends.mappings.map(shared, "r"), np.int64)
    part = array[5:9][::-1]
    del block, array
    ends.loans.collect()
    assert ends.page[shared.slot] == 1
    assert part.tolist() == [8, 7, 6, 5]
    del part
    assert ends.page[shared.slot] == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_what_was_mapped_when_somebody_forked_is_never_handed_back(ends: Ends) -> None:
    block = ends.area.copy(memoryview(b"x" * PAGE))
    assert block is not None
    before = ends.mappings.map(ends.lend(block), "r")
    copy = os.fork()
    if not copy:
        del before  # the copy's own
        os._exit(0)
    os.waitpid(copy, 0)
    after = ends.mappings.map(ends.lend(block), "r")
    assert ends.page[:2].tolist() == [1, 1]
    del before, after
    assert ends.page[:2].tolist() == [1, 0]


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_where_nothing_more_can_be_mapped_there_are_copies(ends: Ends, monkeypatch: pytest.MonkeyPatch, mode: Any) -> None:
    monkeypatch.setattr("asyncpar._memory.loans._MOST_MAPPINGS", 0)
    block = ends.area.copy(memoryview(b"x" * (2 * PAGE + 5)))
    assert block is not None
    first, second = (ends.mappings.map_again(ends.lend(block), mode) for _ in range(2))
    assert first.readonly == second.readonly == (mode == "r")
    assert first == second == b"x" * (2 * PAGE + 5)
    assert not any(ends.page)


def test_loans_may_end_while_another_thread_collects_them() -> None:
    class Page(list[int]):
        def __getitem__(self, slot: Any) -> Any:
            loans.end()  # just now
            return super().__getitem__(slot)

    area = Area(make_nameless_file(0), 0, LIMIT, lambda: None)
    loans = Loans(Page([0] * 8))  # type: ignore[arg-type]  # as far as it is used
    for _ in range(3):
        block = area.copy(memoryview(b"content"))
        assert block is not None
        loans.lend(block)
    loans.collect()
    assert not loans._lent


def test_a_block_that_is_mapped_already_is_not_mapped_again(ends: Ends) -> None:
    block = ends.area.copy(memoryview(b"x" * PAGE))
    assert block is not None
    first, second = (ends.mappings.map_again(ends.lend(block), "r") for _ in range(2))
    assert first.obj is second.obj
    ends.mappings.let_go()
    del first, second
    ends.loans.collect()
    assert not any(ends.page)


def test_without_room_or_slots_buffers_are_handed_out_as_copies(ends: Ends) -> None:
    assert ends.area.copy(memoryview(bytes(LIMIT + 1))) is None
    block = ends.area.copy(memoryview(b"content"))
    assert block is not None
    lent = [ends.loans.lend(block) for _ in range(PAGE)]
    assert None not in lent
    assert ends.loans.lend(block) is None
    buffers: list[Any] = [block, b"other"]
    assert ends.loans.lend_all(buffers) == [bytearray(b"content"), b"other"]
    ends.page[7] = 0  # one comes back
    shared = ends.loans.lend(block)
    assert shared is not None
    assert shared.slot == 7


def test_writes_to_a_private_mapping_are_seen_by_nobody_and_to_a_shared_one_by_all(ends: Ends) -> None:
    block = ends.area.copy(memoryview(b"a" * 10))
    assert block is not None
    private, other, shared, watching = (ends.mappings.map(ends.lend(block), mode) for mode in ("c", "c", "r+", "r"))
    private[0] = ord("p")
    assert bytes(other) == bytes(watching) == b"a" * 10
    shared[1] = ord("s")
    assert bytes(watching) == b"asaaaaaaaa"
    with pytest.raises(TypeError, match="read-only"):
        watching[0] = 0


def test_a_shared_object_is_copied_once_for_as_long_as_it_lives(ends: Ends) -> None:
    put = Placer(lambda: ends.area, 1)
    shared = np.arange(PAGE)
    blocks = [put(memoryview(shared).cast("B")) for _ in range(3)]  # each a view of its own
    same = [put(_raw(shared)) for _ in range(3)]
    assert len({id(block) for block in same}) == 1
    address = id(shared)
    del shared, blocks, same
    gc.collect()
    assert put._copied is not None
    assert address not in put._copied._arrays
    ends.area.trim()
    assert ends.held_bytes == 0


def test_memory_that_is_not_an_arrays_is_known_by_where_it_lies_while_its_block_is_in_use(ends: Ends) -> None:
    put = Placer(lambda: ends.area, 1)
    memory = array("q", range(PAGE))
    watched = weakref.ref(memory)
    block = put(memoryview(memory))
    assert put.find(memoryview(memory)[:-1]) is None
    assert put.find(memoryview(memory)[1:]) is None
    passing = pickle.PickleBuffer(memory)
    assert put(passing.raw()) is put.find(memoryview(memory)) is block is not None
    passing.release()
    del memory
    assert watched() is not None  # as long as its address is to mean it
    del block
    assert watched() is None
    memory = array("q", range(PAGE))
    watched, block = weakref.ref(memory), put(memoryview(memory))
    del memory
    put.forget()
    assert watched() is None
    del block
    ends.area.trim()
    assert ends.held_bytes == 0


def test_memory_that_has_been_resized_or_closed_is_not_known_any_more(ends: Ends) -> None:
    put = Placer(lambda: ends.area, 1)
    content, file = bytearray(b"a" * PAGE), mmap.mmap(-1, PAGE)
    blocks = [put(memoryview(content)), put(memoryview(file))]
    where = [placer._where(memoryview(exporter)) for exporter in (content, file)]
    content += b"b" * 100 * PAGE  # it has moved
    file.close()
    assert put._copied is not None
    known = put._copied._memory
    assert [placer._lies_within(one, known[one].exporter) for one in where if one is not None] == [False, False]
    assert None not in blocks


def test_without_numpy_memory_is_copied_each_time(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placer, "loaded_numpy", lambda: None)
    put = Placer(lambda: ends.area, 1)
    content = b"content"
    first, second = put(memoryview(content)), put(memoryview(content))
    assert first is not None is not second
    assert first is not second


def test_a_block_is_found_no_more_once_its_room_is_free(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Block | None] = []
    block = ends.area.copy(memoryview(b"content"))
    assert block is not None
    weak = weakref.ref(block)
    monkeypatch.setattr(ends.area, "give_back", lambda *_: found.append(weak()))
    del block
    assert found == [None]


def test_what_could_never_fit_makes_nobody_make_way(ends: Ends) -> None:
    put = Placer(lambda: ends.area, 1)
    array = np.arange(PAGE)
    block = put(memoryview(array))
    assert put.copy([bytes(LIMIT // 2), bytes(LIMIT)]) is None
    assert put.find(memoryview(array)) is block is not None


class PausingPage(bytearray):
    """A ledger's page whose first reader is held up once it has read."""

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.was_read, self.go_on = threading.Event(), threading.Event()

    def __getitem__(self, slot: Any) -> Any:
        content = super().__getitem__(slot)
        if not self.was_read.is_set():
            self.was_read.set()
            self.go_on.wait()
        return content


def test_threads_that_collect_at_once_do_not_take_a_new_loan_for_ended(ends: Ends) -> None:
    block = ends.area.copy(memoryview(b"content"))
    assert block is not None
    page: Any = PausingPage(2)
    loans = Loans(page)
    assert loans.lend(block) is not None
    page[0] = 0
    first, second = threading.Thread(target=loans.collect), threading.Thread(target=loans.collect)
    first.start()
    page.was_read.wait()
    second.start()
    second.join(0.2)  # if it can
    lent = loans.lend(block)
    page.go_on.set()
    first.join()
    second.join()
    assert lent is not None
    assert lent.slot in loans._lent


def test_where_there_is_no_room_the_array_that_was_not_seen_for_longest_makes_way(ends: Ends) -> None:
    put = Placer(lambda: ends.area, 1)
    arrays = [np.full(LIMIT // 4, index, np.uint8) for index in range(5)]
    for one in (*arrays[:4], arrays[0], arrays[4]):
        assert put(memoryview(one)) is not None
    assert [put.find(memoryview(one)) is not None for one in arrays] == [True, False, True, True, True]


def _raw(exporter: Any) -> memoryview:
    return pickle.PickleBuffer(exporter).raw()


def test_threads_may_place_and_drop_at_once(ends: Ends) -> None:
    wrong: list[int] = []

    def work(seed: int) -> None:
        kept: list[tuple[int, Block]] = []
        for number in range(seed, seed + 300):
            block = ends.area.copy(memoryview(content_of(number, 1 + number % (2 * PAGE))))
            if block is not None:
                kept.append((number, block))
            if len(kept) > 3 or block is None:
                for kept_number, kept_block in kept:
                    if bytes(kept_block.read()) != content_of(kept_number, len(kept_block)):
                        wrong.append(kept_number)
                kept.clear()

    threads = [threading.Thread(target=work, args=(1000 * index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    ends.area.trim()
    assert ends.held_bytes == 0


def test_a_file_is_closed_when_its_last_writer_has_left(ends: Ends) -> None:
    ends.area.close()
    assert ends.area.copy(memoryview(b"too late")) is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(ends.descriptor)
