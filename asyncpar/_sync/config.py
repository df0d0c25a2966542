"""What a `Parallel` call is told by its surroundings: `parallel_config` and its like, and what backend names stand for.

Settings live in a context variable, so that asyncio tasks and threads do not see each other's. Calls in workers do not see
their caller's either, although threads inherit its context: settings hold for the depth in workers at which they were made.

An explicit argument goes before the context's setting, and that before the default. `UNSET` tells an argument that was not
given from one that is None.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeAlias

from asyncpar._basics.hints import meant_option
from asyncpar._basics.validation import UNSET, check_inner_threads
from asyncpar._contract.executor import Executor, Hints
from asyncpar._memory.loans import MmapMode
from asyncpar._memory.options import DEFAULT_MAX_NBYTES, check_mmap_mode, resolve_max_nbytes
from asyncpar._platform.cpus import cpu_count, resolve_n_jobs
from asyncpar._platform.nesting import depth
from asyncpar.executors import NAMES, default_name, is_foreign_pool, make_executor
from asyncpar.executors.inline import InlineExecutor

Prefer: TypeAlias = Literal["processes", "threads"] | None
Require: TypeAlias = Literal["sharedmem"] | None

ALIASES = {"loky": "process", "multiprocessing": "process", "threading": "thread", "sequential": "inline"}  # joblib's names
_MMAP_SYNONYMS: dict[str, MmapMode] = {"w+": "r+"}  # joblib makes a file; here there is none to be made
_MOST_THREADS = 1 << 16  # no limit: each call has its own, n_jobs, and calls in threads never wait for those around them
_PARALLEL_PARAMS = (  # of `Parallel` itself, to be named where something else was meant to be one
    "n_jobs",
    "backend",
    "return_as",
    "verbose",
    "timeout",
    "pre_dispatch",
    "batch_size",
    "max_nbytes",
    "mmap_mode",
    "prefer",
    "require",
    "progress",
    "inner_max_num_threads",
)
_PROCESS_PARAMS = {  # {as joblib says, and more: as ProcessExecutor says}
    "idle_worker_timeout": "idle_timeout",
    "initializer": "initializer",
    "initargs": "initargs",
    "preload": "preload",
    "max_calls_per_worker": "max_calls_per_worker",
    "max_memory": "max_memory",
    "max_shared_bytes": "max_shared_bytes",
    "grace": "grace",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What a context says about `Parallel` calls in it; whatever is UNSET, it says nothing about."""

    backend: Any = None
    n_jobs: Any = None
    verbose: Any = UNSET
    temp_folder: str | None = None
    max_nbytes: Any = UNSET
    mmap_mode: Any = UNSET
    prefer: Prefer = None
    require: Require = None
    inner_max_num_threads: int | None = None
    backend_params: Mapping[str, Any] = field(default_factory=dict)
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Backend:
    """What a name, an executor or a context comes down to.

    Attributes:
        name: as it is shown.
        kind: of executor; "other" is one that somebody else made, or registered.
        make: a new executor.
        key: under which it is shared by all calls; None: whoever makes it owns it.
        given: an executor of the user's, instead.
    """

    name: str
    kind: str
    make: Callable[[], Executor] | None = None
    key: Hashable | None = None
    given: Executor | None = None


_settings: ContextVar[Settings | None] = ContextVar("asyncpar_settings", default=None)
_NO_SETTINGS = Settings()
_registered: dict[str, Callable[..., Executor]] = {}
_default_backend: list[str] = []  # the name that `register_parallel_backend(make_default=True)` has set last


def current_settings() -> Settings:
    """Those of the context, if they were made at this depth in workers."""
    settings = _settings.get()
    return settings if settings is not None and settings.depth == depth() else _NO_SETTINGS


