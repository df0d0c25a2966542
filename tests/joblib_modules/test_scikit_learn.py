"""scikit-learn on asyncpar in joblib's place: the results are those with joblib."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent

import pytest

from tests.joblib_modules.scripts import run

CASES = {
    "grid search": "GridSearchCV(SVC(), {'C': [0.1, 1, 10]}, n_jobs=2).fit(X, y).cv_results_['mean_test_score']",
    "cross validation": "cross_val_score(SVC(), X, y, n_jobs=2)",
    "forest": "RandomForestClassifier(20, random_state=0, n_jobs=2).fit(X, y).predict_proba(X)",
    "forest of regressors": "RandomForestRegressor(20, random_state=0, n_jobs=2).fit(X, y).predict(X)",
    "isolation forest": "IsolationForest(random_state=0, n_jobs=2).fit(X).score_samples(X)",
    "pipeline with a folder": "search(folder)",
    "pipeline with a memory": "search(joblib.Memory(folder, verbose=0))",
    "threads": "in_threads(lambda: cross_val_score(SVC(), X, y))",
}
SCRIPT = """
import tempfile, warnings
import joblib, numpy as np
from sklearn.datasets import make_classification
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest, RandomForestClassifier, RandomForestRegressor
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

X, y = make_classification(120, 8, random_state=0)
temporary = tempfile.TemporaryDirectory()
folder = temporary.name

def search(memory):
    pipeline = make_pipeline(PCA(4, random_state=0), SVC(), memory=memory)
    return GridSearchCV(pipeline, {"svc__C": [0.1, 1, 10]}, n_jobs=2).fit(X, y).cv_results_["mean_test_score"]

def in_threads(call):
    with joblib.parallel_backend("threading", n_jobs=2):
        return call()

"""


pytestmark = [
    pytest.mark.skipif(find_spec("sklearn") is None, reason="scikit-learn is not installed"),
    pytest.mark.timeout(120),
]


def test_the_results_are_those_with_joblib() -> None:
    cases = "".join(f"print({name!r}, ({case}).tolist())\n" for name, case in CASES.items())
    theirs = run(f"{SCRIPT}{cases}print(joblib.__name__)\ntemporary.cleanup()")
    ours = run(f"import asyncpar.joblib\nasyncpar.joblib.install()\n{SCRIPT}{cases}print(joblib.__name__)\ntemporary.cleanup()")
    assert theirs.splitlines()[:-1] == ours.splitlines()[:-1]
    assert (theirs.splitlines()[-1], ours.splitlines()[-1]) == ("joblib", "asyncpar.joblib")


def test_a_model_that_joblib_has_written_is_loaded_and_fitted_again(tmp_path: Path) -> None:
    write = f"""
        pipeline = make_pipeline(PCA(4, random_state=0), SVC(), memory=joblib.Memory({str(tmp_path / "cache")!r}, verbose=0))
        joblib.dump(pipeline.fit(X, y), {str(tmp_path / "model")!r}, compress=3)
        print(pipeline.predict(X).tolist())
    """
    read = f"""
        pipeline = joblib.load({str(tmp_path / "model")!r})
        print(pipeline.predict(X).tolist())
        assert pipeline.memory.location == {str(tmp_path / "cache")!r}, pipeline.memory.location
        assert pipeline.fit(X, y).predict(X).tolist() == pipeline.predict(X).tolist()
    """
    theirs = run(f"{SCRIPT}{dedent(write)}temporary.cleanup()")
    ours = run(f"import asyncpar.joblib\nasyncpar.joblib.install()\n{SCRIPT}{dedent(read)}temporary.cleanup()")
    assert theirs == ours
