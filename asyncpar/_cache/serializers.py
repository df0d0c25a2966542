"""Values as bytes: a body, and beside it the large buffers of arrays and tables, which are neither copied nor pickled.

There are two serializers. `PICKLE` takes whatever can be pickled, and cloudpickle helps where pickle alone gives up. Reading it
runs the code that the pickle names, so it is only as safe as the place it is kept in. `Plain` never runs code: it knows
scalars, containers, arrays of numbers, and the dataclasses that it was told, and refuses everything else when it writes.

Both leave the GIL to others now and then if `breathe` says that an event loop runs beside them (`_wire/pace.py`).
"""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from asyncpar._memory.buffers import Buffer
from asyncpar._wire.pace import Breaths, Writer, join, load

OUT_OF_BAND_BYTES = 1 << 14  # smaller buffers are copied faster than they are looked after; as on the wire

_PROTOCOL = 5


class Packed(NamedTuple):
    body: Buffer
    buffers: list[memoryview]


class Serializer(Protocol):
    """How values become bytes. `code` is what an entry says about it."""

    code: int

    def pack(self, value: Any, *, breathe: bool = False) -> Packed: ...
    def unpack(self, body: Buffer, buffers: Sequence[Any], *, breathe: bool = False) -> Any: ...


class _Pickle:
    code = 0

    def pack(self, value: Any, *, breathe: bool = False) -> Packed:
        """Raises whatever pickling raises."""
        try:
            return _pickled(pickle.Pickler, value, breathe)
        except (pickle.PicklingError, AttributeError, TypeError):
            from asyncpar._wire.pickler import Pickler  # which takes 30 ms to import

            return _pickled(Pickler, value, breathe)

    def unpack(self, body: Buffer, buffers: Sequence[Any], *, breathe: bool = False) -> Any:
        return load(body, buffers, Breaths()) if breathe else pickle.loads(body, buffers=buffers)

    def __reduce__(self) -> str:
        return "PICKLE"


PICKLE: Serializer = _Pickle()


