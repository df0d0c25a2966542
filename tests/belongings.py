"""What this process holds of our shared memory."""

from __future__ import annotations

import os
from pathlib import Path


def shared_bytes() -> int:
    """Memory of the nameless files that this process has open."""
    found: dict[int, int] = {}
    for name in os.listdir("/proc/self/fd"):
        path = f"/proc/self/fd/{name}"
        try:
            if "memfd:asyncpar" in os.readlink(path):
                status = os.stat(path)
                found[status.st_ino] = status.st_blocks * 512
        except OSError:
            continue
    return sum(found.values())


def mappings() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:asyncpar")
