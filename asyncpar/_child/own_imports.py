"""What the child's side imports for itself, where modules of the user have names of the standard library.

The path of a worker is that of its program, in which the directory of the script comes first. If there is a `resource.py` or a
`queue.py`, it is what the user's code gets when it imports `resource` or `queue`, in a worker as in the program. What
asyncpar needs comes from the standard library all the same:

- The zygote imports what every worker needs before it takes on the program's path.
- What few workers need is imported by `import_own`, which finds those names in the standard library only, in its own thread.
- Afterwards, the modules of those names are forgotten that the program would find elsewhere: asyncpar keeps what it has, and
  the user's code gets its own. What the program has already loaded from the standard library it would not look for again, and
  a worker does not either (`settled_modules`).

Refused: importing beforehand whatever may ever be needed. asyncio alone takes as long as the zygote's whole start.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

_LIBRARY = str(Path(os.__file__).parent)
_EXTENSIONS = str(Path(_LIBRARY, "lib-dynload"))

_settled: frozenset[str] = frozenset()


def settled_modules() -> list[str]:
    """In the program: the names of the standard library that mean just that to whoever imports them."""
    return [name for name in sys.stdlib_module_names if name in sys.modules and _is_standard(name, sys.modules[name])]


def take_on_path(path: Sequence[str], settled: Iterable[str]) -> None:
    """Makes the program's path this process's own; from now on an import means here what it means there."""
    global _settled
    _settled = frozenset(settled)
    sys.path[:] = path
    _make_way(sys.modules)


def import_own(name: str) -> Any:
    """A module of asyncpar; what it imports comes from the standard library, or from asyncpar."""
    before = set(sys.modules)
    finder = _StandardOnly(threading.get_ident())
    sys.meta_path.insert(0, finder)
    try:
        return importlib.import_module(name)
    finally:
        sys.meta_path.remove(finder)
        # A package may import more of itself later, and asyncio is what the user's coroutines run in
        _make_way(name for name in sys.modules.keys() - before if not hasattr(sys.modules[name], "__path__"))


class _StandardOnly:
    def __init__(self, thread: int) -> None:
        self._thread = thread

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if threading.get_ident() != self._thread or name not in sys.stdlib_module_names or name in sys.builtin_module_names:
            return None
        spec = PathFinder.find_spec(name, [_LIBRARY, _EXTENSIONS])
        if spec is None:  # it is tried, though it is another system's: the user's is not meant
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
    """Where a module lies, if it lies anywhere."""
    return spec.origin if spec is not None and spec.has_location else None
