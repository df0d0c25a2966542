"""Shared memory: large buffers lie in files without a name, and only a few numbers about them travel.

Each worker process shares one such file with its parent, made when it is forked. The executor shares one more with all of its
workers. The worker's file contains its control page (`_child/control.py`), two ledgers of a page each, and then the results
that the worker lends to its parent. The executor's file contains the arguments that the parent lends to its workers. The files
have no name, so no other process can open them, and the system deletes them with their last user. So there is nothing to clean
up, whichever process dies.

The side that owns the blocks of a file is the *owner*. It copies a buffer into a block (by `os.pwrite` or `numpy.copyto`, which
release the GIL) and lends it. The other side, the *borrower*, maps the block for as long as a view of it exists, and nothing
is copied. No message says that a block is not needed any more. Instead, each loan has a slot of one byte in the *ledger*, a
page that both sides see. The owner sets the slot when it lends. The borrower clears it when the last view of the mapping is
gone, in a `weakref.finalize` of the mapping, wherever and whenever that happens. The owner looks at the ledger each time before
it looks for room.

# Invariants

- A block is used again only when every `Block` object and every loan of it is gone. So the content of a view never changes,
  unless users write to it themselves ("r+").
- A slot is written by the owner only while it is clear, and by the borrower only while it is set.
- The end of a borrower (its process is dead) ends all of its loans. The end of an owner ends nothing: mappings keep their
  memory for as long as any view exists, even when the worker, the executor and the event loop are gone.
- The file never becomes longer than its limit, and shrinks as far as it can when the limit is lowered. A buffer travels inline
  if there is no room, no free slot or no memory for it.
- Blocks that were mapped when the borrower forked are never handed back, by neither process, since the other one may use them.

`_memory/blocks.py` describes how blocks are allocated in a file, and `_memory/placer.py` how an object is copied once for many
calls.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
import weakref
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from asyncpar._memory.blocks import PAGE, TRACKING, Block, read_block
from asyncpar._memory.buffers import Buffer, Shared

MmapMode: TypeAlias = Literal["r", "r+", "c"] | None
MMAP_MODES: tuple[MmapMode, ...] = ("r", "r+", "c", None)

NOWHERE = sys.maxsize  # a threshold that no buffer reaches
LEDGERS = PAGE  # where the ledgers begin in a worker's file, after the control page
RESULTS = 3 * PAGE  # where the results begin
_MOST_MAPPINGS = 30_000 if TRACKING else 200  # at once; the system allows 65 530, and older Pythons keep a descriptor for each


_mapped: set[tuple[int, int]] = set()  # what this process maps at present: (id of the `Mappings`, slot)
_forks = 0  # how often this process, or one that it is a copy of, has forked


def _count_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_parent=_count_fork, after_in_child=_count_fork)


class Loans:
    """The owner's side of a ledger: what is lent to one borrower."""

    def __init__(self, page: memoryview[int]) -> None:
        self._page = page
        self._lent: dict[int, Block] = {}  # {slot: block}
        self._used = 0  # slots from here on have never been used
        self._free: list[int] = []
        self._collecting = threading.Lock()  # a second thread could treat a loan that has just been made as ended

    def lend(self, block: Block) -> Shared | None:
        """What to send to the borrower; None if its ledger is full."""
        slot = self._take_slot()
        if slot is None:
            return None
        self._page[slot] = 1  # first: another thread that collects would otherwise treat the loan as ended
        self._lent[slot] = block
        return Shared(block.length, block.offset, block.serial, slot)

    def lend_all(self, buffers: Sequence[Any]) -> Sequence[Buffer | Shared]:
        """The buffers as they are sent: each block is lent, or copied if it cannot be lent."""
        if not buffers:
            return buffers
        return [(self.lend(buffer) or buffer.read()) if type(buffer) is Block else buffer for buffer in buffers]

    def collect(self) -> None:
        """Forgets the loans that have ended."""
        if not self._lent:
            return
        with self._collecting:
            page = self._page  # first: once it has been replaced, nothing is lent any more
            ended = [slot for slot in self._lent.copy() if not page[slot]]
            blocks = [self._lent.pop(slot, None) for slot in ended]
            self._free += ended
        del blocks  # outside the lock: finalizers that run now may collect as well

    def end(self) -> None:
        """The borrower is gone."""
        self._lent.clear()
        self._page = memoryview(b"")

    def _take_slot(self) -> int | None:
        if not self._free and self._used == len(self._page):
            self.collect()
        if self._free:
            return self._free.pop()
        if self._used == len(self._page):
            return None
        self._used += 1
        return self._used - 1


