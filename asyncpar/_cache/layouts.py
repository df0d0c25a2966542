"""What is in an object besides its attributes: nothing, if its class is written in Python, and has no base that is not.

A class below may be a dict, an exception, or one of a library, and keep its content where Python code does not see it. The
pickling of CPython compares sizes to find out, and so does this: an object without hidden content is as large as a bare one,
and one pointer more for each slot, and for the dict and the list of weak references unless these lie before it.
"""

from __future__ import annotations

import functools
import struct
from typing import Any

_POINTER = struct.calcsize("P")
_HAS_WEAK_REFERENCES_BEFORE, _HAS_DICT_BEFORE = 1 << 3, 1 << 4  # in the flags of a class
_PICKLING = ("__reduce__", "__reduce_ex__", "__getstate__", "__getnewargs__", "__getnewargs_ex__")
_GENERATED = ("_dataclass_getstate", "slots_getstate")  # by dataclasses and attrs, for classes with slots


@functools.lru_cache(maxsize=1024)
def has_only_attributes(kind: type) -> bool:
    """Whether objects of a class have nothing but attributes, and pickle these in the ordinary way."""
    methods = (vars(base)[name] for base in kind.__mro__[:-1] for name in _PICKLING if name in vars(base))
    if any(getattr(method, "__name__", None) not in _GENERATED for method in methods):
        return False
    slots = sum(len(_own_slots(base)) for base in kind.__mro__)
    pointers = (
        slots
        + bool(kind.__dictoffset__ and not kind.__flags__ & _HAS_DICT_BEFORE)
        + bool(kind.__weakrefoffset__ and not kind.__flags__ & _HAS_WEAK_REFERENCES_BEFORE)
    )
    return kind.__itemsize__ == 0 and kind.__basicsize__ <= object.__basicsize__ + pointers * _POINTER


def attributes_of(value: Any) -> dict[Any, Any]:
    """The attributes that are set on an object, in its dict and in its slots."""
    found = dict(getattr(value, "__dict__", ()))
    for base in type(value).__mro__:
        for name in _own_slots(base):
            if hasattr(value, name):
                found[name] = getattr(value, name)
    return found


def _own_slots(kind: type) -> list[str]:
    """The names of the slots that a class itself has, as they are written in its dict."""
    names = vars(kind).get("__slots__", ())
    names = [names] if isinstance(names, str) else names
    written = (_mangled(name, kind) for name in names)
    return [name for name in written if name not in ("__dict__", "__weakref__")]


def _mangled(name: str, kind: type) -> str:
    owner = kind.__name__.lstrip("_")
    return f"_{owner}{name}" if owner and name.startswith("__") and not name.endswith("__") else name
