"""joblib's module `logger`: durations in words, and two small classes that print and log."""

from __future__ import annotations

import logging
import pprint
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from asyncpar._sync.reporting import short_time as short_format_time

__all__ = ["Logger", "PrintTime", "format_time", "pformat", "short_format_time"]

_KEPT_LOGS = 9


def format_time(t: float) -> str:
    """A duration in seconds and in minutes.

    >>> format_time(90)
    '90.0s, 1.5min'
    """
    return f"{t:.1f}s, {t / 60:.1f}min"


def pformat(obj: Any, indent: int = 0, depth: int = 3) -> str:
    """The object, written on several lines, with large arrays shortened."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return pprint.pformat(obj, indent=indent, depth=depth)
    with numpy.printoptions(precision=6, threshold=64, edgeitems=1):
        return pprint.pformat(obj, indent=indent, depth=depth)


class Logger:
    """Logs messages that begin with the object itself.

    Args:
        depth: how deep objects are shown by `format`.
        name: of the logger; None: "joblib".
    """

    def __init__(self, depth: int = 3, name: str | None = None) -> None:
        self.depth = depth
        self._name = name or "joblib"

    def warn(self, msg: object) -> None:
        self._log(logging.WARNING, msg)

    def info(self, msg: object) -> None:
        self._log(logging.INFO, msg)

    def debug(self, msg: object) -> None:
        self._log(logging.DEBUG, msg)

    def format(self, obj: Any, indent: int = 0) -> str:
        return pformat(obj, indent=indent, depth=self.depth)

    def _log(self, level: int, msg: object) -> None:
        logging.getLogger(self._name).log(level, "[%s]: %s", self, msg)


class PrintTime:
    """Prints messages to stderr, with the time since the last one, and writes them to a file.

    Args:
        logfile: the file. One that is there already is kept as `<logfile>.1`, and so on.
        logdir: the folder of a file named joblib.log, instead.
    """

    def __init__(self, logfile: str | None = None, logdir: str | None = None) -> None:
        if logfile is not None and logdir is not None:
            raise ValueError("there is either a logfile or a logdir")
        self.last_time = self.start_time = time.time()
        path = Path(logdir, "joblib.log") if logdir is not None else None if logfile is None else Path(logfile)
        self.logfile = None if path is None else str(path)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            _keep_older(path)
            path.write_text(f"\nLogging joblib\n{time.asctime()}\n")

    def __call__(self, msg: str = "", total: bool = False) -> None:
        """Prints the message; `total`: with the time since the beginning."""
        now = time.time()
        text = f"{msg}: {format_time(now - (self.start_time if total else self.last_time))}"
        self.last_time = now
        print(text, file=sys.stderr)
        if self.logfile is not None:
            with Path(self.logfile).open("a") as file:
                print(text, file=file)


def _keep_older(path: Path) -> None:
    if not path.exists():
        return
    for number in range(_KEPT_LOGS - 1, 0, -1):
        older = Path(f"{path}.{number}")
        if older.exists():
            older.replace(f"{path}.{number + 1}")
    shutil.copy(path, f"{path}.1")  # whoever watches the file does not lose it
