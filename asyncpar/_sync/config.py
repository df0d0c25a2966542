"""`parallel_config` and its like: settings for a context, or for the whole program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from asyncpar._basics.validation import UNSET, check_inner_threads
from asyncpar._contract.executor import Executor
from asyncpar._platform.nesting import depth
from asyncpar._sync.backends import BackendObject, as_object, choose_backend, default_backend, find_backend, registered, to_int
from asyncpar._sync.settings import (
    NO_SETTINGS,
    Prefer,
    Require,
    check_prefer_and_require,
    current_settings,
    make_hints,
    set_settings,
)


class parallel_config:
    """Sets defaults for the `Parallel` calls of the current context: from now on, or for the length of a `with`.

    Args:
        backend: where calls run; see `Parallel`.
        n_jobs: how many workers; None: 1. Not given: the surrounding context's setting, or else 1.
        verbose, temp_folder, max_nbytes, mmap_mode, prefer, require: as in `Parallel`.
        inner_max_num_threads: how many threads numerical libraries may start in each worker process.
        backend_params: further arguments of the backend, such as `initializer` and `idle_worker_timeout`.

    Raises:
        ValueError: the backend is unknown, or parameters are given without a backend.
        AssertionError: the backend has no worker processes whose threads could be limited.

    >>> from asyncpar import Parallel, delayed, parallel_config
    >>> with parallel_config("thread", n_jobs=2):
    ...     Parallel()(delayed(len)(text) for text in ["a", "bb"])
    [1, 2]
    """

    def __init__(
        self,
        backend: Any = None,
        *,
        n_jobs: Any = UNSET,
        verbose: Any = UNSET,
        temp_folder: str | None = None,
        max_nbytes: int | str | None = UNSET,
        mmap_mode: str | None = UNSET,
        prefer: Prefer = None,
        require: Require = None,
        inner_max_num_threads: int | None = None,
        **backend_params: Any,
    ) -> None:
        if backend is None and (inner_max_num_threads is not None or backend_params):
            given = ", ".join([*backend_params, *(["inner_max_num_threads"] if inner_max_num_threads is not None else [])])
            raise ValueError(f"{given} is only supported when backend is not None, as in parallel_config('loky', …)")
        params: Mapping[str, Any] = {}
        if isinstance(backend, BackendObject) and (inner_max_num_threads is not None or backend_params):
            kind = type(backend).__name__
            raise ValueError(f"parameters are only supported when backend is a string; give them to {kind} when it is made")
        if backend is not None:
            check_inner_threads(inner_max_num_threads)
            backend, inner_max_num_threads, params = as_object(backend, inner_max_num_threads, backend_params)
            find_backend(backend, 1, inner_max_num_threads, params)
        check_prefer_and_require(prefer, require)
        make_hints(temp_folder, max_nbytes, mmap_mode)
        arguments = {
            "backend": backend,
            "n_jobs": n_jobs if n_jobs is None or n_jobs is UNSET else to_int(n_jobs),
            "verbose": verbose,
            "temp_folder": temp_folder,
            "max_nbytes": max_nbytes,
            "mmap_mode": mmap_mode,
            "prefer": prefer,
            "require": require,
        }
        said = {name: value for name, value in arguments.items() if value is not getattr(NO_SETTINGS, name)}
        if backend is not None:
            said |= {"inner_max_num_threads": inner_max_num_threads, "backend_params": params}
        self._settings = replace(current_settings(), **said, depth=depth())
        self._before = set_settings(self._settings)

    def __enter__(self) -> Any:
        settings = self._settings
        return {item.name: getattr(settings, item.name) for item in fields(settings) if item.name != "depth"}

    def __exit__(self, *error: object) -> None:
        self.unregister()

    def unregister(self) -> None:
        """Restores the settings that were there before."""
        set_settings(self._before)


class parallel_backend(parallel_config):
    """Like `parallel_config`, for a backend and all processors: the older of the two names.

    >>> from asyncpar import Parallel, delayed, parallel_backend
    >>> with parallel_backend("threading", n_jobs=2):
    ...     Parallel()(delayed(abs)(x) for x in [-1, 2])
    [1, 2]
    """

    def __init__(self, backend: Any, n_jobs: Any = -1, inner_max_num_threads: int | None = None, **backend_params: Any) -> None:
        super().__init__(backend, n_jobs=n_jobs, inner_max_num_threads=inner_max_num_threads, **backend_params)

    def __enter__(self) -> tuple[Any, int]:
        return self._settings.backend, self._settings.n_jobs


def register_parallel_backend(name: str, factory: Callable[..., Executor | BackendObject], make_default: bool = False) -> None:
    """Makes `name` known as a backend.

    Args:
        name: its name.
        factory: called with the backend's parameters, in an event loop; returns an `Executor`, which is closed after the call
            or the `with` that it was made for. It may also be a class that is derived from joblib's `ParallelBackendBase`, as
            `asyncpar.joblib` has it.
        make_default: `Parallel` uses it when nothing else is asked for, not even `prefer="threads"`.

    Raises:
        TypeError: the factory cannot be called.
    """
    if not callable(factory):
        raise TypeError(f"factory must be something to call that returns an Executor, not {factory!r}")
    registered[name] = factory
    if make_default:
        default_backend[:] = [name]


def effective_n_jobs(n_jobs: Any = -1) -> int:
    """How many workers `Parallel(n_jobs)` would use here.

    Raises:
        ValueError: `n_jobs` is 0, or not a number.

    >>> import asyncpar
    >>> asyncpar.effective_n_jobs(3)
    3
    """
    return choose_backend(None, None if n_jobs is None else to_int(n_jobs), None, None, None, {})[1]
