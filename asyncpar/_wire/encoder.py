"""Writes messages, columns and functions (`codec.py`)."""

import pickle
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from asyncpar._basics.loaded import loaded_numpy
from asyncpar._memory.buffers import Buffer, Elsewhere
from asyncpar._wire.codec import (
    BY_NAME,
    ELEMENT_WEIGHT,
    NOT_OF_AN_ELEMENT,
    ONE_BY_ONE,
    OUT_OF_BAND_BYTES,
    PROTOCOL,
    WHOLE,
    Column,
    EncodedColumn,
    EncodedElements,
    Pickled,
    Undeliverable,
)
from asyncpar._wire.definitions import Definitions
from asyncpar._wire.frames import Frame
from asyncpar._wire.pace import IN_LOOP_BYTES, Breaths, Limit, Pace, TooLarge, Writer, join
from asyncpar._wire.unfinished import guarded
from asyncpar._wire.views import as_plain_column, view_pickler
from asyncpar.errors import ExecutorUnavailableError

_MEMBER_WEIGHT = 32  # of an element in a column that is pickled whole
_NUMBER_BYTES = 4
_LARGEST_BY_NAME = 1 << 11  # bytes of an element: looking for the script's name in it takes as long as asking saves; a guess
TEXT_SPEED = 4  # texts are copied so many times as fast as small objects are pickled
_SPAWNED_MAIN = "__mp_main__"  # the script, in a process that multiprocessing has spawned; our workers cannot import it
_SEQUENCES = frozenset({list, tuple, range, str, bytes})
TEXT_TYPES = frozenset({str, bytes})
_PLAIN_TYPES = frozenset({int, float, complex, bool, type(None)}) | TEXT_TYPES
_NOT_OF_AN_ELEMENT = (*NOT_OF_AN_ELEMENT, ExecutorUnavailableError)  # the latter: nothing can be sent now


class BufferPlacer(Protocol):
    """Takes buffers of `threshold` bytes or more: it copies one and returns its block, or what stands for it. None: no room.

    `find` returns that of a buffer that has already been copied. `copy` takes data, in pieces, that will not be looked up
    again. `holds_results`: the buffers are results, which are writable at the other end, and not arguments. `shows_views`: one
    end is an interpreter, in which there are no arrays (`views.py`).
    """

    @property
    def threshold(self) -> int: ...
    @property
    def holds_results(self) -> bool: ...
    @property
    def shows_views(self) -> bool: ...
    def find(self, data: memoryview, /) -> Elsewhere | None: ...
    def __call__(self, data: memoryview, /) -> Elsewhere | None: ...
    def copy(self, pieces: Sequence[Buffer], /) -> Elsewhere | None: ...


