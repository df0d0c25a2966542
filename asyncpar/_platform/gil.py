"""Whether threads of this Python run one at a time."""

from __future__ import annotations

import sys


def has_gil() -> bool:
    """Whether a global lock lets only one thread run Python code. Free-threaded builds have none, unless a module or the user
    has asked for it.
    """
    is_enabled = getattr(sys, "_is_gil_enabled", None)
    return is_enabled is None or bool(is_enabled())
