"""Where shared buffers lie: the owner's view of one nameless file (`_memory/loans.py` says who shares it with whom).

Blocks are allocated first-fit, in whole pages, from free ranges that coalesce. Room at the beginning of the file is used first,
so that its pages are warm, and its end can be given back to the system. Writing 100 MiB to fresh pages takes 30 ms. Once the
owner has mapped the pages (6 ms, the first time that they are used again), it takes 12 ms.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
from bisect import bisect
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from asyncpar._basics.loaded import loaded_numpy
from asyncpar._memory.buffers import Buffer, Elsewhere, allocate

PAGE: Final = mmap.ALLOCATIONGRANULARITY
PIECE = 1 << 18  # written or read by one system call; fits a processor's cache
TRACKING: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}  # no descriptor for each mapping
_TRIMMED_AT_ONCE = 1 << 25
_WINDOW = getattr(mmap, "MAP_SHARED", 0) | getattr(mmap, "MAP_POPULATE", 0)  # Windows imports this too, and has neither


class FreeSpace:
    """The free ranges of a file, and its end. Pure bookkeeping, in bytes; all ranges are whole pages.

    >>> space = FreeSpace(start=0, limit=8 * PAGE)
    >>> space.allocate(1), space.allocate(PAGE + 1) == PAGE
    (0, True)
    >>> space.release(0, 1)
    >>> space.allocate(PAGE)
    0
    """

    def __init__(self, start: int, limit: int) -> None:
        self.start = start
        self.end = start  # nothing after it is in use
        self.limit = limit
        self.free: list[tuple[int, int]] = []  # (begin, end) of free ranges before the end, sorted; no two touch each other

    def allocate(self, length: int) -> int | None:
        """Allocates at least `length` bytes and returns the beginning of the range; None if there is no room."""
        needed = _whole_pages(length)
        for index, (begin, end) in enumerate(self.free):
            if end - begin >= needed and begin + needed <= self.limit:  # the limit may have been lowered
                if end - begin == needed:
                    del self.free[index]
                else:
                    self.free[index] = (begin + needed, end)
                return begin
        if self.end + needed > self.limit:
            return None
        begin, self.end = self.end, self.end + needed
        return begin

    def release(self, begin: int, length: int) -> None:
        """Frees the range that was allocated at `begin` with this length."""
        end = begin + _whole_pages(length)
        index = bisect(self.free, (begin, end))
        if index < len(self.free) and self.free[index][0] == end:
            end = self.free.pop(index)[1]
        if index and self.free[index - 1][1] == begin:
            index -= 1
            begin = self.free.pop(index)[0]
        if end == self.end:
            self.end = begin
        else:
            self.free.insert(index, (begin, end))


class _Room:
    """The range that a block occupies, and gives back at its end.

    There are weak references to blocks, and a weak reference still leads to its object while `__del__` runs. So the `__del__`
    is here and not in `Block`: otherwise other code could find a block whose room is already free.
    """

    __slots__ = ("area", "length", "offset")

    def __init__(self, area: Area, offset: int, length: int) -> None:
        self.area = area
        self.offset = offset
        self.length = length

    def __del__(self) -> None:
        self.area.give_back(self.offset, self.length)


class Block(Elsewhere):
    """A buffer's copy in a file. It stays there for as long as this object lives."""

    __slots__ = ("__weakref__", "_room", "length", "offset", "serial")

    def __init__(self, area: Area, offset: int, length: int, serial: int) -> None:
        self._room = _Room(area, offset, length)
        self.offset = offset
        self.length = length
        self.serial = serial
        self.was_there = False

    def __len__(self) -> int:
        return self.length

    def read(self) -> memoryview:
        """A copy, for a borrower to whom it cannot be lent."""
        return read_block(self._room.area.descriptor, self.offset, self.length)


