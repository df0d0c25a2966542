"""joblib, in both directions: asyncpar as a backend of it (`register`), and asyncpar in its place (`install`).

    import asyncpar.joblib, joblib

    asyncpar.joblib.register()
    with joblib.parallel_config(backend="asyncpar", n_jobs=4):
        search.fit(X, y)

With that, joblib pulls the tasks and hands out the results, and asyncpar runs them: `backend.py` is what joblib calls, and
says how the two fit together. `jobs.py` runs the batches of one `Parallel` in the portal. `tasks.py` is the workers' side, and
`errors.py` has the errors that users of joblib expect.

    import asyncpar.joblib

    asyncpar.joblib.install()
    import sklearn

With this, `import joblib` gives this package, here and in workers, whether joblib is installed or not (`standing_in.py`). So it
has joblib's modules, under their names: `parallel.py`, `memory.py`, `logger.py` and so on. Almost everything in them is another
name for what asyncpar has anyway. What joblib's modules have beyond that is here if code outside of joblib uses it.

It is the topmost layer. Nothing in asyncpar imports it, since joblib is no dependency: joblib is imported only by `register`
and what it leads to. What must never break: results are those of joblib's own backends, and nothing runs on after a call.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from asyncpar.joblib.standing_in import install, is_installed, uninstall

if TYPE_CHECKING:
    from asyncpar.joblib._parallel_backends import ParallelBackendBase as ParallelBackendBase
    from asyncpar.joblib._store_backends import StoreBackendBase as StoreBackendBase
    from asyncpar.joblib.compressor import register_compressor as register_compressor
    from asyncpar.joblib.hashing import hash as hash  # noqa: A004 - joblib's name
    from asyncpar.joblib.logger import Logger as Logger
    from asyncpar.joblib.logger import PrintTime as PrintTime
    from asyncpar.joblib.memory import MemorizedResult as MemorizedResult
    from asyncpar.joblib.memory import Memory as Memory
    from asyncpar.joblib.memory import expires_after as expires_after
    from asyncpar.joblib.memory import register_store_backend as register_store_backend
    from asyncpar.joblib.numpy_pickle import dump as dump
    from asyncpar.joblib.numpy_pickle import load as load
    from asyncpar.joblib.parallel import Parallel as Parallel
    from asyncpar.joblib.parallel import cpu_count as cpu_count
    from asyncpar.joblib.parallel import delayed as delayed
    from asyncpar.joblib.parallel import effective_n_jobs as effective_n_jobs
    from asyncpar.joblib.parallel import parallel_backend as parallel_backend
    from asyncpar.joblib.parallel import parallel_config as parallel_config
    from asyncpar.joblib.parallel import register_parallel_backend as register_parallel_backend
    from asyncpar.joblib.parallel import wrap_non_picklable_objects as wrap_non_picklable_objects

__version__ = "1.6.0"  # of joblib, whose names these are: libraries compare it

_HOMES = {
    "Logger": "logger",
    "MemorizedResult": "memory",
    "Memory": "memory",
    "Parallel": "parallel",
    "ParallelBackendBase": "_parallel_backends",
    "PrintTime": "logger",
    "StoreBackendBase": "_store_backends",
    "cpu_count": "parallel",
    "delayed": "parallel",
    "dump": "numpy_pickle",
    "effective_n_jobs": "parallel",
    "expires_after": "memory",
    "hash": "hashing",
    "load": "numpy_pickle",
    "parallel_backend": "parallel",
    "parallel_config": "parallel",
    "register_compressor": "compressor",
    "register_parallel_backend": "parallel",
    "register_store_backend": "memory",
    "wrap_non_picklable_objects": "parallel",
}
_MODULES = frozenset(  # that `import joblib` makes attributes of joblib
    {
        "_parallel_backends",
        "_store_backends",
        "compressor",
        "disk",
        "externals",
        "func_inspect",
        "hashing",
        "logger",
        "memory",
        "numpy_pickle",
        "parallel",
        "pool",
    }
)

__all__ = [
    "Logger",
    "MemorizedResult",
    "Memory",
    "Parallel",
    "ParallelBackendBase",
    "PrintTime",
    "StoreBackendBase",
    "cpu_count",
    "delayed",
    "dump",
    "effective_n_jobs",
    "expires_after",
    "hash",
    "install",
    "load",
    "parallel_backend",
    "parallel_config",
    "register",
    "register_compressor",
    "register_parallel_backend",
    "register_store_backend",
    "uninstall",
    "wrap_non_picklable_objects",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES, "__version__"})


def register() -> None:
    """Makes "asyncpar" known to joblib as a backend, for `parallel_config` and `Parallel`. It does no harm to do that twice.

    Tasks then run in warm worker processes of asyncpar. Parameters of the backend are those of `asyncpar.ProcessExecutor`, such
    as `initializer` and `max_memory`, and joblib's `idle_worker_timeout`. In workers, the backend is known, too. After
    `install`, there is nothing to do: "asyncpar" is another name for processes.

    Raises:
        ImportError: joblib is not installed.

    >>> import asyncpar.joblib, joblib
    >>> asyncpar.joblib.register()
    >>> with joblib.parallel_config(backend="asyncpar", n_jobs=2):
    ...     joblib.Parallel()(joblib.delayed(pow)(x, 2) for x in range(5))
    [0, 1, 4, 9, 16]
    """
    if is_installed():
        return
    try:
        from joblib import register_parallel_backend as register_in_joblib  # type: ignore[import-untyped]  # it has no types
    except ImportError as error:
        raise ImportError(
            "asyncpar.joblib.register() makes asyncpar a backend of joblib, which cannot be imported; install joblib"
        ) from error
    register_in_joblib("asyncpar", _make_backend)


def _make_backend(**params: Any) -> Any:
    """What joblib calls for the name. Workers, which import this package, make no backend in most programs."""
    from asyncpar.joblib.backend import AsyncparBackend

    return AsyncparBackend(**params)
