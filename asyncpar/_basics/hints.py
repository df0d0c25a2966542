"""Common mistakes, and what the error tells users to write instead.

Nothing here is used before something is wrong. The hints cover names from other libraries, and names similar to ours.
"""

from __future__ import annotations

from collections.abc import Collection, Coroutine, Sequence
from typing import Any

_OPTIONS = {  # {name in other libraries: our name}
    "max_workers": "n_jobs",
    "num_workers": "n_jobs",
    "n_workers": "n_jobs",
    "workers": "n_jobs",
    "processes": "n_jobs",
    "threads": "n_jobs",
    "chunksize": "batch_size",
    "chunk_size": "batch_size",
    "return_exceptions": 'on_error="return"',
    "errors": "on_error",
    "max_concurrency": "concurrency",
    "limit": "concurrency",
    "max_per_second": "rate",
    "max_rate": "rate",
    "rate_limit": "rate",
    "backend": "executor",
    "pool": "executor",
    "executor": "backend",
    "pre_dispatch": "buffersize",
    "max_retries": "retries",
    "attempts": "retries",
    "backoff": "retry_wait",
    "verbose": "progress",
    "tqdm": "progress",
    "unordered": "ordered=False",
}
_OF_PROCESSES = {
    "contextvars",
    "grace",
    "idle_timeout",
    "initargs",
    "initializer",
    "inner_max_num_threads",
    "max_calls_per_worker",
    "max_memory",
    "max_shared_bytes",
    "preload",
}
_EXECUTORS = {  # {name in other libraries: our name}
    "loky": "process",
    "multiprocessing": "process",
    "processes": "process",
    "threading": "thread",
    "threads": "thread",
    "sequential": "inline",
    "serial": "inline",
    "sync": "inline",
}


def meant_option(name: str, known: Collection[str]) -> str:
    """`did you mean …?`, or an empty text."""
    option = _OPTIONS.get(name, "")
    if option.split("=")[0] not in known:
        option = _closest(name, known)
    return f"did you mean {option}?" if option else ""


def unknown_options(names: Collection[str], known: Collection[str]) -> TypeError:
    """The error for keyword arguments that `pmap` does not have."""
    hints = []
    for name in names:
        hint = meant_option(name, known)
        if name in _OF_PROCESSES:
            hint = f"it belongs to an executor: executor=ProcessExecutor({name}=…)"
        hints.append(f"{name} ({hint})" if hint else f"{name} (it has {', '.join(known)})")
    return TypeError(f"pmap has no option {', '.join(hints)}")


def not_callable(fn: Any, iterables: Sequence[Any]) -> TypeError:
    """The error if `pmap` was given something that is not a function. A coroutine is closed, so that Python does not warn."""
    if isinstance(fn, Coroutine):
        name = getattr(fn, "__name__", type(fn).__name__)
        fn.close()
        return TypeError(
            f"pmap maps a coroutine function, not the coroutine that calling {name}(…) has made; write pmap({name}, items)"
        )
    swapped = any(map(callable, iterables))
    remedy = "the function comes first" if swapped else "pass f itself, and not what f(…) returns"
    return TypeError(f"pmap maps a function or another callable, not {fn!r:.200}; write pmap(f, items): {remedy}")


def not_a_function(fn: Any) -> TypeError:
    """The error if a single call was asked for with something that is not a function. A coroutine is closed, as above."""
    if isinstance(fn, Coroutine):
        name = getattr(fn, "__name__", type(fn).__name__)
        fn.close()
        return TypeError(f"run takes a coroutine function, not the coroutine that {name}(…) has made; write run({name}, …)")
    return TypeError(
        f"run takes a function or another callable, and its arguments, not {fn!r:.200}; write run(f, x), not run(f(x))"
    )


def meant_executor_name(name: str, known: Collection[str]) -> str:
    """`did you mean …?`, or an empty text."""
    meant = _EXECUTORS.get(name) or _closest(name, known)
    return f"; did you mean {meant!r}?" if meant else ""


def instead_of_executor(executor: object) -> str:
    """What to pass instead of an object that runs calls in other libraries, or an empty text."""
    if isinstance(executor, int):
        return f"; did you mean n_jobs={executor}?"
    if isinstance(executor, type):
        return f"; pass an object: {executor.__name__}()" if executor.__module__.startswith("asyncpar") else ""
    for kind in type(executor).__mro__:
        if kind.__module__.startswith("multiprocess"):
            name = "thread" if "Thread" in type(executor).__name__ else "process"
            return f'; asyncpar has workers of its own: pass executor="{name}", and n_jobs for their number'
        if kind.__module__.startswith(("asyncio", "uvloop")):
            return "; leave it out: coroutine functions run in the event loop that awaits the map"
    return ""


def _closest(name: str, known: Collection[str]) -> str:
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, known, 1)), "")
