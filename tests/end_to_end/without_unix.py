"""Removes from this Python what Windows does not have. Programs must then work with what is left.

Import this first. It loads the event loops before that, so that they keep what they need: they are not what is tested.
"""

import asyncio
import functools
import mmap
import os
import select
import signal
import socket
import sys
from types import ModuleType

import anyio._backends._asyncio
import anyio._backends._trio
import anyio.to_thread  # noqa: F401 - what is loaded later would not know what system it is on
import trio  # noqa: F401 - the same

MISSING: dict[ModuleType, tuple[str, ...]] = {  # by how their names begin
    mmap: ("MAP_", "PROT_", "MADV_"),
    os: (
        *("fork", "register_at_fork", "posix_spawn", "POSIX_SPAWN", "sysconf", "confstr", "memfd_create", "MFD_", "pidfd_open"),
        *(
            "sched_",
            "wait3",
            "wait4",
            "waitid",
            "W",
            "setsid",
            "setpg",
            "getpg",
            "killpg",
            "pread",
            "pwrite",
            "getuid",
            "uname",
        ),
        *("getloadavg", "eventfd", "mkfifo", "O_CLOEXEC", "O_NONBLOCK"),
    ),
    socket: ("AF_UNIX", "send_fds", "recv_fds", "SCM_", "CMSG_", "MSG_WAITALL", "MSG_CTRUNC"),
    signal: ("SIGKILL", "SIGHUP", "SIGQUIT", "SIGCHLD", "SIGALRM", "SIGUSR", "SIGPIPE", "SIGSTOP", "pthread_"),
    select: ("poll", "POLL", "epoll", "EPOLL"),
}

asyncio.new_event_loop().close()  # chooses for good what loops are made
whole_select = ModuleType("select")
vars(whole_select).update(vars(select))
for module in list(sys.modules.values()):
    if module.__name__ == "selectors" or module.__name__.startswith("trio."):
        vars(module).update({name: whole_select for name in ("select",) if name in vars(module)})
socket.socketpair = functools.partial(socket.socketpair, socket.AF_UNIX)
for module, beginnings in MISSING.items():
    for name in [name for name in vars(module) if name.startswith(beginnings)]:
        delattr(module, name)
for name in ("fcntl", "resource", "pwd", "grp", "termios", "pty", "_posixshmem", "_posixsubprocess", "uvloop"):
    sys.modules[name] = None  # type: ignore[assignment]
sys.platform = "win32"
