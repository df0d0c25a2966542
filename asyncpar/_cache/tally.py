"""What processes have done with a cache: hits, misses, results kept, and bytes, for its statistics and its size limit.

A line that is appended to one file is short enough to be written whole, so processes need no lock for it. A process adds its
line at most once a second, and at its end; one that is killed loses a second. Nothing is written on a hit. The file is an
estimate: pruning, which looks at every entry, writes down what is really there (`reset`).
"""

from __future__ import annotations

import contextlib
import os
import time
import weakref
from typing import NamedTuple

from asyncpar._cache.beside import open_beside

_FILE = "tally"
_SECONDS = 1.0
_LONGEST = 1 << 16  # of the file, before its lines are added up


class Totals(NamedTuple):
    hits: int = 0
    misses: int = 0
    kept: int = 0
    bytes: int = 0


class Counts:
    """What has not been written down yet. Any thread adds to it; a count that gets lost between two of them does not matter."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.hits = self.misses = self.kept = self.bytes = 0

    def write(self) -> None:
        totals = Totals(self.hits, self.misses, self.kept, self.bytes)
        if any(totals):
            self.hits = self.misses = self.kept = self.bytes = 0
            with contextlib.suppress(OSError):
                _append(self.path, totals)


class Tally:
    """This process's part."""

    def __init__(self, folder: str) -> None:
        self.counts = Counts(os.path.join(folder, _FILE))
        self._written = 0.0
        weakref.finalize(self, self.counts.write)

    def keep(self, size: int) -> bool:
        """Counts a result. True if all counts have been written down now, which is a good time to look at the size."""
        self.counts.kept += 1
        self.counts.bytes += size
        now = time.monotonic()
        if self._written and now - self._written < _SECONDS:
            return False
        self._written = now
        self.write()
        return True

    def write(self) -> None:
        """Writes the counts down."""
        self.counts.write()


def read_tally(folder: str) -> Totals:
    """What all processes have written down. Lines that cannot be read do not count."""
    path = os.path.join(folder, _FILE)
    try:
        with open(open_beside(path, os.O_RDONLY), encoding="ascii", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return Totals()
    sums = [0, 0, 0, 0]
    for line in lines:
        with contextlib.suppress(ValueError):
            numbers = [int(number) for number in line.split()]
            if len(numbers) == len(sums):
                sums = [one + other for one, other in zip(sums, numbers, strict=True)]
    totals = Totals(*sums)
    if sum(map(len, lines)) > _LONGEST:
        reset(folder, totals)
    return totals


def reset(folder: str, totals: Totals) -> None:
    """Begins the file anew with these totals. What others append meanwhile is lost."""
    path = os.path.join(folder, _FILE)
    temporary = f"{path}-{os.getpid()}"
    with contextlib.suppress(OSError):
        _append(temporary, totals)
        os.replace(temporary, path)


def _append(path: str, totals: Totals) -> None:
    fd = open_beside(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(fd, (" ".join(map(str, totals)) + "\n").encode())
    finally:
        os.close(fd)
