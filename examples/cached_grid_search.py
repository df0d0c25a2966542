"""A grid search in scikit-learn that fits each transformer once, whatever the number of models behind it.

A pipeline asks for an object with a `cache` method, and an `asyncpar.Memory` is one. The search tries two transformers with
three models each, on three folds, in two processes at a time: eighteen fits, for which six of the transformer are enough. When
one process fits it, the others that need the same wait for it.

    python examples/cached_grid_search.py [FOLDER]
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from asyncpar import Memory


class Powers(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Takes its time to fit, and leaves a file for each fit."""

    def __init__(self, folder: str, power: int = 1) -> None:
        self.folder = folder
        self.power = power

    def fit(self, X: Any, y: Any = None) -> Powers:
        time.sleep(0.1)
        Path(self.folder, f"fit-{os.getpid()}-{time.monotonic_ns()}").touch()
        return self

    def transform(self, X: Any) -> Any:
        return X**self.power


def search(folder: str) -> tuple[int, dict[str, Any]]:
    """Returns how often the transformer was fitted, and the best parameters."""
    features, labels = make_classification(500, random_state=0)
    pipeline = Pipeline(
        [("powers", Powers(folder)), ("model", LogisticRegression(max_iter=1000))],
        memory=Memory(Path(folder, "cache"), verbose=0),
    )
    grid = {"powers__power": [1, 3], "model__C": [0.1, 1, 10]}
    found = GridSearchCV(pipeline, grid, n_jobs=2, cv=3, refit=False).fit(features, labels)
    return len(list(Path(folder).glob("fit-*"))), found.best_params_


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        fits, best = search(sys.argv[1] if len(sys.argv) > 1 else temporary)
    print(f"fitted {fits} times for 18 models; the best parameters are {best}")


if __name__ == "__main__":
    main()
