"""Turns a call's exception into bytes, and back into an exception of its own type if that is possible.

Two ways are tried in the worker, and the result of each is read back there on trial:

1. The exception pickles by itself.
2. It is rebuilt without its `__init__`, from its class, its `args` and its attributes, and so are the exceptions that it holds.
   Many exceptions cannot be called with their own `args` (a common mistake), or change them when called.

The first way is taken if the exception that was read back says the same, by its `args` and attributes, and else the second. If
neither can be read back, a `RemoteError` replaces the exception, with the name of its type, its message, and the reason.

**Whether two exceptions say the same** cannot be decided by `==`: an exception, like most objects, is equal only to itself, and
NaN not even to itself. So texts and numbers are compared, also in lists, tuples and dicts. Of everything else, only the types
are compared.

The methods of an exception may raise anything, including SystemExit. No such error leaves this module.

The worker's traceback travels as text and becomes the exception's `__cause__`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from itertools import islice
from types import MemberDescriptorType
from typing import Any, NamedTuple

from asyncpar._basics.wording import in_words, message_of
from asyncpar._platform.own_imports import import_own
from asyncpar._wire.definitions import Definitions, reading
from asyncpar._wire.unfinished import loads
from asyncpar.errors import RemoteError, RemoteTraceback

_MOST_COMPARISONS = 2000  # of parts of `args`: takes a millisecond; an object that refers to itself has no end
_COMPARED = (str, bytes, int, float, complex)
_HEAP_TYPE = 1 << 9  # CPython's flag of a class that was made by a program
_ARGS: Any = vars(BaseException)["args"]
_ATTRIBUTES: Any = vars(BaseException)["__dict__"]
_CAUSE: Any = vars(BaseException)["__cause__"]  # a class may forbid setting it (frozen dataclasses do), or define its own
_TRACEBACK: Any = vars(BaseException)["__traceback__"]


class PackedError(NamedTuple):
    """An exception on its way: its pickle, or None, and what to say if there is no usable pickle."""

    pickled: bytes | None
    type_name: str
    message: str
    traceback: str
    culprit: str  # the part that cannot be pickled, if that is known
    misread: str  # the error that reading its pickle raises, if that is why there is none


def pack_error(error: BaseException, definitions: Definitions | None = None, *, hidden_frames: int = 0) -> PackedError:
    """`error` in a form that travels. The outermost `hidden_frames` of its traceback are left out.

    `definitions`: what the reader has.
    """
    type_name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    with reading(definitions):
        pickled, misread = _pickle_error(error, definitions)
    culprit = _describe_culprit(error) if pickled is None and not misread else ""
    return PackedError(pickled, type_name, message_of(error), _format_traceback(error, hidden_frames), culprit, misread)


def unpack_error(packed: PackedError) -> BaseException:
    """The exception, with the worker's traceback as its cause. Read it where its definitions are (`reading`)."""
    loaded: BaseException | None = None
    misread = packed.misread
    if packed.pickled is not None:
        loaded, misread = _load_error(packed.pickled)
    error = loaded if loaded is not None else RemoteError(packed.type_name, packed.message, packed.culprit, misread)
    _CAUSE.__set__(error, RemoteTraceback(packed.traceback))
    return error


def _pickle_error(error: BaseException, definitions: Definitions | None) -> tuple[bytes | None, str]:
    """The pickle, or the error that reading it would raise; neither if it cannot be written."""
    pickled, misread = None, ""
    for dumps in _ways():
        try:
            data = dumps(error, definitions=definitions)
        except BaseException:  # noqa: S112 - the other way is tried, and None says that neither worked
            continue
        loaded, failure = _load_error(data)
        if loaded is not None and type(loaded) is type(error) and _alike(_content(loaded), _content(error)):
            return data, ""
        if loaded is not None and pickled is None:  # it says something else, perhaps on purpose, but is usable
            pickled = data
        misread = misread or failure
    return pickled, "" if pickled is not None else misread


