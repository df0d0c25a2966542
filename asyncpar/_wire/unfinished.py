"""Modules that map something while they are being imported.

What belongs to a module goes to workers by its name, as a rule, and they import that module. One that maps something while it
is being imported cannot be treated so, for two reasons. To pickle or to read a name, Python imports the module, and every
thread but the importing one waits for the end of the import; the importing one waits for us. And a worker that imports it would
do in its turn what the module does when it is imported.

So while a run goes on that was begun within an import, what unfinished modules define goes by value, as it does from scripts:
cloudpickle is told so, for as long as somebody *holds* them. A package under which a module is imported is unfinished, too, and
all that is in it goes with it: no worker can import a part of a package without the whole. Classes come back as those that were
sent. What can only go by its name (built-in functions, those with a cache) is refused, rather than waited for for ever; and a
name that comes back is looked up in what there is of its module.

Only those modules are held that the calling thread is importing, and that of the function. Others, which other threads happen
to import meanwhile, do not wait for us, and will be finished.

Whether anything is being imported is told by the table of import's locks, which is empty nearly always: a run that begins at
another time looks whether it is, and that is all. The table is importlib's own affair; on a Python that has none, nothing is
ever unfinished, and such a run waits for ever.
"""

from __future__ import annotations

import pickle
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache, reduce
from importlib import _bootstrap
from io import BytesIO
from types import ModuleType
from typing import Any

from asyncpar.errors import ExecutorUnavailableError

_import_locks: dict[str, Any] = getattr(_bootstrap, "_module_locks", {})  # {name of a module: weak reference to its lock}
_held: Counter[str] = Counter()  # {name of an unfinished module: how many runs hold it}
_holding = threading.Lock()


class Hold:
    """Until it is released, what these modules define goes by value."""

    def __init__(self, modules: list[ModuleType]) -> None:
        import cloudpickle

        self._modules = modules
        with _holding:
            by_value = cloudpickle.list_registry_pickle_by_value()
            self._modules = [module for module in modules if module.__name__ in _held or module.__name__ not in by_value]
            for module in self._modules:
                _held[module.__name__] += 1
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
    """Has what is defined in modules that the current thread is importing, and in that of `fn`, go by value; None if there are
    none. To be called in the thread that asks for a run.
    """
    if not _import_locks:
        return None
    modules = _unfinished(getattr(fn, "__module__", None))
    return Hold(modules) if modules else None


def _unfinished(also: object) -> list[ModuleType]:
    """Those that this thread is importing, and `also` with its packages, if that is being imported."""
    thread = threading.get_ident()
    modules = []
    for name, reference in list(_import_locks.items()):
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
    """Whether importing it waits for an unfinished module: itself, or a package of it."""
    return isinstance(module_name, str) and any(f"{module_name}.".startswith(f"{name}.") for name in list(_held))


@cache
def _guarded(pickler_class: Any) -> Any:
    class Pickler(pickler_class):  # type: ignore[misc]  # cloudpickle has no types
        def reducer_override(self, value: Any) -> Any:
            reduced = super().reducer_override(value)
            if reduced is NotImplemented and _is_held(getattr(value, "__module__", None)):
                _refuse_name(value)
            return reduced

    return Pickler


def _refuse_name(value: Any) -> None:
    if isinstance(value.__reduce_ex__(pickle.HIGHEST_PROTOCOL), str):  # so it says what its name is
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