class Area:
    """The owner's view of a file, from `start` on. May be used from several threads.

    Args:
        descriptor: of the file. This object owns it from now on.
        limit: how long the file may become, in bytes.
        reclaim: drops blocks whose loans have ended.
    """

    def __init__(self, descriptor: int, start: int, limit: int, reclaim: Callable[[], object]) -> None:
        self.descriptor = descriptor
        self._space = FreeSpace(start, limit)
        self._reclaim = reclaim
        self.copying = threading.Lock()  # held while searching and copying: otherwise two threads would copy the same object
        self._lock = threading.Lock()
        self._given_back: deque[tuple[int, int]] = deque()  # by `_Room.__del__`, which may run anywhere, even under the lock
        self._length = start  # of the file
        self._last_serial = 0
        self._writers = 0
        self._closed = False
        self._warm_end = start  # everything before it has been written before
        self._windows: list[tuple[int, int, Any]] = []  # (begin, end, array of bytes) of ranges mapped for writing, in order

    def could_hold(self, length: int) -> bool:
        """Whether there would be room for `length` bytes if the file were empty."""
        return self._space.start + length <= self._space.limit

    def limit(self, length: int) -> None:
        """Limits the file to `length` bytes. A longer file gives back what it can, a part each time."""
        self._space.limit = length
        if self._length > length:
            self._reclaim()
            self.trim()

    def copy(self, *pieces: Buffer) -> Block | None:
        """A copy of these pieces, one after the other; None if there is no room for them."""
        self._reclaim()  # always: memory that has been used before is warm
        views = [memoryview(piece) for piece in pieces]
        block = self._reserve(sum([view.nbytes for view in views]))
        if block is None:
            return None
        try:
            self._extend()
            self._write(views, block)
        except OSError:  # the system has no memory left
            return None
        finally:
            self._leave()
        return block

    def give_back(self, offset: int, length: int) -> None:
        """A block is gone. Takes no lock."""
        self._given_back.append((offset, length))

    def trim(self) -> bool:
        """Gives part of the memory after the last block back to the system, which takes 2 ms. Returns whether there is more."""
        with self._lock:
            self._settle()
            if self._closed or self._length <= self._space.end:
                return False
            self._windows.clear()
            self._length = max(self._space.end, self._length - _TRIMMED_AT_ONCE)
            self._warm_end = min(self._warm_end, self._length)
            os.ftruncate(self.descriptor, self._length)
            return self._length > self._space.end

    def close(self) -> None:
        """Closes the file as soon as no thread writes to it. Mapped blocks stay mapped."""
        if self._closed:
            return
        with self._lock:
            closes = not self._closed and not self._writers
            self._closed = True
            self._windows.clear()
        if closes:
            os.close(self.descriptor)

    def leave_to_original(self) -> None:
        """Closes the file in a forked copy of this process. No thread writes there, though the lock may seem to be held."""
        if not self._closed:
            self._closed = True
            os.close(self.descriptor)

    def __del__(self) -> None:
        self.close()

    def _reserve(self, length: int) -> Block | None:
        with self._lock:
            self._settle()
            offset = None if self._closed else self._space.allocate(length)
            if offset is None:
                return None
            self._last_serial += 1
            self._writers += 1
            return Block(self, offset, length, self._last_serial)

    def _extend(self) -> None:
        """Makes the file as long as its blocks, in whole pages."""
        with self._lock:
            if self._space.end > self._length:
                os.ftruncate(self.descriptor, self._space.end)
                self._length = self._space.end

    def _leave(self) -> None:
        with self._lock:
            self._writers -= 1
            closes = self._closed and not self._writers
        if closes:
            os.close(self.descriptor)

    def _settle(self) -> None:
        while self._given_back:
            self._space.release(*self._given_back.popleft())

    def _write(self, views: list[memoryview], block: Block) -> None:
        offset, end = block.offset, block.offset + block.length
        numpy = loaded_numpy()  # its copying releases the GIL
        if numpy is not None and end <= self._warm_end:
            windows = self._windows_until(end, numpy)
            for view in views:
                _write_to_warm(numpy.frombuffer(view, numpy.uint8), offset, windows, numpy)
                offset += view.nbytes
            return
        for view in views:
            self._write_to_fresh(view.cast("B"), offset)
            offset += view.nbytes
        with self._lock:
            self._warm_end = max(self._warm_end, block.offset + _whole_pages(block.length))

    def _windows_until(self, end: int, numpy: Any) -> list[tuple[int, int, Any]]:
        with self._lock:
            begin = self._windows[-1][1] if self._windows else self._space.start
            if begin < end:
                length = self._warm_end - begin
                mapping = mmap.mmap(self.descriptor, length, _WINDOW, offset=begin, **TRACKING)
                self._windows.append((begin, self._warm_end, numpy.frombuffer(mapping, numpy.uint8)))
            return list(self._windows)

    def _write_to_fresh(self, flat: memoryview, offset: int) -> None:
        position = 0
        while position < len(flat):
            position += os.pwrite(self.descriptor, flat[position : position + PIECE], offset + position)


def _write_to_warm(source: Any, offset: int, windows: list[tuple[int, int, Any]], numpy: Any) -> None:
    end = offset + source.nbytes
    for begin, window_end, window in windows:
        first, last = max(begin, offset), min(window_end, end)
        if first < last:
            numpy.copyto(window[first - begin : last - begin], source[first - offset : last - offset])


def _whole_pages(length: int) -> int:
    return -(-length // PAGE) * PAGE


def read_block(descriptor: int, offset: int, length: int) -> memoryview:
    """A private copy of `length` bytes of the file."""
    content = memoryview(allocate(length))
    position = 0
    while position < length:
        position += os.preadv(descriptor, [content[position : position + PIECE]], offset + position)
    return content
