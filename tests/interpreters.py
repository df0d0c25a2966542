"""Which Pythons have interpreters, for tests."""

from __future__ import annotations

import sys

import pytest

needs_interpreters = pytest.mark.skipif(sys.version_info < (3, 14), reason="this Python has no interpreters")


def with_interpreters(value: str) -> object:
    """A parameter that is tested only where there are interpreters."""
    return pytest.param(value, marks=needs_interpreters)
