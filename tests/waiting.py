"""How tests wait for what happens in other processes and threads, which cannot set an event here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import anyio
import psutil


async def wait_until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(30):
        while not condition():
            await anyio.sleep(0.001)


def not_ended(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that go on for more than 20 s. The others need not be reaped: once its parent is gone, that is up to the system."""
    alive = list(processes)
    deadline = time.monotonic() + 20
    while (alive := [process for process in alive if goes_on(process)]) and time.monotonic() < deadline:
        time.sleep(0.005)
    return alive


def goes_on(process: psutil.Process) -> bool:
    """Whether it has not ended, as one that is yet to be reaped has."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
