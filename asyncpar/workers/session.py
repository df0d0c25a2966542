"""The end of a session: whoever is left of it is killed.

The zygote leads a session of its own, to which its workers belong, and all programs that calls have started and that have not
left it. Each worker leads a process group, which the zygote kills when the worker ends. What has left its group, as `timeout`
and the jobs of a shell do, or has lost its zygote, is found by its session.

No signal goes to a reused process id: the number of a session is not given away before its leader is reaped, and a process
is held by a descriptor while it is looked at and killed. That is possible on Linux only, and so is finding them; elsewhere
nothing is done here.
"""

from __future__ import annotations

import os
import signal
import sys

_MOST_PASSES = 10  # while there are new ones; a guess


def end_session(leader: int) -> None:
    """Kills all processes of the session but its leader, which must not have been reaped."""
    if sys.platform != "linux":
        return
    killed = {leader}
    for _ in range(_MOST_PASSES):
        found = _members(leader) - killed
        if not found:  # or a program that was not dead yet may have started another
            return
        for pid in found:
            _kill(pid, leader)
        killed |= found


def _members(leader: int) -> set[int]:
    try:
        return {int(name) for name in os.listdir("/proc") if name.isdigit() and _belongs(int(name), leader)}  # noqa: PTH208
    except OSError:  # there is no /proc, or no descriptor for it
        return set()


def _belongs(pid: int, leader: int) -> bool:
    try:
        return os.getsid(pid) == leader
    except OSError:  # it has gone, or is none of our business
        return False


def _kill(pid: int, leader: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):  # it has gone, or the system cannot do this
        return
    try:
        if _belongs(pid, leader):  # still: before, the number may have been another's
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except OSError:  # as above, or it is another user's
        return
    finally:
        os.close(descriptor)
