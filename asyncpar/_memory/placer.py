"""Copies the large buffers of a run into shared memory. A buffer that many calls share is copied only once.

Pickle hands out the buffers of each call, and does not say which of them it has handed out before. There are two ways to tell:

- A numpy array is recognised **by its identity**. It is watched by a weak reference. Its block is kept for as long as the array
  lives, or until there is no room. Then the blocks of arrays that have not been seen for longest are dropped.
- Everything else is recognised **by its address**, since the exporter may be temporary: pyarrow makes a new `Buffer` of the
  same memory each time it pickles a table. An address means nothing once the memory is used for something else. So the exporter
  is kept for as long as the block: until no call that needs it is packed, on its way or mapped by a worker, as far as the owner
  has looked. Calls are packed while others are computed, so the block of a table is in use for as long as calls share it. Some
  exporters can be resized or closed by their owner meanwhile, and we do not prevent that. So they are asked again for the
  address of their memory.

An object that is seen again is assumed to be unchanged. It must not be written to while the run goes on.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from asyncpar._basics.loaded import loaded_numpy
from asyncpar._memory.blocks import Area, Block
from asyncpar._memory.buffers import Buffer


class Placer:
    """Copies the large buffers of one run into an area. The area is requested when there is a buffer to copy."""

    holds_results = False
    shows_views = False
    _copied: Copied[Block] | None = None  # made with the first copy

    def __init__(self, area: Callable[[], Area], threshold: int) -> None:
        self._area = area
        self.threshold = threshold

    @property
    def has_copied(self) -> bool:
        """Whether there is anything that `find` might find."""
        return self._copied is not None

    def find(self, data: memoryview) -> Block | None:
        """The block that already holds these bytes; None if there is none."""
        return None if self._copied is None else self._copied.find(data)

    def __call__(self, data: memoryview) -> Block | None:
        """The block that holds these bytes; None if there is no room."""
        with self._area().copying:
            block = self.find(data)
            if block is None:
                block = self.copy((data,))
                if block is not None:
                    if self._copied is None:
                        self._copied = Copied()
                    self._copied.remember(data, block)
            return block

    def copy(self, pieces: Sequence[Buffer]) -> Block | None:
        """A block with these pieces, one after the other, that `find` will not find; None if there is no room."""
        area = self._area()
        block = area.copy(*pieces)
        if block is None and self._copied is not None and area.could_hold(sum(map(len, pieces))):
            for _ in self._copied.forget_arrays():  # their blocks are then free, unless they are lent
                block = area.copy(*pieces)
                if block is not None:
                    break
        return block

    def forget(self) -> None:
        """The run is over, so its objects need not be recognised any more."""
        if self._copied is not None:
            self._copied.forget()


_sightings = itertools.count()


class HasLength(Protocol):
    """What holds a copy: a block, or whatever an engine has instead."""

    @property
    def length(self) -> int: ...


B = TypeVar("B", bound=HasLength)


@dataclass(slots=True)
class _Array(Generic[B]):
    """An array that a block holds a copy of. `seen` says when it was last seen, as a number that grows."""

    array: weakref.ref[Any]
    block: B
    seen: int


@dataclass(slots=True)
class _Memory(Generic[B]):
    """Memory that a block holds a copy of, and an exporter of that memory."""

    exporter: Any
    block: weakref.ref[B]


class Copied(Generic[B]):
    """The arrays and other memory whose copies lie in blocks."""

    def __init__(self) -> None:
        self._arrays: dict[int, _Array[B]] = {}  # by the id of the array
        self._memory: dict[tuple[int, int], _Memory[B]] = {}  # by address and length

    def find(self, data: memoryview) -> B | None:
        array = _array_of(data)
        if array is None:
            where = _where(data)
            return None if where is None else self._find_memory(where)
        known = self._arrays.get(id(array))
        if known is None or known.array() is not array or known.block.length != data.nbytes:
            return None
        known.seen = next(_sightings)
        return known.block

    def _find_memory(self, where: tuple[int, int]) -> B | None:
        memory = self._memory.get(where)
        return None if memory is None or not _lies_within(where, memory.exporter) else memory.block()

    def remember(self, data: memoryview, block: B) -> None:
        array = _array_of(data)
        if array is None:
            where, memory = _where(data), self._memory
            if where is None:
                return
            memory[where] = _Memory(data.obj, weakref.ref(block, lambda _: memory.pop(where, None)))
        else:
            key, arrays = id(array), self._arrays
            arrays[key] = _Array(weakref.ref(array, lambda _: arrays.pop(key, None)), block, next(_sightings))

    def forget(self) -> None:
        self._arrays.clear()
        self._memory.clear()

    def forget_arrays(self) -> Iterator[None]:
        """Forgets one array after another, beginning with the one that has not been seen for longest."""
        for _, key in sorted((known.seen, key) for key, known in self._arrays.copy().items()):
            self._arrays.pop(key, None)
            yield


def _array_of(data: memoryview) -> Any:
    """The array whose memory this is, or None. Of an array in Fortran order, pickle makes a temporary view; its base stays."""
    numpy = loaded_numpy()  # an array can only be here if numpy is
    array: Any = data.obj
    if numpy is None or not isinstance(array, numpy.ndarray):
        return None
    base = array.base
    return base if base is not None and type(base) is type(array) and base.nbytes == data.nbytes else array


def _where(data: memoryview) -> tuple[int, int] | None:
    """Address and length; None without numpy, since it is needed to tell."""
    numpy = loaded_numpy()
    if numpy is None:
        return None
    address: int = numpy.frombuffer(data, numpy.uint8).__array_interface__["data"][0]
    return address, data.nbytes


def _lies_within(where: tuple[int, int], exporter: Any) -> bool:
    """Whether the range is still part of the exporter's memory."""
    try:
        whole = _where(memoryview(exporter))
    except (BufferError, TypeError, ValueError):  # for example, it is closed
        return False
    return whole is not None and whole[0] <= where[0] and sum(where) <= sum(whole)
