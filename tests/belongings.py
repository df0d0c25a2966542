"""The system resources that this process holds, by name, so that a test, or a long soak, can say what it has left behind."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import psutil


def belongings(temporary: Path) -> dict[str, set[str]]:
    """Processes, threads, descriptors, and files in `temporary` and in shared memory."""
    return {
        "processes": _processes(),
        "threads": {thread.name for thread in threading.enumerate() if not _is_cached(thread)},
        "descriptors": _descriptors(),
        "files": {path.name for path in (*temporary.iterdir(), *Path("/dev/shm").glob("*asyncpar*"))},
    }


def left_since(before: dict[str, set[str]], temporary: Path) -> dict[str, set[str]]:
    """What has come since, and is still there."""
    return {kind: things - before[kind] for kind, things in belongings(temporary).items() if things - before[kind]}


def join_new_threads(before: set[threading.Thread]) -> None:
    """An event loop tells its threads to end, and does not wait until they have. Those that trio keeps only have to be idle."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if all(thread in before or _is_cached(thread) for thread in threading.enumerate()):
            return
        time.sleep(0.001)


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


def _processes() -> set[str]:
    """Children, and theirs. They are looked for in the table of all processes only if there are any: that takes a while."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return set()
    return {f"{child.pid}" for child in psutil.Process().children(recursive=True)}


def _is_cached(thread: threading.Thread) -> bool:
    """trio keeps idle threads for ten seconds, in case one is needed again."""
    return thread.name.startswith("Trio thread") or "trio" in thread.name.lower()


def _descriptors() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the one that lists the directory
            continue
        if not target.startswith(("/dev/null", "/proc")):
            found.add(f"{name} -> {target}")
    return found
