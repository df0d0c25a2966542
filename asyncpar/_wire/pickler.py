"""The one pickler for values that are not plain: cloudpickle's, except for a few types that it would send in an unusable form.

All pickling by value uses this class or a subclass: elements, functions, exceptions, and the trials of `blame.py`. It is loaded
only when something has to be pickled, because importing cloudpickle takes 30 ms.

- **Code** keeps its file name and its lines (`code_objects.py`).
- **Objects that belong to a process** are refused if pickle would send them and they would mean something else in the receiving
  process (`bound_objects.py`).
- **Context variables** go as the place where they are found (`context_variables.py`).
- **Classes and functions that the other end already has** are written as their number (`definitions.py`).

Pickle asks `reducer_override` about each object that is not built in, so this method decides by the object's type, in 0.1 µs.
What is known of a type is found out once for each pickler, since users add to the tables of cloudpickle and copyreg. A table of
reducers (`dispatch_table`) would take four times as long: pickle looks there in vain for most objects.

# By name

That tenth of a microsecond is a fifth of what a dataclass instance takes. It is spent on classes and functions: only
`reducer_override` sees them before pickle writes their names. So `by_name` makes a twin of a pickler that does without. Its
table has an entry for each type that it meets, so that pickle never looks in vain. It writes every class and function by name,
and fails where pickle would. A name is not enough for what the script defines, whose module nobody else can import. It shows in
the pickle: `names_the_script`. Then, or if the twin fails, the column is pickled again, by the pickler itself, and so are all
that follow it.

To check a name, pickle imports its module. If that is not loaded, because the program has executed its file without a place in
`sys.modules`, this would execute the file again. So the twin fails when it meets an object of such a class.
"""

from __future__ import annotations

import copyreg
import io
import operator
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import cache
from types import CodeType, FunctionType
from typing import Any, ClassVar, TypeAlias

import cloudpickle

from asyncpar._memory.buffers import Buffer
from asyncpar._wire.bound_objects import reduce_text_file, reducer_of_bound
from asyncpar._wire.code_objects import reduce_code
from asyncpar._wire.codec import PROTOCOL as PROTOCOL
from asyncpar._wire.context_variables import reduce_variable
from asyncpar._wire.definitions import Definitions, defined

Reducer: TypeAlias = Callable[[Any], Any]

_inherited: Any = cloudpickle.Pickler.dispatch_table  # a ChainMap over cloudpickle's own and copyreg's
_CLOUDPICKLE: Mapping[type, Reducer] = _inherited.maps[0]
_reduce_by_itself: Reducer = operator.methodcaller("__reduce_ex__", PROTOCOL)  # what pickle does with other objects
_SCRIPT = b"__main__"
_LARGEST_FRAME = 1 << 17  # of a pickle, if no large number is in it; a longer piece may be one large text or buffer
_BY_VALUE = 6  # the length of what cloudpickle returns for a class or a function that it writes by value; others are shorter


def _reduce_code(code: CodeType) -> Any:
    return reduce_code(code) or _CLOUDPICKLE[CodeType](code)


def _reduce_text_file(file: io.TextIOWrapper) -> Any:
    return reduce_text_file(file, _CLOUDPICKLE[io.TextIOWrapper])


