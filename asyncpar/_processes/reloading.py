"""Counts how often the program has reloaded modules, so that an executor knows that its workers have old code.

A worker keeps what it has imported. When the program reloads a module, workers with the old one would silently go on running
it. So modules have *generations*. Each reload begins a new generation, and a worker belongs to the generation in which it was
forked. A run that begins in a later generation gets no such worker.

A finder at the front of `sys.meta_path` sees the reloads. It finds nothing, but is asked about every module that is to be
loaded. Four things begin a new generation:

- **`importlib.reload`**: it alone tells finders which module is to be loaded again.
- **Importing a module again** that has been removed from `sys.modules`: finders are asked about a name that was loaded when an
  earlier run began, and the module is loaded again when the next run begins.
- **`begin_generation`**, for what changes the meaning of imports by itself.
- **IPython's `%autoreload`**: it patches functions in place if it can, and then reloads nothing. It keeps a table of the
  modules that it has seen, with times. If it is loaded, this table is compared with what it was at the last run. What it did
  before the first run after it was loaded is not known, so that run begins a new generation, too.

Guarantee: if none of these has happened, a run pays for a few comparisons, less than a microsecond in all.

Refused: comparing the times of source files, or functions with those that workers have. Both cost something in every run, and
see only some of what a function calls.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from asyncpar._basics.locking import Numbers


class _Watch:
    """A finder that finds nothing, and counts what is loaded again."""

    def __init__(self) -> None:
        self.generation = 0
        self._loaded = set(sys.modules)  # modules that were loaded when some run began, and so perhaps in a worker
        self._looked_for: set[str] = set()  # names that were looked for since then
        self._seen_by_autoreload: dict[str, float] | None = None

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        """Called by the import system, with a target only if the target is reloaded."""
        if target is not None:
            self.begin_generation()
        else:
            self._looked_for.add(name)

    def begin_generation(self) -> None:
        self.generation = next(_generations)

    def look(self) -> None:
        """Checks for reloads that the finder cannot see by itself."""
        if self._looked_for:
            looked_for, self._looked_for = self._looked_for, set()
            found = {name for name in looked_for.copy() if name in sys.modules}  # a copy: other threads import meanwhile
            if found & self._loaded:
                self.begin_generation()
            self._loaded |= found
        if "IPython.extensions.autoreload" in sys.modules:
            self._look_at_autoreload()

    def _look_at_autoreload(self) -> None:
        before, now = self._seen_by_autoreload, _seen_by_autoreload()
        self._seen_by_autoreload = now
        if before is None or any(now.get(name, time) != time for name, time in before.items()):
            self.begin_generation()


def _seen_by_autoreload() -> dict[str, float]:
    """{module: time of its source when it was last loaded}"""
    try:
        shell: Any = sys.modules["IPython"].get_ipython()
        return dict(shell.magics_manager.registry["AutoreloadMagics"]._reloader.modules_mtimes)
    except (AttributeError, KeyError):  # it is loaded, but not in use
        return {}


_watch: _Watch | None = None
_generations = Numbers(1)  # so that two threads that reload at once do not count as one


def begin_generation() -> None:
    """What modules mean has changed in another way: workers that are there already have old code."""
    if _watch is not None:
        _watch.begin_generation()


def generation() -> int:
    """The current generation of the modules. The first call starts the counting."""
    global _watch
    if _watch is None:
        _watch = _Watch()
    finders = sys.meta_path
    if not finders or finders[0] is not _watch:  # a finder before ours may find modules about which ours is then not asked
        finders[:] = [_watch, *(finder for finder in finders if finder is not _watch)]  # at once: other threads import, too
    _watch.look()
    return _watch.generation
