"""Finds which part of an object cannot be pickled, and the path to it: `arguments[1]['model'].lock`.

Pickle says that it cannot pickle a lock, but not whose lock. Once pickling has failed, the object is taken apart (`parts.py`),
and its parts are pickled again, on trial, to see which of them fails. Then that part is taken apart, and so on, until no part
of it fails: this part is the culprit. Which of many parts fails is found by halving, so a list costs about two trial pickles
of itself, however long it is.

# Guarantees

- **It never raises**, whatever the methods of the user's objects raise, including SystemExit. (It never runs where Ctrl-C is
  raised: only in workers, and in threads.) A search that ends early gives the deepest part that is known to fail.
- **It ends.** In a trial, the objects on the path from the root count as already pickled, as they do in a real pickle. So a
  child that fails only because it points back to its parent is not blamed, and no path visits an object twice.
- **It is bounded** in depth and in time, because a run waits for it. So the number of trials is bounded, too: a step takes
  about ten plus twice the logarithm of the number of parts. It cannot bound a single call of the user's own `__reduce__` or
  `__getstate__`. These are called a few more times, after the failed pickling has called them once.
- **It needs no memory for the pickles**, which are thrown away as they are written. Large buffers are not even read.

Two other ways were refused. The pickler in Python could keep a stack of what it is doing, but it is not the one that failed,
it is 50 times slower, and its class is private. The notes that CPython 3.14 adds to such errors give no expression, and older
versions add none.
"""

import pickle
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

from asyncpar._basics.forms import Form, users_function
from asyncpar._basics.wording import in_words, short_repr
from asyncpar._wire.codec import PROTOCOL
from asyncpar._wire.context_variables import reduce_variable
from asyncpar._wire.parts import Parts, parts_of
from asyncpar._wire.pickler import Pickler
from asyncpar._wire.remedies import remedy_for
from asyncpar.errors import PicklingError

_MOST_STEPS = 64  # longer than a path that anybody would read; a guess
_MOST_SECONDS = 0.25  # how long a thread looks for a better message: a guess, some hundred thousand small objects


class Culprit(NamedTuple):
    """The innermost part that cannot be pickled or, if `is_exact` is false, a part that holds it somewhere."""

    path: str
    value: object
    is_exact: bool

    @property
    def type_name(self) -> str:
        kind = type(self.value)
        return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")

    def describe(self) -> str:
        article = "an" if self.type_name[0] in "aeiouAEIOU" else "a"
        return f"{'' if self.is_exact else 'something in '}{self.path}, {article} {self.type_name}"


def find_unpicklable(value: object, name: str) -> Culprit | None:
    """The part of `value` that prevents pickling, with a path that begins with `name`; None if it can be pickled now."""
    culprit = Culprit(name, value, is_exact=False)
    trials = _Trials()
    try:
        failure = trials.failure_of([value])
        if failure is None:
            return None
        if issubclass(failure, RecursionError):  # nested too deeply, which is not the fault of any part
            return culprit._replace(is_exact=True)
        for _ in range(_MOST_STEPS):
            trials.take_as_pickled(culprit.value)
            part = _failing_part(culprit, trials)
            if part is None:
                return culprit._replace(is_exact=True)
            culprit = part
    except _OutOfTime:
        pass
    return culprit


def refuse(what: str, value: object, name: str, error: BaseException, remedy: str = "") -> PicklingError:
    """The error saying that `what`, called `name` in the path, cannot be sent, because pickling it raised `error`."""
    culprit = find_unpicklable(value, name)
    reason = in_words(error)
    if culprit is None:
        return PicklingError(f"{what} cannot be sent between processes: {reason}{remedy}")
    if known_remedy := remedy_for(culprit.type_name, returned=name == "result"):
        remedy = f'; {known_remedy}, or run it with executor="thread"'
    return PicklingError(
        f"{what} cannot be sent between processes: {culprit.describe()}, cannot be pickled ({reason}){remedy}",
        culprit.path,
        culprit.type_name,
    )


def refuse_function(fn: Callable[..., Any], error: BaseException) -> PicklingError:
    """The same for the function of a run, or for a form that stands for it."""
    remedy = '; make what it refers to picklable, or run it with executor="thread"'
    form: Any = fn
    while issubclass(type(form), Form):
        for what, part, name in form.own_parts():
            if find_unpicklable(part, name) is not None:
                return refuse(what, part, name, error)
        form = form.function
    fn = users_function(fn)
    return refuse(f"the function {short_repr(fn)}", fn, "function", error, remedy)


class _OutOfTime(Exception):
    pass


class _Trials:
    """Makes trial pickles. It is also the file of their picklers, which discards what is written and checks the clock."""

    def __init__(self) -> None:
        self.pickled: dict[int, object] = {}  # {id: object}: the path from the root, kept alive so that the ids stay theirs
        self._lost: list[ContextVar[Any]] = []  # in no module; to search all of them anew in each trial would take too long
        self._deadline = time.monotonic() + _MOST_SECONDS

    def reduce_variable(self, variable: ContextVar[Any]) -> Any:
        if not any(lost is variable for lost in self._lost):
            try:
                return reduce_variable(variable)
            except pickle.PicklingError:
                self._lost.append(variable)
        raise pickle.PicklingError("it is in no module")

    def take_as_pickled(self, value: object) -> None:
        self.pickled[id(value)] = value

    def failure_of(self, values: Sequence[object]) -> type[BaseException] | None:
        """The class of the error that pickling these values together raises. The error itself would keep the values alive."""
        self.write(b"")
        try:
            _TrialPickler(self).dump(list(values))
        except _OutOfTime:
            raise
        except BaseException as error:
            return type(error if error.__cause__ is None else error.__cause__)
        return None

    def write(self, data: bytes) -> int:
        """Called by a pickler for each 64 KiB, and at the end."""
        if time.monotonic() > self._deadline:
            raise _OutOfTime
        return len(data)


class _TrialPickler(Pickler):
    """The pickler of codec.py, except that some objects count as pickled, and buffers are dropped."""

    def __init__(self, trials: _Trials) -> None:
        super().__init__(trials, PROTOCOL, _drop)
        self._pickled = trials.pickled
        self._reducers[ContextVar] = trials.reduce_variable

    def persistent_id(self, value: object) -> bool | None:
        return id(value) in self._pickled or None


def _drop(_: pickle.PickleBuffer) -> bool:
    """Leaves buffers out of the pickle, since they may travel beside it."""
    return False


def _failing_part(whole: Culprit, trials: _Trials) -> Culprit | None:
    try:
        for parts in parts_of(whole.value):
            index = _first_failing(parts, trials)
            if index is not None:
                return Culprit(parts.path(whole.path, index), parts.values[index], is_exact=False)
    except _OutOfTime:
        raise
    except BaseException:  # raised by the object's own methods: its parts cannot be seen
        return None
    return None


def _first_failing(parts: Parts, trials: _Trials) -> int | None:
    values = parts.values
    if trials.failure_of(values) is None:
        return None
    low, high = 0, len(values)
    while high - low > 1:  # values[low:high] fails, nothing in values[:low] does
        middle = (low + high) // 2
        if trials.failure_of(values[low:middle]) is None:
            low = middle
        else:
            high = middle
    return low if trials.failure_of(values[low:high]) is not None else None
