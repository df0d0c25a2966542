"""The one pickler for values that are not plain: cloudpickle's, except for a few types that it would send in an unusable form.

All pickling by value uses this class or a subclass: elements, functions, exceptions, and the trials of `blame.py`. It is loaded
only when something has to be pickled, because importing cloudpickle takes 30 ms.

- **Code** keeps its file name and its lines (`code_objects.py`).
- **Objects that belong to a process** are refused if pickle would send them and they would mean something else in the receiving
  process (`bound_objects.py`).

The table of reducers looks into those of cloudpickle and copyreg each time, since users add to them. It is asked about each
object that is not built in. With a `__missing__`, it is no slower than the `ChainMap` of cloudpickle's own pickler, which does
less.
"""

from __future__ import annotations

import copyreg
import io
from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any, ClassVar, TypeAlias

import cloudpickle

from asyncpar._wire.bound_objects import reduce_text_file, reducer_of_bound
from asyncpar._wire.code_objects import reduce_code

PROTOCOL = 5
Reducer: TypeAlias = Callable[[Any], Any]

_inherited: Any = cloudpickle.Pickler.dispatch_table  # a ChainMap over cloudpickle's own and copyreg's
_CLOUDPICKLE: Mapping[type, Reducer] = _inherited.maps[0]


class Reducers(dict[type, Reducer]):
    """{type: its reducer}; a KeyError if objects of the type reduce themselves."""

    def __missing__(self, kind: type) -> Reducer:
        reducer = _CLOUDPICKLE.get(kind) or copyreg.dispatch_table.get(kind) or reducer_of_bound(kind)
        if reducer is None:
            raise KeyError(kind)
        return reducer


def _reduce_code(code: CodeType) -> Any:
    return reduce_code(code) or _CLOUDPICKLE[CodeType](code)


def _reduce_text_file(file: io.TextIOWrapper) -> Any:
    return reduce_text_file(file, _CLOUDPICKLE[io.TextIOWrapper])


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Pickles by reference if another process can import the object, and else by value."""

    dispatch_table: ClassVar[Reducers] = Reducers({CodeType: _reduce_code, io.TextIOWrapper: _reduce_text_file})


def pickler_with(reducers: Mapping[type, Reducer]) -> type[Pickler]:
    """A pickler that has `reducers` in addition."""
    table = Reducers({**Pickler.dispatch_table, **reducers})
    return type("Pickler", (Pickler,), {"dispatch_table": table})


def dumps(value: object, pickler_class: type[Pickler] = Pickler) -> bytes:
    """`value` as bytes."""
    with io.BytesIO() as file:
        pickler_class(file, PROTOCOL).dump(value)
        return file.getvalue()
