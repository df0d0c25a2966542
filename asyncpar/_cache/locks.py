"""Locks on keys, between processes: the one that holds a key's lock computes it, and the others wait.

One file has a byte-range lock for each key, at an offset taken from the key. POSIX locks belong to a process: the kernel
releases them within a millisecond of its death, however it dies, and its forked children do not inherit them. `flock` and
open-file-description locks are inherited, so a lock would outlive a killed process in any child that it has forked.

POSIX locks have these traps:

- Closing any descriptor of the file drops all locks that the process has on it. So a process has at most one (`locks_of`), open
  only while a key is claimed or waited for, and nothing else here opens the file. The last one to leave gives its lock back
  by closing it.
- They do not exclude threads of one process from each other. Flights do that (`flights.py`).
- They do not exclude the interpreters of one process from each other, which have flights and a descriptor of their own, and the
  first that closes its descriptor drops the locks of all. So calls that interpreters make may be computed more than once.
- The kernel looks for deadlocks between processes, and takes two threads that wait for each other's process for one (EDEADLK).
  Nobody would tell when that is over, so such a wait is tried again every few milliseconds.

The kernel's list of locks is searched from its beginning: with thousands of them, each costs 60 µs. So a process holds at most
`_MOST`; beyond that, and where the file system has no locks, keys count as free, and two processes may compute the same.

A wait for a lock cannot be cancelled, so it is left to threads of our own: daemons, a few for each process, since it may take
hours. A wait that nobody needs any more goes on in its thread, and gives the lock back at once when it gets it. Until then, the
next one who wants this key takes the wait over: if two threads of one process had the same lock, the first to unlock it would
do so for both.
"""

from __future__ import annotations

import errno
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable

from asyncpar._cache.beside import NEVER_WAIT

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_MOST = 512
_BUSY = {errno.EACCES, errno.EAGAIN}
_DEADLOCK = {errno.EDEADLK}
_RETRY_SECONDS = 0.005
_THREADS = 32
_LARGEST_OFFSET = (1 << 62) - 1
_FILE = "locks"


class Claim:
    """The right to compute a key, for this process. Release it once, in any thread."""

    __slots__ = ("_key", "_locks")

    def __init__(self, locks: KeyLocks, key: bytes, *, is_locked: bool) -> None:
        self._locks = locks if is_locked else None
        self._key = key

    def release(self) -> None:
        """Lets other processes have the key."""
        if self._locks is not None:
            self._locks._unlock(self._key)
            self._locks = None


class Handover:
    """Where a thread leaves a claim for the one who waits for it, who may leave at any time: `with` it, wait until it is there.

    Args:
        notify: is called, in that thread, when the claim is there.
    """

    def __init__(self, notify: Callable[[], object]) -> None:
        self._notify = notify
        self._mutex = threading.Lock()
        self._claim: Claim | None = None
        self._is_wanted = True

    def give(self, claim: Claim) -> None:
        """Called by the thread that has the lock now."""
        with self._mutex:
            if self._is_wanted:
                self._claim = claim
                self._notify()
                return
        claim.release()

    def taken(self) -> Claim:
        """What has been given, which is now the taker's. Called once, after `notify`."""
        claim = self._take()
        assert claim is not None, "it has arrived"
        return claim

    def __enter__(self) -> None:
        """The caller waits for `notify` from here on."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # nobody waits any more: gives the claim back, now or when it comes
            with self._mutex:
                self._is_wanted = False
            claim = self._take()
            if claim is not None:
                claim.release()

    def _take(self) -> Claim | None:
        with self._mutex:
            claim, self._claim = self._claim, None
        return claim


class KeyLocks:
    """The locks of one folder, in this process. Make them with `locks_of`."""

    def __init__(self, path: str) -> None:
        self.folder = os.path.dirname(path)
        self._path = path
        self._fd: int | None = None
        self.reset()

    def reset(self) -> None:
        """In a forked child: it has inherited neither locks nor threads, and closing the file does not disturb its parent."""
        self._mutex = threading.RLock()
        self._users = 0  # claims and waits
        self._threads = 0
        self._waiting: deque[bytes] = deque()
        self._waits: dict[bytes, Handover] = {}
        self._close()

    def try_claim(self, key: bytes) -> Claim | None:
        """The right to compute a key; None if another process has it."""
        with self._mutex:
            return None if key in self._waits else self._lock(key, blocking=False)

    def wait(self, key: bytes, handover: Handover) -> None:
        """Hands the right over when another process has released the key. One wait for a key at a time."""
        with self._mutex:
            is_waiting = key in self._waits
            self._waits[key] = handover
            if is_waiting:
                return
            self._waiting.append(key)
            if self._threads == _THREADS:
                return
            self._threads += 1
        threading.Thread(target=self._wait, name="asyncpar cache lock", daemon=True).start()

    def _wait(self) -> None:
        while True:
            with self._mutex:
                if not self._waiting:
                    self._threads -= 1
                    return
                key = self._waiting.popleft()
            while (claim := self._lock(key, blocking=True)) is None:
                time.sleep(_RETRY_SECONDS)
            with self._mutex:
                handover = self._waits.pop(key)
            handover.give(claim)

    def _lock(self, key: bytes, *, blocking: bool) -> Claim | None:
        """None: try again, because another process has it, or because the kernel believes in a deadlock."""
        with self._mutex:
            fd = self._open()
        if fd is None or fcntl is None:
            return Claim(self, key, is_locked=False)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX if blocking else fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _offset(key))
        except OSError as error:
            self._leave()
            if error.errno in (_DEADLOCK if blocking else _BUSY):
                return None
            return Claim(self, key, is_locked=False)  # the file system has no locks, or none left
        return Claim(self, key, is_locked=True)

    def _unlock(self, key: bytes) -> None:
        with self._mutex:
            if self._fd is not None and fcntl is not None:  # in a forked child, it may be that of a claim from before the fork
                if self._users > 1:  # the last one's lock goes with the file
                    fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, _offset(key))
                self._leave()

    def _open(self) -> int | None:
        """The file, for one more user; None if there is none, or no more room in the list of locks."""
        if self._users >= _MOST:
            return None
        if self._fd is None:
            try:
                self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | NEVER_WAIT, 0o666)  # Linux locks a pipe, too
            except OSError:  # read-only, or gone
                return None
        self._users += 1
        return self._fd

    def _leave(self) -> None:
        with self._mutex:
            self._users -= 1
            if not self._users:
                self._close()

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


_by_folder: weakref.WeakValueDictionary[tuple[int, int], KeyLocks] = weakref.WeakValueDictionary()
_opening = threading.Lock()


def locks_of(folder: str) -> KeyLocks:
    """The locks of a folder: the same object wherever this process asks for them."""
    with _opening:
        try:
            status = os.stat(folder)
            place = status.st_dev, status.st_ino
        except OSError:
            return KeyLocks(os.path.join(folder, _FILE))
        locks = _by_folder.get(place)
        if locks is None or not _is_same(locks.folder, status):  # a removed folder's number is given to others
            locks = _by_folder[place] = KeyLocks(os.path.join(folder, _FILE))
        return locks


def _is_same(folder: str, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(folder), status)
    except OSError:
        return False


def _offset(key: bytes) -> int:
    return int.from_bytes(key[:8], "little") & _LARGEST_OFFSET


def _start_again_in_a_fork() -> None:
    global _opening
    _opening = threading.Lock()
    for locks in list(_by_folder.values()):
        locks.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_again_in_a_fork)
