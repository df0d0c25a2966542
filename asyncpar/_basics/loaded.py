"""Modules that the program has already imported. Heavy modules are not imported here, only used if they are loaded."""

from __future__ import annotations

import sys
from typing import Any


def loaded_numpy() -> Any:
    """numpy, or None. Also None while another thread is still importing it, since it is incomplete then."""
    numpy = sys.modules.get("numpy")
    if numpy is None or getattr(numpy.__spec__, "_initializing", False):
        return None
    return numpy