def _pickled(pickler: Any, value: Any, breathe: bool) -> Packed:
    buffers: list[memoryview] = []

    def stays_inside(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < OUT_OF_BAND_BYTES:
            return True
        buffers.append(view)
        return False

    if not breathe and pickler is pickle.Pickler:  # the same, in a third of the time for a small value
        return Packed(pickle.dumps(value, _PROTOCOL, buffer_callback=stays_inside), buffers)
    pace = Breaths() if breathe else None
    writer = Writer(pace)
    pickler(writer, _PROTOCOL, buffer_callback=stays_inside).dump(value)
    return Packed(join(writer.take(), pace), buffers)


class Plain:
    """Plain data without pickle: JSON, in which whatever JSON does not have is an object with a tag, and buffers beside it.

    Args:
        classes: dataclasses that may be in values.

    Raises:
        TypeError: one of them is no dataclass.
    """

    code = 1

    def __init__(self, classes: Iterable[type] = ()) -> None:
        self._classes = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in classes}
        for kind in self._classes.values():
            if not dataclasses.is_dataclass(kind):
                raise TypeError(f'serializer=("plain", ...) takes dataclasses, and {kind.__qualname__} is none')

    def pack(self, value: Any, *, breathe: bool = False) -> Packed:
        """Raises TypeError for what is not plain."""
        buffers: list[memoryview] = []
        body = json.dumps(self._plain(value, buffers), separators=(",", ":")).encode()
        return Packed(body, buffers)

    def unpack(self, body: Buffer, buffers: Sequence[Any], *, breathe: bool = False) -> Any:
        """Raises ValueError or TypeError for what `pack` cannot have written."""
        return self._value(json.loads(bytes(body)), buffers)

    def _plain(self, value: Any, buffers: list[memoryview]) -> Any:
        kind = type(value)
        if value is None or kind is bool or kind is float or kind is str:
            return value
        if kind is int:
            return value if abs(value) < 1 << 64 else {"int": hex(value)}
        if kind is list:
            return [self._plain(element, buffers) for element in value]
        if kind in (tuple, set, frozenset):
            return {kind.__name__: [self._plain(element, buffers) for element in value]}
        if kind is dict:
            return {"dict": [[self._plain(key, buffers), self._plain(held, buffers)] for key, held in value.items()]}
        if kind is complex:
            return {"complex": [value.real, value.imag]}
        if kind is bytes or kind is bytearray:
            buffers.append(memoryview(value))
            return {kind.__name__: len(buffers) - 1}
        name = f"{kind.__module__}.{kind.__qualname__}"
        if self._classes.get(name) is kind:
            fields = {field.name: self._plain(getattr(value, field.name), buffers) for field in dataclasses.fields(value)}
            return {"dataclass": [name, fields]}
        if kind.__module__ == "numpy":
            return _plain_array(value, buffers)
        raise TypeError(
            f"the plain serializer does not take objects of {name}: return plain data or arrays, name the class if it is a "
            'dataclass (serializer=("plain", Class)), or use serializer="pickle"'
        )

    def _value(self, plain: Any, buffers: Sequence[Any]) -> Any:
        if type(plain) is list:
            return [self._value(element, buffers) for element in plain]
        if type(plain) is not dict:
            return plain
        ((tag, held),) = plain.items()
        match tag:
            case "int":
                return int(held, 16)
            case "tuple" | "set" | "frozenset":
                return _COLLECTIONS[tag](self._value(element, buffers) for element in held)
            case "dict":
                return {self._value(name, buffers): self._value(element, buffers) for name, element in held}
            case "complex":
                return complex(*held)
            case "bytes":
                return bytes(buffers[held])
            case "bytearray":
                return bytearray(buffers[held])
            case "dataclass":
                return self._dataclass(held[0], {name: self._value(field, buffers) for name, field in held[1].items()})
            case "array" | "numpy":
                array = _array(held, buffers)
                return array if tag == "array" else array[()]
        raise ValueError(f"unknown tag {tag!r:.50}")

    def _dataclass(self, name: str, fields: dict[str, Any]) -> Any:
        kind = self._classes.get(name)
        if kind is None:
            raise ValueError(f"{name} is not among the dataclasses that the serializer takes")
        value: Any = object.__new__(kind)
        for field, held in fields.items():
            object.__setattr__(value, field, held)
        return value


_COLLECTIONS: dict[str, Any] = {"tuple": tuple, "set": set, "frozenset": frozenset}


def _plain_array(value: Any, buffers: list[memoryview]) -> Any:
    import numpy

    array = numpy.asarray(value)
    if array.dtype.hasobject or array.dtype.kind in "TV" or type(value) not in (numpy.ndarray, numpy.memmap, array.dtype.type):
        raise TypeError(
            f"the plain serializer takes arrays of numbers, texts and dates, not {type(value).__name__} of {array.dtype}"
        )
    fortran = bool(array.flags.f_contiguous and not array.flags.c_contiguous)
    flat = numpy.ascontiguousarray(array.T if fortran else array).reshape(-1)
    buffers.append(memoryview(flat.view(numpy.uint8)))
    tag = "numpy" if isinstance(value, numpy.generic) else "array"
    return {tag: [array.dtype.str, list(array.shape), fortran, len(buffers) - 1]}


def _array(held: Any, buffers: Sequence[Any]) -> Any:
    import numpy

    name, shape, fortran, place = held
    flat = numpy.frombuffer(buffers[place], numpy.dtype(name))
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def make_serializer(name: Any) -> Serializer:
    """The serializer that the user has named.

    Raises:
        ValueError: there is none of this name.
        TypeError: a class is no dataclass.
    """
    if name == "pickle":
        return PICKLE
    if name == "plain":
        return Plain()
    if isinstance(name, tuple) and name and name[0] == "plain" and all(isinstance(kind, type) for kind in name[1:]):
        return Plain(name[1:])
    raise ValueError(f'serializer is "pickle", "plain", or ("plain", Dataclass, ...), not {name!r:.200}')
