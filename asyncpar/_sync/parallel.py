"""`Parallel` and `delayed`: the synchronous face of asyncpar, under joblib's names.

A call checks its arguments (`_sync/config.py`) and becomes one run of the same scheduler that `pmap` uses
(`_sync/parallel_call.py`), in the event loop of the portal. Only a call with one worker needs neither: it is a loop, here, in
the caller's thread.

Workers also import modules that use these names, so this one imports nothing heavy before there is a call.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from types import MethodType
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, Self, TypeAlias, TypedDict, TypeVar, Unpack, overload

from asyncpar._basics.validation import UNSET, check_inner_threads, check_timeout, is_number
from asyncpar._child.unawaited import is_unawaited, refusal
from asyncpar._platform.current_worker import call_in_callers_thread
from asyncpar._platform.nesting import depth
from asyncpar._sync.reporting import preamble

if TYPE_CHECKING:
    from contextvars import ContextVar

    from asyncpar._run.outcomes import OnError
    from asyncpar._run.progress import Progress
    from asyncpar._run.retrying import ErrorTypes
    from asyncpar._sync.backends import Backend
    from asyncpar._sync.call_reports import CallReports
    from asyncpar._sync.kept_executor import KeptExecutor
    from asyncpar._sync.settings import Prefer, Require

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R", bound=str)

Call: TypeAlias = tuple[Callable[..., T], tuple[Any, ...], dict[str, Any]]
Streamed: TypeAlias = Literal["generator", "generator_unordered"]

SKIPPED: Any = object()  # stands for the result of a call that failed and is left out
RETURN_AS = ("list", "generator", "generator_unordered")
DEFAULT_PRE_DISPATCH = "2 * n_jobs"


class _OwnOrWrapped:
    """The docstring of a class whose instances have the docstring of what they wrap, without a dictionary for each of them."""

    def __init__(self, own: str | None) -> None:
        self._own = own

    def __get__(self, instance: Any, kind: type) -> Any:
        return self._own if instance is None else instance.__wrapped__.__doc__


class delayed(Generic[P, T]):
    """`delayed(f)(a, b=1)` is a call that has not been made: a tuple of function, arguments and keyword arguments.

    It is also a decorator: the decorated function keeps its name and documentation, and makes such tuples.

    >>> from asyncpar import delayed
    >>> delayed(pow)(2, 10)
    (<built-in function pow>, (2, 10), {})
    """

    __doc__ = _OwnOrWrapped(__doc__)  # pyright: ignore[reportAssignmentType]  # it gives the text that is expected
    __slots__ = ("__dict__", "__weakref__", "__wrapped__")

    def __init__(self, function: Callable[P, T]) -> None:
        self.__wrapped__ = function

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Call[T]:
        return self.__wrapped__, args, kwargs

    def __get__(self, owner: object, kind: type | None = None) -> Any:
        """The calls of a decorated method have its object as the first argument."""
        return self if owner is None else MethodType(self, owner)

    def __getattr__(self, name: str) -> Any:
        if name == "__wrapped__":  # while it is being unpickled
            raise AttributeError(name)
        return getattr(self.__wrapped__, name)

    def __repr__(self) -> str:
        return f"delayed({self.__wrapped__!r})"


class _Options(TypedDict, total=False):
    verbose: float
    timeout: float | None
    pre_dispatch: int | str
    batch_size: int | Literal["auto"]
    temp_folder: str | None
    max_nbytes: int | str | None
    mmap_mode: str | None
    prefer: Prefer
    require: Require
    progress: Progress
    retries: int
    retry_on: ErrorTypes
    retry_wait: float
    on_error: OnError
    seed: int | None
    inner_max_num_threads: int
    idle_worker_timeout: float
    initializer: Callable[..., object]
    initargs: Iterable[Any]
    contextvars: Collection[ContextVar[Any]]
    preload: Sequence[str]
    max_calls_per_worker: int
    max_memory: int
    max_shared_bytes: int
    grace: float


class Parallel(Generic[R]):
    """Makes calls in parallel: `Parallel(n_jobs=2)(delayed(f)(x) for x in xs)` is `[f(x) for x in xs]`.

    The calls may be of different functions. They are pulled lazily, results come in the order of the calls, and the first error
    stops everything and is raised here as it is, with the worker's traceback as its cause. When the call returns or raises,
    none of its tasks is running any more (threads: none is started any more). It also works in a thread that runs an event
    loop, but blocks the loop meanwhile; async code has `pmap`.

    Under `with`, an executor of its own is kept from call to call. Without parameters of its own, workers are always kept warm
    for the next call.

    Tasks of functions that `Memory.cache` has made are looked up before they are given to a worker, and equal ones among them
    are computed once.

    Args:
        n_jobs: how many workers. -1 is all processors, -2 all but one. None: the context's setting (`parallel_config`), or 1,
            which means a plain loop in the caller's thread. On a cluster, None and negative numbers are all of its workers.
        backend: "process" or "loky" (the default), "thread" or "threading", "interpreter", "dask", "ray", "inline" or
            "sequential", "multiprocessing" (the same as "process"), a name from `register_parallel_backend`, an `Executor` or a
            multiprocessing context. The default in a call that runs in a worker: threads, and inline below that.
        return_as: "list", "generator", or "generator_unordered" (as they finish). A generator has backpressure: while no
            results are taken, no further calls are pulled. Closing it, or dropping it, stops the run.
        verbose: above 0, progress is printed, more often for higher values; above 10, at each completion. From 50 on it goes to
            stdout.
        timeout: seconds that one task may take, counted from when it begins. Ends the call with a TimeoutError.
        pre_dispatch: how many tasks may be pulled and not yet be done (with a generator: not yet be handed out): a number,
            "all", or arithmetic with n_jobs, such as "3 * n_jobs". Tasks that have proved shorter than a millisecond are sent
            to processes in batches of about a millisecond, and then it counts batches. Tasks that take longer, or that the
            iterable takes longer for, are counted one by one. With 1, and in threads, all tasks are. The default, "2 * n_jobs",
            leaves it to asyncpar: a few batches for each worker.
        batch_size: tasks sent to a worker together; "auto" finds a good number while the run goes on.
        temp_folder: accepted for joblib's sake. asyncpar writes no temporary files.
        max_nbytes: arrays of this size or more are shared with workers instead of copied: bytes, or a text such as "1M".
        mmap_mode: how workers see such arrays: "r", "r+", "w+", "c", or None to copy them all.
        prefer: "processes" or "threads", where no backend is named.
        require: "sharedmem": calls must share this program's memory, so they run in threads.
        progress: True for a progress bar (tqdm), or something to call with a `Statistics` now and then.
        retries, retry_on, retry_wait: how often a task that fails is tried again, after which exceptions, and after how many
            seconds, as in `pmap`.
        on_error: "raise": the first error stops everything and is raised; "return": exceptions are among the results; "skip":
            tasks that failed are left out.
        seed: an integer, 0 or more, from which each task gets a random stream of its own, as in `pmap`.
        backend_kwargs: for processes: `initializer`, `initargs`, `idle_worker_timeout`, `inner_max_num_threads`, and the other
            arguments of `ProcessExecutor`. For "dask": `client`, `scale_to` and `contextvars`, as in `DaskExecutor`. For
            "ray": `address` and `contextvars`, as in `RayExecutor`.

    Raises:
        ValueError: an argument is out of range; the message names the valid values.

    >>> from math import sqrt
    >>> from asyncpar import Parallel, delayed
    >>> Parallel(n_jobs=2)(delayed(sqrt)(i**2) for i in range(5))
    [0.0, 1.0, 2.0, 3.0, 4.0]
    >>> import tempfile
    >>> from asyncpar import Memory
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cached_sqrt = Memory(folder, verbose=0).cache(sqrt)
    ...     Parallel(n_jobs=2)(delayed(cached_sqrt)(i) for i in (4, 9, 4))
    [2.0, 3.0, 2.0]
    """

    @overload
    def __init__(
        self: Parallel[Literal["list"]],
        n_jobs: float | str | None = None,
        backend: Any = None,
        return_as: Literal["list"] = "list",
        **options: Unpack[_Options],
    ) -> None: ...
    @overload
    def __init__(
        self: Parallel[Streamed],
        n_jobs: float | str | None = None,
        backend: Any = None,
        *,
        return_as: Streamed,
        **options: Unpack[_Options],
    ) -> None: ...
    @overload
    def __init__(
        self: Parallel[Any], n_jobs: Any = None, backend: Any = None, return_as: str = "list", *positional: Any, **options: Any
    ) -> None: ...

    def __init__(
        self,
        n_jobs: Any = None,
        backend: Any = None,
        return_as: Any = "list",
        verbose: float = UNSET,
        timeout: float | None = None,
        pre_dispatch: int | str = DEFAULT_PRE_DISPATCH,
        batch_size: int | Literal["auto"] = "auto",
        temp_folder: str | None = None,
        max_nbytes: int | str | None = UNSET,
        mmap_mode: str | None = UNSET,
        prefer: Prefer = None,
        require: Require = None,
        *,
        progress: Progress = None,
        retries: int = 0,
        retry_on: ErrorTypes = Exception,
        retry_wait: float = 0.0,
        on_error: OnError = "raise",
        seed: int | None = None,
        inner_max_num_threads: int | None = None,
        **backend_kwargs: Any,
    ) -> None:
        from asyncpar._map.options import RunOptions
        from asyncpar._run.progress import check_progress
        from asyncpar._sync.backends import to_int
        from asyncpar._sync.settings import check_prefer_and_require, current_settings, make_hints

        if return_as not in RETURN_AS:
            raise ValueError(f"return_as must be one of {', '.join(map(repr, RETURN_AS))}, not {return_as!r}")
        check_prefer_and_require(prefer, require)
        check_inner_threads(inner_max_num_threads)
        check_progress(progress)
        self._hints = make_hints(temp_folder, max_nbytes, mmap_mode)
        self._asked_n_jobs = None if n_jobs is None else to_int(n_jobs)
        self._asked = (backend, self._asked_n_jobs, prefer, require, inner_max_num_threads, backend_kwargs)
        self._chosen: tuple[Backend, int] | None = None
        self._chosen_at = 0  # how deep in workers
        if self._asked_n_jobs != 0:  # refused when the `Parallel` is called, as in joblib
            self._choose()
        context_verbose = current_settings().verbose
        self.verbose = verbose if verbose is not UNSET else 0 if context_verbose is UNSET else context_verbose
        if not isinstance(self.verbose, bool) and not (is_number(self.verbose) and self.verbose == self.verbose):  # nan is not
            raise ValueError(f"verbose must be a number, 0 for silence, not {self.verbose!r}")
        self.timeout = check_timeout(timeout, "task")
        self._options = RunOptions(
            batch_size=batch_size,
            timeout=self.timeout,
            retries=retries,
            retry_on=retry_on,
            retry_wait=retry_wait,
            on_error=on_error,
            seed=seed,
        )
        self.batch_size = batch_size
        self.return_as: str = return_as
        self.pre_dispatch = pre_dispatch
        self._window(1)
        self._asked_progress: Progress = progress
        self._kept: KeptExecutor | None = None  # under `with`
        self._running: weakref.ref[Generator[Any, None, None]] | None = None
        self.n_completed_tasks = 0
        self.n_dispatched_tasks = 0

    @property
    def n_jobs(self) -> int:
        """How many workers a call would use now."""
        return self._choose()[1]

    @property
    def return_generator(self) -> bool:
        """Whether calls return a generator."""
        return self.return_as != "list"

    def __enter__(self) -> Self:
        from asyncpar._sync.kept_executor import KeptExecutor

        self._kept = KeptExecutor()
        return self

    def __exit__(self, *error: object) -> None:
        generator = self._generator()
        if generator is not None:
            generator.close()
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()

    @overload
    def __call__(self: Parallel[Literal["list"]], iterable: Iterable[Call[T]]) -> list[T]: ...
    @overload
    def __call__(self: Parallel[Streamed], iterable: Iterable[Call[T]]) -> Generator[T, None, None]: ...

    def __call__(self, iterable: Iterable[Call[Any]]) -> Any:
        """The results of the calls, as a list or a generator.

        Raises:
            RuntimeError: the generator of an earlier call has not ended.
            TypeError: something in the iterable is not a call.
        """
        if self._generator() is not None:
            raise RuntimeError(
                "This Parallel instance is already running: the generator of an earlier call has not ended; exhaust or close "
                "it, or make another Parallel"
            )
        backend, n_jobs = self._choose()
        window = self._window(n_jobs)
        reports = self._make_reports()
        if n_jobs == 1 and backend.kind != "other":
            return self._run_inline(iterable, reports)
        if self.verbose > 0:
            reports.print(preamble(backend.name, n_jobs))
        return self._run(backend, n_jobs, window, iterable, reports)

    def __repr__(self) -> str:
        return f"Parallel(n_jobs={self._asked_n_jobs if self._asked_n_jobs is not None else self.n_jobs})"

    def __getstate__(self) -> dict[str, Any]:
        """A copy, such as workers get, chooses again what to run in, and has not been called."""
        return self.__dict__ | {"_chosen": None, "_kept": None, "_running": None}

    def print_progress(self) -> None:
        """Called when tasks have finished, and once more at the end; prints as `verbose` says.

        Override it to show progress in another way; `n_completed_tasks` and `n_dispatched_tasks` say how far the call is.
        """
        from asyncpar._sync.call_reports import print_current

        print_current()

    # One call

    def _choose(self) -> tuple[Backend, int]:
        if self._chosen is None or self._chosen_at != depth():
            from asyncpar._sync.backends import choose_backend

            self._chosen, self._chosen_at = choose_backend(*self._asked), depth()
        return self._chosen

    def _window(self, n_jobs: int) -> int | None:
        """How many tasks (or batches of short ones) may be pulled and not yet be done; None: the scheduler chooses."""
        if self.pre_dispatch == DEFAULT_PRE_DISPATCH:
            return None
        from asyncpar._sync.pre_dispatch import evaluate_pre_dispatch

        return evaluate_pre_dispatch(self.pre_dispatch, n_jobs)

    def _generator(self) -> Generator[Any, None, None] | None:
        """The generator of an earlier call, if it has not ended."""
        generator = None if self._running is None else self._running()
        return generator if generator is not None and generator.gi_frame is not None else None  # type: ignore[attr-defined]

    def _make_reports(self) -> CallReports:
        from asyncpar._sync.call_reports import CallReports

        overridden = getattr(self.print_progress, "__func__", None) is not _PRINT_PROGRESS
        return CallReports(self, self._asked_progress, self.print_progress if overridden else None, self._told_of_batches())

    def _told_of_batches(self) -> Callable[[int], object] | None:
        """What is called with how many tasks have finished, whenever some have."""
        return None

    def _print(self, message: str) -> None:
        from asyncpar._sync.call_reports import print_line

        print_line(f"[{self}]: {message}", self.verbose)

    def _run(self, backend: Backend, n_jobs: int, window: int | None, iterable: Iterable[Any], reports: CallReports) -> Any:
        from asyncpar._sync.parallel_call import ParallelCall, Request, may_count_batches

        ordered = self.return_as != "generator_unordered"
        in_batches = may_count_batches(backend, window)
        options = self._options.but(n_jobs=n_jobs, ordered=ordered, buffersize=None if in_batches else window)
        request = Request(backend, n_jobs, options, self._hints, window if in_batches else None)
        call = ParallelCall(request, iterable, reports, kept=self._kept)
        if self.return_as == "list":
            with reports:
                values = call.collect()
                reports.count(call.pulled, call.pulled)
                return values
        return self._generate(call.stream, reports)

    def _run_inline(self, iterable: Iterable[Any], reports: CallReports) -> Any:
        if self.timeout is not None:
            warnings.warn(
                f"A loop in the caller's thread does not support timeout: with one worker, timeout={self.timeout} is ignored",
                UserWarning,
                stacklevel=3,
            )
        calls = self._inline_values(_iterate(iterable), reports)
        if self.return_as == "list":
            with reports:
                return list(calls)
        return self._generate(lambda: calls, reports)

    def _generate(self, start: Callable[[], Generator[Any, None, None]], reports: CallReports) -> Generator[Any, None, None]:
        """A generator whose run has begun, and which reports its end."""

        def generate() -> Generator[Any, None, None]:
            with reports:
                values = start()
                yield None
                yield from values

        generator = generate()
        next(generator)
        self._running = weakref.ref(generator)
        return generator

    def _caller(self) -> Callable[..., Any]:
        """What makes a call, according to `retries` and `on_error` if they are given."""
        options = self._options
        if not options.retries and options.on_error == "raise":
            return call_in_callers_thread
        from asyncpar._sync.retrying_caller import RetryingCaller

        return RetryingCaller(options.retrying(), options.on_error)

    def _inline_values(self, calls: Iterable[Any], reports: CallReports) -> Generator[Any, None, None]:
        wanted, caller, seed = reports.wanted, self._caller(), self._options.seed
        for done, call in enumerate(calls, 1):
            function, arguments, keywords = _unpack(call)
            self.n_dispatched_tasks = done
            if seed is not None:
                function = _seeded(function, seed, done - 1)
            value = caller(function, arguments, keywords)
            if done == 1 and is_unawaited(value):
                raise refusal(value)
            if wanted:
                reports.report_inline(done)
            self.n_completed_tasks = done
            if value is not SKIPPED:
                yield value


_PRINT_PROGRESS = Parallel.print_progress  # the original that prints, even if it is overridden


def wrap_non_picklable_objects(obj: T, keep_wrapper: bool = True) -> T:
    """Returns `obj` itself: everything that cloudpickle can pickle is pickled with it, wrapped or not.

    >>> from asyncpar import wrap_non_picklable_objects
    >>> wrap_non_picklable_objects(lambda x: x + 1)(2)
    3
    """
    return obj


def _unpack(call: Any) -> Call[Any]:
    try:
        function, arguments, keywords = call
        if callable(function):
            return function, arguments, keywords
    except (TypeError, ValueError):
        pass
    from asyncpar._sync.calls import check_call

    check_call(call)
    raise AssertionError("unreachable: what cannot be unpacked is no call")


def _seeded(function: Callable[..., Any], seed: int, index: int) -> Callable[..., Any]:
    """`function`, to be called as the task of that index."""
    from functools import partial

    from asyncpar._child.seeded_calls import call_seeded
    from asyncpar._run.seeded_session import refuse_cached

    refuse_cached([function])
    return partial(call_seeded, function, seed, index)


def _iterate(iterable: Iterable[Any]) -> Iterable[Any]:
    from asyncpar._sync.calls import iterate

    return iterate(iterable)
