"""numpy: arrays are their type, shape and elements in order; how they lie in memory does not matter, but for Fortran order."""

from __future__ import annotations

import sys
from typing import Any

import numpy

from asyncpar._cache.digests import digest, digest_in_pieces
from asyncpar._cache.forms import Forms

_PIECE = 1 << 17  # elements of an array that is not contiguous, copied at once; a guess


def parts_of(value: Any, forms: Forms) -> object | None:
    """What stands for a value of numpy; None if its pickle does."""
    masked = sys.modules.get("numpy.ma")  # numpy imports it when it is first looked at, which takes 50 ms
    if masked is not None and isinstance(value, masked.MaskedArray):
        return value.data, masked.getmaskarray(value), value.fill_value
    if isinstance(value, numpy.ndarray):
        is_map = forms.tell_maps_apart and isinstance(value, numpy.memmap)
        known = type(value) in (numpy.ndarray, numpy.memmap)
        extra = None if known else {name: held for name, held in vars(value).items() if not name.startswith("_")}
        return is_map, extra, parts_of_array(value)
    if isinstance(value, numpy.generic):
        return parts_of_array(numpy.asarray(value))
    if isinstance(value, numpy.dtype):
        return _type_of(value)
    if isinstance(value, numpy.ufunc):
        return value.__name__
    return None


def same_as(kind: type) -> type:
    """The class whose objects have the same name in a key."""
    return numpy.ndarray if kind is numpy.memmap else kind


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
    return head, _digest_of(array.T if fortran else array)


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