class parallel_config:
    """Sets defaults for the `Parallel` calls of the current context: from now on, or for the length of a `with`.

    Args:
        backend: what to run in; see `Parallel`.
        n_jobs: how many workers; None: what the surrounding context says, or else 1.
        verbose, temp_folder, max_nbytes, mmap_mode, prefer, require: as in `Parallel`.
        inner_max_num_threads: how many threads numerical libraries may start in each worker process.
        backend_params: further arguments of the backend, such as `initializer` and `idle_worker_timeout`.

    Raises:
        ValueError: an unknown backend, or parameters for a backend without naming one.
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
        n_jobs: Any = None,
        verbose: Any = UNSET,
        temp_folder: str | None = None,
        max_nbytes: int | str | None = UNSET,
        mmap_mode: str | None = UNSET,
        prefer: Prefer = None,
        require: Require = None,
        inner_max_num_threads: int | None = None,
        **backend_params: Any,
    ) -> None:
        self._before = _settings.get()
        if backend is None and (inner_max_num_threads is not None or backend_params):
            given = ", ".join([*backend_params, *(["inner_max_num_threads"] if inner_max_num_threads is not None else [])])
            raise ValueError(f"{given} can only be set together with a backend, such as parallel_config('loky', …)")
        if backend is not None:
            check_inner_threads(inner_max_num_threads)
            find_backend(backend, 1, inner_max_num_threads, backend_params)
        check_prefer_and_require(prefer, require)
        make_hints(temp_folder, max_nbytes, mmap_mode)
        arguments = {
            "backend": backend,
            "n_jobs": None if n_jobs is None else to_int(n_jobs),
            "verbose": verbose,
            "temp_folder": temp_folder,
            "max_nbytes": max_nbytes,
            "mmap_mode": mmap_mode,
            "prefer": prefer,
            "require": require,
        }
        said = {name: value for name, value in arguments.items() if value is not getattr(_NO_SETTINGS, name)}
        if backend is not None:
            said |= {"inner_max_num_threads": inner_max_num_threads, "backend_params": backend_params}
        self._settings = replace(current_settings(), **said, depth=depth())
        _settings.set(self._settings)

    def __enter__(self) -> Any:
        settings = self._settings
        return {item.name: getattr(settings, item.name) for item in fields(settings) if item.name != "depth"}

    def __exit__(self, *error: object) -> None:
        self.unregister()

    def unregister(self) -> None:
        """Brings back the settings that were there before."""
        _settings.set(self._before)


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


def register_parallel_backend(name: str, factory: Callable[..., Executor], make_default: bool = False) -> None:
    """Makes `name` known as a backend.

    Args:
        name: what to call it.
        factory: called with the backend's parameters, in an event loop; returns an `Executor`, which is closed after the call
            or the `with` that it was made for.
        make_default: it is what `Parallel` uses when nothing else is said, not even `prefer="threads"`.

    Raises:
        TypeError: the factory cannot be called.
    """
    if not callable(factory):
        raise TypeError(f"factory must be something to call that returns an Executor, not {factory!r}")
    _registered[name] = factory
    if make_default:
        _default_backend[:] = [name]


def effective_n_jobs(n_jobs: Any = -1) -> int:
    """How many workers `Parallel(n_jobs)` would use here.

    Raises:
        ValueError: `n_jobs` is 0, or no number.

    >>> import asyncpar
    >>> asyncpar.effective_n_jobs(3)
    3
    """
    return choose_backend(None, None if n_jobs is None else to_int(n_jobs), None, None, None, {})[1]


def choose_backend(
    backend: Any,
    n_jobs: int | None,
    prefer: Prefer,
    require: Require,
    inner_max_num_threads: int | None,
    params: Mapping[str, Any],
) -> tuple[Backend, int]:
    """What a call with these arguments runs in here, and in how many workers.

    Raises:
        ValueError: there is no such backend, it cannot be what is required, or there would be no worker.
    """
    settings = current_settings()
    prefer, require = prefer or settings.prefer, require or settings.require
    explicit = backend is not None
    if not explicit and settings.backend is not None:
        backend = settings.backend
        inner_max_num_threads = inner_max_num_threads or settings.inner_max_num_threads
        params = {**settings.backend_params, **params}
    jobs = _resolve_jobs(n_jobs if n_jobs is not None else settings.n_jobs, backend)
    if require == "sharedmem":
        if explicit and _is_of_processes(backend, jobs, params):
            raise ValueError(f"backend {backend!r} has no memory to share, which require='sharedmem' asks for; use 'threading'")
        if backend is None or _is_of_processes(backend, jobs, {}):
            backend, params, inner_max_num_threads = "thread", {}, None
    if backend is None:
        backend = _backend_by_default(prefer)
        params = params if backend == "process" else {}
    found = find_backend(backend, jobs, inner_max_num_threads, params)
    return found, 1 if found.kind == "inline" else jobs


def find_backend(backend: Any, n_jobs: int, inner_max_num_threads: int | None, params: Mapping[str, Any]) -> Backend:
    """What `backend` (a name, an executor, a multiprocessing context) stands for.

    Raises:
        ValueError: nothing known; the message lists what is.
        TypeError: a parameter that it does not have.
        AssertionError: `inner_max_num_threads` for something else than processes.
    """
    if isinstance(backend, Executor):
        _refuse_params(type(backend).__name__, inner_max_num_threads, params)
        kind = "inline" if isinstance(backend, InlineExecutor) else "other"  # in the caller's thread, not in the portal's
        return Backend(type(backend).__name__, kind, given=backend)
    if is_foreign_pool(backend):
        _refuse_params(type(backend).__name__, inner_max_num_threads, params)
        return Backend(type(backend).__name__, "other", lambda: _make_over(backend))
    if hasattr(backend, "get_start_method") and hasattr(backend, "Process"):
        backend = "process"
    if backend in _registered:
        _refuse_params(backend, inner_max_num_threads, {})
        return Backend(backend, "other", lambda: _make_registered(backend, params))
    name = ALIASES.get(backend, backend) if isinstance(backend, str) else None
    if name not in NAMES:
        known = ", ".join(map(repr, [*NAMES, *ALIASES, *_registered]))
        raise ValueError(f"unknown backend {backend!r}; known are {known}, or an Executor object or a multiprocessing context")
    if name != "process":
        _refuse_params(backend, inner_max_num_threads, params)
        return Backend(name, name, lambda: _make_shared(name), (name, depth()))
    threads = inner_max_num_threads or max(cpu_count() // n_jobs, 1)
    key = _key_of_processes(threads, params)
    if params:
        from asyncpar.executors.process import check_process_arguments

        check_process_arguments(**{_PROCESS_PARAMS[param]: value for param, value in params.items()})
    return Backend(name, name, lambda: _make_processes(threads, params), key)


def make_hints(temp_folder: str | None, max_nbytes: Any, mmap_mode: Any) -> Hints:
    """How large arrays are to reach workers, checked. joblib puts its files into `temp_folder`; asyncpar has none.

    Raises:
        ValueError: a size that is none, or an unknown mode.
    """
    settings = current_settings()
    max_nbytes = next((value for value in (max_nbytes, settings.max_nbytes) if value is not UNSET), DEFAULT_MAX_NBYTES)
    mmap_mode = next((value for value in (mmap_mode, settings.mmap_mode) if value is not UNSET), "r")
    return Hints(resolve_max_nbytes(max_nbytes), check_mmap_mode(mmap_mode, _MMAP_SYNONYMS))


def check_prefer_and_require(prefer: object, require: object) -> None:
    """Raises ValueError, naming the valid values, or where the two contradict each other."""
    if prefer not in ("processes", "threads", None):
        raise ValueError(f"prefer must be 'processes', 'threads' or None, not {prefer!r}")
    if require not in ("sharedmem", None):
        raise ValueError(f"require must be 'sharedmem' or None, not {require!r}")
    if prefer == "processes" and require == "sharedmem":
        raise ValueError("prefer='processes' and require='sharedmem' contradict each other: processes share no memory")


def to_int(n_jobs: Any) -> int:
    """`n_jobs`, or what `int` makes of it.

    Raises:
        ValueError: nothing.
    """
    try:
        return int(n_jobs)
    except (TypeError, ValueError, OverflowError):
        raise _not_n_jobs(n_jobs) from None


def _not_n_jobs(n_jobs: object) -> ValueError:
    return ValueError(f"n_jobs must be a number of workers, 1 or more, a negative one (-1 is all) or None, not {n_jobs!r}")


def _resolve_jobs(n_jobs: int | None, backend: Any) -> int:
    if n_jobs is None or n_jobs < 0:
        if is_foreign_pool(backend):
            backend = _make_over(backend)
        if isinstance(backend, Executor):
            return max(1, backend.workers)
    if n_jobs == 0:
        raise _not_n_jobs(n_jobs)
    return 1 if n_jobs is None else resolve_n_jobs(n_jobs)


def _backend_by_default(prefer: Prefer) -> str:
    if prefer == "threads" and default_name() != "inline":
        return "thread"
    return _default_backend[0] if depth() == 0 and _default_backend else default_name()


def _is_of_processes(backend: Any, n_jobs: int, params: Mapping[str, Any]) -> bool:
    module = sys.modules.get("asyncpar.executors.process")  # whoever has made a process executor has imported it
    return (module is not None and isinstance(backend, module.ProcessExecutor)) or (
        find_backend(backend, n_jobs, None, params).kind == "process"
    )


def _refuse_params(name: str, inner_max_num_threads: int | None, params: Mapping[str, Any]) -> None:
    if inner_max_num_threads is not None:
        raise AssertionError(f"backend {name!r} has no processes whose threads inner_max_num_threads could limit; use 'loky'")
    if params:
        raise TypeError(
            f"backend {name!r} has no parameters, but was given {', '.join(params)}; 'process' has some{_meant(params)}"
        )


def _make_over(pool: Any) -> Executor:
    from asyncpar.executors.futures import FuturesExecutor

    return FuturesExecutor(pool)


def _make_shared(name: str) -> Executor:
    executor = make_executor(name)
    if name == "thread":
        executor.grow(_MOST_THREADS)
    return executor


def _make_processes(threads: int, params: Mapping[str, Any]) -> Executor:
    from asyncpar.executors.process import ProcessExecutor

    arguments = {_PROCESS_PARAMS[name]: value for name, value in params.items()}
    return ProcessExecutor(inner_max_num_threads=threads, **arguments)


def _key_of_processes(threads: int, params: Mapping[str, Any]) -> Hashable | None:
    unknown = params.keys() - _PROCESS_PARAMS.keys()
    if unknown:
        known = ", ".join([*_PROCESS_PARAMS, "inner_max_num_threads"])
        raise TypeError(
            f"Parallel has no parameter {', '.join(sorted(unknown))}; the 'process' backend has {known}{_meant(unknown)}"
        )
    return None if params.keys() - {"idle_worker_timeout"} else ("process", depth(), threads, *params.values())


def _meant(names: Iterable[str]) -> str:
    hints = [(name, meant_option(name, [*_PARALLEL_PARAMS, *_PROCESS_PARAMS])) for name in sorted(names)]
    return "".join(f"; {name}: {hint}" for name, hint in hints if hint)


def _make_registered(name: str, params: Mapping[str, Any]) -> Executor:
    executor = _registered[name](**params)
    if not isinstance(executor, Executor):
        raise TypeError(f"the factory of backend {name!r} must return an Executor, not {executor!r}")
    return executor
