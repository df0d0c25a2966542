"""Calls that say what they see of their items."""

from __future__ import annotations

from typing import Any

import numpy as np


def describe(item: Any) -> tuple[type, Any]:
    """What a call sees of its item, so that a slice that gives other elements than iterating does is found out."""
    return type(item), item.tolist() if isinstance(item, np.ndarray) else item


def describe_both(first: Any, second: Any) -> tuple[Any, Any]:
    return describe(first), describe(second)
