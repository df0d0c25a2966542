"""The parts that pickle sees in an object, each with the expression that leads to it.

Pickle asks how to take an object apart: cloudpickle's reducers, copyreg, `__reduce_ex__`. This module asks in the same order,
so a part is something that really is pickled: a lock that `__getstate__` drops is not a part. A part is then named after the
attribute that holds it, found by identity. Users know a partial by `.func` and `.args`, and not as (type, (func,), (func, args,
...)). A part that no attribute holds, because `__getstate__` or `__reduce__` made it, is named after that call:
`.__getstate__()['lock']`.

Evaluated in Python, a path leads to its part, with one exception: `.__closure__['lock']` says more to a reader than
`.__closure__[0].cell_contents`, which it represents.

Everything here may raise whatever the methods of the user's objects raise, and callers must expect that.
"""

import copyreg
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import CellType, FunctionType, GetSetDescriptorType, MemberDescriptorType
from typing import Any, NamedTuple

from asyncpar._wire.codec import PROTOCOL
from asyncpar._wire.pickler import Pickler

_LONGEST_KEY = 60  # characters; the entry of a longer key is named by its position

# Descriptors that read the __slots__ of a Python class, and attributes of a built-in type (a partial's `func`, a method's
# `__self__`).
_READERS = (MemberDescriptorType, GetSetDescriptorType)
_UNWRAPPED_BY_GETATTR = (staticmethod, classmethod, property)


class Parts(NamedTuple):
    """Some parts of an object; `path(path of the object, index)` is the path of one of them."""

    values: Sequence[object]
    path: Callable[[str, int], str]


def parts_of(value: Any) -> Iterator[Parts]:
    """Everything that is pickled with `value`, the parts that a reader likely knows first; nothing if it is sent by name."""
    kind = type(value)
    if kind is dict:
        yield from _parts_of_mapping(value)
    elif kind is list or kind is tuple:
        yield Parts(value, _indexed)
    elif kind is set or kind is frozenset:
        yield Parts(list(value), _listed)
    elif (reduced := _reduce(value)) is not None:
        yield from (_parts_of_function if kind is FunctionType else _parts_of_object)(value, reduced)


def _reduce(value: object) -> tuple[Any, ...] | None:
    """What pickle writes for `value` (a callable, its arguments and so on); None if it writes a name."""
    kind = type(value)
    pickler = Pickler(io.BytesIO(), PROTOCOL)
    reduced = pickler.reducer_override(value)
    if reduced is NotImplemented:
        if kind is FunctionType or issubclass(kind, type):
            return None
        reducer = copyreg.dispatch_table.get(kind)
        reduced = value.__reduce_ex__(PROTOCOL) if reducer is None else reducer(value)
    return reduced if isinstance(reduced, tuple) else None


def _parts_of_object(owner: object, reduced: tuple[Any, ...]) -> Iterator[Parts]:
    arguments = reduced[1]
    state, items, pairs = (*reduced[2:], None, None, None)[:3]
    for parts in _parts_of_state(state):
        yield _held(owner, parts, _state_path(type(owner)))
    if items is not None:
        yield Parts(list(items), _indexed)
    if pairs is not None:
        yield from _parts_of_mapping(dict(pairs))
    yield _held(owner, Parts(arguments, _indexed), f".__reduce_ex__({PROTOCOL})[1]")
    yield _held(owner, Parts(reduced[:1], _indexed), f".__reduce_ex__({PROTOCOL})")


def _parts_of_state(state: object) -> Iterator[Parts]:
    match state:
        case None:
            pass
        case dict():
            yield from _parts_of_mapping(state)
        case ((None | dict()), dict()):  # of an object with __slots__: (its __dict__, its slots)
            for half, attributes in enumerate(state):
                for parts in _parts_of_mapping(attributes or {}):
                    yield _below(f"[{half}]", parts)
        case list() | tuple():
            yield Parts(state, _indexed)
        case _:
            yield Parts((state,), lambda path, _: path)


def _parts_of_mapping(mapping: Mapping[Any, object]) -> Iterator[Parts]:
    keys = list(mapping)

    def path_of_value(path: str, index: int) -> str:
        key = _literal(keys[index])
        return f"list({path}.values())[{index}]" if key is None else f"{path}[{key}]"

    yield Parts(list(mapping.values()), path_of_value)
    yield Parts(keys, _listed)


def _parts_of_function(function: FunctionType, reduced: tuple[Any, ...]) -> Iterator[Parts]:
    """The parts of a function that is pickled by value, with the globals that its code mentions."""
    slots: dict[str, Any] = reduced[2][1]
    closure = dict(_filled_cells(function.__code__.co_freevars, function.__closure__ or ()))
    members = {"__closure__": closure, "__globals__": slots["__globals__"]}
    members |= {name: slots[name] for name in ("__defaults__", "__kwdefaults__", "__annotations__")}
    members["__dict__"] = function.__dict__
    names = list(members)
    yield Parts(list(members.values()), lambda path, index: f"{path}.{names[index]}")


def _filled_cells(names: Iterable[str], cells: Iterable[CellType]) -> Iterator[tuple[str, object]]:
    for name, cell in zip(names, cells, strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # the variable has no value yet
            continue


def _held(owner: object, parts: Parts, origin: str) -> Parts:
    """`parts`, named by the attributes of `owner` that hold them; parts that no attribute holds are named after `origin`."""

    def path(owner_path: str, index: int) -> str:
        step = next(_steps_to(owner, parts.values[index]), None)
        return parts.path(owner_path + origin, index) if step is None else owner_path + step

    return Parts(parts.values, path)


def _steps_to(owner: object, part: object) -> Iterator[str]:
    """Where in `owner` this object itself is found."""
    for name, held in getattr(owner, "__dict__", {}).items():
        if held is part:
            is_itself = name.isidentifier() and type(held) not in _UNWRAPPED_BY_GETATTR
            yield f".{name}" if is_itself else f".__dict__[{name!r}]"
    for name in (*getattr(type(owner), "_fields", ()), *_names_read(type(owner))):
        if _read(owner, name) is part:
            yield f".{name}"
    prefix, elements = (".args", owner.args) if isinstance(owner, BaseException) else ("", owner)
    if isinstance(elements, tuple):
        yield from (f"{prefix}[{index}]" for index, element in enumerate(elements) if element is part)


def _names_read(kind: type) -> Iterator[str]:
    """Attributes that can be read without running Python code, as a property or a `__getattr__` would."""
    for cls in kind.__mro__:
        yield from (name for name, reader in vars(cls).items() if type(reader) in _READERS)


def _read(owner: object, name: str) -> object:
    try:
        return getattr(owner, name)
    except Exception:  # a slot that was never filled
        return None


def _state_path(kind: type) -> str:
    methods: tuple[object, object] = kind.__reduce_ex__, kind.__reduce__
    standard = methods == (object.__reduce_ex__, object.__reduce__)
    return ".__getstate__()" if standard else f".__reduce_ex__({PROTOCOL})[2]"


def _below(step: str, parts: Parts) -> Parts:
    return Parts(parts.values, lambda path, index: parts.path(path + step, index))


def _indexed(path: str, index: int) -> str:
    return f"{path}[{index}]"


def _listed(path: str, index: int) -> str:
    return f"list({path})[{index}]"


def _literal(key: object) -> str | None:
    """`key` as source text, if it is short."""
    if type(key) is str or type(key) is bytes:
        return repr(key) if len(key) <= _LONGEST_KEY else None
    return repr(key) if type(key) is int and abs(key) < 1 << 64 else None
