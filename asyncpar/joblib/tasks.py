"""joblib's tasks, (function, arguments, keyword arguments), on their way to a worker, and how one is made there.

The tasks of a joblib batch are one column, and so one pickle: an object that several of them have is sent once, and is one
object in the worker, too, as with joblib's own workers. But each is a call by itself. So a worker that is to stop does so
between two tasks, and the one that has killed its worker is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from joblib.externals.loky import process_executor as loky  # type: ignore[import-untyped]  # it has no type information
from joblib.parallel import ThreadingBackend, default_parallel_config  # type: ignore[import-untyped]
from joblib.parallel import _backend as _settings

from asyncpar._basics.wording import call_in_words, short_repr
from asyncpar._contract.batches import Batch
from asyncpar.joblib import register

Task: TypeAlias = tuple[Callable[..., Any], Sequence[Any], Mapping[str, Any]]


def call_task(task: Task) -> Any:
    """Makes the call. A `Parallel` in it uses threads, as in joblib's own workers, so that processes do not multiply.

    One that asks for multiprocessing is a loop: joblib finds by a global of loky's that it is in a worker. The settings are put
    where `parallel_config` puts them, which takes 2 µs itself, and this 0.5: joblib does it once a batch.
    """
    function, arguments, keywords = task
    outside = getattr(_settings, "config", default_parallel_config)
    _settings.config = outside | {"backend": ThreadingBackend(nesting_level=1), "n_jobs": None}
    loky._CURRENT_DEPTH += 1
    try:
        return function(*arguments, **keywords)
    finally:
        loky._CURRENT_DEPTH -= 1
        _settings.config = outside


class TaskBatch(Batch):
    """A batch of tasks. Messages show each as it would be written, with its number in the call of `Parallel`."""

    __slots__ = ()

    def describe(self, position: int) -> str:
        task = self.columns[0][position]
        try:
            function, arguments, keywords = task
            call = call_in_words(function, arguments, keywords)
        except (TypeError, ValueError, AttributeError):  # `delayed` did not make it, and its own error says so
            call = short_repr(task)
        return f"task {self.indices[position]}, {call}"


register()  # in a worker, a task may name the backend