def _reduce_definition(_: object) -> Any:
    """Stands for the method of the pickler that reduces classes and functions."""
    raise AssertionError("a pickler does this itself")


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Pickles by reference if another process can import the object, and else by value.

    Attributes:
        definitions: what the other end already has.
        brought: the classes and functions that were written by value, in order.
    """

    own_reducers: ClassVar[Mapping[type, Reducer]] = {
        CodeType: _reduce_code,
        io.TextIOWrapper: _reduce_text_file,
        ContextVar: reduce_variable,
    }
    definitions: Definitions | None = None

    def __init__(self, file: Any, protocol: int = PROTOCOL, buffer_callback: Callable[[Any], object] | None = None) -> None:
        super().__init__(file, protocol, buffer_callback)
        self.brought: list[Any] = []
        self._reducers = _Reducers(self.own_reducers)

    @property
    def dispatch_table(self) -> Any:
        """None of its own, so that pickle looks into copyreg's by itself."""
        raise AttributeError

    def reducer_override(self, obj: Any) -> Any:
        reducer = self._reducers[type(obj)]
        if reducer is None:
            return NotImplemented
        return self._reduce_definition(obj) if reducer is _reduce_definition else reducer(obj)

    def _reduce_definition(self, value: Any) -> Any:
        number = None if self.definitions is None else self.definitions.number(value)
        if number is not None:
            return defined, (number,)
        reduced = super().reducer_override(value)
        if type(reduced) is tuple and len(reduced) == _BY_VALUE:
            self.brought.append(value)
        return reduced


class _Reducers(dict[type, Reducer | None]):
    """{type: its reducer}; None if pickle knows what to do."""

    def __missing__(self, kind: type) -> Reducer | None:
        reducer: Reducer | None
        reducer = _reduce_definition if issubclass(kind, type | FunctionType) else _CLOUDPICKLE.get(kind)
        if reducer is None and kind not in copyreg.dispatch_table:
            reducer = reducer_of_bound(kind)
        self[kind] = reducer
        return reducer


class ByName(pickle.Pickler):
    """Pickles classes and functions by name, always. `brought`: as in `Pickler`; nothing is."""

    own_reducers: ClassVar[Mapping[type, Reducer]] = Pickler.own_reducers
    definitions: Definitions | None = None

    def __init__(self, file: Any, protocol: int = PROTOCOL, buffer_callback: Callable[[Any], object] | None = None) -> None:
        super().__init__(file, protocol, buffer_callback=buffer_callback)
        self.brought: list[Any] = []
        self.dispatch_table = _Table(self.own_reducers)


class _Table(dict[type, Reducer]):
    """{type: its reducer}, for every type that pickle looks up. `found`: how many that were not there before."""

    found = 0

    def __missing__(self, kind: type) -> Reducer:
        reducer = _CLOUDPICKLE.get(kind) or copyreg.dispatch_table.get(kind) or reducer_of_bound(kind)
        if reducer is None:
            _refuse_unless_loaded(kind.__module__)
            reducer = _name_of_class if issubclass(kind, type) else _reduce_by_itself
        self.found += 1
        self[kind] = reducer
        return reducer


def _refuse_unless_loaded(module_name: str) -> None:
    if module_name not in sys.modules:
        raise pickle.PicklingError(f"{module_name} would have to be imported")


def _name_of_class(value: type) -> str:
    """For a class that has a metaclass. A reducer that returns a text means a name."""
    return value.__qualname__


@cache
def by_name(kind: type[Pickler]) -> type[ByName]:
    """The twin of a pickler that pickles by name."""
    return type("ByName", (ByName,), {"own_reducers": kind.own_reducers})


def names_the_script(pieces: Sequence[Buffer]) -> bool:
    """Whether a pickle, as it was written, may have names of the script. (A text in it may also be the script's name.)"""
    return any(_SCRIPT in piece for piece in pieces if type(piece) is bytes and _may_have_names(piece))


def _may_have_names(piece: bytes) -> bool:
    """Large texts and buffers have none, and searching them would take long."""
    return len(piece) <= _LARGEST_FRAME or pickle.FRAME in piece[:3]  # the first frame comes after two bytes: the protocol


def pickler_with(reducers: Mapping[type, Reducer]) -> type[Pickler]:
    """A pickler that has `reducers` in addition."""
    return type("Pickler", (Pickler,), {"own_reducers": {**Pickler.own_reducers, **reducers}})


def dumps(value: object, pickler_class: type[Pickler] = Pickler, definitions: Definitions | None = None) -> bytes:
    """`value` as bytes."""
    with io.BytesIO() as file:
        pickler = pickler_class(file, PROTOCOL)
        pickler.definitions = definitions
        pickler.dump(value)
        return file.getvalue()