class Mappings:
    """The borrower's side: maps the blocks that are lent to it, and clears a slot when the last view is gone."""

    def __init__(self, descriptor: int, page: memoryview[int]) -> None:
        self._descriptor = descriptor
        self._page = page
        self._by_serial: weakref.WeakValueDictionary[int, mmap.mmap] = weakref.WeakValueDictionary()
        self._kept: list[mmap.mmap] = []

    @property
    def in_use(self) -> bool:
        """Whether any block is mapped that others may map as well."""
        return bool(self._by_serial)

    def map(self, shared: Shared, mode: MmapMode) -> memoryview:
        """A view of the block: read-only ("r"), writable ("r+"), or of a copy that is made on write ("c") or at once (None)."""
        mapping = self._map(shared, mode)
        return self._copy(shared, mode) if mapping is None else memoryview(mapping)

    def _map(self, shared: Shared, mode: MmapMode) -> mmap.mmap | None:
        """None if it has to be copied."""
        if mode is None or len(_mapped) >= _MOST_MAPPINGS:
            return None
        flags = mmap.MAP_PRIVATE if mode == "c" else mmap.MAP_SHARED
        protection = mmap.PROT_READ if mode == "r" else mmap.PROT_READ | mmap.PROT_WRITE
        try:
            mapping = mmap.mmap(self._descriptor, shared.length, flags, protection, offset=shared.offset, **TRACKING)
        except OSError:  # too many mappings, or descriptors
            return None
        _mapped.add((id(self), shared.slot))
        finalizer = weakref.finalize(mapping, self._unmapped, shared.slot, _forks)
        finalizer.atexit = False
        return mapping

    def map_again(self, shared: Shared, mode: MmapMode) -> memoryview:
        """The same for a block that may be mapped already. It stays mapped until `let_go` is called and its views are gone."""
        if mode != "r" and mode != "r+":
            return self.map(shared, mode)
        mapping = self._by_serial.get(shared.serial)
        if mapping is not None:  # it holds another loan of this block
            self._page[shared.slot] = 0
        else:
            mapping = self._map(shared, mode)
            if mapping is None:
                return self._copy(shared, mode)
            self._by_serial[shared.serial] = mapping
        self._kept.append(mapping)
        return memoryview(mapping)

    def end(self) -> None:
        """The owner is gone: there is no need to clear slots any more."""
        self._page = memoryview(bytearray())

    def let_go(self) -> list[mmap.mmap]:
        """Stops keeping mappings that may be needed again. Those in use live on. Returns the mappings that were kept."""
        kept, self._kept = self._kept, []
        return kept

    def _unmapped(self, slot: int, forks: int) -> None:
        _mapped.discard((id(self), slot))
        page = self._page
        if page and forks == _forks:
            page[slot] = 0

    def _copy(self, shared: Shared, mode: MmapMode) -> memoryview:
        content = read_block(self._descriptor, shared.offset, shared.length)
        self._page[shared.slot] = 0
        return content.toreadonly() if mode == "r" else content


def map_ledgers(descriptor: int) -> tuple[memoryview[int], memoryview[int]]:
    """The two ledgers of a worker's file: for arguments lent to the worker, and for results lent to its parent."""
    pages = memoryview(mmap.mmap(descriptor, RESULTS - LEDGERS, offset=LEDGERS, **TRACKING))
    return pages[:PAGE], pages[PAGE:]
