"""What `multiprocessing` keeps for a whole process, and what a worker does about it that `multiprocessing` knows nothing of.

- **The key** with which processes trust each other. A proxy of a `multiprocessing.Manager` finds its manager from a worker only
  if that has the key of its parent. It is carried to workers as soon as the parent has loaded multiprocessing.
- **The resource tracker**, a process that removes shared memory when the process that has opened it is gone. A worker would
  have a tracker of its own, and its end would take segments away from everybody who still uses them. So a worker tells no
  tracker of shared memory: what a call makes is there until somebody unlinks it. Semaphores, which have no other end, are left
  as they are.

Workers do not import multiprocessing for that: most never need it, and it takes longer than starting a worker. What is to be
changed in one of its modules is changed when that has been imported, by a finder in front of all others, which costs each
import a look into a dictionary. The zygote installs it, before it preloads anything.

To share the parent's tracker, as its own children do, was refused: it would have to be started for every parent, and a
descriptor of it to be kept in every worker.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_PROCESS = "multiprocessing.process"
_TRACKER = "multiprocessing.resource_tracker"
_LEFT_ALONE = "shared_memory"  # as the tracker calls that kind

_key: bytes | None = None  # in a worker: that of its parent


def current_key() -> bytes | None:
    """The key of this process; None if it has not loaded multiprocessing."""
    process = sys.modules.get(_PROCESS)
    if process is None:
        return None
    try:
        return bytes(process.current_process().authkey)
    except (AttributeError, NameError):  # another thread still imports it
        return None


def take_on_key(key: bytes) -> None:
    """In a worker: this is the key of its parent."""
    global _key
    _key = key
    process = sys.modules.get(_PROCESS)
    if process is not None:
        _set_key(process)


def watch_imports() -> None:
    """In a zygote: workers are to have their changes in multiprocessing, whoever imports it."""
    for name, change in _CHANGES.items():
        module = sys.modules.get(name)
        if module is not None:
            change(module)
    sys.meta_path.insert(0, _Finder())


def _set_key(process: Any) -> None:
    if _key is not None:
        process.current_process().authkey = _key


def _leave_shared_memory_alone(tracker: Any) -> None:
    def but_for_shared_memory(tell: Callable[[str, str], object]) -> Callable[[str, str], None]:
        def tell_of_others(name: str, rtype: str) -> None:
            if rtype != _LEFT_ALONE:
                tell(name, rtype)

        return tell_of_others

    tracker.register = but_for_shared_memory(tracker.register)
    tracker.unregister = but_for_shared_memory(tracker.unregister)


_CHANGES: dict[str, Callable[[Any], None]] = {_PROCESS: _set_key, _TRACKER: _leave_shared_memory_alone}


class _Finder:
    """Finds the modules that are to be changed just as Python does, and has them changed once they have been run."""

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        change = _CHANGES.get(name)
        spec = PathFinder.find_spec(name, path, target) if change is not None else None
        if change is None or spec is None:
            return None
        loader: Any = spec.loader
        run = loader.exec_module

        def run_and_change(module: ModuleType) -> None:
            del loader.exec_module  # a loader may be that of other modules, too
            run(module)
            change(module)

        loader.exec_module = run_and_change
        return spec
