"""Opens the files beside the entries, such as the tally, so that nothing in their place can hold up a call.

Opening a pipe with a name waits for its other end, and reading a device may never end. Whoever may write to the cache's folder
can put one there. So opening never waits, and what is no file is refused. Calls go on without what would have been in it, and
with a warning that says what to remove.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import warnings

from asyncpar.errors import CacheWarning

NEVER_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)

_refused: set[str] = set()  # paths that have been warned about


def open_beside(path: str, flags: int) -> int:
    """A descriptor of the file.

    Raises:
        OSError: it cannot be opened, or is no file.
    """
    try:
        fd = os.open(path, flags | NEVER_WAIT, 0o666)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a pipe that nobody reads, or a socket
            _warn_once(path)
        raise
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    _warn_once(path)
    raise OSError(errno.EINVAL, "it is no file", path)


def warn(message: str) -> None:
    """Warns the one who has called the cache."""
    warnings.warn(message, CacheWarning, stacklevel=_frames_of_ours())


def _warn_once(path: str) -> None:
    if path not in _refused:
        _refused.add(path)
        warn(f"{path} is no ordinary file, but a pipe or a device, so the cache goes on without it; remove it")


def _frames_of_ours() -> int:
    """How many frames there are up to the one that has called the cache."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("asyncpar."):
        frame, level = frame.f_back, level + 1
    return level
