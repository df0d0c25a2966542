"""`install`: this package in joblib's place, in this process and in its workers.

`sys.modules["joblib"]` becomes this package, and a finder answers for joblib and all modules of it, also when something has
emptied `sys.modules`. Each of them is the module of this package that has its name, the same object, so a class is one class
under both names. What this package has for itself is not found under joblib's name. What is
pickled has our names, so that it can be unpickled wherever asyncpar is, in joblib's place or not. cloudpickle, of which joblib
has a copy, is the real one.

**Workers** import for themselves. They import `asyncpar.joblib.installed` before anything else, whose import installs it there.
Warm workers from before are replaced.

**Not half.** Code that has already imported joblib has joblib's classes and functions, and would go on using them beside ours.
Then nothing is done, and an error says so. For the same reason, what is imported meanwhile keeps asyncpar after `uninstall`.

Refused: a .pth file that does this for all programs of an environment. Programs should say what they run on.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_loader
from types import ModuleType

from asyncpar._platform.first_imports import import_first, import_first_no_more

_OURS = "asyncpar.joblib"
_THEIRS = "joblib"
_IN_WORKERS = "asyncpar.joblib.installed"
_NOT_JOBLIBS = frozenset({"backend", "errors", "installed", "jobs", "standing_in", "tasks"})  # what joblib has no module for
_COPIES = {"joblib.externals.cloudpickle": "cloudpickle"}  # {what joblib has a copy of: the original}


def install() -> None:
    """Makes `import joblib` give asyncpar, in this process and in its workers, until `uninstall`.

    Call it before anything that imports joblib, such as scikit-learn. It does no harm to call it twice.

    Raises:
        RuntimeError: joblib has been imported already.

    >>> import asyncpar.joblib
    >>> asyncpar.joblib.install()  # doctest: +SKIP
    >>> from joblib.parallel import Parallel  # doctest: +SKIP
    """
    if is_installed():
        return
    if sys.modules.get(_THEIRS) is not None:
        raise RuntimeError(
            "joblib has been imported already, and what has imported it would go on using it; call asyncpar.joblib.install() "
            "before anything that imports joblib, such as scikit-learn"
        )
    sys.modules[_THEIRS] = sys.modules[_OURS]
    sys.meta_path.insert(0, _finder)
    import_first(_IN_WORKERS)
    _replace_workers()


def uninstall() -> None:
    """From now on, `import joblib` gives joblib again. Modules that were imported meanwhile go on using asyncpar."""
    if not is_installed():
        return
    sys.meta_path.remove(_finder)
    for name in [name for name in sys.modules if name == _THEIRS or name.startswith(f"{_THEIRS}.")]:
        del sys.modules[name]
    sys.modules.pop(_IN_WORKERS, None)
    import_first_no_more(_IN_WORKERS)
    _replace_workers()


def is_installed() -> bool:
    """Whether asyncpar is in joblib's place."""
    return _finder in sys.meta_path


def _replace_workers() -> None:
    """Workers that have been started so far have imported something else."""
    reloading = sys.modules.get("asyncpar._processes.reloading")  # a program that has workers has imported it
    if reloading is not None:
        reloading.begin_generation()


class _Finder:
    """Finds joblib's modules among ours."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        ours = _name_of_ours(name)
        if ours is None:
            return None
        if name.removeprefix(f"{_THEIRS}.") in _NOT_JOBLIBS:  # the next finder would look in this folder, and find it
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if find_spec(ours) is None:
            return None
        return spec_from_loader(name, self, is_package=hasattr(importlib.import_module(ours), "__path__"))  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """Python's own empty module will do; it is replaced."""

    def exec_module(self, module: ModuleType) -> None:
        ours = _name_of_ours(module.__name__)
        assert ours is not None, "a spec was found for it"
        sys.modules[module.__name__] = importlib.import_module(ours)


def _name_of_ours(name: str) -> str | None:
    """The module that stands for joblib's module of this name."""
    for copy, original in _COPIES.items():
        if name == copy or name.startswith(f"{copy}."):
            return original + name.removeprefix(copy)
    return f"asyncpar.{name}" if name == _THEIRS or name.startswith(f"{_THEIRS}.") else None


_finder = _Finder()
