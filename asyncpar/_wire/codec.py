"""Calls and results as bytes: columns of values, pickled whole where that is safe and one by one where it is not.

A batch of calls is a tuple of columns, one for each argument; its results are one more column. A column travels

- **whole**, if every element is a plain scalar, or if it is a range or an array of plain numbers: it is one C-speed pickle,
  about 15 ns an element for writing and reading, and nothing in it can fail;
- **one by one**, otherwise: each element is its own cloudpickle. So an element that cannot be pickled or read makes only its
  own call fail, and `f(x)` sees the same private copy of `x` whatever the batch size.

Buffers of `OUT_OF_BAND_BYTES` or more (PEP 574) leave the pickle and travel beside it uncopied. Smaller ones stay inside, where
they cost a copy, but have no memory of their own that would outlive its neighbours. Buffers for which the encoder's `placer`
finds room go to shared memory (`_memory`), and their bytes do not travel.

Encoders and decoders in the parent have a pace (`pace.py`), so that large messages do not block its event loop. The pickle of a
large element or column travels out of band, too. If it goes to shared memory, it does so in the pieces in which it was written.

An element that fails is replaced by an `Undeliverable`, and the call with that element fails with its error.
"""

import pickle
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias

from asyncpar._basics.loaded import loaded_numpy
from asyncpar._basics.notes import add_note
from asyncpar._memory.blocks import Block
from asyncpar._memory.buffers import Buffer, Shared
from asyncpar._wire.frames import Frame
from asyncpar._wire.pace import IN_LOOP_BYTES, Breaths, Limit, Pace, TooLarge, Writer, join, load
from asyncpar._wire.unfinished import guarded, loads
from asyncpar.errors import ExecutorUnavailableError

PROTOCOL = 5
_ELEMENT_WEIGHT = 64  # pickling or reading an element by itself takes 0.5 µs, as long as this many bytes of small objects
_NUMBER_WEIGHT = 4  # the same for a number in a plain column
OUT_OF_BAND_BYTES = 1 << 14  # below this, the copy costs less than a system-call segment and an allocation; a guess

Column: TypeAlias = Sequence[Any]

_NOT_OF_AN_ELEMENT = (KeyboardInterrupt, TooLarge)  # Ctrl-C, and our own pace; the pickled object raises everything else
_SPAWNED_MAIN = "__mp_main__"  # the script, in a process that multiprocessing has spawned; our workers cannot import it
_SEQUENCES = frozenset({list, tuple, range, str, bytes})
_TEXT_TYPES = frozenset({str, bytes})
_PLAIN_TYPES = frozenset({int, float, complex, bool, type(None)}) | _TEXT_TYPES


Pickled: TypeAlias = Buffer | pickle.PickleBuffer | None  # None: the pickle is the first of its buffers
EncodedElements: TypeAlias = tuple[list[Pickled], list[int]]

# Plain tuples, which pickle three times as fast as named ones. (column,) is a column in one piece. (pickles, counts) is a
# column of separate pickles, with the number of the message's buffers that each of them uses. (pickle, count, shares) is a
# large column in one piece: its pickle, the number of its buffers, and whether calls may be given the same pages. As with the
# elements of a list, they may share pages only if each element is large by itself.
EncodedColumn: TypeAlias = tuple[Column] | EncodedElements | tuple[Pickled, int, bool]


class BufferPlacer(Protocol):
    """Takes buffers of `threshold` bytes or more: it copies one and returns its block, or None if it has no room.

    `find` returns the block of a buffer that has already been copied. `copy` takes data, in pieces, that will not be looked up
    again. `holds_results`: the buffers are results, which are writable at the other end, and not arguments.
    """

    @property
    def threshold(self) -> int: ...
    @property
    def holds_results(self) -> bool: ...
    def find(self, data: memoryview, /) -> Block | None: ...
    def __call__(self, data: memoryview, /) -> Block | None: ...
    def copy(self, pieces: Sequence[Buffer], /) -> Block | None: ...


