"""Imports for the child's side, even if the user has modules with names of the standard library.

A worker has the import path of its program, in which the directory of the script comes first. If that contains a `resource.py`
or a `queue.py`, the user's code gets it when it imports `resource` or `queue`, in a worker as in the program. asyncpar itself
still needs the modules of the standard library:

- The zygote imports what every worker needs before it adopts the program's path.
- Modules that few workers need are imported by `import_own`. In its thread, it finds such names in the standard library only.
- Afterwards, standard modules whose names the program would find elsewhere are removed from `sys.modules`: asyncpar keeps those
  that it has, and the user's code gets its own. A module that the program has already loaded from the standard library would
  not be looked for again there, so a worker keeps it too (`settled_modules`).

Refused: importing everything that may ever be needed beforehand. asyncio alone takes as long as the zygote's whole start.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_LIBRARY = os.__file__.rpartition(os.sep)[0]
_EXTENSIONS = f"{_LIBRARY}{os.sep}lib-dynload"
STANDARD_PATH = [_LIBRARY, _EXTENSIONS]

_settled: frozenset[str] = frozenset()


def settled_modules() -> list[str]:
    """In the program: the names that any import resolves to the standard library."""
    return [name for name in sys.stdlib_module_names if name in sys.modules and _is_standard(name, sys.modules[name])]


def take_on_path(path: Sequence[str], settled: Iterable[str]) -> None:
    """Adopts the program's path. From now on, an import means the same here as in the program."""
    global _settled
    _settled = frozenset(settled)
    sys.path[:] = path
    _make_way(sys.modules)


def import_own(name: str) -> Any:
    """Imports a module of asyncpar. What it imports comes from the standard library, or from asyncpar."""
    if name in sys.modules:
        return sys.modules[name]
    before = set(sys.modules)
    finder = _StandardOnly(threading.get_ident())
    sys.meta_path.insert(0, finder)
    try:
        return importlib.import_module(name)
    finally:
        sys.meta_path.remove(finder)
        # A package may import more of itself later, and the user's coroutines run in asyncio
        _make_way(name for name in sys.modules.keys() - before if not hasattr(sys.modules[name], "__path__"))


class _StandardOnly:
    def __init__(self, thread: int) -> None:
        self._thread = thread

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if threading.get_ident() != self._thread or name not in sys.stdlib_module_names or name in sys.builtin_module_names:
            return None
        spec = PathFinder.find_spec(name, STANDARD_PATH)
        if spec is None:  # a module of another system, imported on trial: the user's module is not meant
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return spec


def _make_way(loaded: Iterable[str]) -> None:
    for name in [name for name in loaded if name in sys.stdlib_module_names and name not in _settled]:
        origin = _file_of(getattr(sys.modules[name], "__spec__", None))
        if origin is None:  # built in or frozen: no path is looked at
            continue
        found = _file_of(PathFinder.find_spec(name))
        if found is not None and found != origin and os.path.realpath(found) != os.path.realpath(origin):
            for other in [other for other in sys.modules if other == name or other.startswith(f"{name}.")]:
                del sys.modules[other]


def _is_standard(name: str, module: ModuleType) -> bool:
    spec = getattr(module, "__spec__", None)
    file = _file_of(spec)
    if file is None:
        return spec is not None
    return file.startswith((f"{_LIBRARY}/{name}.", f"{_LIBRARY}/{name}/", f"{_EXTENSIONS}/"))


def _file_of(spec: ModuleSpec | None) -> str | None:
    """The file of a module, if it has one."""
    return spec.origin if spec is not None and spec.has_location else None
