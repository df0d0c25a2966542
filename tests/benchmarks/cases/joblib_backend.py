"""asyncpar as the backend of joblib, beside loky, joblib's own: the same program, and only the name of the backend differs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tests.benchmarks.frame import Case, Contender, Target, missing, scaled
from tests.benchmarks.timing import median_seconds

_WORKERS = 2
_REPETITIONS = 5
_CALLS = 200
_SAMPLES = 120
_FOLDS = 5
_COSTS = 100  # with five folds, 500 fits


def _two_tasks(quick: bool) -> Callable[[], Any]:
    import joblib  # type: ignore[import-untyped]  # it has no type information

    return lambda: joblib.Parallel()(joblib.delayed(abs)(x) for x in (-1, -2))


def _small_fits(quick: bool) -> Callable[[], Any]:
    from sklearn.datasets import make_classification
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    samples, labels = make_classification(n_samples=_SAMPLES, random_state=0)
    grid = {"C": [1 + number / 10 for number in range(scaled(_COSTS, quick))]}
    return lambda: GridSearchCV(SVC(), grid, cv=_FOLDS).fit(samples, labels)


def _measure(prepare: Callable[[bool], Callable[[], Any]], repetitions: int, backend: str, quick: bool) -> float:
    import joblib

    if backend == "asyncpar":
        import asyncpar.joblib

        asyncpar.joblib.register()
    with joblib.parallel_config(backend=backend, n_jobs=_WORKERS):
        run = prepare(quick)
        run()  # starts the workers
        return median_seconds(run, scaled(repetitions, quick))


def _case(name: str, title: str, prepare: Callable[[bool], Callable[[], Any]], repetitions: int, *packages: str) -> Case:
    return Case(
        name,
        title,
        (
            Contender("asyncpar", partial(_measure, prepare, repetitions, "asyncpar"), "asyncpar", (Target(times=1.0),)),
            Contender("loky", partial(_measure, prepare, repetitions, "loky")),
        ),
        reference="loky",
        unavailable=partial(missing, *packages),
    )


CASES = (
    _case("backend-two-tasks", "joblib's Parallel: one call of two tasks, by its backend", _two_tasks, _CALLS, "joblib"),
    _case(
        "backend-search",
        "scikit-learn: a grid search of 500 small fits, by joblib's backend",
        _small_fits,
        _REPETITIONS,
        "scikit-learn",
    ),
)
