"""What stands for a class in a key: its name, if that leads to it, and else its content.

A class that is made in a function has the same name each time, and may be another each time: it closes over variables, or its
bases are arguments. Of such a class, its functions and its constants count, and so do its bases. What has no form, such as the
descriptors that C code makes, counts by its class.

Classes of the main program go by their name even where they cannot be found, because a worker has them by value.
"""

from __future__ import annotations

import functools
import pathlib
import sys
from types import FunctionType, MemberDescriptorType
from typing import Any

from asyncpar._cache.forms import SCALARS, Forms, UnstableValueError

_ON_THE_HEAP = 1 << 9  # in the flags of a class: it was made by Python code, or by newer C code
_UNWRAPPED = {staticmethod: "__func__", classmethod: "__func__", functools.cached_property: "func"}


def class_name(kind: type) -> str:
    """The class as a name that is the same in every version of Python."""
    if issubclass(kind, pathlib.PurePath):
        return f"pathlib.{kind.__qualname__}" if str(kind.__module__).startswith("pathlib") else kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def name_or_class(kind: type) -> object:
    """The name of a class; the class itself, whose content counts, if the name does not lead to it."""
    return class_name(kind) if _has_a_name(kind) else kind


def parts_of_class(kind: type, forms: Forms) -> object:
    """What stands for a class that is an argument, or in one."""
    return class_name(kind) if _has_a_name(kind) else content_of_class(kind, forms)


def content_of_class(kind: type, forms: Forms) -> object:
    """The name, the bases, and what the body of the class has defined."""
    members = {name: _member(held, forms) for name, held in vars(kind).items() if _counts(name, held)}
    return class_name(kind), [name_or_class(base) for base in kind.__bases__], members


def _has_a_name(kind: type) -> bool:
    if "<locals>" in kind.__qualname__:
        return False
    module = sys.modules.get(kind.__module__)
    if module is None or kind.__module__ == "__main__" or not _is_written_in_python(kind):
        return True
    found: Any = module
    for name in kind.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is kind


def _is_written_in_python(kind: type) -> bool:
    """Classes of C code may lie about where they are found."""
    return bool(kind.__flags__ & _ON_THE_HEAP) and ("__dict__" in vars(kind) or "__slots__" in vars(kind))


def _counts(name: str, held: object) -> bool:
    """Not what Python or a library notes down about the class, and not what is the same for each class."""
    if name == "__slots__":
        return True
    return isinstance(held, FunctionType) if name.startswith("__") and name.endswith("__") else name != "_abc_impl"


def _member(held: Any, forms: Forms) -> object:
    kind = type(held)
    if kind in SCALARS:
        return held
    if kind is property:
        return "property", _member(held.fget, forms), _member(held.fset, forms)
    if kind in _UNWRAPPED:
        return class_name(kind), _member(getattr(held, _UNWRAPPED[kind]), forms)
    if kind is MemberDescriptorType:
        return class_name(kind)
    try:
        return "form", forms.form(held)
    except UnstableValueError:
        return class_name(kind)
