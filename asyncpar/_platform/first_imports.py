"""Modules that each worker imports before anything else: they change what later imports mean.

An import in the program may be answered by something that the program has put in its place (`asyncpar.joblib.install`). Workers
import for themselves, so whatever does that in the program has to do it in each worker, and before the first function is
unpickled there. So it gives the name of a module here, whose import does it.

Workers that are there already do not have it. Therefore each change begins a new generation (`_processes/reloading.py`).
"""

from __future__ import annotations

_names: tuple[str, ...] = ()


def first_imports() -> tuple[str, ...]:
    """The names of these modules, in the order in which they are imported."""
    return _names


def import_first(name: str) -> None:
    """Workers that start from now on import it first."""
    global _names
    _names = (*[other for other in _names if other != name], name)


def import_first_no_more(name: str) -> None:
    """Workers that start from now on do not."""
    global _names
    _names = tuple(other for other in _names if other != name)
