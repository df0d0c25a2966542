"""Errors as users of joblib expect them: theirs by class, so that `except` finds them, and ours by what they say."""

from __future__ import annotations

from joblib.externals.loky.process_executor import (  # type: ignore[import-untyped]  # it has no type information
    TerminatedWorkerError as _TerminatedWorkerError,
)

from asyncpar._sync.timeouts import ParallelTimeoutError
from asyncpar.errors import PicklingError, WorkerDiedError


class TerminatedWorkerError(WorkerDiedError, _TerminatedWorkerError):  # type: ignore[misc]  # the type of joblib's is not known
    """A `WorkerDiedError` that code which catches joblib's error also catches."""


_PARTS_OF_TASK = {"arguments[0][0]": "function", "arguments[0][1]": "arguments", "arguments[0][2]": "keywords"}


def as_joblib_raises(error: BaseException) -> BaseException:
    """The same error, in a class that joblib's users catch. What a task has raised stays unchanged."""
    if type(error) is not WorkerDiedError:
        return error
    converted = TerminatedWorkerError(*error.args)
    converted.__cause__ = error.__cause__
    for note in getattr(error, "__notes__", ()):
        converted.add_note(note)
    return converted


def unsendable(refusal: BaseException) -> BaseException:
    """Why a task cannot be sent, in words that begin as joblib's do, with paths from the task's own parts."""
    if not isinstance(refusal, PicklingError):
        return refusal
    message = f"Could not pickle the task to send to the workers: {str(refusal).removeprefix('the item of ')}"
    message = message.replace('executor="thread"', 'backend="threading"')
    path = _path_in_task(refusal.path)
    error = PicklingError(message.replace(f": {refusal.path}, a", f": {path}, a", 1), path, refusal.type_name)
    error.__cause__ = refusal.__cause__
    return error


def _path_in_task(path: str) -> str:
    for sent, part in _PARTS_OF_TASK.items():
        if path.startswith(sent):
            return part + path.removeprefix(sent)
    return path


def timed_out(task: int, seconds: float) -> ParallelTimeoutError:
    """The error of a call of `Parallel` that waited for longer than `seconds` for the batch which this task begins."""
    message = f"the batch with task {task} was not done after the timeout of {seconds:g} s"
    return ParallelTimeoutError(message, task, None, seconds)
