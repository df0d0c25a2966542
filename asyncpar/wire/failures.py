"""A call's exception as bytes, and back again with its own type wherever that can be had.

Three ways, the first that survives a trial round trip in the worker:

1. the exception pickles by itself;
2. its `__init__` does not take its `args` back (a common slip): it is rebuilt without calling `__init__`, from its class,
   its `args` and its attributes;
3. something in it cannot be pickled at all: a `RemoteError` naming its type, its message and that part stands for it.

The worker's traceback travels as text and becomes the exception's `__cause__`.
"""

from __future__ import annotations

import pickle
import traceback
from typing import Any, NamedTuple

from asyncpar.errors import RemoteError, RemoteTraceback
from asyncpar.wire.codec import PROTOCOL


class PackedError(NamedTuple):
    """An exception on its way: its pickle (None for the third way) and what to say where that does not help."""

    pickled: bytes | None
    type_name: str
    message: str
    traceback: str
    culprit: str  # what in it cannot be pickled, if that is known


def pack_error(error: BaseException, *, hidden_frames: int = 0) -> PackedError:
    """`error` in a form that travels; the outermost `hidden_frames` of its traceback are left out."""
    type_name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    try:
        message = str(error)
    except Exception as broken:
        message = f"<its __str__ raised {type(broken).__name__}>"
    pickled = _pickle_error(error)
    culprit = "" if pickled is not None else _describe_culprit(error)
    return PackedError(pickled, type_name, message, _format_traceback(error, hidden_frames), culprit)


def unpack_error(packed: PackedError) -> BaseException:
    """The exception, with the worker's traceback as its cause."""
    error: BaseException | None = None
    if packed.pickled is not None:
        error = _load_error(packed.pickled)
    if error is None:
        error = RemoteError(packed.type_name, packed.message, packed.culprit)
    error.__cause__ = RemoteTraceback(packed.traceback)
    return error


def _pickle_error(error: BaseException) -> bytes | None:
    """By the first of the first two ways that gives back an exception of the same class with the same `args`."""
    import cloudpickle

    for form in (error, _Rebuilt(error)):
        try:
            data: bytes = cloudpickle.dumps(form, PROTOCOL)
        except Exception:  # noqa: S112 - the next form is tried, and None says that none worked
            continue
        loaded = _load_error(data)
        if loaded is not None and type(loaded) is type(error) and _same_arguments(loaded, error):
            return data
    return None


def _describe_culprit(error: BaseException) -> str:
    from asyncpar.wire.blame import find_unpicklable  # only when something cannot be pickled

    culprit = find_unpicklable(error, "error")
    return "" if culprit is None or culprit.value is error else culprit.describe()


def _same_arguments(loaded: BaseException, error: BaseException) -> bool:
    """Whether `__init__` took its `args` back unchanged; by type alone where they cannot be compared, as arrays cannot."""
    try:
        return bool(loaded.args == error.args)
    except Exception:
        return [type(argument) for argument in loaded.args] == [type(argument) for argument in error.args]


def _load_error(data: bytes) -> BaseException | None:
    try:
        loaded = pickle.loads(data)
    except Exception:
        return None
    return loaded if isinstance(loaded, BaseException) else None


class _Rebuilt:
    """Pickles as a call of `_rebuild` on the parts of an exception."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self._error), self._error.args, self._error.__dict__)


def _rebuild(kind: type[BaseException], args: tuple[Any, ...], attributes: dict[str, Any]) -> BaseException:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


def _format_traceback(error: BaseException, hidden_frames: int) -> str:
    frames = error.__traceback__
    for _ in range(hidden_frames):
        frames = frames.tb_next if frames is not None else None
    try:
        return "".join(traceback.format_exception(type(error), error, frames))
    except Exception as broken:  # an exception whose own methods raise
        return f"<the traceback cannot be shown: {type(broken).__name__}>\n"
