"""What an interpreter is shown of the program's memory, instead of a copy.

Pickle hands out the large buffers of arguments. For a process they are copied into shared memory; an interpreter can look at
them where they lie. numpy cannot be loaded in an interpreter, so an array arrives there as a `memoryview` of its items, with
its shape, and a numpy scalar as a number of Python. A `memoryview` itself, which pickle refuses, travels in the same way, in
both directions.

An array or a view whose items have no format that `memoryview.cast` knows (dates, complex numbers, structures, objects) is
refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pickle import PickleBuffer, PicklingError
from typing import Any

from asyncpar._basics.loaded import loaded_numpy
from asyncpar._memory.buffers import Buffer, Elsewhere
from asyncpar._wire.pace import Breaths, join

_FORMATS = frozenset("?bBcdefhHiIlLnNPqQ")  # of items, to which a memoryview can be cast


class View(Elsewhere):
    """Memory that is going to be shown to an interpreter. It is kept until then. `was_there`: it was not made for that."""

    def __init__(self, data: Buffer, *, was_there: bool = True) -> None:
        super().__init__(was_there=was_there)
        self.data = memoryview(data).cast("B")

    def __len__(self) -> int:
        return len(self.data)


class ViewPlacer:
    """Shows buffers of `threshold` bytes or more. There is always room for that."""

    holds_results = False
    shows_views = True
    has_copied = False

    def __init__(self, threshold: int) -> None:
        self.threshold = threshold

    def find(self, data: memoryview, /) -> View:
        return View(data)

    __call__ = find

    def copy(self, pieces: Sequence[Buffer], /) -> View:
        return View(join(list(pieces), Breaths()), was_there=False)

    def forget(self) -> None:
        """Nothing is remembered."""


def as_plain_column(array: Any) -> list[Any]:
    """The elements of an array that is a column: numbers, or rows."""
    elements: list[Any] = array.tolist() if array.ndim == 1 else list(array)
    return elements


def view_pickler() -> Any:
    return _view_pickler(has_numpy=loaded_numpy() is not None)


@cache
def _view_pickler(*, has_numpy: bool) -> Any:
    from asyncpar._wire.pickler import Reducer, pickler_with

    reducers: dict[type, Reducer] = {memoryview: _reduce_view}
    numpy = loaded_numpy()
    if has_numpy and numpy is not None:
        reducers[numpy.ndarray] = reducers[numpy.memmap] = _reduce_array
        reducers.update({kind: _reduce_scalar for kind in numpy.sctypeDict.values() if numpy.dtype(kind).char in _FORMATS})
    return pickler_with(reducers)


def _reduce_view(view: memoryview) -> Any:
    if view.format not in _FORMATS:
        raise PicklingError(
            f"a memoryview of items of the format {view.format!r} cannot be shown in an interpreter; "
            "send its bytes, view.cast('B'), and cast them there"
        )
    if not view.c_contiguous:
        return shown, (PickleBuffer(view.tobytes()), view.format, view.shape)
    return shown, (PickleBuffer(view), view.format, view.shape)


def _reduce_array(array: Any) -> Any:
    view_of: Callable[[Any], memoryview] = memoryview
    try:
        view = view_of(array if array.flags.c_contiguous else array.copy("C"))
    except (BufferError, ValueError):  # dates have no buffer
        view = None
    if view is None or view.format not in _FORMATS or not array.dtype.isnative:
        raise PicklingError(
            f"an array of {array.dtype} cannot be shown in an interpreter, where numpy is not available; "
            'send one of numbers, or use executor="process"'
        )
    return _reduce_view(view)


def _reduce_scalar(scalar: Any) -> Any:
    return _itself, (scalar.item(),)


def shown(data: Any, item: Any, shape: tuple[int, ...]) -> memoryview:
    """What arrives instead of an array or a view, whose items have the format `item`."""
    flat = memoryview(data).cast("B")
    return flat.cast(item, shape) if flat.nbytes else flat


def _itself(value: Any) -> Any:
    return value
