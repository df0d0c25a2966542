"""Where the large buffers of a run go: into shared memory, and what many calls share, only once.

Pickle hands out the buffers of each call, and does not say which of them it has handed out before. There are two ways to tell:

- A numpy array is known **by itself**. It is watched by a weak reference, and its block is kept for as long as it lives, or
  until there is no room: then the arrays that have not been seen for longest make way.
- All else is known **by where its memory lies**, since its exporter may be a passing one: pyarrow makes a new `Buffer` of the
  same memory whenever it pickles a table. An address means nothing once the memory is somebody else's, so the exporter is kept
  for as long as the block: until no call that needs it is packed, on its way or mapped by a worker, as far as the owner has
  looked. Calls are packed while others are computed, so as long as they share a table, its block is in use. Some exporters can
  be resized or closed by their owner meanwhile, and are not kept from it: so they are asked again where their memory lies.

An object that is seen again is taken for unchanged; it must not be written to while the run goes on.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from asyncpar._basics.loaded import loaded_numpy
from asyncpar._memory.blocks import Area, Block
from asyncpar._memory.buffers import Buffer


class Placer:
    """Copies the large buffers of one run into an area, which is asked for when there is something to place."""

    holds_results = False
    _copied: _Copied | None = None  # once there is anything

    def __init__(self, area: Callable[[], Area], threshold: int) -> None:
        self._area = area
        self.threshold = threshold

    def find(self, data: memoryview) -> Block | None:
        """The block that holds these bytes already; None if none does."""
        return None if self._copied is None else self._copied.find(data)

    def __call__(self, data: memoryview) -> Block | None:
        """The block that holds these bytes; None if there is no room."""
        with self._area().placing:
            block = self.find(data)
            if block is None:
                block = self.copy((data,))
                if block is not None:
                    if self._copied is None:
                        self._copied = _Copied()
                    self._copied.remember(data, block)
            return block

    def copy(self, pieces: Sequence[Buffer]) -> Block | None:
        """A block for bytes that nobody will look for again, as they follow each other; None if there is no room."""
        area = self._area()
        block = area.place(*pieces)
        if block is None and self._copied is not None and area.could_hold(sum(map(len, pieces))):
            for _ in self._copied.forget_arrays():  # whose blocks are free then, unless they are lent
                block = area.place(*pieces)
                if block is not None:
                    break
        return block

    def forget(self) -> None:
        """The run is over: its objects need not be known any longer."""
        if self._copied is not None:
            self._copied.forget()


_sightings = itertools.count()


@dataclass(slots=True)
class _Array:
    """An array that a block holds a copy of, and when it was last seen, as a number that grows."""

    array: weakref.ref[Any]
    block: Block
    seen: int


@dataclass(slots=True)
class _Memory:
    """Memory that a block holds a copy of, and which of its exporters we have met."""

    exporter: Any
    block: weakref.ref[Block]


class _Copied:
    """The arrays, and the memory, whose copies lie in blocks."""

    def __init__(self) -> None:
        self._arrays: dict[int, _Array] = {}  # by the id of the array
        self._memory: dict[tuple[int, int], _Memory] = {}  # by address and length

    def find(self, data: memoryview) -> Block | None:
        array = _array_of(data)
        if array is None:
            where = _where(data)
            return None if where is None else self._find_memory(where)
        known = self._arrays.get(id(array))
        if known is None or known.array() is not array or known.block.length != data.nbytes:
            return None
        known.seen = next(_sightings)
        return known.block

    def _find_memory(self, where: tuple[int, int]) -> Block | None:
        memory = self._memory.get(where)
        return None if memory is None or not _lies_within(where, memory.exporter) else memory.block()

    def remember(self, data: memoryview, block: Block) -> None:
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
        """Forgets one after another, beginning with that which has not been seen for longest."""
        for _, key in sorted((known.seen, key) for key, known in self._arrays.copy().items()):
            self._arrays.pop(key, None)
            yield


def _array_of(data: memoryview) -> Any:
    """The array whose memory this is, or None. Pickle makes a passing view of one in Fortran's order; its base stays."""
    numpy = loaded_numpy()  # an array can only be here if numpy is
    array: Any = data.obj
    if numpy is None or not isinstance(array, numpy.ndarray):
        return None
    base = array.base
    return base if base is not None and type(base) is type(array) and base.nbytes == data.nbytes else array


def _where(data: memoryview) -> tuple[int, int] | None:
    """Address and length; None if nobody can tell: without numpy."""
    numpy = loaded_numpy()
    if numpy is None:
        return None
    address: int = numpy.frombuffer(data, numpy.uint8).__array_interface__["data"][0]
    return address, data.nbytes


def _lies_within(where: tuple[int, int], exporter: Any) -> bool:
    """Whether it is still memory of the exporter."""
    try:
        whole = _where(memoryview(exporter))
    except (BufferError, TypeError, ValueError):  # it is closed, say
        return False
    return whole is not None and whole[0] <= where[0] and sum(where) <= sum(whole)
