"""Finds what the name of a backend means, and what a `Parallel` call runs in."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PosixPath, WindowsPath
from types import BuiltinFunctionType, FunctionType, ModuleType, NoneType
from typing import Any

from asyncpar._basics.hints import meant_option
from asyncpar._basics.validation import UNSET
from asyncpar._contract.executor import Executor
from asyncpar._platform.cpus import cpu_count, resolve_n_jobs
from asyncpar._platform.nesting import depth
from asyncpar._sync.reporting import ALL_WORKERS
from asyncpar._sync.settings import Prefer, Require, current_settings
from asyncpar.executors import NAMES, default_name, is_foreign_pool, make_executor, refuse_unless_available, workers_of
from asyncpar.executors.inline import InlineExecutor

ALIASES = {  # joblib's names, and ours among joblib's backends
    "loky": "process",
    "multiprocessing": "process",
    "threading": "thread",
    "sequential": "inline",
    "asyncpar": "process",
}
_APART = frozenset({"process", "interpreter", "dask", "ray"})  # kinds whose calls see no object of the program
_CLUSTERS = {  # kinds that have workers elsewhere, whose number we do not choose, with the parameters of their executors
    "dask": ("client", "scale_to", "contextvars"),
    "ray": ("address", "contextvars"),
}
_MOST_THREADS = 1 << 16  # no limit: each call has its own, n_jobs, and calls in threads never wait for those around them
_PARALLEL_PARAMS = (  # of `Parallel` itself, for the message about an unknown one
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
    "retries",
    "retry_on",
    "retry_wait",
    "on_error",
    "seed",
    "inner_max_num_threads",
)
_PROCESS_PARAMS = {  # {joblib's name, and others: ProcessExecutor's name}
    "idle_worker_timeout": "idle_timeout",
    "initializer": "initializer",
    "initargs": "initargs",
    "contextvars": "contextvars",
    "preload": "preload",
    "max_calls_per_worker": "max_calls_per_worker",
    "max_memory": "max_memory",
    "max_shared_bytes": "max_shared_bytes",
    "grace": "grace",
}
_THREAD_PARAMS = ("initializer", "initargs")
_SIMPLE = frozenset({NoneType, bool, int, str, bytes, PosixPath, WindowsPath})

registered: dict[str, Callable[..., Executor | BackendObject]] = {}  # by `register_parallel_backend`
default_backend: list[str] = []  # the name that it made the default last


@dataclass(frozen=True, slots=True)
class Backend:
    """What a name, an executor or a context means.

    Attributes:
        name: the name to show.
        kind: the kind of executor; "other" is one that the user made or registered.
        make: makes a new executor.
        key: all calls with this key share the executor; None: the call that makes it owns it.
        given: the user's own executor, instead.
        spare_key: the executor of a call that has ended serves the next call with this key; None: it is closed.
        of: the object that it was found for.
    """

    name: str
    kind: str
    make: Callable[[], Executor] | None = None
    key: Hashable | None = None
    given: Executor | None = None
    spare_key: Hashable | None = None
    of: BackendObject | None = None


class BackendObject:
    """An object that is a backend and says itself what it stands for. joblib has classes of such (`asyncpar/joblib`)."""

    default_n_jobs = 1
    supports_inner_max_num_threads = False
    supports_sharedmem = False
    nesting_level: int | None = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many workers there are, if `n_jobs` are asked for."""
        raise NotImplementedError

    def found(self, n_jobs: int, inner_max_num_threads: int | None, params: Mapping[str, Any]) -> Backend:
        """What calls run in."""
        raise NotImplementedError


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
        ValueError: there is no such backend, it cannot do what is required, or there would be no worker.
    """
    settings = current_settings()
    prefer, require = prefer or settings.prefer, require or settings.require
    explicit = backend is not None
    if not explicit and settings.backend is not None:
        backend = settings.backend
        inner_max_num_threads = inner_max_num_threads or settings.inner_max_num_threads
        params = {**settings.backend_params, **params}
    backend, inner_max_num_threads, params = as_object(backend, inner_max_num_threads, params)
    of_context = None if settings.n_jobs is UNSET else settings.n_jobs
    jobs = _resolve_jobs(n_jobs if n_jobs is not None else of_context, backend)
    if require == "sharedmem":
        if explicit and _has_no_memory_to_share(backend, jobs, params):
            raise ValueError(f"backend {backend!r} has no shared memory, which require='sharedmem' asks for; use 'threading'")
        if backend is None or _has_no_memory_to_share(backend, jobs, {}):
            backend, params, inner_max_num_threads = "thread", {}, None
    if backend is None:
        backend = _backend_by_default(prefer)
        params = params if backend == "process" else {}
    found = find_backend(backend, jobs, inner_max_num_threads, params)
    return found, 1 if found.kind == "inline" else jobs


def find_backend(backend: Any, n_jobs: int, inner_max_num_threads: int | None, params: Mapping[str, Any]) -> Backend:
    """What `backend` (a name, an executor, a multiprocessing context) stands for.

    Raises:
        ValueError: it is unknown; the message lists the known ones.
        TypeError: the backend has no such parameter.
        ExecutorUnavailableError: this Python does not have it.
        AssertionError: `inner_max_num_threads` was given for something other than processes.
    """
    backend, inner_max_num_threads, params = as_object(backend, inner_max_num_threads, params)
    if isinstance(backend, BackendObject):
        return backend.found(n_jobs, inner_max_num_threads, params)
    if isinstance(backend, Executor):
        _refuse_params(type(backend).__name__, inner_max_num_threads, params)
        kind = "inline" if isinstance(backend, InlineExecutor) else "other"  # in the caller's thread, not in the portal's
        return Backend(type(backend).__name__, kind, given=backend)
    if is_foreign_pool(backend):
        _refuse_params(type(backend).__name__, inner_max_num_threads, params)
        return Backend(type(backend).__name__, "other", lambda: _make_over(backend))
    if hasattr(backend, "get_start_method") and hasattr(backend, "Process"):
        backend = "process"
    if backend in registered:
        _refuse_params(backend, inner_max_num_threads, {})
        return Backend(backend, "other", lambda: _make_registered(backend, params, n_jobs))
    name = ALIASES.get(backend, backend) if isinstance(backend, str) else None
    if name not in NAMES:
        known = ", ".join(map(repr, [*NAMES, *ALIASES, *registered]))
        raise ValueError(f"Invalid backend: {backend!r}; known are {known}, or an Executor object or a multiprocessing context")
    if name in _CLUSTERS:
        return _find_cluster(name, inner_max_num_threads, params)
    if name == "thread" and (inner_max_num_threads is not None or params):
        return _threads_of_its_own(inner_max_num_threads, params)
    if name != "process":
        refuse_unless_available(name)
        _refuse_params(backend, inner_max_num_threads, params)
        return Backend(name, name, lambda: _make_shared(name), (name, depth()))
    threads = inner_max_num_threads or max(cpu_count() // n_jobs, 1)
    _refuse_unknown("process", params, _PROCESS_PARAMS)
    key = None if params.keys() - {"idle_worker_timeout"} else ("process", depth(), threads, *params.values())
    if params:
        from asyncpar.executors.process import check_process_arguments

        check_process_arguments(**{_PROCESS_PARAMS[param]: value for param, value in params.items()})
    return Backend(name, name, lambda: _make_processes(threads, params), key, spare_key=_spare_key(threads, params))


def as_object(
    backend: Any, inner_max_num_threads: int | None, params: Mapping[str, Any]
) -> tuple[Any, int | None, Mapping[str, Any]]:
    """The backend, its inner threads and its parameters. One that is a registered class of `BackendObject` is made now, and has
    the parameters itself.

    Raises:
        AssertionError: it does not limit the threads of libraries.
    """
    factory: Any = registered.get(backend) if isinstance(backend, str) else None
    if not isinstance(factory, type) or not issubclass(factory, BackendObject):
        return backend, inner_max_num_threads, params
    if inner_max_num_threads is not None:
        if not factory.supports_inner_max_num_threads:
            raise AssertionError(f"{factory.__name__} does not accept inner_max_num_threads")
        params = {**params, "inner_max_num_threads": inner_max_num_threads}
    made = factory(**params)
    if made.nesting_level is None:
        made.nesting_level = depth()
    return made, None, {}


def _threads_of_its_own(inner_max_num_threads: int | None, params: Mapping[str, Any]) -> Backend:
    """Threads that have something made, or limit those of libraries while they make calls."""
    _refuse_unknown("thread", params, _THREAD_PARAMS)
    from asyncpar._child.call_forms import refuse_as_initializer
    from asyncpar.executors.thread import ThreadExecutor

    refuse_as_initializer(params.get("initializer"), params.get("initargs", ()))
    return Backend("thread", "thread", lambda: ThreadExecutor(inner_max_num_threads=inner_max_num_threads, **params))


def _find_cluster(name: str, inner_max_num_threads: int | None, params: Mapping[str, Any]) -> Backend:
    refuse_unless_available(name)
    unknown = [param for param in params if param not in _CLUSTERS[name]]
    if inner_max_num_threads is not None or unknown:
        _refuse_params(name, inner_max_num_threads, dict.fromkeys(unknown))
    key = (name, depth(), *params.items()) if _can_be_key(params) else None
    return Backend(name, name, lambda: make_executor(name, **params), key)


def _can_be_key(params: Mapping[str, Any]) -> bool:
    """Whether calls with these parameters share an executor: with an address, and not with a client that may be closed."""
    return all(isinstance(value, (str, int)) for value in params.values())


def shares_no_memory(backend: Backend) -> bool:
    """Whether its calls run in processes or interpreters of ours, and so see no object of the program."""
    return backend.kind in _APART or _is_apart(backend.given)


def to_int(n_jobs: Any) -> int:
    """`n_jobs` as an int.

    Raises:
        ValueError: `int` does not accept it.
    """
    try:
        return int(n_jobs)
    except (TypeError, ValueError, OverflowError):
        raise _not_n_jobs(n_jobs) from None


def _not_n_jobs(n_jobs: object) -> ValueError:
    meaning = " (n_jobs == 0 in Parallel has no meaning)" if isinstance(n_jobs, int) else ""  # as joblib says it
    return ValueError(
        f"n_jobs must be a number of workers, 1 or more, a negative one (-1 is all) or None, not {n_jobs!r}{meaning}"
    )


def _resolve_jobs(n_jobs: int | None, backend: Any) -> int:
    if isinstance(backend, BackendObject):
        workers = backend.effective_n_jobs(backend.default_n_jobs if n_jobs is None else n_jobs)
        if workers < 1:
            raise RuntimeError(f"{type(backend).__name__} has no active worker")
        return workers
    if (n_jobs is None or n_jobs < 0) and (is_foreign_pool(backend) or isinstance(backend, Executor)):
        workers = backend.workers if isinstance(backend, Executor) else workers_of(backend)
        return max(1, workers if n_jobs is None else workers + 1 + n_jobs)
    if n_jobs == 0:
        raise _not_n_jobs(n_jobs)
    if (n_jobs is None or n_jobs < 0) and isinstance(backend, str) and backend in _CLUSTERS:
        return ALL_WORKERS
    return 1 if n_jobs is None else resolve_n_jobs(n_jobs)


def _backend_by_default(prefer: Prefer) -> str:
    if prefer == "threads" and default_name() != "inline":
        return "thread"
    return default_backend[0] if depth() == 0 and default_backend else default_name()


def _has_no_memory_to_share(backend: Any, n_jobs: int, params: Mapping[str, Any]) -> bool:
    return _is_apart(backend) or find_backend(backend, n_jobs, None, params).kind in _APART


def _is_apart(backend: object) -> bool:
    if isinstance(backend, BackendObject):
        return not backend.supports_sharedmem
    module = sys.modules.get("asyncpar._processes.sessions")  # a program that has made such an executor has imported it
    return module is not None and isinstance(backend, module.FrameExecutor)


def _refuse_params(name: str, inner_max_num_threads: int | None, params: Mapping[str, Any]) -> None:
    if inner_max_num_threads is not None:
        raise AssertionError(
            f"backend {name!r} does not accept inner_max_num_threads: it has no workers to limit the threads of; use 'loky'"
        )
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


def _refuse_unknown(name: str, params: Mapping[str, Any], known: Iterable[str]) -> None:
    unknown = params.keys() - set(known)
    if unknown:
        raise TypeError(
            f"Parallel has no parameter {', '.join(sorted(unknown))}; the {name!r} backend has "
            f"{', '.join([*known, 'inner_max_num_threads'])}{_meant(unknown)}"
        )


def _spare_key(threads: int, params: Mapping[str, Any]) -> Hashable | None:
    """Calls with the same initializer and the same arguments for it may have the same workers, one call after the other.

    But what the initializer has entered is left when its workers end, and so at the end of the call. And an argument, or the
    object of a method, may be another one at the next call although it is equal, or is the same object and has changed. So
    there is a key only where all of them are of kinds that cannot change.
    """
    initializer, arguments = params.get("initializer"), params.get("initargs", ())
    if not _is_plain(initializer) or _enters(initializer):
        return None
    if params.keys() - {"initializer", "initargs", "idle_worker_timeout"}:
        return None
    if not isinstance(arguments, list | tuple):  # an iterator has them only once
        return None
    try:
        return depth(), threads, initializer, tuple(map(_unchangeable, arguments)), params.get("idle_worker_timeout")
    except TypeError:
        return None


def _is_plain(initializer: Any) -> bool:
    """Whether it is a function or a class, and not the method of an object."""
    of = getattr(initializer, "__self__", None)
    return isinstance(initializer, FunctionType | BuiltinFunctionType | type) and isinstance(of, ModuleType | NoneType)


def _unchangeable(value: Any) -> Hashable:
    """What is equal only for values that no code can tell apart.

    Raises:
        TypeError: the value may change, or nobody knows what it is equal to.
    """
    kind = type(value)
    if kind in _SIMPLE:
        return kind, value
    if kind in (float, complex):
        return kind, repr(value)  # 0.0 is equal to -0.0
    if kind is tuple or kind is frozenset:
        return kind, kind(map(_unchangeable, value))
    raise TypeError(f"{kind} may change")


def _enters(initializer: Any) -> bool:
    """Whether it makes something that has to be left, as far as one can tell without calling it."""
    import inspect

    function = inspect.unwrap(initializer)  # of a context manager that is written as a generator function
    written_so = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    return written_so or hasattr(initializer, "__enter__") or hasattr(initializer, "__aenter__")


def _meant(names: Iterable[str]) -> str:
    hints = [(name, meant_option(name, [*_PARALLEL_PARAMS, *_PROCESS_PARAMS])) for name in sorted(names)]
    return "".join(f"; {name}: {hint}" for name, hint in hints if hint)


def _make_registered(name: str, params: Mapping[str, Any], n_jobs: int) -> Executor:
    executor: Any = registered[name](**params)
    if isinstance(executor, BackendObject):
        made = executor.found(n_jobs, None, {}).make
        assert made is not None, "only an executor that is given has nothing to make it"
        executor = made()
    if not isinstance(executor, Executor):
        raise TypeError(f"the factory of backend {name!r} must return an Executor, not {executor!r}")
    return executor
