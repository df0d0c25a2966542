"""The other libraries, each behind the same face: a context manager that yields a map over warm workers.

Whatever they start is started inside it, and gone at its end. `chunk` is how many items are sent together; where it can be
left out, the library chooses. `concurrent.futures` and loky send items one by one unless they are told otherwise. A map
returns its results as a list, or one by one, in the order of the items, if its name ends in `_stream`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeAlias

WORKERS = 2

Map: TypeAlias = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]
Stream: TypeAlias = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
Peer: TypeAlias = Callable[[], AbstractContextManager[Map]]


@contextmanager
def joblib() -> Iterator[Map]:
    from joblib import Parallel, delayed  # type: ignore[import-untyped]  # it has no type information

    with Parallel(n_jobs=WORKERS) as parallel:
        yield lambda fn, items: list(parallel(delayed(fn)(item) for item in items))


@contextmanager
def pool(chunk: int | None = None) -> Iterator[Map]:
    import multiprocessing

    with multiprocessing.Pool(WORKERS) as workers:
        yield lambda fn, items: workers.map(fn, items, chunk)


@contextmanager
def pool_stream(chunk: int) -> Iterator[Stream]:
    import multiprocessing

    with multiprocessing.Pool(WORKERS) as workers:
        yield lambda fn, items: workers.imap(fn, items, chunk)


@contextmanager
def process_pool(chunk: int = 1) -> Iterator[Map]:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(WORKERS) as workers:
        yield lambda fn, items: list(workers.map(fn, items, chunksize=chunk))


@contextmanager
def process_pool_stream(chunk: int) -> Iterator[Stream]:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(WORKERS) as workers:
        yield lambda fn, items: workers.map(fn, items, chunksize=chunk)


@contextmanager
def loky(chunk: int = 1) -> Iterator[Map]:
    from loky import ProcessPoolExecutor  # type: ignore[import-untyped]  # it has no type information

    with ProcessPoolExecutor(WORKERS) as workers:
        yield lambda fn, items: list(workers.map(fn, items, chunksize=chunk))


@contextmanager
def mpire() -> Iterator[Map]:
    from mpire.pool import WorkerPool

    with WorkerPool(WORKERS, keep_alive=True) as workers:
        yield lambda fn, items: list(workers.map(fn, items))
