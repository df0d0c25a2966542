"""What the tests here call in workers, beside `tests/functions.py`."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from asyncpar import Parallel, current_worker, delayed
from asyncpar._platform.nesting import depth
from tests.functions import double


class Finicky(Exception):
    def __init__(self, what: str, *, code: int) -> None:
        super().__init__(what)
        self.code = code


def raise_finicky(what: str) -> NoReturn:
    raise Finicky(what, code=7)


class Counted:
    """Something to call that knows how often it was pickled in this process."""

    pickled = 0

    def __call__(self, x: int) -> int:
        return x + 1

    def __reduce__(self) -> tuple[Any, ...]:
        type(self).pickled += 1
        return Counted, ()


class Model:
    """As a scikit-learn estimator does it: a method that calls `Parallel` over another method."""

    def __init__(self, weights: Any, n_jobs: int = 2) -> None:
        self.weights = weights
        self.n_jobs = n_jobs

    def fit(self, xs: list[Any]) -> list[float]:
        return Parallel(n_jobs=self.n_jobs)(delayed(self.fit_one)(x) for x in xs)

    def fit_one(self, x: Any) -> float:
        return float(self.weights @ x)


def thread_name(_: object = None) -> str:
    return threading.current_thread().name


def where() -> tuple[int, str, int]:
    return os.getpid(), threading.current_thread().name, depth()


def nest(levels: int) -> list[tuple[int, str, int]]:
    """Where calls run, from this one inwards."""
    if levels == 0:
        return [where()]
    inner: list[list[tuple[int, str, int]]] = Parallel(n_jobs=2)(delayed(nest)(levels - 1) for _ in range(2))
    return [where(), *inner[0]]


def double_all(xs: list[int], backend: str | None = None) -> list[int]:
    return Parallel(n_jobs=2, backend=backend)(delayed(double)(x) for x in xs)


def put_into_environment(name: str, value: str) -> None:
    os.environ[name] = value


def environment(name: str) -> str | None:
    return os.environ.get(name)


def wait_for(path: Path) -> bool:
    while not path.exists():
        time.sleep(0.001)
    return True


def touch_and_wait(mine: Path, other: Path) -> bool:
    mine.touch()
    return wait_for(other)


class DropsGeneratorsWhenRead:
    """Stands for the garbage collector: unpickling it drops whatever is in `generators`."""

    generators: ClassVar[list[Any]] = []
    dropped_in: ClassVar[queue.SimpleQueue[threading.Thread]] = queue.SimpleQueue()

    def __reduce__(self) -> tuple[Any, ...]:
        return _drop_generators, ()


def _drop_generators() -> None:
    DropsGeneratorsWhenRead.generators.clear()
    DropsGeneratorsWhenRead.dropped_in.put(threading.current_thread())


def large_result_that_drops_generators(path: Path) -> list[Any]:
    wait_for(path)
    return [bytes(3_000_000), DropsGeneratorsWhenRead()]


def take_milliseconds(x: int) -> int:
    time.sleep(3e-3)
    return 2 * x


def note(path: Path, x: int) -> int:
    with path.open("a") as file:
        file.write(f"{x}\n")
    return x


def yields_state() -> Iterator[int]:
    yield 1


def scale_by_state(x: int) -> int:
    factor: int = current_worker().state["factor"]
    return factor * x


def blas_threads() -> int:
    import threadpoolctl

    return max((pool["num_threads"] for pool in threadpoolctl.threadpool_info()), default=1)
