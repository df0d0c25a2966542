"""The entries of a cache on disk: one file for each, and no index beside them. The tree is the index.

    location/v1/<function>/<2 hex digits>/<38 hex digits>      an entry, named by its key
    location/v1/new/                                           entries that are being written
    location/v1/locks                                          locks on keys (`locks.py`)
    location/v1/tally                                          what processes have done (`tally.py`)
    location/v1/pruned                                         when it was last pruned, by its time (`shelf.py`)

# Guarantees

- **An entry is there whole or not at all.** It is written under another name and renamed. After a crash of the machine it may
  be torn; that is seen when it is read. (`durable=True` waits for the disk.)
- **Whatever cannot be read is a miss.** A damaged entry is removed and warned about; the first time only, because there may be
  many. An entry that others can read, with other settings or another version, is left alone until there is another result.
- **Failures to write cost the result's place in the cache and nothing else**: disk full, read-only, a value that cannot be
  pickled. They warn.
- **Nobody else's pickles are read.** Reading a pickle runs what it says. So folders are made for their owner only, and a
  location that belongs to another user, or that others may write to, is refused, unless entries are signed.

Entries are never changed. Replacing or removing one leaves those who have it mapped what they have.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from asyncpar._basics.locking import Numbers
from asyncpar._basics.wording import in_words
from asyncpar._cache.beside import warn
from asyncpar._cache.compression import Compression
from asyncpar._cache.entries import DamagedEntryError, ForeignEntryError, Found, Reader, assemble, read, read_small
from asyncpar._cache.inputs import FIRST_BYTES, FileInput
from asyncpar._cache.locks import KeyLocks, locks_of
from asyncpar._cache.pruner import Pruner
from asyncpar._cache.pruning import folders
from asyncpar._cache.tally import Tally
from asyncpar._memory.buffers import Buffer
from asyncpar._platform.mounts import is_local
from asyncpar.errors import UnsafeCacheError

FORMAT_FOLDER = "v1"
NEW_FOLDER = "new"

READ_AT_ONCE = 1 << 15  # bytes of an entry that an event loop reads and unpickles by itself, which takes at most 0.2 ms
_ALLOCATED_BYTES = 1 << 20  # from here on, the disk is asked for the room before anything is written
_TOUCHED_SECONDS = 3600.0  # a hit says at most so often that the entry is in use
_CLEARING_ATTEMPTS = 3
_WRITTEN_BYTES = 1 << 20  # at once, for the reason given in inputs.py
_WRITTEN_PARTS = 512  # at once; the limit of Linux is 1024
_JOINED_BYTES = 1 << 14  # up to here, copying the pieces into one costs less than handing them over one by one

_names = Numbers()  # of entries that are being written


class Store:
    """All entries at a location, as this process reads and writes them.

    Args:
        location: a folder. It is made when something is written.
        reader: how entries are read.
        compression: how they are compressed.
        durable: wait for the disk.

    Raises:
        UnsafeCacheError: the folder belongs to another user, or others may write to it.
    """

    def __init__(self, location: str, reader: Reader, compression: Compression | None = None, *, durable: bool = False) -> None:
        self.location = location
        self.folder = os.path.join(location, FORMAT_FOLDER)
        self.reader = reader
        self._compression = compression
        self._durable = durable
        self._warned: set[str] = set()
        self._token = os.urandom(6).hex()
        self._locks: KeyLocks | None = None
        self.tally = Tally(self.folder)
        self.pruner = Pruner()
        # What is signed may be shared, and the umask decides with whom. Anything else is for its owner only
        self._file_mode, self._folder_mode = (0o600, 0o700) if reader.signing_key is None else (0o666, 0o777)
        self.check()

    def check(self) -> None:
        """Raises UnsafeCacheError unless entries there can be trusted."""
        if self.reader.signing_key is None and hasattr(os, "geteuid"):
            for folder in (self.location, self.folder):
                check_owner(folder)

    @property
    def locks(self) -> KeyLocks:
        """The locks on keys."""
        if self._locks is None:
            self._make_folder(self.folder)
            self._locks = locks_of(self.folder)
        return self._locks

    @cached_property
    def is_local(self) -> bool:
        """Whether entries are on a disk of this machine."""
        return is_local(os.path.realpath(self.location))

    def folder_of(self, function: str) -> str:
        """The folder of a function's entries."""
        return os.path.join(self.folder, function)

    def read(self, folder: str, key: bytes, breathe: bool = False) -> Found | None:
        """The entry of a key in a function's folder; None if there is none."""
        fd = self.open(folder, key)
        return None if fd is None else self.read_open(fd, folder, key, breathe)

    def has_file(self, folder: str, key: bytes) -> bool:
        """Whether there is something to open. If not, this is found out in less time than by opening it."""
        try:
            os.stat(path_of(folder, key))
        except OSError:
            return False
        return True

    def open(self, folder: str, key: bytes) -> int | None:
        """A descriptor of the entry, which `read_open` closes."""
        name = key.hex()
        try:
            return os.open(f"{folder}/{name[:2]}/{name[2:]}", READING)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn("open", f"an entry of the cache cannot be read ({error}), so its call is computed")
            return None

    def read_open(self, fd: int, folder: str, key: bytes, breathe: bool = False) -> Found | None:
        """The entry that has been opened; None if it is damaged."""
        try:
            first = os.read(fd, FIRST_BYTES)
            found = read_small(first, self.reader) or read(FileInput(fd, first), self.reader, breathe=breathe)
            if found.key != key:
                raise DamagedEntryError("it is the entry of another call")
            if time.time() - found.created > _TOUCHED_SECONDS:
                self._touch(fd)
            return found
        except ForeignEntryError as error:
            self._warn("foreign", f"{path_of(folder, key)} is not used, but replaced: {error}")
        except DamagedEntryError as error:
            self._remove_damaged(folder, key, error)
        except OSError as error:
            self._warn("read", f"an entry of the cache cannot be read ({error}), so its call is computed")
        finally:
            os.close(fd)
        return None

    def write(self, folder: str, key: bytes, value: Any, seconds: float, *, breathe: bool = False) -> int:
        """Keeps a value, and returns the bytes that it takes; 0, with a warning, if that is not possible."""
        serializer = self.reader.serializer
        try:
            packed = serializer.pack(value, breathe=breathe)
        except Exception as error:
            name = os.path.basename(folder)
            self._warn(f"pack {name}", f"a result of {name} cannot be kept, because it cannot be stored: {in_words(error)}")
            return 0
        pieces = assemble(
            packed,
            serializer.code,
            key=key,
            seconds=seconds,
            compression=self._compression,
            signing_key=self.reader.signing_key,
        )
        try:
            return self._write(path_of(folder, key), pieces)
        except OSError as error:
            self._warn("write", f"results cannot be kept in {self.location}: {error}; calls go on without the cache")
            return 0

    def remove(self, folder: str, key: bytes) -> None:
        """Forgets a key."""
        with contextlib.suppress(OSError):
            os.unlink(path_of(folder, key))

    def clear(self, folder: str | None = None) -> None:
        """Forgets the results of a function, or of all of them. The locks stay: others may hold them."""
        for path in [folder] if folder is not None else [entry.path for entry in folders(self.folder)]:
            for _ in range(_CLEARING_ATTEMPTS):  # others may put something in while we remove it
                shutil.rmtree(path, ignore_errors=True)
                if not os.path.exists(path):
                    break

    def _write(self, path: str, pieces: Sequence[Buffer]) -> int:
        size = sum(map(len, pieces))
        temporary = f"{self.folder}/{NEW_FOLDER}/{self._token}-{os.getpid()}-{next(_names)}"
        fd = self._create(temporary)
        try:
            try:
                if size >= _ALLOCATED_BYTES and hasattr(os, "posix_fallocate"):
                    _allocate(fd, size)
                if size <= _JOINED_BYTES:
                    _write_small(fd, b"".join(pieces))
                else:
                    _write_all(fd, pieces)
                if self._durable:
                    os.fsync(fd)
            finally:
                os.close(fd)
            self._rename(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        return size

    def _create(self, path: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CLOEXEC
        try:
            return os.open(path, flags, self._file_mode)
        except FileNotFoundError:
            self._make_folder(os.path.dirname(path))
            return os.open(path, flags, self._file_mode)

    def _rename(self, temporary: str, path: str) -> None:
        try:
            os.replace(temporary, path)
        except FileNotFoundError:
            self._make_folder(os.path.dirname(path))
            os.replace(temporary, path)
        if self._durable:
            fd = os.open(os.path.dirname(path), os.O_RDONLY | _CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def _make_folder(self, folder: str) -> None:
        """Makes it and those above it."""
        with contextlib.suppress(OSError):
            os.mkdir(folder, self._folder_mode)
            return
        for path in (*reversed(Path(folder).parents), Path(folder)):
            with contextlib.suppress(OSError):  # it is there already; if not, what needs it says so
                path.mkdir(self._folder_mode)

    def _touch(self, fd: int) -> None:
        now = time.time()
        if now - os.fstat(fd).st_mtime > _TOUCHED_SECONDS:
            with contextlib.suppress(OSError):
                os.utime(fd, (now, now))

    def _remove_damaged(self, folder: str, key: bytes, error: DamagedEntryError) -> None:
        path = path_of(folder, key)
        with contextlib.suppress(OSError):
            os.unlink(path)
        message = f"the entry {path} of the cache was damaged: {error}; it is removed, and its call is computed again"
        self._warn("damaged", message)

    def _warn(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            warn(message)


_CLOEXEC = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
READING = os.O_RDONLY | _CLOEXEC | getattr(os, "O_NONBLOCK", 0)  # something in the place of a file might wait for ever


def path_of(folder: str, key: bytes) -> str:
    """The path of an entry."""
    name = key.hex()
    return f"{folder}/{name[:2]}/{name[2:]}"


def check_owner(folder: str) -> None:
    """Raises UnsafeCacheError if others than this user (and root) may write to the folder."""
    try:
        status = os.stat(folder)
    except OSError:
        return
    if status.st_uid not in (os.geteuid(), 0):
        raise UnsafeCacheError(
            f"the cache in {folder} belongs to user {status.st_uid}, whose pickles could run any code here; use a folder of "
            "your own, or sign entries with key="
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UnsafeCacheError(
            f"others may write to the cache in {folder} (mode {stat.S_IMODE(status.st_mode):o}), and pickles that they put "
            f"there could run any code here; chmod go-w {folder}, use another folder, or sign entries with key="
        )


def _allocate(fd: int, size: int) -> None:
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise  # others mean that this file system does without


def _write_small(fd: int, data: bytes) -> None:
    written = os.write(fd, data)
    if written < len(data):
        _write_parts(fd, [memoryview(data)[written:]])


def _write_all(fd: int, pieces: Sequence[Buffer]) -> None:
    together: list[memoryview] = []
    size = 0
    for piece in pieces:
        for begin in range(0, len(piece), _WRITTEN_BYTES):
            part = memoryview(piece)[begin : begin + _WRITTEN_BYTES]
            together.append(part)
            size += len(part)
            if size >= _WRITTEN_BYTES or len(together) == _WRITTEN_PARTS:
                _write_parts(fd, together)
                together, size = [], 0
    _write_parts(fd, together)


def _write_parts(fd: int, parts: list[memoryview]) -> None:
    while parts:
        written = os.writev(fd, parts) if hasattr(os, "writev") else os.write(fd, parts[0])
        while parts and written >= len(parts[0]):
            written -= len(parts.pop(0))
        if written:
            parts[0] = parts[0][written:]