@cache
def _ways() -> tuple[Callable[..., bytes], ...]:
    """The ways to pickle an exception. Made for the first exception, because importing cloudpickle takes 30 ms."""
    from asyncpar._wire.pickler import Pickler, dumps

    class Rebuilding(Pickler):
        """Pickles exceptions without their `__init__`, if it is the user's."""

        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, BaseException) and hasattr(type(obj).__init__, "__code__"):
                own: Any = _own_class(type(obj))
                _, initial, *state = own.__reduce__(obj)
                attributes = {**(state[0] if state and state[0] else {}), **_attributes_of(obj)}
                return _rebuild, (type(obj), initial, _ARGS.__get__(obj)), attributes, None, None, _set_attributes
            return super().reducer_override(obj)

    return dumps, partial(dumps, pickler_class=Rebuilding)


def _rebuild(kind: type[BaseException], initial: tuple[Any, ...], args: tuple[Any, ...]) -> BaseException:
    """An exception of this class, made by its built-in base class from `initial`, so that an OSError has its errno."""
    own: Any = _own_class(kind)
    try:
        error: BaseException = kind.__new__(kind, *initial)
    except Exception:  # its `__new__` fails too
        error = own.__new__(kind, *initial)
    own.__init__(error, *initial)
    _ARGS.__set__(error, args)
    return error


def _own_class(kind: type) -> type:
    """The built-in class from which this one is derived."""
    return next(base for base in kind.__mro__ if issubclass(base, BaseException) and not base.__flags__ & _HEAP_TYPE)


def _attributes_of(error: BaseException) -> dict[str, Any]:
    """The attributes that pickling an exception sends, and its slots, which pickling leaves out."""
    attributes = dict(_ATTRIBUTES.__get__(error))
    for kind in type(error).__mro__:
        if "__slots__" in vars(kind):
            for name, slot in vars(kind).items():
                if type(slot) is MemberDescriptorType:
                    with suppress(AttributeError):  # it has no value
                        attributes[name] = slot.__get__(error)
    return attributes


def _set_attributes(error: BaseException, attributes: dict[str, Any]) -> None:
    """Sets attributes even if the class forbids it, as frozen dataclasses do."""
    for name, value in attributes.items():
        try:
            BaseException.__setattr__(error, name, value)
        except AttributeError:  # a property of that name
            _ATTRIBUTES.__get__(error)[name] = value


def _load_error(data: bytes) -> tuple[BaseException | None, str]:
    """The exception, or the error that reading it raises."""
    try:
        loaded = loads()(data)
    except KeyboardInterrupt:  # in the parent, this is Ctrl-C
        raise
    except BaseException as failure:
        return None, in_words(failure)
    if isinstance(loaded, BaseException):
        return loaded, ""
    return None, f"its __reduce__ gives {type(loaded).__name__}, which is not an exception"


def _content(error: BaseException) -> list[Any]:
    return [_ARGS.__get__(error), _attributes_of(error)]


def _alike(one: Any, other: Any) -> bool:
    """Whether they say the same, as far as a limited number of comparisons of their parts can tell."""
    pairs = [(one, other)]
    for _ in range(_MOST_COMPARISONS):
        if not pairs:
            return True
        left, right = pairs.pop()
        kind = type(left)
        if kind is not type(right):
            return False
        if kind in _COMPARED:
            if left != right and not (left != left and right != right):  # NaN
                return False
        elif kind in (list, tuple, dict):
            if len(left) != len(right):
                return False
            pairs += islice(zip(left, right, strict=True), _MOST_COMPARISONS)
            if kind is dict:
                pairs += islice(zip(left.values(), right.values(), strict=True), _MOST_COMPARISONS)
    return True


def _describe_culprit(error: BaseException) -> str:
    from asyncpar._wire.blame import find_unpicklable  # only when something cannot be pickled

    culprit = find_unpicklable(error, "error")
    return "" if culprit is None or culprit.value is error else culprit.describe()


def _format_traceback(error: BaseException, hidden_frames: int) -> str:
    frames = _TRACEBACK.__get__(error)
    for _ in range(hidden_frames):
        frames = frames.tb_next if frames is not None else None
    try:
        text: str = import_own("asyncpar._wire.tracebacks").format_traceback(error, frames)
        return text
    except BaseException as broken:  # an exception whose own methods raise
        return f"<the traceback cannot be shown: {type(broken).__name__}>\n"
