"""How a zygote is started: with which interpreter, surroundings and descriptors, and when that is refused.

It is `sys.executable` with the options of this interpreter, as a program of its own:

- **Its own process group**, which Ctrl-C does not reach. First, the zygote gives up the terminal (`_leave_terminal` in
  `_child/zygote.py`). A call that reads the terminal, or runs a program that does (ssh, sudo), then fails at once, and one that
  prints is never stopped (`stty tostop`). Otherwise SIGTTIN or SIGTTOU would stop the whole pool, which then could not even see
  that it should end.
- **Imports** as in `_platform/own_imports.py`: the standard library first, then asyncpar and cloudpickle from where this
  program has them. The program's path comes with the config.
- **No descriptors** but the control socket, /dev/null as stdin, and the program's stdout and stderr, or /dev/null if it has
  none. (If stdout or stderr were closed, a worker's channel or control page could get its number, and be written into.)
  posix_spawn closes descriptors that C libraries have left inheritable. It does so before the interpreter starts, so what
  `sitecustomize` and .pth files open stays open. A descriptor that another thread makes inheritable at that moment may be
  missed. It then stays open, but does no other harm.

A program that is not run by a Python interpreter (frozen, embedded) may have itself as `sys.executable`, and would start itself
again and again. So the zygote is started with a mark in its environment, which it removes. A program that finds the mark and
wants a zygote was started instead of one. It refuses, and shuts down the control socket, so that its parent does not wait.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterable
from importlib.machinery import PathFinder
from pathlib import Path

from asyncpar._child.protocol import ZYGOTE_MARK
from asyncpar._processes.shortages import SHORTAGES
from asyncpar.errors import ExecutorUnavailableError

_CONTROL_FD = 3  # the first after stdin, stdout and stderr
_PROGRAM = (  # what it imports stays, so garbage collections meanwhile would find nothing, and take a tenth of its start
    "import gc, os, sys; gc.disable(); library = os.path.dirname(os.__file__); "
    "sys.path[:0] = [library, os.path.join(library, 'lib-dynload'), *sys.argv[2:]]; "
    "from asyncpar._child.zygote import main; gc.freeze(); gc.enable(); main(int(sys.argv[1]))"
)
_PACKAGE_ROOT = str(Path(__file__).absolute().parents[2])
_REMEDY = 'set sys.executable to the path of a Python interpreter, or use executor="thread"'
_DESCRIPTORS = {"linux": "/proc/self/fd", "darwin": "/dev/fd"}  # where the system lists them
_MOST_DESCRIPTORS = 1 << 16  # if it does not list them; more than a process has by default
_ATTEMPTS = 10  # to get a list of descriptors of which none is closed meanwhile; a guess


def refuse_unless_supported() -> None:
    """Raises `ExecutorUnavailableError` if there can be no process workers, and says what to use instead."""
    if not hasattr(socket, "send_fds") or not hasattr(os, "posix_spawn"):
        raise ExecutorUnavailableError(
            f"process workers need Unix domain sockets that pass descriptors, which {sys.platform} does not have; "
            'use executor="thread"'
        )
    if getattr(sys, "frozen", False):
        raise ExecutorUnavailableError(
            f"process workers are started with a Python interpreter, and this frozen program ({sys.executable}) has none; "
            'use executor="thread"'
        )
    if not sys.executable:
        raise ExecutorUnavailableError(
            f"process workers are started with sys.executable, which is empty in this embedded Python; {_REMEDY}"
        )
    if ZYGOTE_MARK in os.environ:
        _tell_parent()
        raise ExecutorUnavailableError(
            f"process workers are started with sys.executable, and {sys.executable} is not a Python interpreter: it has "
            f"started this program a second time; {_REMEDY}"
        )


def describe_lost_start() -> str:
    """Says in an error message why there is no zygote, if it ended before it was ready."""
    return (
        f"the process that forks workers, started as {sys.executable} (sys.executable), ended before it was ready; what it "
        f"wrote to stderr may say why (such as a failing preload=). If that is not a Python interpreter, {_REMEDY}"
    )


def spawn_zygote(control: socket.socket) -> int:
    """Starts an interpreter that runs the zygote, with `control` as descriptor 3; returns its process id."""
    command = [sys.executable, "-P", *_interpreter_flags(), "-c", _PROGRAM, str(_CONTROL_FD), *package_roots()]
    environment = {**os.environ, ZYGOTE_MARK: _identity(control.fileno())}
    for attempt in range(_ATTEMPTS):
        try:
            return _spawn(command, environment, control.fileno())
        except OSError as error:
            if error.errno == errno.EBADF and attempt + 1 < _ATTEMPTS:  # some systems cannot close what another thread just has
                continue
            if error.errno in SHORTAGES:
                raise
            raise ExecutorUnavailableError(f"{sys.executable} (sys.executable) could not be started: {error}") from error
    raise AssertionError("the last attempt returns or raises")


def _spawn(command: list[str], environment: dict[str, str], control_fd: int) -> int:
    leftovers = [(os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _inheritable_descriptors()]
    # Another number than 3: dup2 of a descriptor onto itself would not make it inheritable
    source = os.dup(control_fd)
    try:
        actions = [
            (os.POSIX_SPAWN_DUP2, source if control_fd == _CONTROL_FD else control_fd, _CONTROL_FD),
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            *((os.POSIX_SPAWN_OPEN, output, os.devnull, os.O_WRONLY, 0) for output in (1, 2) if not _is_inheritable(output)),
            *leftovers,
        ]
        return os.posix_spawn(command[0], command, environment, file_actions=actions, setpgroup=0, setsigmask=())
    finally:
        os.close(source)


def _inheritable_descriptors() -> list[int]:
    """The inheritable descriptors, except those that the zygote gets."""
    candidates: Iterable[int] = range(_MOST_DESCRIPTORS)
    if (directory := _DESCRIPTORS.get(sys.platform)) is not None:
        candidates = [int(entry.name) for entry in Path(directory).iterdir()]
    limit = os.sysconf("SC_OPEN_MAX")  # descriptors beyond it, opened before it was lowered, cannot be named, and stay open
    limit = sys.maxsize if limit < 0 else limit
    return [descriptor for descriptor in candidates if _CONTROL_FD < descriptor < limit and _is_inheritable(descriptor)]


def _is_inheritable(descriptor: int) -> bool:
    try:
        return os.get_inheritable(descriptor)
    except OSError:  # it is not open, or no longer
        return False


def _identity(descriptor: int) -> str:
    """A text that identifies an open socket."""
    return str(os.fstat(descriptor).st_ino)


def _tell_parent() -> None:
    """In a program that was started instead of a zygote: shuts down the control socket, if it still has it."""
    with contextlib.suppress(OSError):
        if _identity(_CONTROL_FD) == os.environ[ZYGOTE_MARK]:
            with socket.socket(fileno=os.dup(_CONTROL_FD)) as control:
                control.shutdown(socket.SHUT_RDWR)
                while control.recv(1 << 16):  # and, with the data, the descriptors of workers that were requested
                    pass


def package_roots() -> list[str]:
    """Where this program has asyncpar and cloudpickle, even if it has not imported them yet."""
    loaded = sys.modules.get("cloudpickle")
    spec = PathFinder.find_spec("cloudpickle") if loaded is None else loaded.__spec__
    if spec is None or spec.origin is None:
        return [_PACKAGE_ROOT]
    return [_PACKAGE_ROOT, str(Path(spec.origin).absolute().parents[1])]


def search_path() -> list[str]:
    """`sys.path` as imports see it: they ignore entries that are not strings."""
    return [str(entry) for entry in sys.path if isinstance(entry, str)]


def absolute_search_path() -> list[str]:
    """The same for a process in another directory: "" becomes the working directory, and relative entries become absolute."""
    entries = search_path()
    try:
        return [str(Path(entry).absolute()) for entry in entries]
    except FileNotFoundError:  # the working directory has been removed
        return [entry for entry in entries if Path(entry).is_absolute()]


def _interpreter_flags() -> list[str]:
    """The command-line options of this interpreter that change how code runs."""
    flags = [f"-{letter * times}" for letter, times in (("O", sys.flags.optimize), ("b", sys.flags.bytes_warning)) if times]
    for letter, on in (("E", sys.flags.ignore_environment), ("s", sys.flags.no_user_site), ("S", sys.flags.no_site)):
        if on:
            flags.append(f"-{letter}")
    flags += [f"-W{option}" for option in sys.warnoptions]
    flags += [f"-X{name}" if value is True else f"-X{name}={value}" for name, value in sys._xoptions.items()]
    return flags