class Undeliverable:
    """Replaces an element of a column that could not be pickled or read; `error` says why."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Keeper:
    """Keeps large buffers out of the pickles of a message, and collects them, or the blocks that hold them."""

    def __init__(self, buffers: list[Any], pace: Pace | None, placer: BufferPlacer | None) -> None:
        self.buffers = buffers
        self.pace = pace
        self.placer = placer
        self.hits = 0

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

    def _block_of(self, data: memoryview) -> Block | None:
        placer = self.placer
        if placer is None or data.nbytes < placer.threshold:
            return None
        block = placer.find(data)
        if block is not None:
            self.hits += 1
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


class Encoder:
    """Encodes the parts of one message and collects their out-of-band buffers.

    The reader needs the buffers of the message's own pickle first, so encode the columns first and call `frame` last. `refusal`
    is why an element could not be pickled, if one could not.
    """

    refusal: BaseException | None = None

    def __init__(self, pace: Pace | None = None, placer: BufferPlacer | None = None) -> None:
        self._pace = pace
        self._placer = placer
        self._column_buffers: list[Any] = []  # buffers, and blocks that have yet to be lent
        self._keeper: _Keeper | None = None  # made for the first element that may need it

    @property
    def hits(self) -> int:
        """How many buffers were already in shared memory."""
        return 0 if self._keeper is None else self._keeper.hits

    @property
    def _keep(self) -> _Keeper:
        if self._keeper is None:
            self._keeper = _Keeper(self._column_buffers, self._pace, self._placer)
        return self._keeper

    def column(self, column: Column, describe: Callable[..., tuple[str, str]], *context: object) -> EncodedColumn:
        """`column` in a form that travels; `describe(*context, position)` names an element for errors: in words, as a path."""
        weight = _plain_weight(column)
        if weight is None:
            return self._one_by_one(column, partial(describe, *context))
        if self._pace is not None:
            self._pace(weight)
        if type(column) not in _SEQUENCES:
            return self._array(column, copy=weight > 0)
        large = sys.maxsize if self._placer is None else self._placer.threshold
        if self._pace is not None:  # a column that is not encoded apart is pickled in the event loop, with the message
            large = min(large, IN_LOOP_BYTES)
        return (column,) if weight < large else self._apart(column, pickle.Pickler, shares=False)

    def _array(self, column: Any, *, copy: bool) -> EncodedColumn:
        if copy:  # it is not contiguous, and pickle would hold the GIL while it copies
            column = column.copy()
        placer = self._placer
        if placer is None or (column.nbytes < placer.threshold and not _lies_in_a_file(column)):
            return (column,)
        return self._apart(column, _pickler_class(placer), shares=column[0].nbytes >= placer.threshold)

    def _apart(self, column: Column, pickler_class: Any, *, shares: bool) -> EncodedColumn:
        keep, before = self._keep, len(self._column_buffers)
        pickled = keep.beside_if_large(_ElementPickler(keep, pickler_class)(column), before)
        return pickled, len(self._column_buffers) - before, shares

    def _one_by_one(self, column: Column, describe: Callable[[int], tuple[str, str]]) -> EncodedColumn:
        keep = self._keep
        dump = _ElementPickler(keep, _pickler_class(keep.placer))
        pickles: list[Pickled] = []
        counts: list[int] = []
        for position, element in enumerate(column):
            before = len(self._column_buffers)
            try:
                pickles.append(keep.beside_if_large(dump(element), before))
            except (*_NOT_OF_AN_ELEMENT, ExecutorUnavailableError):  # the latter: nothing can be sent now
                raise
            except BaseException as error:  # such as SystemExit: whatever an element raises fails only its own call
                _leave_blaming_to_a_thread(self._pace)
                del self._column_buffers[before:]
                from asyncpar._wire.blame import refuse  # only when something cannot be pickled

                what, path = describe(position)
                self.refusal = refuse(what, element, path, error)
                pickles.append(keep.beside_if_large(dump(Undeliverable(self.refusal)), before))
            counts.append(len(self._column_buffers) - before)
        return pickles, counts

    def frame(self, kind: int, message: object, more_buffers: Sequence[Any] = ()) -> Frame:
        """`message`, plain values and encoded columns, with what it needs: buffers, and blocks that have yet to be lent."""
        buffers: list[Any] = []
        keep = partial(_keep_out_of_band, buffers)
        if isinstance(self._pace, Breaths):
            writer = Writer(self._pace)
            pickle.Pickler(writer, PROTOCOL, buffer_callback=keep).dump(message)
            payload = join(writer.take(), self._pace)
        else:  # it has not exceeded the limit, so it is not large
            payload = pickle.dumps(message, PROTOCOL, buffer_callback=keep)
        if self._column_buffers or more_buffers:
            buffers += self._column_buffers
            buffers += more_buffers
        return Frame(kind, payload, buffers)


class Decoder:
    """Reads one message back: `message` first, then its columns in the order in which they were encoded.

    `map_shared` returns a view of a buffer in shared memory, and `map_private` returns one whose changes nobody else sees. Only
    a frame that has such buffers needs them.
    """

    map_shared: Callable[[Shared], memoryview] | None = None
    map_private: Callable[[Shared], memoryview] | None = None

    def __init__(self, frame: Frame, pace: Pace | None = None) -> None:
        self._pace = pace
        self._buffers = iter(frame.buffers)
        self._loads = loads()
        payload, buffers = frame.payload, self._buffers
        self.message: Any = pickle.loads(payload, buffers=buffers) if pace is None else load(payload, buffers, pace)

    def columns(self, encoded_columns: Iterable[EncodedColumn]) -> tuple[list[Column], bool]:
        """The columns, and whether any element in them is an `Undeliverable`."""
        columns: list[Column] = []
        spoiled = False
        for encoded in encoded_columns:
            if len(encoded) == 1:
                columns.append(encoded[0])
            elif len(encoded) == 3:
                columns.append(self._in_one_piece(*encoded))
            else:
                elements = [self._element(data, count, self.map_shared) for data, count in zip(*encoded, strict=True)]
                spoiled = spoiled or any(type(element) is Undeliverable for element in elements)
                columns.append(elements)
        return columns, spoiled

    def _in_one_piece(self, pickled: Any, buffer_count: int, shares: bool) -> Any:
        column = self._element(pickled, buffer_count, self.map_shared if shares else self.map_private)
        if type(column) is Undeliverable:
            raise column.error
        return column

    def _element(self, data: Any, buffer_count: int, map_shared: Callable[[Shared], memoryview] | None) -> Any:
        received = [next(self._buffers) for _ in range(buffer_count)] if buffer_count else ()
        try:
            buffers = [_view(buffer, map_shared) for buffer in received]
            if data is None:
                data = buffers.pop(0)
            if self._pace is None:
                return self._loads(data, buffers=buffers)
            self._pace(_ELEMENT_WEIGHT)
            return load(data, buffers, self._pace)
        except _NOT_OF_AN_ELEMENT:
            raise
        except ModuleNotFoundError as error:
            _add_remedy(error)
            return Undeliverable(error)
        except BaseException as error:  # as above
            add_note(error, "raised by unpickling an argument or a result, and not by the call itself")
            return Undeliverable(error)


def _add_remedy(error: ModuleNotFoundError) -> None:
    add_note(
        error,
        f"what is defined in {error.name!r} was sent by name, and that module could not be imported at the other end. "
        f"Put its folder on sys.path before the executor is made, or have what it defines sent by value: "
        f"cloudpickle.register_pickle_by_value(sys.modules[{error.name!r}])",
    )


def _view(buffer: Buffer | Shared, map_shared: Callable[[Shared], memoryview] | None) -> Buffer:
    if not isinstance(buffer, Shared):
        return buffer
    assert map_shared is not None, "a frame with shared buffers needs a borrower"
    return map_shared(buffer)


def encode_function(
    fn: Callable[..., Any], pace: Pace | None = None, placer: BufferPlacer | None = None
) -> tuple[EncodedElements, list[Any]]:
    """`fn` as a column of one, and its large buffers. It is pickled by reference if a worker can import it, else by value."""
    buffers: list[Any] = []
    keep = _Keeper(buffers, pace, placer)
    try:
        by_name = is_importable(fn)
        pickled: list[Buffer] = [pickle.dumps(fn, PROTOCOL)] if by_name else _ElementPickler(keep, _pickler_class(placer))(fn)
    except (*_NOT_OF_AN_ELEMENT, ExecutorUnavailableError):
        raise
    except BaseException as error:
        _leave_blaming_to_a_thread(pace)
        from asyncpar._wire.blame import refuse_function  # as above

        raise refuse_function(fn, error) from error
    encoded = keep.beside_if_large(pickled, 0)
    return ([encoded], [len(buffers)]), buffers


class _ElementPickler:
    """Pickles one element after another with one pickler: 0.5 µs an element instead of 3."""

    def __init__(self, keep: _Keeper, pickler_class: Any) -> None:
        self._pace = keep.pace
        self._writer = Writer(keep.pace)
        self._pickler = pickler_class(self._writer, PROTOCOL, buffer_callback=keep)

    def __call__(self, element: object) -> list[Buffer]:
        """The pickle, in the pieces in which it was written."""
        if self._pace is not None:
            self._pace(_ELEMENT_WEIGHT)
        self._pickler.clear_memo()
        try:
            self._pickler.dump(element)
        except BaseException:
            self._writer.take()  # the next element begins with an empty writer
            raise
        return self._writer.take()


def _pickler_class(placer: BufferPlacer | None) -> Any:
    """The pickler class for values that are not plain."""
    from asyncpar._wire.pickler import Pickler  # takes 30 ms, since it imports cloudpickle

    main = sys.modules.get(_SPAWNED_MAIN)
    if main is not None and main.__name__ == _SPAWNED_MAIN:
        sys.modules["cloudpickle"].register_pickle_by_value(main)
    if placer is None or loaded_numpy() is None:
        return guarded(Pickler)
    from asyncpar._wire.arrays import argument_pickler, result_pickler  # imports numpy

    return guarded(result_pickler() if placer.holds_results else argument_pickler())


def is_importable(fn: Callable[..., Any]) -> bool:
    """Whether a worker finds `fn` by its name. Then cloudpickle, which takes four times as long, would write the same."""
    module_name: str = getattr(fn, "__module__", None) or ""
    module = sys.modules.get(module_name) if module_name not in ("__main__", _SPAWNED_MAIN) else None
    if module is None or getattr(module, getattr(fn, "__qualname__", ""), None) is not fn:
        return False
    cloudpickle = sys.modules.get("cloudpickle")  # in it, users register modules whose functions are sent by value
    return cloudpickle is None or cloudpickle.list_registry_pickle_by_value() <= {_SPAWNED_MAIN}


def _leave_blaming_to_a_thread(pace: Pace | None) -> None:
    """In the event loop, an object that cannot be pickled counts as too large, since finding out why can take some time."""
    if isinstance(pace, Limit):
        raise TooLarge


def _plain_weight(column: Any) -> int | None:
    """The weight of a column that may travel whole, in the units of a pace; None if its elements must go one by one."""
    kind = type(column)
    if kind is list or kind is tuple:
        kinds = set(map(type, column))
        if not kinds <= _PLAIN_TYPES:  # a fifth quicker than issuperset()
            return None
        weight = _NUMBER_WEIGHT * len(column)
        if str in kinds or bytes in kinds:
            weight += sum([len(element) for element in column if type(element) in _TEXT_TYPES])
        return weight
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
