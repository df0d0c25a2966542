"""asyncpar as a backend of joblib, so that scikit-learn and all else that uses joblib runs on it without a change.

    import asyncpar.joblib, joblib

    asyncpar.joblib.register()
    with joblib.parallel_config(backend="asyncpar", n_jobs=4):
        search.fit(X, y)

`backend.py` is what joblib calls, and says how the two fit together. `jobs.py` runs the batches of one `Parallel` in the
portal. `tasks.py` is the workers' side, and `errors.py` has the errors that users of joblib expect.

It is the topmost layer. Nothing in asyncpar imports it, since joblib is no dependency: joblib is imported here, and only when
this package is. What must never break: results are those of joblib's own backends, and nothing runs on after a call has ended.
"""

from __future__ import annotations

from typing import Any

try:
    from joblib import register_parallel_backend as _register  # type: ignore[import-untyped]  # it has no type information
except ImportError as error:
    raise ImportError("asyncpar.joblib makes asyncpar a backend of joblib, which cannot be imported; install joblib") from error

__all__ = ["register"]


def register() -> None:
    """Makes "asyncpar" known to joblib as a backend, for `parallel_config` and `Parallel`. It does no harm to do that twice.

    Tasks then run in warm worker processes of asyncpar. Parameters of the backend are those of `asyncpar.ProcessExecutor`, such
    as `initializer` and `max_memory`, and joblib's `idle_worker_timeout`. In workers, the backend is known, too.

    >>> import asyncpar.joblib, joblib
    >>> asyncpar.joblib.register()
    >>> with joblib.parallel_config(backend="asyncpar", n_jobs=2):
    ...     joblib.Parallel()(joblib.delayed(pow)(x, 2) for x in range(5))
    [0, 1, 4, 9, 16]
    """
    _register("asyncpar", _make_backend)


def _make_backend(**params: Any) -> Any:
    """What joblib calls for the name. Workers, which import this package, make no backend in most programs."""
    from asyncpar.joblib.backend import AsyncparBackend

    return AsyncparBackend(**params)
