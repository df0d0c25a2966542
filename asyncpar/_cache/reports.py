"""The lines that `verbose` prints, in joblib's words."""

from __future__ import annotations

from typing import Any

from asyncpar._basics.wording import short_repr

_WIDTH = 80


def calling(name: str, shown: dict[str, Any]) -> str:
    """Before a call is computed."""
    arguments = ", ".join(f"{parameter}={short_repr(value)}" for parameter, value in shown.items())
    return f"{'_' * _WIDTH}\n[Memory] Calling {name}...\n{name.rpartition('.')[2]}({arguments})"


def called(name: str, seconds: float) -> str:
    """After it."""
    return f"{name.rpartition('.')[2]} - {seconds:.1f}s, {seconds / 60:.1f}min".rjust(_WIDTH, "_")


def loading(name: str, seconds: float) -> str:
    """When a result has been found."""
    return f"[Memory] {seconds:.4f}s: Loading {name}..."
