"""Tasks of `Parallel`: what fails, is counted, or takes arguments of one form or another."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from tests.functions import kill_self


def fail_on_multiples_of_five(x: int) -> int:
    if x % 5 == 0:
        raise ValueError(x)
    return x


class FailsAtFirst:
    """Fails `failures` times for each item, in whatever process it is called."""

    def __init__(self, folder: Path, failures: int) -> None:
        self.folder = folder
        self.failures = failures

    def __call__(self, x: int) -> int:
        for attempt in range(self.failures):
            try:
                (self.folder / f"{x}-{attempt}").touch(exist_ok=False)
            except FileExistsError:
                continue
            raise ConnectionError(x)
        return x


class CountsPickling:
    def __init__(self, pickled: list[None]) -> None:
        self._pickled = pickled

    def __getstate__(self) -> dict[str, Any]:
        self._pickled.append(None)
        return {"_pickled": []}


def second(model: CountsPickling, more: int = 0) -> int:
    return 2 + more


def third(model: CountsPickling, more: int = 0) -> int:
    return 3 + more


def total(*numbers: int) -> int:
    return sum(numbers)


def mean_of(samples: Any, window: slice) -> float:
    return float(samples[window].mean())


def total_of(array: Any) -> float:
    return float(array.sum())


def slow_square(i: int) -> int:
    time.sleep(1e-3 * (10 - i))
    return i**2


async def double_in_asyncio(x: int) -> int:
    await asyncio.sleep(0)
    return 2 * x


def die_at_three(x: int) -> int:
    if x == 3:
        kill_self(x)
    return x
