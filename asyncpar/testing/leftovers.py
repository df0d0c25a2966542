"""Names the system resources that this process holds, so that a test, or a soak of hours, can say what it has left behind."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import psutil


def belongings(temporary: Path) -> dict[str, set[str]]:
    """Processes, threads, descriptors, and files in `temporary` and of ours in shared memory.

    If a system has no `/proc` or no `/dev/shm`, what would be seen there is left out.
    """
    return {
        "processes": _processes(),
        "threads": {thread.name for thread in busy_threads()},
        "descriptors": _descriptors(),
        "files": {path.name for path in (*temporary.iterdir(), *Path("/dev/shm").glob("*asyncpar*"))},  # noqa: S108
    }


def left_since(before: dict[str, set[str]], temporary: Path) -> dict[str, set[str]]:
    """What has come since, and is still there."""
    return {kind: things - before[kind] for kind, things in belongings(temporary).items() if things - before[kind]}


def busy_threads() -> set[threading.Thread]:
    """All threads, except those that trio keeps idle for ten seconds, in case one is needed again."""
    return {thread for thread in threading.enumerate() if "trio" not in thread.name.lower()}


def join_new_threads(before: set[threading.Thread]) -> None:
    """Waits: an event loop tells its threads to end, but does not wait for it. `before`: those that were busy before."""
    deadline = time.monotonic() + 10
    while not busy_threads() <= before and time.monotonic() < deadline:
        time.sleep(0.001)


def _processes() -> set[str]:
    """Children, and their children. The table of all processes is searched only if there are any: that takes a while."""
    if hasattr(os, "waitid"):
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return set()
    return {f"{child.pid}" for child in psutil.Process().children(recursive=True)}


def _descriptors() -> set[str]:
    found: set[str] = set()
    directory = Path("/proc/self/fd")
    if not directory.exists():
        return found
    for name in os.listdir(directory):
        try:
            target = os.readlink(directory / name)
        except FileNotFoundError:  # the one that lists the directory
            continue
        if not target.startswith(("/dev/null", "/proc")):
            found.add(f"{name} -> {target}")
    return found
