"""Modules that run a map while they are being imported.

As a rule, objects of a module are sent to workers by name, and the workers import that module. This does not work for a module
that runs a map while it is being imported, for two reasons. To pickle or read a name, Python imports the module, and every
thread except the importing one waits for the end of the import, while the importing thread waits for us. And a worker that
imports the module would run the map again.

So during a run that was started within an import, objects that unfinished modules define are sent by value, as from scripts.
cloudpickle is told to do so for as long as a run *holds* the modules. A package is unfinished, too, while one of its modules is
imported, and everything in it is treated the same way, because no worker can import part of a package without the whole.
Classes come back as those that were sent. Objects that can only be sent by name (built-in functions, functions with a cache)
are refused, since sending them would wait forever. A name that comes back is looked up in the module as far as it is loaded.

Only the modules that the calling thread is importing are held, and the function's module. Modules that other threads import
meanwhile do not wait for us, and will be finished.

The table of import locks says whether anything is being imported. It is nearly always empty, and then a run checks nothing
else. The table is private to importlib. On a Python that has no such table, no module ever counts as unfinished, and such a run
waits forever.
"""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Callable, Iterable
from functools import cache, reduce
from importlib import _bootstrap
from io import BytesIO
from types import ModuleType
from typing import Any

from asyncpar._basics.forms import users_function
from asyncpar.errors import ExecutorUnavailableError

_import_locks: dict[str, Any] = getattr(_bootstrap, "_module_locks", {})  # {name of a module: weak reference to its lock}
_held: dict[str, int] = {}  # {name of an unfinished module: how many runs hold it}
_holding = threading.Lock()


class Hold:
    """Until it is released, objects that these modules define are sent by value."""

    def __init__(self, modules: list[ModuleType]) -> None:
        import cloudpickle

        self._modules = modules
        with _holding:
            by_value = cloudpickle.list_registry_pickle_by_value()
            self._modules = [module for module in modules if module.__name__ in _held or module.__name__ not in by_value]
            for module in self._modules:
                _held[module.__name__] = _held.get(module.__name__, 0) + 1
                cloudpickle.register_pickle_by_value(module)

    def release(self) -> None:
        import cloudpickle

        with _holding:
            modules, self._modules = self._modules, []
            for module in modules:
                _held[module.__name__] -= 1
                if not _held[module.__name__]:
                    del _held[module.__name__]
                    cloudpickle.unregister_pickle_by_value(module)


def is_importing() -> bool:
    """Whether the current thread is importing a module."""
    return bool(_import_locks) and bool(_unfinished(None))


def hold_unfinished_modules(fn: object = None) -> Hold | None:
    """Makes objects go by value if they are defined in a module that the current thread is importing, or in that of `fn` if it
    is unfinished. Returns None if there is no such module. Call it in the thread that starts a run.
    """
    if not _import_locks:
        return None
    modules = _unfinished(getattr(users_function(fn), "__module__", None))
    return Hold(modules) if modules else None


def _unfinished(also: object) -> list[ModuleType]:
    """The modules that this thread is importing, and `also` with its packages, if it is being imported."""
    thread = threading.get_ident()
    modules = []
    for name, reference in _import_locks.copy().items():
        lock, module = reference(), sys.modules.get(name)
        if module is not None and getattr(getattr(module, "__spec__", None), "_initializing", False):
            is_ours = getattr(lock, "owner", None) == thread
            if is_ours or (isinstance(also, str) and f"{also}.".startswith(f"{name}.")):
                modules.append(module)
    return modules


def guarded(pickler_class: Any) -> Any:
    """The class itself, or one that writes no name of an unfinished module."""
    return _guarded(pickler_class) if _held else pickler_class


def _is_held(module_name: object) -> bool:
    """Whether importing it would wait for an unfinished module: itself, or one of its packages."""
    return isinstance(module_name, str) and any(f"{module_name}.".startswith(f"{name}.") for name in _held.copy())


@cache
def _guarded(pickler_class: Any) -> Any:
    class Pickler(pickler_class):  # type: ignore[misc]  # cloudpickle has no types
        def reducer_override(self, obj: Any) -> Any:
            reduced = super().reducer_override(obj)
            if reduced is NotImplemented and _is_held(getattr(obj, "__module__", None)):
                _refuse_name(obj)
            return reduced

    return Pickler


def _refuse_name(value: Any) -> None:
    if isinstance(value.__reduce_ex__(pickle.HIGHEST_PROTOCOL), str):  # it is pickled by this name
        what = f"{getattr(value, '__qualname__', value)}, a {type(value).__qualname__}, cannot be sent between processes"
        raise _refusal(what, value.__module__)


def _refusal(what: str, module_name: str) -> ExecutorUnavailableError:
    return ExecutorUnavailableError(
        f"{what} while its module {module_name!r} is being imported; call Parallel or pmap in a function, and that function "
        f'under `if __name__ == "__main__":` or after the import, or use threads'
    )


def loads() -> Callable[..., Any]:
    """`pickle.loads`, or one that waits for no unfinished module."""
    return _loads if _held else pickle.loads


def unpickler() -> type[pickle.Unpickler]:
    """`pickle.Unpickler`, or one that waits for no unfinished module."""
    return _Unpickler if _held else pickle.Unpickler


def _loads(data: Any, *, buffers: Iterable[Any] = ()) -> Any:
    return _Unpickler(BytesIO(data), buffers=buffers).load()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, name: str) -> Any:
        if not _is_held(module_name):
            return super().find_class(module_name, name)
        module = sys.modules.get(module_name)
        if module is None:
            raise _refusal(f"{name} cannot be read from another process", module_name)
        return reduce(getattr, name.split("."), module)
