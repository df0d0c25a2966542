"""What the program has imported already: what is heavy is not imported here, and what is not there need not be looked for."""

from __future__ import annotations

import sys
from typing import Any


def loaded_numpy() -> Any:
    """numpy; None also while another thread is still importing it, for then it lacks this and that."""
    numpy = sys.modules.get("numpy")
    if numpy is None or getattr(numpy.__spec__, "_initializing", False):
        return None
    return numpy
