"""scikit-learn on asyncpar: nothing but the backend differs, and the results are the same to the last bit.

A worker takes a second of processor time to import scikit-learn. So the workers of both backends stay until the last test of
this file has ended, and then it is checked that nothing is left behind.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]  # it has no type information
import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier, StackingClassifier
from sklearn.feature_selection import RFECV
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LassoCV, LogisticRegression
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, cross_val_predict, cross_val_score, learning_curve
from sklearn.multiclass import OneVsOneClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

import asyncpar
from asyncpar._sync.portal import close_portal
from asyncpar.testing.leftovers import belongings, busy_threads, join_new_threads, left_since
from tests.joblib_backend.transformers import CountedScaler

pytestmark = pytest.mark.usefixtures("warm_loky")

X, y = make_classification(n_samples=120, n_features=8, n_informative=4, n_classes=3, random_state=0)

CASES: dict[str, Callable[[], Any]] = {
    "cross_val_score": lambda: cross_val_score(SVC(), X, y, n_jobs=2),
    "cross_val_predict": lambda: cross_val_predict(LogisticRegression(), X, y, n_jobs=2),
    "grid search": lambda: (
        GridSearchCV(SVC(), {"C": [0.1, 1, 10], "kernel": ["rbf", "linear"]}, n_jobs=2).fit(X, y).cv_results_["mean_test_score"]
    ),
    "randomised search": lambda: (
        RandomizedSearchCV(
            DecisionTreeClassifier(random_state=0), {"max_depth": range(1, 9)}, n_iter=5, random_state=0, n_jobs=2
        )
        .fit(X, y)
        .cv_results_["mean_test_score"]
    ),
    "search of forests": lambda: (
        GridSearchCV(RandomForestClassifier(n_estimators=10, random_state=0, n_jobs=2), {"max_depth": [2, 3]}, n_jobs=2)
        .fit(X, y)
        .cv_results_["mean_test_score"]
    ),
    "forest": lambda: RandomForestClassifier(n_estimators=20, random_state=0, n_jobs=2).fit(X, y).predict_proba(X),
    "permutation importance": lambda: (
        permutation_importance(SVC().fit(X, y), X, y, n_repeats=3, random_state=0, n_jobs=2).importances
    ),
    "learning curve": lambda: np.stack([part.mean(axis=1) for part in learning_curve(SVC(), X, y, cv=3, n_jobs=2)[1:]]),
    "feature elimination": lambda: RFECV(LogisticRegression(), n_jobs=2).fit(X, y).ranking_,
    "stacking": lambda: (
        StackingClassifier([("svc", SVC()), ("tree", DecisionTreeClassifier(random_state=0))], n_jobs=2).fit(X, y).predict(X)
    ),
    "lasso path": lambda: LassoCV(n_jobs=2, random_state=0).fit(X, y).coef_,
    "one against one": lambda: OneVsOneClassifier(SVC(), n_jobs=2).fit(X, y).decision_function(X),
}


@pytest.fixture(scope="module")
def nothing_is_left_behind_by_all(warm_loky: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        temporary = tmp_path_factory.mktemp("temporary")
        monkeypatch.setattr("tempfile.tempdir", str(temporary))
        monkeypatch.setenv("TMPDIR", str(temporary))
        before, threads = belongings(temporary), busy_threads()
        yield
        close_portal()
        gc.collect()
        join_new_threads(threads)
        left = left_since(before, temporary)
        assert not left, f"the tests left behind: {left}"


@pytest.fixture(autouse=True)
def every_test_leaves_nothing_behind(nothing_is_left_behind_by_all: None) -> None:
    """But workers, for those that follow, and what joblib has started in these."""


@pytest.mark.parametrize("case", CASES)
def test_the_results_are_those_of_joblibs_own_workers(case: str) -> None:
    found = {}
    for backend in ["loky", "asyncpar"]:
        with joblib.parallel_config(backend=backend):
            found[backend] = CASES[case]()
    assert np.array_equal(found["asyncpar"], found["loky"])


@pytest.mark.filterwarnings("ignore:Persisting input arguments took")  # joblib's Memory says so where the disk is slow
def test_a_pipeline_with_a_memory_is_searched(tmp_path: Path) -> None:
    def search(memory: object) -> Any:
        pipeline = make_pipeline(StandardScaler(), PCA(n_components=4, random_state=0), SVC(), memory=memory)
        return GridSearchCV(pipeline, {"svc__C": [0.1, 1, 10]}, n_jobs=2).fit(X, y).cv_results_["mean_test_score"]

    with joblib.parallel_config(backend="asyncpar"):
        cached = search(joblib.Memory(tmp_path, verbose=0))
        assert np.array_equal(cached, search(None))
    assert list(tmp_path.rglob("output.pkl"))


def test_each_transformer_is_fitted_once_in_a_parallel_search_with_a_memory_of_asyncpar(tmp_path: Path) -> None:
    """Two ways to scale, three folds, four classifiers: 24 fits of pipelines, and one with all the data."""
    (fits := tmp_path / "fits").mkdir()
    pipeline = make_pipeline(CountedScaler(fits), SVC(), memory=asyncpar.Memory(tmp_path / "cache", verbose=0))
    grid = {"countedscaler__with_mean": [True, False], "svc__C": [0.1, 1, 10, 100]}
    with joblib.parallel_config(backend="asyncpar"):
        search = GridSearchCV(pipeline, grid, cv=3, n_jobs=2, pre_dispatch="all").fit(X, y)
    assert len(list(fits.iterdir())) == 2 * 3 + 1
    with joblib.parallel_config(backend="loky"):
        plain = GridSearchCV(pipeline.set_params(memory=None), grid, cv=3, n_jobs=2).fit(X, y)
    assert np.array_equal(search.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"])


def test_an_error_of_a_fit_is_raised_as_scikit_learn_raises_it() -> None:
    with joblib.parallel_config(backend="asyncpar"), pytest.raises(ValueError, match="n_components=99"):
        cross_val_score(make_pipeline(PCA(n_components=99), SVC()), X, y, n_jobs=2, error_score="raise")
