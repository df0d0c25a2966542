"""Shared memory: large buffers lie in files without a name, and only a few numbers about them travel.

Each worker process shares one such file with its parent, made when it is forked, and the executor shares one more with all
of its workers. In the worker's file stand its control page (`workers/control.py`), two ledgers of a page each, and behind them
the results that it lends to its parent. In the executor's file stand the arguments that the parent lends to its workers. Nobody
else can open them, they have no name, and the system forgets them with their last user: there is nothing to clean up, after
any death.

Whoever owns the blocks of a file is an *owner*; it copies a buffer into a block (by `os.pwrite` or `numpy.copyto`, which let
go of the GIL) and lends it. The other side, the *borrower*, maps the block, once for as long as anybody there looks at it, and
nothing is copied. No message says that a block is not needed any more: in the *ledger*, a page that both see, each loan has a
slot of one byte. The owner sets it when it lends; the borrower clears it when the last view of the mapping is gone, in a
`weakref.finalize` of the mapping, wherever and whenever that happens; the owner looks each time before it looks for room.

# Invariants

- A block is used again only when every `Block` object and every loan of it is gone: what a view shows never changes under it,
  unless users write to it themselves ("r+").
- A slot is written by the owner only while it is clear, and by the borrower only while it is set.
- The end of a borrower (its process is dead) ends all of its loans. The end of an owner ends nothing: mappings keep their
  memory, for as long as anybody holds a view, also when the worker, the executor and the event loop are gone.
- The file is never longer than its limit. A buffer that finds no room, no free slot or no memory travels inline.
- A forked copy of the borrower clears nothing, whatever it lets go of.

How blocks find their place in a file stands in `wire/blocks.py`.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

from asyncpar.wire.blocks import PAGE, PIECE, TRACKING, Area, Block
from asyncpar.wire.frames import Frame, Shared

MmapMode: TypeAlias = Literal["r", "r+", "c"] | None
MMAP_MODES: tuple[MmapMode, ...] = ("r", "r+", "c", None)

LEDGERS = PAGE  # where they begin in a worker's file, which begins with the control page
RESULTS = 3 * PAGE  # and where the results begin
_MOST_MAPPINGS = 30_000 if TRACKING else 200  # at once; the system allows 65 530, and older Pythons keep a descriptor for each


class Loans:
    """The owner's side of a ledger: what is lent to one borrower."""

    def __init__(self, page: memoryview[int]) -> None:
        self._page = page
        self._lent: dict[int, Block] = {}  # {slot: block}
        self._used = 0  # slots from here on have never been used
        self._free: list[int] = []

    def lend(self, block: Block) -> Shared | None:
        """The word to send to the borrower; None if its ledger is full."""
        slot = self._take_slot()
        if slot is None:
            return None
        self._lent[slot] = block
        self._page[slot] = 1
        return Shared(block.length, block.offset, block.serial, slot)

    def lend_all(self, frame: Frame) -> Frame:
        """The frame as it is sent: with each block lent, or read out where that cannot be."""
        buffers: Sequence[Any] = frame.buffers
        if not buffers:
            return frame
        lent = [(self.lend(buffer) or buffer.read()) if type(buffer) is Block else buffer for buffer in buffers]
        return frame._replace(buffers=lent)

    def collect(self) -> None:
        """Forgets the loans that have ended."""
        for slot in [slot for slot in tuple(self._lent) if not self._page[slot]]:
            if self._lent.pop(slot, None) is not None:  # nobody else has come first, from another thread
                self._free.append(slot)

    def end(self) -> None:
        """The borrower is no more."""
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
    """The borrower's side: maps what is lent to it, and clears the slot when the last view is gone."""

    def __init__(self, descriptor: int, page: memoryview[int]) -> None:
        self._descriptor = descriptor
        self._page = page
        self._by_serial: weakref.WeakValueDictionary[int, mmap.mmap] = weakref.WeakValueDictionary()
        self._kept: list[mmap.mmap] = []
        self._count = 0

    def map(self, shared: Shared, mode: MmapMode) -> memoryview:
        """A view of the block: read-only ("r"), of the block itself ("r+"), or of a copy made when written to ("c"), or now."""
        if mode is None or self._count >= _MOST_MAPPINGS:
            return self._copy(shared)
        flags = mmap.MAP_PRIVATE if mode == "c" else mmap.MAP_SHARED
        protection = mmap.PROT_READ if mode == "r" else mmap.PROT_READ | mmap.PROT_WRITE
        try:
            mapping = mmap.mmap(self._descriptor, shared.length, flags, protection, offset=shared.offset, **TRACKING)
        except OSError:  # too many mappings, or descriptors
            return self._copy(shared)
        self._count += 1
        finalizer = weakref.finalize(mapping, self._unmapped, shared.slot, os.getpid())
        finalizer.atexit = False
        return memoryview(mapping)

    def map_again(self, shared: Shared, mode: MmapMode) -> memoryview:
        """The same for a block that may be mapped already; it stays mapped until `let_go` and the end of its views."""
        if mode != "r" and mode != "r+":
            return self.map(shared, mode)
        mapping = self._by_serial.get(shared.serial)
        if mapping is not None:  # which holds another loan of this block
            self._page[shared.slot] = 0
            view = memoryview(mapping)
        else:
            view = self.map(shared, mode)
            if not isinstance(view.obj, mmap.mmap) or view.obj.closed:
                return view
            mapping = self._by_serial[shared.serial] = view.obj
        self._kept.append(mapping)
        return view

    def end(self) -> None:
        """The owner is no more: nobody need be told what is not needed any longer."""
        self._page = memoryview(bytearray())

    def let_go(self) -> list[mmap.mmap]:
        """Keeps no mapping any longer for whoever may need it again; those in use live on. Returns what was kept."""
        kept, self._kept = self._kept, []
        return kept

    def _unmapped(self, slot: int, pid: int) -> None:
        self._count -= 1
        if self._page and os.getpid() == pid:
            self._page[slot] = 0

    def _copy(self, shared: Shared) -> memoryview:
        content = memoryview(mmap.mmap(-1, shared.length))
        position = 0
        while position < shared.length:
            position += os.preadv(self._descriptor, [content[position : position + PIECE]], shared.offset + position)
        self._page[shared.slot] = 0
        return content


