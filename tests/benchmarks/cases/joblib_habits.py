"""What programs written for joblib do, beside joblib with its warm loky workers: one model in every task, and searches of
scikit-learn, whose tasks share an estimator, the data and a scorer.

scikit-learn derives its `Parallel` from `joblib.Parallel` when it is imported. To give it asyncpar's, the name is replaced
before that; all else that scikit-learn takes from joblib stays.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeAlias

from tests.benchmarks.frame import Case, Contender, Target, missing, scaled
from tests.benchmarks.timing import median_seconds

Library: TypeAlias = Literal["asyncpar", "joblib"]

_WORKERS = 2
_REPETITIONS = 5
_TASKS = 1000
_MODEL_ENTRIES = 500
_SAMPLES = 120
_FOLDS = 5
_COSTS = 100  # with five folds, 500 fits
_RANDOM_CANDIDATES = 60
_DEPTHS = 10
_LEAF_SIZES = 5


def score(model: dict[str, float], x: int) -> float:
    return model[f"feature {x % _MODEL_ENTRIES}"] * x


def _model_in_every_task(library: Library, quick: bool) -> float:
    joblib = _joblib(library)
    model = {f"feature {number}": number / 7 for number in range(_MODEL_ENTRIES)}
    with joblib.Parallel(n_jobs=_WORKERS) as parallel:

        def run() -> None:
            parallel(joblib.delayed(score)(model, x) for x in range(_TASKS))

        return median_seconds(run, scaled(_REPETITIONS, quick))


def _svc_grid() -> Any:
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    return GridSearchCV(SVC(), {"C": [1 + number / 10 for number in range(_COSTS)]}, n_jobs=_WORKERS, cv=_FOLDS)


def _random_search() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import RandomizedSearchCV

    costs = [10 ** (number / 100) for number in range(-200, 200)]
    search = partial(RandomizedSearchCV, LogisticRegression(), {"C": costs}, n_iter=_RANDOM_CANDIDATES, random_state=0)
    return search(n_jobs=_WORKERS, cv=_FOLDS)


def _tree_grid() -> Any:
    from sklearn.model_selection import GridSearchCV
    from sklearn.tree import DecisionTreeClassifier

    grid = {"max_depth": range(1, _DEPTHS + 1), "min_samples_leaf": range(1, _LEAF_SIZES + 1)}
    return GridSearchCV(DecisionTreeClassifier(random_state=0), grid, n_jobs=_WORKERS, cv=_FOLDS)


def _search(make_search: Callable[[], Any], library: Library, quick: bool) -> float:
    _joblib(library)
    from sklearn.datasets import make_classification

    samples, labels = make_classification(n_samples=_SAMPLES, random_state=0)
    return median_seconds(lambda: make_search().fit(samples, labels), scaled(_REPETITIONS, quick))


def _joblib(library: Library) -> Any:
    """joblib as a module, with `Parallel` and `delayed` of the library that is measured."""
    import joblib  # type: ignore[import-untyped]  # it has no type information

    if library == "asyncpar":
        import asyncpar

        joblib.Parallel, joblib.delayed = asyncpar.Parallel, asyncpar.delayed
    return joblib


def _case(name: str, title: str, measure: Callable[[Library, bool], float], *packages: str) -> Case:
    return Case(
        name,
        title,
        (
            Contender("asyncpar", partial(measure, "asyncpar"), "asyncpar", (Target(times=1.0),)),
            Contender("joblib", partial(measure, "joblib")),
        ),
        reference="joblib",
        unavailable=partial(missing, *packages),
    )


CASES = (
    _case("parallel-model", "Parallel: 1 000 tasks with one dict of 500 entries", _model_in_every_task),
    _case("search-svc", "scikit-learn: a grid search of 500 small SVC fits", partial(_search, _svc_grid), "scikit-learn"),
    _case("search-random", "scikit-learn: a randomised search of 300 fits", partial(_search, _random_search), "scikit-learn"),
    _case("search-trees", "scikit-learn: a grid search of 250 small trees", partial(_search, _tree_grid), "scikit-learn"),
)
