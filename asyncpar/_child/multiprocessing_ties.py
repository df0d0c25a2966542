"""State that `multiprocessing` keeps for a whole process, and that our workers have to adjust.

- **Who this process is.** Calls ask `multiprocessing.current_process()` and `parent_process()` whether they run in the main
  process, and which worker they are. So a worker has a name, a number (its index, counted from 1, as multiprocessing counts its
  children), and a parent. A worker does not outlive its parent, and so finds it alive,
  and waits in vain for its end.
- **The authentication key** with which processes trust each other. A proxy of a `multiprocessing.Manager` reaches its manager
  from a worker only if the worker has its parent's key. Workers get the key as soon as the parent has loaded multiprocessing.
- **The resource tracker**, a process that removes shared memory when the process that has opened it is gone. A worker would
  have a tracker of its own, and when the worker ends, that would remove segments that others still use. So a worker does not
  report shared memory to a tracker: a segment that a call makes exists until some code unlinks it. Semaphores, which nothing
  else would remove, are still reported.

Workers do not import multiprocessing for that: most never need it, and importing it takes longer than starting a worker.
Instead, a finder in front of all others changes the modules of multiprocessing when they have been imported. It costs each
import a dictionary lookup. The zygote installs it before it preloads anything.

Refused: sharing the parent's tracker, as multiprocessing's own children do. It would have to be started for every parent, and
every worker would have to keep a descriptor of it.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_PROCESS = "multiprocessing.process"
_TRACKER = "multiprocessing.resource_tracker"
_LEFT_ALONE = "shared_memory"  # the tracker's name for this kind

_key: bytes | None = None  # in a worker: the key of its parent
_index_and_parent: tuple[int, int] | None = None  # in a worker process: its index, and the pid of its parent


def current_key() -> bytes | None:
    """The key of this process; None if it has not loaded multiprocessing."""
    process = sys.modules.get(_PROCESS)
    if process is None:
        return None
    try:
        return bytes(process.current_process().authkey)
    except (AttributeError, NameError):  # another thread is still importing it
        return None


def take_on_key(key: bytes) -> None:
    """In a worker: adopts the key of its parent."""
    global _key
    _key = key
    _change_if_loaded()


def become_child(index: int, parent_pid: int) -> None:
    """In a worker process: is a child of the program's process."""
    global _index_and_parent
    _index_and_parent = index, parent_pid
    _change_if_loaded()


def _change_if_loaded() -> None:
    process = sys.modules.get(_PROCESS)
    if process is not None:
        _change_process(process)


def watch_imports() -> None:
    """In a zygote: makes sure that workers have their changes in multiprocessing, whichever code imports it."""
    for name, change in _CHANGES.items():
        module = sys.modules.get(name)
        if module is not None:
            change(module)
    sys.meta_path.insert(0, _Finder())


def _change_process(process: Any) -> None:
    current = process.current_process()
    if _key is not None:
        current.authkey = _key
    if _index_and_parent is not None:
        index, parent_pid = _index_and_parent
        current._identity = (index + 1,)
        current._name = f"AsyncparProcess-{index + 1}"
        process._parent_process = _parent_class(process)("MainProcess", parent_pid, None)


def _parent_class(process: Any) -> Any:
    class ParentProcess(process._ParentProcess):  # type: ignore[misc]  # the module is not imported here
        _sentinel: int | None

        def is_alive(self) -> bool:
            return True

        def join(self, timeout: float | None = None) -> None:
            threading.Event().wait(timeout)

        @property
        def sentinel(self) -> int:
            """What `multiprocessing.connection.wait` waits for: the end of a pipe to which nobody writes."""
            if self._sentinel is None:
                self._sentinel, self._never_closed = os.pipe()
            return int(self._sentinel)

    return ParentProcess


def _leave_shared_memory_alone(tracker: Any) -> None:
    def but_for_shared_memory(tell: Callable[[str, str], object]) -> Callable[[str, str], None]:
        def tell_of_others(name: str, rtype: str) -> None:
            if rtype != _LEFT_ALONE:
                tell(name, rtype)

        return tell_of_others

    tracker.register = but_for_shared_memory(tracker.register)
    tracker.unregister = but_for_shared_memory(tracker.unregister)


_CHANGES: dict[str, Callable[[Any], None]] = {_PROCESS: _change_process, _TRACKER: _leave_shared_memory_alone}


class _Finder:
    """Finds the modules to change just as Python does, and changes them once they have been run."""

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        change = _CHANGES.get(name)
        spec = PathFinder.find_spec(name, path, target) if change is not None else None
        if change is None or spec is None:
            return None
        loader: Any = spec.loader
        run = loader.exec_module

        def run_and_change(module: ModuleType) -> None:
            del loader.exec_module  # the loader may load other modules, too
            run(module)
            change(module)

        loader.exec_module = run_and_change
        return spec
