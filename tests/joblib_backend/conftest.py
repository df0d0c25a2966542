"""joblib and scikit-learn are no dependencies of asyncpar: where one is missing, its tests are not collected."""

from __future__ import annotations

import multiprocessing.resource_tracker
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

collect_ignore_glob = ["test_*.py"] if find_spec("joblib") is None else []
if find_spec("sklearn") is None:
    collect_ignore_glob.append("test_scikit_learn.py")


@pytest.fixture(autouse=True)
def the_backend_is_registered() -> None:
    import asyncpar.joblib

    asyncpar.joblib.register()


@pytest.fixture(scope="module")
def warm_loky() -> Iterator[None]:
    """joblib's own workers, to compare with. They end with the tests that use them, since later tests count their children."""
    import joblib  # type: ignore[import-untyped]  # it has no type information
    from joblib.externals.loky import get_reusable_executor  # type: ignore[import-untyped]
    from joblib.externals.loky.backend import resource_tracker  # type: ignore[import-untyped]

    joblib.Parallel(n_jobs=2, backend="loky")(joblib.delayed(abs)(x) for x in range(4))
    yield
    get_reusable_executor().shutdown(wait=True)
    for tracker in (resource_tracker, multiprocessing.resource_tracker):
        tracker._resource_tracker._stop()
