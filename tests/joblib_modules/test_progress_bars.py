"""Recipes for progress bars that reach into joblib."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from asyncpar.joblib import parallel as joblib_parallel
from asyncpar.joblib.parallel import Parallel, delayed
from tests.functions import double


@contextmanager
def replaced_class(update: Callable[[int], object]) -> Iterator[None]:
    class Counting(joblib_parallel.BatchCompletionCallBack):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)

        def __call__(self, *args: Any, **kwargs: Any) -> None:
            update(self.batch_size)
            super().__call__(*args, **kwargs)

    before = joblib_parallel.BatchCompletionCallBack
    joblib_parallel.BatchCompletionCallBack = Counting  # type: ignore[misc]  # as the recipe does
    try:
        yield
    finally:
        joblib_parallel.BatchCompletionCallBack = before  # type: ignore[misc]


@contextmanager
def replaced_method(update: Callable[[int], object]) -> Iterator[None]:
    original = joblib_parallel.BatchCompletionCallBack.__call__

    def count(self: Any, out: object) -> None:
        update(self.batch_size)
        original(self, out)

    joblib_parallel.BatchCompletionCallBack.__call__ = count  # type: ignore[method-assign]
    try:
        yield
    finally:
        joblib_parallel.BatchCompletionCallBack.__call__ = original  # type: ignore[method-assign]


@pytest.mark.parametrize("recipe", [replaced_class, replaced_method])
@pytest.mark.parametrize("return_as", ["list", "generator", "generator_unordered"])
@pytest.mark.parametrize(("n_jobs", "backend"), [(1, None), (2, "loky"), (2, "threading")])
def test_the_callback_of_batches_counts_each_task_once(recipe: Any, return_as: Any, n_jobs: int, backend: str | None) -> None:
    counts: list[int] = []
    with recipe(counts.append):
        results = list(Parallel(n_jobs, backend=backend, return_as=return_as)(delayed(double)(x) for x in range(300)))
    assert sorted(results) == list(range(0, 600, 2))
    assert sum(counts) == 300
    assert min(counts) > 0
    assert list(Parallel(n_jobs, backend=backend)([delayed(double)(1)])) == [2]
    assert sum(counts) == 300


def test_a_failed_call_counts_no_task_twice() -> None:
    counts: list[int] = []
    with replaced_class(counts.append), pytest.raises(ZeroDivisionError):
        Parallel(2, backend="threading", batch_size=1)(delayed(divmod)(1, x) for x in [1, 0])
    assert sum(counts) <= 2


def test_a_callback_sees_its_parallel() -> None:
    seen: set[Any] = set()

    class Asking(joblib_parallel.BatchCompletionCallBack):
        def __call__(self, *args: Any, **kwargs: Any) -> None:
            seen.add((self.parallel.n_completed_tasks > 0, self.parallel._original_iterator))
            self.parallel._backend.batch_completed(self.batch_size, 0.1)
            self.parallel.print_progress()
            self.parallel.dispatch_next()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joblib_parallel, "BatchCompletionCallBack", Asking)
        Parallel(2)(delayed(double)(x) for x in range(10))
    assert seen == {(True, None)}
