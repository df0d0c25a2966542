"""What stands for an object in a key: a name, and parts that are simpler than the object.

First come the rules that users register, then those for types that Python or the libraries take apart in different ways from
version to version (paths, enums, fractions, arrays, tables), then functions, which are more than their names, and dataclasses.
Last comes what the object's own pickling says: its class, its arguments and its state. That is content too, without the
references that make pickles unstable, but it is the class that decides what is in it, so `strict=True` refuses it.

A dataclass may be more than its fields: a dict, an exception, or a class with slots below it. So its fields stand for it only
if the memory of its objects has room for attributes and nothing else, and if it is pickled in the ordinary way (`layouts.py`).

A class is its name, if it can be found by that. One that was made in a function is not (`classes.py`).

Rules for numpy, pandas and pyarrow are loaded when a value of theirs is met. Rules call what others have written, which may
raise anything; then the value has no form.
"""

from __future__ import annotations

import copyreg
import dataclasses
import enum
import functools
import importlib
import pathlib
import re
import types
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeAlias

from asyncpar._cache.classes import name_or_class, parts_of_class
from asyncpar._cache.digests import digest
from asyncpar._cache.forms import Forms, UnstableValueError, without_form
from asyncpar._cache.layouts import attributes_of, has_only_attributes

Rule: TypeAlias = Callable[[Any], object]

_PROTOCOL = 4
_LIBRARIES = {"numpy": "array_parts", "pandas": "frame_parts", "pyarrow": "arrow_parts"}
_registered: dict[type, Rule] = {}


def register_hasher(kind: type, function: Callable[[Any], object]) -> None:
    """Says what stands for the objects of a class, and of its subclasses, in the keys of a cache.

    Two objects of the same class with equal stand-ins have the same key. A later registration for the same class replaces the
    earlier one. Register in each process that makes keys, best beside the class.

    Args:
        kind: the class.
        function: is called with an object, and returns whatever decides what calls make of it: a tuple of numbers, texts,
            arrays, and other values that have keys.

    Raises:
        TypeError: `kind` is not a class, or `function` cannot be called.

    Example:
        >>> class Model:
        ...     def __init__(self, path):
        ...         self.path, self.handle = path, open(path, "rb")
        >>> register_hasher(Model, lambda model: model.path)
    """
    if not isinstance(kind, type):
        raise TypeError(f"register_hasher takes a class first, not {kind!r:.200}")
    if not callable(function):
        raise TypeError(f"register_hasher takes a function second, not {function!r:.200}")
    _registered[kind] = function


def parts_of(value: Any, forms: Forms) -> tuple[object, object]:
    """A name, which tells kinds of objects apart, and what is in the object.

    Raises:
        UnstableValueError: nothing can stand for it.
    """
    try:
        return _parts_of(value, forms)
    except (UnstableValueError, RecursionError):
        raise
    except Exception as error:
        raise without_form(value, f"taking it apart raises {type(error).__name__}: {error}") from error


def _parts_of(value: Any, forms: Forms) -> tuple[object, object]:
    kind = type(value)
    rule = _registered_rule(kind) or _EXACT.get(kind) or _BY_NAME.get((kind.__module__, kind.__qualname__))
    if rule is not None:
        return name_or_class(kind), rule(value)
    for base in kind.__mro__[:-1]:
        library = _LIBRARIES.get(str(base.__module__).partition(".")[0])
        if library is not None:
            rules = importlib.import_module(f"asyncpar._cache.{library}")
            parts = rules.parts_of(value, forms)
            if parts is not None:
                return name_or_class(rules.same_as(kind)), parts
    for base, rule in _BASES:
        if isinstance(value, base):
            return name_or_class(kind), rule(value)
    if getattr(kind, "__wrapped_by_asyncpar__", False):
        return _parts_of(value.func, forms)
    state = _declared_state(value, kind)
    if state is not None:
        return name_or_class(kind), state
    return _pickled_parts(value, forms)


def _registered_rule(kind: type) -> Rule | None:
    return next((_registered[base] for base in kind.__mro__ if base in _registered), None) if _registered else None


def _declared_state(value: Any, kind: type) -> object | None:
    """What is in an object whose class declares its fields, and whatever else has been set on it; None if it declares none, or
    if there may be more in it.
    """
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(value)]
    elif (attributes := getattr(kind, "__attrs_attrs__", None)) is not None:
        names = [attribute.name for attribute in attributes]
    elif hasattr(kind, "__pydantic_fields__"):
        state: dict[str, Any] = value.__getstate__()
        return state
    elif isinstance(value, tuple) and hasattr(kind, "_fields"):
        return tuple.__getitem__(value, slice(None)), getattr(value, "__dict__", None)
    else:
        return None
    if not has_only_attributes(kind):
        return None
    fields = {name: getattr(value, name) for name in names if hasattr(value, name)}
    return fields | _without_cached(kind, attributes_of(value))


def _without_cached(kind: type, state: dict[Any, Any]) -> dict[Any, Any]:
    """The attributes without those that a `functools.cached_property` has computed from the others."""
    cached = _cached_properties(kind)
    return {name: held for name, held in state.items() if name not in cached} if cached else state


