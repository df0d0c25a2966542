"""Calls that say when they began, by a clock that all processes of a machine share."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path


async def begin(x: int, seconds: float = 0.0) -> float:
    began = time.monotonic()
    await asyncio.sleep(seconds)
    return began


async def begin_and_fail_at_first(x: int, folder: Path) -> None:
    began = time.monotonic()
    is_first = not (folder / f"{x}-0").exists()
    (folder / f"{x}-{0 if is_first else 1}").write_text(str(began))
    if is_first:
        raise ConnectionError(x)
