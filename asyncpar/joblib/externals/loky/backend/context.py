"""loky's module of contexts. asyncpar's workers start in one way, which needs none."""

from __future__ import annotations

from multiprocessing import get_context as _get_context
from typing import Any

from asyncpar._platform.cpus import cpu_count as cpu_count


def get_context(method: str | None = None) -> Any:
    """A context of multiprocessing; loky's own methods mean spawned processes."""
    return _get_context("spawn" if method is None or method.startswith("loky") else method)


def set_start_method(method: str | None, force: bool = False) -> None:
    """Nothing: workers start in one way."""
