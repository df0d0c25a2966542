"""How a `ContextVar` travels: as the place where it is found, and never as a copy.

A context variable is looked up by its identity, so a copy of one would never have a value. What can be sent is where to find
the variable itself: the attribute of a module that *is* this object. `sys.modules` is searched for it once, a few milliseconds.

- **A variable of a module** that the other end can import is sent as the names of the module and the attribute.
- **A variable of the script**, or of another module whose functions go by value, cannot be imported there. It is sent with a
  number, its own name and its default. The first time that a process reads a number, it makes the variable, and keeps it. So a
  worker has one object for each variable of the program: the one that functions see in their globals, and the one that
  `contextvars=` of an executor gives a value. It goes back as the same number, and is the program's own variable there. A
  variable that a notebook cell has made anew is another one, as it is at home. So is one that a module had before it was
  reloaded.
- **Any other variable**, in a class, a list or a closure only, is refused.

A module may have imported a variable from another one, and then either name is right. The script comes last.
"""

from __future__ import annotations

import os
import sys
from contextvars import Context, ContextVar
from importlib import import_module
from pickle import PicklingError
from typing import Any, NamedTuple

from asyncpar._basics.locking import ModuleLock

_SCRIPT = frozenset({"__main__", "__mp_main__"})


class Home(NamedTuple):
    """Where a variable is found."""

    module: str
    name: str


_homes: dict[ContextVar[Any], Home] = {}  # of those that have been searched for; variables live as long as a program, usually
_numbers: dict[ContextVar[Any], int] = {}  # of those that are, or have been, sent with a number
_made: set[ContextVar[Any]] = set()  # those that are another process's, and were made here
_by_number: dict[int, ContextVar[Any]] = {}
_numbering = ModuleLock()


def home_of(variable: ContextVar[Any]) -> Home | None:
    """Where it is found; None if it is in no module."""
    home = _homes.get(variable)
    if home is None:
        home = _search(variable)
        if home is not None:
            _homes[variable] = home
    return home


def _search(variable: ContextVar[Any]) -> Home | None:
    modules = sorted(sys.modules.copy().items(), key=lambda item: item[0] in _SCRIPT)
    for module_name, module in modules:
        for name, value in _attributes_of(module).items():
            if value is variable:
                return Home(module_name, name)
    return None


def _attributes_of(module: object) -> dict[str, Any]:
    """A copy of them, since other threads import meanwhile. A module that is to be loaded at its first use is not loaded."""
    try:
        attributes: dict[str, Any] = object.__getattribute__(module, "__dict__")
    except AttributeError:  # users put anything into `sys.modules`
        return {}
    return attributes.copy()


def can_travel(variable: ContextVar[Any]) -> bool:
    """Whether another process can find it, or be told of it."""
    return variable in _made or home_of(variable) is not None


def reduce_variable(variable: ContextVar[Any]) -> Any:
    """For picklers.

    Raises:
        PicklingError: it is in no module.
    """
    if variable not in _made:
        home = home_of(variable)
        if home is None:
            raise PicklingError("it is not an attribute of any module; make it one, where others can find it")
        if home.module not in _SCRIPT and not _goes_by_value(home.module) and _is_there(variable, home):
            return imported, home
    return numbered, (_number_of(variable), variable.name, _default_of(variable))


def _is_there(variable: ContextVar[Any], home: Home) -> bool:
    """Whether it is still found at its home. A module that has been reloaded has another one of that name."""
    return getattr(sys.modules.get(home.module), home.name, None) is variable


def imported(module_name: str, name: str) -> Any:
    """The variable of a module. Pickles contain calls of this function."""
    return getattr(import_module(module_name), name)


def numbered(number: int, name: str, default: tuple[Any, ...]) -> ContextVar[Any]:
    """The variable of this number, made at first need. Pickles contain calls of this function.

    `default`: of the variable, or nothing.
    """
    with _numbering:
        variable = _by_number.get(number)
        if variable is None:
            made: ContextVar[Any] = ContextVar(name, default=default[0]) if default else ContextVar(name)
            variable = _by_number[number] = made
            _numbers[variable] = number
            _made.add(variable)
        return variable


def _number_of(variable: ContextVar[Any]) -> int:
    with _numbering:
        number = _numbers.get(variable)
        if number is None:
            number = int.from_bytes(os.urandom(8), "big")  # a worker meets the variables of several programs, or of its own
            _by_number[number] = variable
            _numbers[variable] = number
        return number


def _default_of(variable: ContextVar[Any]) -> tuple[Any, ...]:
    try:
        return (Context().run(variable.get),)
    except LookupError:
        return ()


def _goes_by_value(module_name: str) -> bool:
    """Whether functions of the module are sent by value: users say so to cloudpickle, and so do maps within an import."""
    cloudpickle = sys.modules.get("cloudpickle")
    by_value: set[str] = set() if cloudpickle is None else cloudpickle.list_registry_pickle_by_value()
    return any(f"{module_name}.".startswith(f"{name}.") for name in by_value)
