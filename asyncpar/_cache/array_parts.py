"""numpy: arrays are their type, shape and elements in order; how they lie in memory does not matter, but for Fortran order."""

from __future__ import annotations

import sys
from typing import Any

import numpy

from asyncpar._cache.digests import digest, digest_in_pieces
from asyncpar._cache.forms import Forms, without_form
from asyncpar._cache.layouts import attributes_of

_PIECE = 1 << 17  # elements of an array that is not contiguous, copied at once; a guess
_OF_MAPS = frozenset({"_mmap", "filename", "offset", "mode"})  # attributes that say where an array lies
_OF_MASKS = frozenset({"_mask", "_fill_value", "_sharedmask", "_isfield", "_baseclass", "_basedict", "_optinfo"})
_LONG_DOUBLES = "gG"
_X87_MANTISSA, _X87_BYTES = 63, 10  # bits and bytes of a long double that has 16 bytes; what is in the others is chance


def parts_of(value: Any, forms: Forms) -> object | None:
    """What stands for a value of numpy; None if its pickle does."""
    masked = sys.modules.get("numpy.ma")  # numpy imports it when it is first looked at, which takes 50 ms
    if masked is not None and isinstance(value, masked.MaskedArray):
        if value is masked.masked:
            return "masked"
        extra = _attributes(value, _OF_MASKS)
        return value.data, masked.getmaskarray(value), value.fill_value, extra
    if isinstance(value, numpy.ndarray):
        is_map = forms.tell_maps_apart and isinstance(value, numpy.memmap)
        known = type(value) in (numpy.ndarray, numpy.memmap)
        return is_map, None if known else _attributes(value, _OF_MAPS), parts_of_array(value)
    if isinstance(value, numpy.generic):
        return parts_of_array(numpy.asarray(value))
    if isinstance(value, numpy.dtype):
        return _type_of(value)
    if isinstance(value, numpy.ufunc):
        return _name_of_ufunc(value)
    return None


def same_as(kind: type) -> type:
    """The class whose objects have the same name in a key."""
    return numpy.ndarray if kind is numpy.memmap else kind


def _attributes(value: Any, without: frozenset[str]) -> dict[str, Any]:
    """What a class derived from arrays has added to an array."""
    return {name: held for name, held in attributes_of(value).items() if name not in without}


def _name_of_ufunc(value: Any) -> object:
    """Those of numpy by their names, others with what they take. `numpy.frompyfunc` gives any name to any function."""
    name = value.__name__
    if getattr(numpy, name, None) is value:
        return name
    if any(getattr(module, name, None) is value for module in list(sys.modules.values())):
        return name, value.types
    raise without_form(value, "it has been made by numpy.frompyfunc, and does not say what it computes")


def parts_of_array(array: Any) -> object:
    """Type, shape, whether in Fortran order, and the elements."""
    array = numpy.asarray(array)
    kind = array.dtype
    fortran = bool(array.flags.f_contiguous and not array.flags.c_contiguous)
    head = _type_of(kind), array.shape, fortran
    if kind.names is not None:  # field by field: what lies between them is not content
        return head, [parts_of_array(array[name]) for name in kind.names]
    if kind.hasobject or kind.kind == "T":
        return head, array.ravel().tolist()
    return head, _digest_of(_without_padding(array.T if fortran else array))


def _without_padding(array: Any) -> Any:
    """Only the bytes of long doubles that have a meaning."""
    if array.dtype.char not in _LONG_DOUBLES or numpy.finfo(array.dtype).nmant != _X87_MANTISSA:
        return array
    whole = numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8)
    return whole.reshape(-1, numpy.dtype("g").itemsize)[:, :_X87_BYTES]


def _type_of(kind: Any) -> object:
    if kind.names is not None:
        return [(name, _type_of(kind.fields[name][0])) for name in kind.names]
    if kind.subdtype is not None:
        return _type_of(kind.subdtype[0]), kind.subdtype[1]
    return kind.str if type(kind).__module__.startswith("numpy") else repr(kind)


def _digest_of(array: Any) -> bytes:
    if array.flags.c_contiguous:
        return digest(memoryview(array.reshape(-1).view(numpy.uint8)))
    pieces = numpy.nditer(array, flags=["external_loop", "buffered", "zerosize_ok"], order="C", buffersize=_PIECE)
    return digest_in_pieces((numpy.ascontiguousarray(piece).view(numpy.uint8) for piece in pieces), array.nbytes)