class Encoder:
    """Encodes the parts of one message and collects their out-of-band buffers.

    The reader needs the buffers of the message's own pickle first, so encode the columns first and call `frame` last.

    Attributes:
        definitions: what the reader already has.
        manner: in which a column of objects is tried first. It is raised when one could not be pickled so, or when pickling by
            name saves nothing.
        refusal: why an element could not be pickled, if one could not.
        brought: classes and functions that were sent by value with a column.
        listed: those of them that are listed at the end of a column.
        object_weight: of objects and texts, in the units of the pace. Numbers do not matter.
        object_seconds: of the processor, for objects.
    """

    refusal: BaseException | None = None

    def __init__(
        self,
        pace: Pace | None = None,
        placer: BufferPlacer | None = None,
        definitions: Definitions | None = None,
        manner: int = WHOLE,
    ) -> None:
        self._pace = pace
        self._placer = placer
        self.definitions = definitions
        self.manner = manner
        self.brought: list[Any] = []
        self.listed: list[Any] = []
        self.object_weight = 0
        self.object_seconds = 0.0
        self._column_buffers: list[Any] = []  # buffers, and blocks that have yet to be lent
        self._keeper: _Keeper | None = None  # made for the first element that may need it

    def count_hits(self) -> int:
        """How many of its buffers were in shared memory already. To be called when they are sent."""
        hits = 0
        for buffer in self._column_buffers:
            if isinstance(buffer, Elsewhere):
                hits += buffer.was_there
                buffer.was_there = True
        return hits

    @property
    def _keep(self) -> "_Keeper":
        if self._keeper is None:
            self._keeper = _Keeper(self._column_buffers, self._pace, self._placer)
        return self._keeper

    def column(self, column: Column, describe: Callable[..., tuple[str, str]], *context: object) -> EncodedColumn:
        """`column` in a form that travels; `describe(*context, position)` names an element for errors: in words, as a path."""
        if type(column) not in _SEQUENCES and self._placer is not None and self._placer.shows_views:
            column = as_plain_column(column)
        size = _plain_bytes(column)
        if size is None:
            return self._of_objects(column, partial(describe, *context))
        speed = TEXT_SPEED if len(column) and type(column[0]) in TEXT_TYPES else 1
        if self._pace is not None:
            self._pace(size // speed)
            if speed > 1:
                self.object_weight += size // speed
        if type(column) not in _SEQUENCES:
            return self._array(column, copy=size > 0)
        large = sys.maxsize if self._placer is None else self._placer.threshold
        if self._pace is not None:  # a column that is not encoded apart is pickled in the event loop, with the message
            large = min(large, speed * IN_LOOP_BYTES)
        return (column,) if size < large else self._whole(column, pickle.Pickler, shares=False)

    def _array(self, column: Any, *, copy: bool) -> EncodedColumn:
        if copy:  # it is not contiguous, and pickle would hold the GIL while it copies
            column = column.copy()
        placer = self._placer
        if placer is None or (column.nbytes < placer.threshold and not _lies_in_a_file(column)):
            return (column,)
        return self._whole(column, pickler_class(placer), shares=column[0].nbytes >= placer.threshold)

    def _of_objects(self, column: Column, describe: Callable[[int], tuple[str, str]]) -> EncodedColumn:
        kind = pickler_class(self._placer)  # which imports what it needs, the first time
        if self._pace is None:
            return self._tried_whole(column, kind, describe)
        before, began = self._pace.weight, time.thread_time()
        self._pace(_MEMBER_WEIGHT * len(column))
        encoded = self._tried_whole(column, kind, describe)
        self.object_weight += self._pace.weight - before
        self.object_seconds += time.thread_time() - began
        return encoded

    def _tried_whole(self, column: Column, kind: Any, describe: Callable[[int], tuple[str, str]]) -> EncodedColumn:
        if self.manner == BY_NAME:
            self.manner = first_manner()  # again: a module may have been registered since the run began
        if self.manner == BY_NAME:
            encoded = self._by_name(column)
            if encoded is not None:
                return encoded
            self.manner = WHOLE
        if self.manner == WHOLE:
            before = len(self._column_buffers)
            try:
                return self._whole(column, kind, shares=True, brings=True)
            except _NOT_OF_AN_ELEMENT:
                raise
            except BaseException:  # raised by some element
                _leave_blaming_to_a_thread(self._pace)
                del self._column_buffers[before:]
                self.manner = ONE_BY_ONE
        return self._one_by_one(column, kind, describe)

    def _by_name(self, column: Column) -> EncodedColumn | None:
        """None if it has something that needs more than its name, or that cannot be pickled at all."""
        from asyncpar._wire.pickler import by_name, names_the_script

        keep, before = self._keep, len(self._column_buffers)
        pickler = ValuePickler(keep, by_name(_own_pickler(self._placer)), None)
        try:
            pieces = pickler.dump([*column, []])  # nothing is brought
        except _NOT_OF_AN_ELEMENT:
            raise
        except BaseException:  # raised by some element
            pieces = []
        if not pieces or names_the_script(pieces):
            del self._column_buffers[before:]
            return None
        if not pickler.has_reduced or sum(map(len, pieces)) > _LARGEST_BY_NAME * len(column):
            self.manner = WHOLE
        return keep.beside_if_large(pieces, before), len(self._column_buffers) - before, True, True

    def _whole(self, column: Column, kind: Any, *, shares: bool, brings: bool = False) -> EncodedColumn:
        keep, before = self._keep, len(self._column_buffers)
        pickler = ValuePickler(keep, kind, self.definitions)
        if brings:
            column = [*column, pickler.brought]  # when pickle comes to this list, the others have filled it
        pickled = keep.beside_if_large(pickler.dump(column), before)
        if brings and pickler.brought:
            self.brought += pickler.brought
            self.listed += pickler.brought
        return pickled, len(self._column_buffers) - before, shares, brings

    def _one_by_one(self, column: Column, kind: Any, describe: Callable[[int], tuple[str, str]]) -> EncodedColumn:
        keep = self._keep
        pickler = ValuePickler(keep, kind, self.definitions)
        pickles: list[Pickled] = []
        counts: list[int] = []
        for position, element in enumerate(column):
            before = len(self._column_buffers)
            try:
                pickles.append(keep.beside_if_large(pickler.dump(element), before))
            except _NOT_OF_AN_ELEMENT:
                raise
            except BaseException as error:  # such as SystemExit: whatever an element raises fails only its own call
                _leave_blaming_to_a_thread(self._pace)
                del self._column_buffers[before:]
                from asyncpar._wire.blame import refuse  # only when something cannot be pickled

                what, path = describe(position)
                self.refusal = refuse(what, element, path, error)
                pickles.append(keep.beside_if_large(pickler.dump(Undeliverable(self.refusal)), before))
            counts.append(len(self._column_buffers) - before)
        self.brought += pickler.brought
        return pickles, counts

    def frame(self, kind: int, message: object, more_buffers: Sequence[Any] = ()) -> Frame:
        """`message`, plain values and encoded columns, with what it needs: buffers, and blocks that have yet to be lent.

        `more_buffers` come before those of the columns.
        """
        buffers: list[Any] = []
        keep = partial(_keep_out_of_band, buffers)
        if isinstance(self._pace, Breaths):
            writer = Writer(self._pace)
            pickle.Pickler(writer, PROTOCOL, buffer_callback=keep).dump(message)
            payload = join(writer.take(), self._pace)
        else:  # it has not exceeded the limit, so it is not large
            payload = pickle.dumps(message, PROTOCOL, buffer_callback=keep)
        if self._column_buffers or more_buffers:
            buffers += more_buffers
            buffers += self._column_buffers
        return Frame(kind, payload, buffers)


def encode_function(
    fn: Callable[..., Any], pace: Pace | None = None, placer: BufferPlacer | None = None
) -> tuple[EncodedElements, list[Any], list[Any]]:
    """`fn`, its large buffers, and the definitions that it brings.

    It is a column of one, a pair of `fn` and the list of these definitions. It is pickled by reference if a worker can import
    it, else by value.
    """
    buffers: list[Any] = []
    brought: list[Any] = []
    keep = _Keeper(buffers, pace, placer)
    try:
        if is_importable(fn):
            pickled: list[Buffer] = [pickle.dumps((fn, brought), PROTOCOL)]
        else:
            pickler = ValuePickler(keep, pickler_class(placer), None)
            brought = pickler.brought
            pickled = pickler.dump((fn, brought))  # when pickle comes to the list, `fn` has filled it
    except _NOT_OF_AN_ELEMENT:
        raise
    except BaseException as error:
        _leave_blaming_to_a_thread(pace)
        from asyncpar._wire.blame import refuse_function  # as above

        raise refuse_function(fn, error) from error
    encoded = keep.beside_if_large(pickled, 0)
    return ([encoded], [len(buffers)]), buffers, brought


def encode_definition(value: object, definitions: Definitions) -> bytes:
    """One more definition, in a pickle that refers to those that there are. For use in the event loop.

    Raises:
        TooLarge: it takes long.
        BaseException: it cannot be pickled by itself.
    """
    keep = _Keeper([], Limit(), None)
    pickler = ValuePickler(keep, pickler_class(None), definitions, buffers_inside=True)
    return b"".join(pickler.dump(value))


class ValuePickler:
    """Pickles one value after another with one pickler: 0.5 µs a value instead of 3."""

    def __init__(self, keep: "_Keeper", kind: Any, definitions: Definitions | None, *, buffers_inside: bool = False) -> None:
        self._pace = keep.pace
        self._writer = Writer(keep.pace)
        self._pickler = kind(self._writer, PROTOCOL, buffer_callback=None if buffers_inside else keep)
        if kind is not pickle.Pickler:
            self._pickler.definitions = definitions

    @property
    def brought(self) -> list[Any]:
        """Classes and functions that were written by value; it grows while something is pickled."""
        return getattr(self._pickler, "brought", [])

    @property
    def has_reduced(self) -> bool:
        """Whether a pickler by name has met anything but what is built in."""
        return bool(self._pickler.dispatch_table.found)

    def dump(self, value: object) -> list[Buffer]:
        """The pickle, in the pieces in which it was written."""
        if self._pace is not None:
            self._pace(ELEMENT_WEIGHT)
        self._pickler.clear_memo()
        try:
            self._pickler.dump(value)
        except BaseException:
            self._writer.take()  # the next value begins with an empty writer
            raise
        return self._writer.take()


class _Keeper:
    """Keeps large buffers out of the pickles of a message, and collects them, or the blocks that hold them."""

    def __init__(self, buffers: list[Any], pace: Pace | None, placer: BufferPlacer | None) -> None:
        self.buffers = buffers
        self.pace = pace
        self.placer = placer

    def __call__(self, buffer: pickle.PickleBuffer) -> bool:
        """Called by a pickler for each buffer, which is contiguous. Returning true leaves the buffer inside the pickle."""
        block = self._block_of(buffer.raw())
        if block is None:
            return _keep_out_of_band(self.buffers, buffer)
        self.buffers.append(block)
        return False

    def beside_if_large(self, pickled: list[Buffer], first: int) -> Pickled:
        """What represents a pickle in the message. A large one travels out of band, beside the message's own pickle."""
        if len(pickled) == 1 and len(pickled[0]) < OUT_OF_BAND_BYTES:
            return pickled[0]
        placer = self.placer
        if placer is not None and sum(map(len, pickled)) >= placer.threshold:
            self._leave_copying_to_a_thread()
            block = placer.copy(pickled)
            if block is not None:
                self.buffers.insert(first, block)
                return None
        return pickle.PickleBuffer(join(pickled, self.pace))

    def _block_of(self, data: memoryview) -> Elsewhere | None:
        placer = self.placer
        if placer is None or data.nbytes < placer.threshold:
            return None
        block = placer.find(data)
        if block is not None:
            return block
        self._leave_copying_to_a_thread()
        return placer(data)

    def _leave_copying_to_a_thread(self) -> None:
        """In the event loop nothing is copied, and nothing waits for a thread that is placing a buffer."""
        if isinstance(self.pace, Limit):
            raise TooLarge


def _keep_out_of_band(buffers: list[Any], buffer: pickle.PickleBuffer) -> bool:
    """The same as `_Keeper`, if there is no placer."""
    raw = buffer.raw()
    if raw.nbytes < OUT_OF_BAND_BYTES:
        return True
    buffers.append(raw)
    return False


def pickler_class(placer: BufferPlacer | None) -> Any:
    """The pickler class for values that are not plain."""
    kind = _own_pickler(placer)
    if _is_spawned():
        sys.modules["cloudpickle"].register_pickle_by_value(sys.modules[_SPAWNED_MAIN])
    return guarded(kind)


def _is_spawned() -> bool:
    """Elsewhere, a program that imports multiprocessing has this module, too: it is the script under a second name."""
    main = sys.modules.get(_SPAWNED_MAIN)
    return main is not None and main.__name__ == _SPAWNED_MAIN


def _own_pickler(placer: BufferPlacer | None) -> Any:
    from asyncpar._wire.pickler import Pickler  # takes 30 ms, since it imports cloudpickle

    if placer is not None and placer.shows_views:
        return view_pickler()
    if placer is None or loaded_numpy() is None:
        return Pickler
    from asyncpar._wire.arrays import argument_pickler, result_pickler  # imports numpy

    return result_pickler() if placer.holds_results else argument_pickler()


def is_importable(fn: Callable[..., Any]) -> bool:
    """Whether a worker finds `fn` by its name. Then cloudpickle, which takes four times as long, would write the same."""
    module_name: str = getattr(fn, "__module__", None) or ""
    module = sys.modules.get(module_name) if module_name not in ("__main__", _SPAWNED_MAIN) else None
    if module is None or getattr(module, getattr(fn, "__qualname__", ""), None) is not fn:
        return False
    return _by_value() <= {_SPAWNED_MAIN}


def first_manner() -> int:
    """The manner in which columns are tried first now. Not by name, if something that has a name is to be sent by value."""
    return WHOLE if _by_value() or _is_spawned() else BY_NAME


def _by_value() -> set[str]:
    """The modules whose classes and functions are sent by value: users register them with cloudpickle."""
    cloudpickle = sys.modules.get("cloudpickle")
    return set() if cloudpickle is None else cloudpickle.list_registry_pickle_by_value()


def _leave_blaming_to_a_thread(pace: Pace | None) -> None:
    """In the event loop, an object that cannot be pickled counts as too large, since finding out why can take some time."""
    if isinstance(pace, Limit):
        raise TooLarge


def _plain_bytes(column: Any) -> int | None:
    """About how many bytes a column takes in the message; None if it may have objects that are not plain."""
    kind = type(column)
    if kind is list or kind is tuple:
        try:
            kinds = set(map(type, column))
        except TypeError:  # a class that cannot be hashed
            return None
        if not kinds <= _PLAIN_TYPES:  # a fifth quicker than issuperset()
            return None
        size = _NUMBER_BYTES * len(column)
        if str in kinds or bytes in kinds:
            size += sum([len(element) for element in column if type(element) in TEXT_TYPES])
        return size
    if kind is range:
        return 0
    if kind is str or kind is bytes:
        return len(column)
    numpy = loaded_numpy()  # an array can only be here if numpy is
    if numpy is None or not isinstance(column, numpy.ndarray) or column.dtype.hasobject:
        return None
    if column.flags.forc:  # a contiguous array is sent without a copy
        return 0
    return None if _lies_in_a_file(column) else int(column.nbytes)


def _lies_in_a_file(array: Any) -> bool:
    numpy = sys.modules["numpy"]
    return type(array) is numpy.memmap
