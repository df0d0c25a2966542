"""Calls that fail, or kill their worker, as often as they are told to."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.functions import kill_self


class Flaky:
    """Fails on an item as often as `failures` says, in whatever process, and then doubles it. Each attempt leaves a mark."""

    def __init__(self, directory: Path, failures: dict[int, int], error: type[Exception] = ConnectionError) -> None:
        self.marks = directory / "marks"
        self.failures = failures
        self.error = error
        self.marks.touch()

    def __call__(self, x: int) -> int:
        with self.marks.open("a") as file:
            file.write(f"{x}\n")
        if self.attempts[x] <= self.failures.get(x, 0):
            raise self.error(f"{x} is not ready")
        return x * 2

    @property
    def order(self) -> list[int]:
        return [int(line) for line in self.marks.read_text().split()]

    @property
    def attempts(self) -> Counter[int]:
        return Counter(self.order)


class Fatal:
    """Kills its worker as often as there are lives left."""

    def __init__(self, directory: Path, lives: int) -> None:
        self.directory = directory
        self.lives = lives

    def __call__(self, x: int) -> int:
        lost = len(list(self.directory.iterdir()))
        if x == 3 and lost < self.lives:
            (self.directory / f"{lost}").touch()
            kill_self(x)
        return x
