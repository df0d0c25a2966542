"""Reads messages and columns (`codec.py`)."""

import pickle
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from asyncpar._basics.notes import add_note
from asyncpar._memory.buffers import Buffer, Shared
from asyncpar._platform.collector import CollectorPaused
from asyncpar._wire.codec import (
    ELEMENT_WEIGHT,
    NOT_OF_AN_ELEMENT,
    Column,
    EncodedColumn,
    EncodedElements,
    Pickled,
    Undeliverable,
)
from asyncpar._wire.definitions import Definitions, reading
from asyncpar._wire.frames import Frame
from asyncpar._wire.pace import Pace, TooLarge, load
from asyncpar._wire.unfinished import loads

Map = Callable[[Shared], memoryview]


class Decoder:
    """Reads one message back: `message` first, then its columns in the order in which they were encoded.

    Attributes:
        definitions: what the pickles of the columns refer to.
        map_shared, map_private: they return a view of a buffer in shared memory; nobody else sees the changes of a private one.
            Only a frame that has such buffers needs them.
        weight: bytes of pickles that have been read, without their buffers.
        may_read_apart: if a column cannot be read whole, it may be read element by element, which takes long.
        has_read_apart: this has happened. Then what columns bring does not count.
        listed: the definitions that columns have brought.
    """

    definitions: Definitions | None = None
    map_shared: Map | None = None
    map_private: Map | None = None
    weight = 0
    may_read_apart = True
    has_read_apart = False

    def __init__(self, frame: Frame, pace: Pace | None = None) -> None:
        self._pace = pace
        self._buffers = iter(frame.buffers)
        self._loads = loads()
        self._spoiled = False
        self.listed: list[Any] = []
        payload, buffers = frame.payload, self._buffers
        self.message: Any = pickle.loads(payload, buffers=buffers) if pace is None else load(payload, buffers, pace)

    def columns(self, encoded_columns: Sequence[EncodedColumn]) -> tuple[list[Column], bool]:
        """The columns, and whether any element in them is an `Undeliverable`.

        Raises:
            TooLarge: a column must be read element by element, and may not.
        """
        if max(map(len, encoded_columns), default=1) == 1:  # nothing to read: 2 µs less for a single call, on each side
            plain: list[Any] = [encoded[0] for encoded in encoded_columns]
            return plain, False
        quietly = CollectorPaused() if self._pace is None else nullcontext()  # a thread may take long
        with reading(self.definitions), quietly:
            columns = [self._column(encoded) for encoded in encoded_columns]
        return columns, self._spoiled

    def value(self, encoded: EncodedElements) -> Any:
        """The only element of a column. If it cannot be read, this raises its error.

        The collector is not paused, because reading a function imports modules.
        """
        ((value,),) = [self._column(encoded)]
        if type(value) is Undeliverable:
            raise value.error
        return value

    def _column(self, encoded: EncodedColumn) -> Column:
        if len(encoded) == 1:
            return encoded[0]
        if len(encoded) == 4:
            return self._whole(*encoded)
        return [self._element(data, count) for data, count in zip(*encoded, strict=True)]

    def _whole(self, pickled: Pickled, buffer_count: int, shares: bool, brings: bool) -> Column:
        map_shared = self.map_shared if shares else self.map_private
        buffers = self._take(buffer_count)
        data: Any = _view(buffers.pop(0), map_shared) if pickled is None else pickled
        try:
            column: Column = self._load(data, buffers, map_shared)
        except NOT_OF_AN_ELEMENT:
            raise
        except BaseException:  # raised by some element
            if not self.may_read_apart:
                raise TooLarge from None
            from asyncpar._wire.apart import take_apart  # only when something cannot be read

            elements = [self._read(part, its_buffers, map_shared) for part, its_buffers in take_apart(data, buffers)]
            if not elements:  # it is no list: an array, for which there is no memory
                raise
            self.has_read_apart = True
            return elements[:-1] if brings else elements
        if brings:
            assert isinstance(column, list), "the encoder makes a list of it"
            self.listed += column.pop()
        return column

    def _element(self, pickled: Pickled, buffer_count: int) -> Any:
        return self._read(pickled, self._take(buffer_count), self.map_shared)

    def _take(self, count: int) -> list[Any]:
        return [next(self._buffers) for _ in range(count)] if count else []

    def _read(self, pickled: Pickled, buffers: list[Any], map_shared: Map | None) -> Any:
        """One element, or what replaces it."""
        element: Any
        try:
            element = self._load(pickled, buffers, map_shared)
        except NOT_OF_AN_ELEMENT:
            raise
        except ModuleNotFoundError as error:
            _add_remedy(error)
            element = Undeliverable(error)
        except BaseException as error:  # such as SystemExit: whatever an element raises fails only its own call
            add_note(error, "raised by unpickling an argument or a result, and not by the call itself")
            element = Undeliverable(error)
        self._spoiled = self._spoiled or type(element) is Undeliverable
        return element

    def _load(self, pickled: Any, buffers: Sequence[Any], map_shared: Map | None) -> Any:
        if buffers:
            buffers = [_view(buffer, map_shared) for buffer in buffers]
            if pickled is None:
                pickled = buffers.pop(0)
        self.weight += len(pickled)
        if self._pace is None:
            return self._loads(pickled, buffers=buffers)
        self._pace(ELEMENT_WEIGHT)
        return load(pickled, buffers, self._pace)


def _add_remedy(error: ModuleNotFoundError) -> None:
    add_note(
        error,
        f"what is defined in {error.name!r} was sent by name, and that module could not be imported at the other end. "
        f"Put its folder on sys.path before the executor is made, or have what it defines sent by value: "
        f"cloudpickle.register_pickle_by_value(sys.modules[{error.name!r}])",
    )


def _view(buffer: Buffer | Shared, map_shared: Map | None) -> Buffer:
    if not isinstance(buffer, Shared):
        return buffer
    assert map_shared is not None, "a frame with shared buffers needs a borrower"
    return map_shared(buffer)