class Placer:
    """Copies the large buffers of one run into an area: what many calls share, once for as long as it is alive.

    An object that is seen again is taken for unchanged; it must not be written to while the run goes on. `area` is asked for
    when there is something to place.
    """

    hits = 0  # how often a block was found that holds the bytes already
    _known: dict[int, tuple[weakref.ref[Any], Block]] | None = None  # {id of the object that owns the memory: ...}

    def __init__(self, area: Callable[[], Area], threshold: int) -> None:
        self._area = area
        self.threshold = threshold

    def find(self, data: memoryview) -> Block | None:
        """The block that holds these bytes already; None if none does."""
        if self._known is None:
            return None
        owner = data.obj
        known = self._known.get(id(owner))
        if known is None or known[0]() is not owner or known[1].length != data.nbytes:
            return None
        self.hits += 1
        return known[1]

    def __call__(self, data: memoryview) -> Block | None:
        """The block that holds these bytes; None if there is no room."""
        area = self._area()
        with area.placing:
            block = self.find(data)
            if block is None:
                block = area.place(data)
                if block is not None:
                    self._remember(data.obj, block)
            return block

    def forget(self) -> None:
        """The run is over: its objects need not be known any longer."""
        if self._known is not None:
            self._known.clear()

    def pickler_class(self) -> Any:
        from asyncpar.wire.arrays import argument_pickler

        return argument_pickler()

    def _remember(self, owner: object, block: Block) -> None:
        if self._known is None:
            self._known = {}
        key, known = id(owner), self._known
        try:
            known[key] = weakref.ref(owner, lambda _: known.pop(key, None)), block
        except TypeError:  # bytes, say: they cannot be watched, so the same address may be somebody else's tomorrow
            return


def map_ledgers(descriptor: int) -> tuple[memoryview[int], memoryview[int]]:
    """The two ledgers of a worker's file: of arguments lent to the worker, of results lent to its parent."""
    pages = memoryview(mmap.mmap(descriptor, RESULTS - LEDGERS, offset=LEDGERS, **TRACKING))
    return pages[:PAGE], pages[PAGE:]
