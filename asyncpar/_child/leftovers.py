"""Finds and kills programs that calls have started and that nothing waits for any more.

Each worker leads a process group, and the zygote kills that group when the worker ends. This does not reach two kinds of
processes:

- Processes that have left their group, as `timeout` and the jobs of a shell do. When the worker is gone, the zygote is their
  parent (on Linux, where a process may adopt the orphans among its descendants). It reaps those that end, and kills the rest at
  its own end. A process that leads its own session, as a daemon does, goes on.
- Processes whose zygote was killed. Then the zygote's parent kills the groups of the workers.

No signal goes to a reused process id: a child's id is not reused before it is reaped, and any other process is held by a
descriptor while it is checked and killed. If the system cannot do these things, nothing is done here.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

_MOST_PASSES = 10  # a program that is killed may leave children, which are adopted then; a guess


def end_adopted() -> None:
    """In a zygote that has no workers left: kills its children, except those with a session of their own."""
    session = os.getsid(0)
    for _ in range(_MOST_PASSES):
        found = [pid for pid in _children() if _session(pid) == session]
        if not found:
            return
        for pid in found:
            with suppress(OSError):  # it runs as another user
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def end_group(leader: int) -> None:
    """Kills those members of a process group, whose leader may be gone, that belong to this session."""
    if sys.platform != "linux" or leader <= 0:
        return
    session = os.getsid(0)
    for pid in _processes():
        if _belongs(pid, leader, session):
            _kill(pid, leader, session)


def _children() -> list[int]:
    try:
        with open("/proc/thread-self/children", "rb") as file:  # noqa: PTH123 - pathlib takes long to import
            return [int(pid) for pid in file.read().split()]
    except OSError:  # not Linux, or a Linux that does not say
        return []


def _processes() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - as above
    except OSError:  # there is no /proc, or no descriptor for it
        return []


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:  # it has gone
        return 0


def _belongs(pid: int, leader: int, session: int) -> bool:
    try:
        return os.getpgid(pid) == leader and os.getsid(pid) == session
    except OSError:  # it has gone, or does not concern us
        return False


def _kill(pid: int, leader: int, session: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):  # it has gone, or the system cannot do this
        return
    try:
        if _belongs(pid, leader, session):  # check again: before, the id may have belonged to another process
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except OSError:  # as above, or it is another user's
        return
    finally:
        os.close(descriptor)
