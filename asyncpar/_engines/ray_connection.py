"""This process's connection to Ray. There is one at most, which all executors share.

If the program has connected by itself, that connection is used, and left as it is. Otherwise the first executor connects, and
the last one that is closed disconnects. An executor without an address starts a Ray of its own on this machine.

- **A thread keeps the connection.** Starting Ray takes seconds, and on Linux its processes end with the thread that started
  them. So that thread lives until the connection is to end.
- **Only this machine** can talk to a Ray of our own: it listens on the loopback interface. Ray does that where it is told that
  it is no cluster, which is for other systems by default. Its files are in a folder of their own, which is removed.
- **The program stays as it was.** Ray changes the environment, `sys.excepthook`, `breakpoint()`, the limit of descriptors and
  faulthandler; what it does not need is put back once it is connected, and the rest when it is disconnected. Signal handlers
  it does not touch, because it is started in a thread. It keeps a few descriptors for good each time.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import logging
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asyncpar._platform.cpus import cpu_count
from asyncpar.errors import ExecutorUnavailableError

_SHORT_FOLDER = Path("/tmp")  # noqa: S108 - sockets are in it, and their paths must be short
_FOR_ALL = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}  # of a Ray of our own
_SKIP = "RAY_DEDUP_LOGS_SKIP_REGEX"  # Ray reads it when it is imported: lines that it does not print on stdout
_KNOWN = "^A worker died or was killed while executing a task"  # as we say ourselves, where a call is to blame
_REACH_SECONDS = 5.0

_changing = threading.Lock()
_current: Connection | None = None  # what executors share, if they have connected


class Connection:
    """A connection that executors have made. Making and ending it take seconds.

    Attributes:
        address: the one that was asked for; None: of a Ray of our own.
        users: how many executors use it.
    """

    def __init__(self, ray: Any, address: str | None) -> None:
        self.address = address
        self.users = 0
        self._ray = ray
        self._name: object = None
        self._stands = threading.Event()
        self._is_over = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._live, name="asyncpar-ray", daemon=True)
        self._thread.start()
        self._stands.wait()
        self._refuse_failure()

    def _refuse_failure(self) -> None:
        if self._error is not None:
            self._thread.join()
            where = "Ray cannot be started" if self.address is None else f"there is no Ray cluster at {self.address}"
            raise ExecutorUnavailableError(f"{where}: {self._error}") from self._error

    def lasts(self) -> bool:
        """Whether the program has not ended it by itself."""
        return name_of_connection(self._ray) == self._name

    def end(self) -> None:
        self._is_over.set()
        self._thread.join()

    def _live(self) -> None:
        environment = dict(os.environ)
        try:
            with contextlib.ExitStack() as stack:
                with _undisturbed():
                    self._connect(stack)
                stack.callback(self._shut_down)
                self._name = name_of_connection(self._ray)
                self._stands.set()
                self._is_over.wait()
        except BaseException as error:  # also what Ray raises instead of exceptions
            self._error = error
        finally:
            _put_back(environment)
            self._stands.set()

    def _shut_down(self) -> None:
        """Disconnects, unless the program has done that, and perhaps connected anew."""
        if self.lasts():
            self._ray.shutdown()

    def _connect(self, stack: contextlib.ExitStack) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        if self.address is not None:
            self._ray.init(address=_reachable(self.address), **options)
            return
        place = _SHORT_FOLDER if _SHORT_FOLDER.is_dir() else None
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="asyncpar-ray-", dir=place, ignore_cleanup_errors=True))
        stack.enter_context(_on_loopback())
        self._ray.init(address="local", num_cpus=cpu_count(), include_dashboard=False, _temp_dir=folder, **options)


def _reachable(address: str) -> str:
    """The address as host and port. Ray itself would start another Ray for "auto" if there is none, and would wait for a minute
    for one that does not answer, and then end the program.

    Raises:
        OSError, ValueError: there is nothing.
    """
    services: Any = importlib.import_module("ray._private.services")
    found: str | None = services.canonicalize_bootstrap_address(address)
    if found is None:
        raise ConnectionError("none runs here")
    host, _, port = found.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_SECONDS):
        return found


def load_ray() -> Any:
    """The module.

    Raises:
        ExecutorUnavailableError: it is not installed.
    """
    hook, skipped = sys.excepthook, os.environ.get(_SKIP)
    os.environ.setdefault(_SKIP, _KNOWN)
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ExecutorUnavailableError(
            f"the Ray executor needs the package ray, which cannot be imported ({error}): pip install asyncpar[ray]"
        ) from error
    finally:
        _set(_SKIP, skipped)
        sys.excepthook = hook  # the import replaces it by one that tells the cluster about errors


def name_of_connection(ray: Any) -> object:
    """What no other connection of this process has; None: there is none."""
    if not ray.is_initialized():
        return None
    here = ray.get_runtime_context()
    return here.get_node_id(), here.get_job_id()  # jobs are counted anew in each cluster


def connect(ray: Any, address: str | None) -> Connection | None:
    """Connects, unless this process is connected; returns what is to be given to `disconnect`.

    Raises:
        ExecutorUnavailableError: there is no such cluster, or the process is connected to another one.
    """
    global _current
    with _changing:
        if _current is not None and not _current.lasts():
            _current = None
        if not ray.is_initialized():
            _current = Connection(ray, address)
        elif address is not None and not _is_connected_to(ray, address):
            raise ExecutorUnavailableError(
                f"this process is connected to another Ray than {address}, and it can be connected to one at a time"
            )
        if _current is not None:
            _current.users += 1
        return _current


def disconnect(connection: Connection | None) -> None:
    """Ends the connection, unless the program made it, or another executor uses it."""
    global _current
    if connection is None:
        return
    with _changing:
        connection.users -= 1
        if not connection.users:
            connection.end()
            if _current is connection:
                _current = None


def _is_connected_to(ray: Any, address: str) -> bool:
    if _current is not None and _current.address == address:
        return True
    return address in ("auto", ray.get_runtime_context().gcs_address)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Connecting says nothing on stderr, and leaves these as they were."""
    logger = logging.getLogger("ray")
    level, had_faulthandler, breakpoints = logger.level, faulthandler.is_enabled(), os.environ.get("PYTHONBREAKPOINT")
    descriptors = _limit_of_descriptors()
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        if not had_faulthandler:
            faulthandler.disable()
        _set("PYTHONBREAKPOINT", breakpoints)
        _limit_of_descriptors(descriptors)


def _limit_of_descriptors(limits: Any = None) -> Any:
    """The limit, after it was set."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    if limits is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    return resource.getrlimit(resource.RLIMIT_NOFILE)


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """A Ray that is started now listens on the loopback interface only. Ray reads the variable when it is imported."""
    constants: Any = importlib.import_module("ray._private.ray_constants")
    was_for_clusters = constants.ENABLE_RAY_CLUSTER
    os.environ.update(_FOR_ALL)
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = was_for_clusters


def _put_back(environment: dict[str, str]) -> None:
    """The variables of Ray as they were."""
    for name in {name for name in (*os.environ, *environment) if name.startswith("RAY_")}:
        _set(name, environment.get(name))


def _set(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