@functools.lru_cache(maxsize=1024)
def _cached_properties(kind: type) -> frozenset[str]:
    found = (name for base in kind.__mro__ for name, held in vars(base).items() if isinstance(held, functools.cached_property))
    return frozenset(found)


def _pickled_parts(value: Any, forms: Forms) -> tuple[object, object]:
    kind = type(value)
    if isinstance(value, type):
        return "class", parts_of_class(value, forms)
    try:
        reducer = copyreg.dispatch_table.get(kind)
        reduced = value.__reduce_ex__(_PROTOCOL) if reducer is None else reducer(value)
    except Exception as error:
        raise without_form(value, f"it cannot be pickled ({error})") from error
    if isinstance(reduced, str):
        name = getattr(value, "__module__", None), reduced
        wraps = getattr(value, "__wrapped__", None)  # `functools.lru_cache` pickles by name, but the function may change
        return "global", name if wraps is None else (name, wraps)
    if forms.strict:
        raise without_form(value, "only its pickle says what is in it, and strict=True refuses that")
    described: tuple[Any, ...] = (*reduced, None, None, None)
    function, arguments, state, items, pairs = described[:5]
    if isinstance(state, dict):
        state = _without_cached(kind, state)
    held = None if pairs is None else (list if isinstance(value, OrderedDict) else dict)(pairs)
    content = _name_of_rebuilder(function), arguments, state, None if items is None else list(items), held
    return "object", (name_or_class(kind), *content)


def _name_of_rebuilder(function: Any) -> object:
    """What makes the object from its parts, by its name: its code is that of a library, and changes from version to version.
    A name is not enough for a method, which may be that of any class, and for a function that was made in another.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if module is None or name is None or "<locals>" in name or isinstance(function, types.MethodType):
        return function
    return module, name


def _name_of_builtin(value: Any) -> object:
    owner = value.__self__
    inside = None if owner is None or isinstance(owner, types.ModuleType) else owner
    return value.__module__, value.__qualname__, inside


def _function(value: Any) -> object:
    from asyncpar._cache.functions import form_of_function  # which makes forms of what a function refers to

    return form_of_function(value)


def _bytes(value: Any) -> object:
    view = memoryview(value)
    return digest(view.cast("B") if view.c_contiguous and view.nbytes else view.tobytes())


def _members(value: Any) -> object:
    """What is in a set of a class of its own, whose pickles list them in any order."""
    return frozenset(value), attributes_of(value)


def _path(value: Any) -> object:
    held = getattr(value, "__dict__", None)  # only that of a class of its own
    return (str(value), held) if held else str(value)


_EXACT: dict[type, Rule] = {
    bytearray: _bytes,
    memoryview: lambda value: (value.format, value.shape, _bytes(value)),
    range: lambda value: (value.start, value.stop, value.step),
    slice: lambda value: (value.start, value.stop, value.step),
    type(...): lambda value: None,
    type(NotImplemented): lambda value: None,
    re.Pattern: lambda value: (value.pattern, value.flags),
    types.FunctionType: _function,
    types.MethodType: lambda value: (value.__func__, value.__self__),
    types.BuiltinFunctionType: _name_of_builtin,
    types.WrapperDescriptorType: lambda value: (value.__objclass__, value.__name__),
    types.MethodDescriptorType: lambda value: (value.__objclass__, value.__name__),
    types.MethodWrapperType: lambda value: (value.__self__, value.__name__),
    types.ClassMethodDescriptorType: lambda value: (value.__objclass__, value.__name__),
    types.ModuleType: lambda value: value.__name__,
    types.MappingProxyType: dict,
    types.SimpleNamespace: lambda value: vars(value),
    types.GenericAlias: lambda value: (value.__origin__, value.__args__),
    functools.partial: lambda value: (value.func, value.args, value.keywords),
    OrderedDict: lambda value: list(value.items()),
}
_BY_NAME: dict[tuple[str, str], Rule] = {  # so that they need not be imported
    ("datetime", "date"): lambda value: value.isoformat(),
    ("datetime", "time"): lambda value: (value.isoformat(), value.fold, value.tzinfo),
    ("datetime", "datetime"): lambda value: (value.replace(tzinfo=None).isoformat(), value.fold, value.tzinfo),
    ("datetime", "timedelta"): lambda value: (value.days, value.seconds, value.microseconds),
    ("datetime", "timezone"): lambda value: (value.utcoffset(None), value.tzname(None)),
    ("zoneinfo", "ZoneInfo"): lambda value: value.key or value.__reduce__(),
    ("decimal", "Decimal"): str,
    ("fractions", "Fraction"): lambda value: (value.numerator, value.denominator),
    ("uuid", "UUID"): lambda value: value.int,
}
_BASES: tuple[tuple[type, Rule], ...] = (
    (enum.Enum, lambda value: (value.name, value.value)),
    (pathlib.PurePath, _path),
    (set, _members),
    (frozenset, _members),
)
