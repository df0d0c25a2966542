"""Tasks of joblib's, and what they say of where they run."""

from __future__ import annotations

import os
import threading
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import joblib  # type: ignore[import-untyped]  # it has no type information
from joblib.parallel import get_active_backend  # type: ignore[import-untyped]

from tests.functions import Beacon


class Where(NamedTuple):
    pid: int
    thread: str
    backend: str


def where(_: object = None) -> Where:
    return Where(os.getpid(), threading.current_thread().name, type(get_active_backend()[0]).__name__)


def where_below(backend: str | None = None) -> list[Where]:
    """Where the tasks of a `Parallel` in a task run."""
    wheres: list[Where] = joblib.Parallel(n_jobs=2, backend=backend)(joblib.delayed(where)() for _ in range(4))
    return wheres


def where_far_below(backend: str | None = None) -> list[list[Where]]:
    """The same for one in a task of that."""
    found: list[list[Where]] = joblib.Parallel(n_jobs=2, backend=backend)(
        joblib.delayed(where_below)(backend) for _ in range(2)
    )
    return found


def where_here_and_in_multiprocessing() -> list[Where]:
    """Where this task runs, and those of a `Parallel` in it that asks for processes, which joblib refuses with a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [where(), *where_below("multiprocessing")]


def environment(name: str) -> str | None:
    return os.environ.get(name)


def are_one(a: object, b: object) -> bool:
    return a is b


def is_read_only(array: Any) -> bool:
    return not array.flags.writeable


def write_to(array: Any) -> float:
    array[0] = 7
    return float(array[0])


def fail_when_spinning(beacon: Beacon) -> NoReturn:
    while not beacon.pid:
        pass
    raise LookupError("not found")


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.001)


def die_once(path: Path) -> str:
    """Kills its worker the first time."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return "lived"
    os._exit(3)


def exit_by_itself() -> NoReturn:
    raise SystemExit(5)


def stop_iterating() -> NoReturn:
    raise StopIteration("no more")
