"""How often the program has loaded modules again, by which an executor knows that its workers have old code.

A worker keeps what it has imported. When the program reloads a module, workers that know the old one would go on running it,
without a word. So modules have *generations*: each reload begins a new one, a worker belongs to the generation in which it was
forked, and a run that begins in a later one gets no such worker.

Nothing is looked at or compared for that; reloads show themselves. A finder at the front of `sys.meta_path` finds nothing,
but is asked about every module that is to be loaded. Three things begin a new generation:

- **`importlib.reload`**, which alone tells finders what is to be loaded again;
- **importing a module anew** that has been taken out of `sys.modules`: finders are asked about a name that was loaded when an
  earlier run began, and it is loaded again when the next one does.
- **IPython's `%autoreload`**, which patches functions in place where it can, and then reloads nothing. It keeps a table of the
  modules that it has seen, with times. Only where it is loaded, this is compared with what it was at the last run; what it did
  before the first one after that is not known, so that one counts, too.

Guarantee: a run without any of these before it pays for a few comparisons, less than a microsecond in all.

Refused: comparing the times of source files, or functions with what workers have. Both cost something in every run, and see
only some of what a function calls.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any


class _Watch:
    """A finder that finds nothing, and counts what is loaded again."""

    def __init__(self) -> None:
        self.generation = 0
        self._generations = itertools.count(1)  # two threads that reload at once do not count as one
        self._loaded = set(sys.modules)  # when some run began, and so perhaps in a worker
        self._looked_for: set[str] = set()  # since then
        self._seen_by_autoreload: dict[str, float] | None = None

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        """Called by the import system: with a target only when that is reloaded."""
        if target is not None:
            self.begin_generation()
        else:
            self._looked_for.add(name)

    def begin_generation(self) -> None:
        self.generation = next(self._generations)

    def look(self) -> None:
        """Sees what has not shown itself."""
        if self._looked_for:
            looked_for, self._looked_for = self._looked_for, set()
            found = {name for name in list(looked_for) if name in sys.modules}  # a list: other threads import meanwhile
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
    """{module: time of its source when it was loaded last}"""
    try:
        shell: Any = sys.modules["IPython"].get_ipython()
        return dict(shell.magics_manager.registry["AutoreloadMagics"]._reloader.modules_mtimes)
    except (AttributeError, KeyError):  # it is loaded, but not in use
        return {}


_watch: _Watch | None = None


def generation() -> int:
    """That of the modules as they are now. The first call begins to count."""
    global _watch
    if _watch is None:
        _watch = _Watch()
    finders = sys.meta_path
    if not finders or finders[0] is not _watch:  # others may have put theirs first, and find what we are then not asked about
        finders[:] = [_watch, *(finder for finder in finders if finder is not _watch)]  # at once: other threads import, too
    _watch.look()
    return _watch.generation
