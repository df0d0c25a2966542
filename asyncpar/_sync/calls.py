"""Calls as `delayed` makes them, (function, arguments, keyword arguments), on their way into a run.

A run maps *one* function over columns of arguments; a `Parallel` call brings a function with every task. Sending each would
cost far more than most tasks, so consecutive calls are brought into *segments*, which have one function and columns:

- calls of one function with the same number of positional arguments: the columns are the arguments, as in a map;
- with the same keywords, or without any arguments: the same, under a small form (`_child/call_forms.py`);
- calls whose functions or keywords change from one to the next: three columns, and the functions are the first.

A function is recognised by its identity. A bound method is recognised by the identities of its object and its function, because
`delayed(self.f)(x)` makes a new method object for each call. A run adopts the same function once, however many segments it has,
and sends it once to each worker. So an object whose method is called is sent as it was at its first call.

Who pulls: not the event loop (`asked_source.py`), but a thread of the call, the caller's or one for a generator. It pulls as
many calls as the run asks for, a piece at a time, forms segments and delivers them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping
from itertools import groupby, islice, repeat
from operator import is_
from types import BuiltinMethodType, MethodType, ModuleType
from typing import Any, TypeAlias

from asyncpar._basics.wording import short_repr
from asyncpar._child.call_forms import BareCall, KeywordCall, make_call
from asyncpar._contract.batches import Batch
from asyncpar._contract.executor import Executor, Hints, Parcel, Place, Program, Session
from asyncpar._run.segments import Segment
from asyncpar._sync.asked_source import Pulled

Call: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]

_METHOD_TYPES = (MethodType, BuiltinMethodType)
_PULL_SECONDS = 5e-3  # after which what has been pulled is delivered: as long as Python lets one thread keep the GIL
_KEPT_FUNCTIONS = 64  # of a run, at the least; a function that comes again after that many others is sent again
_WORTH_A_SEGMENT = 4  # calls, on average, that are worth a segment of their own: about what one more batch costs; a guess


class CallPuller:
    """Pulls calls out of the user's iterable. Used by one thread at a time.

    Raises:
        TypeError: it cannot be iterated over.
    """

    def __init__(self, iterable: Iterable[Any]) -> None:
        self._iterator = iterate(iterable)
        self.length: int | None = None
        if type(iterable) is list or type(iterable) is tuple:  # a subclass may iterate differently
            self.length = len(iterable)
        self.count = 0
        self.exhausted = False
        self._forms: dict[Hashable, Callable[..., Any]] = {}

    def pull(self, count: int) -> Pulled:
        """The next calls, up to `count`, or fewer if they come slowly."""
        calls: list[Any] = []
        error: BaseException | None = None
        exhausted = False
        now = time.monotonic
        began = now()
        deadline = began + _PULL_SECONDS
        try:
            for call in islice(self._iterator, count):
                calls.append(call)
                if now() > deadline:
                    break
            else:
                exhausted = len(calls) < count
        except Exception as raised:
            error, exhausted = raised, True
        seconds = now() - began
        self.count += len(calls)
        self.exhausted = exhausted = exhausted or self.count == self.length
        try:
            return Pulled(self._to_segments(calls), len(calls), exhausted, error, seconds)
        except TypeError as malformed:
            return Pulled((), 0, exhausted=True, error=malformed)

    def close(self) -> None:
        """Lets a generator run its `finally` blocks."""
        if isinstance(self._iterator, Generator):
            self._iterator.close()

    def _to_segments(self, calls: list[Any]) -> list[Segment]:
        if not calls:
            return []
        segment = self._uniform(calls)
        if segment is not None:
            return [segment]
        for call in calls:
            check_call(call)
        stretches = [list(stretch) for _, stretch in groupby(calls, _form_key)]
        if len(stretches) * _WORTH_A_SEGMENT <= len(calls) or len(stretches) == 1:
            return [self._of_one_form(stretch) for stretch in stretches]
        functions, arguments, keywords = zip(*calls, strict=True)
        return [Segment(make_call, (functions, list(map(tuple, arguments)), list(map(dict, keywords))))]

    def _uniform(self, calls: list[Any]) -> Segment | None:
        """All of them at C speed, if they are calls of one function with the same number of positional arguments."""
        try:
            functions, arguments, keywords = zip(*calls, strict=True)
            if any(keywords) or not all(map(is_, functions, repeat(functions[0]))):
                return None
            columns = tuple(zip(*arguments, strict=True))
        except (TypeError, ValueError):  # something else, which must be looked at one by one
            return None
        function = functions[0]
        if not columns or not callable(function):
            return None
        if isinstance(function, _METHOD_TYPES):  # it may be another object in the next piece
            function = self._known(_form_key(calls[0]), lambda: functions[0])
        return Segment(function, columns)

    def _of_one_form(self, calls: list[Call]) -> Segment:
        function, arguments, keywords = calls[0]
        names = tuple(keywords)
        key = _form_key(calls[0])
        if names:
            form = self._known(key, lambda: KeywordCall(function, names))
            rows = [(*arguments, *keywords.values()) for _, arguments, keywords in calls]
            return Segment(form, tuple(zip(*rows, strict=True)))
        if not arguments:
            return Segment(self._known(key, lambda: BareCall(function)), (range(len(calls)),))
        return Segment(self._known(key, lambda: function), tuple(zip(*[call[1] for call in calls], strict=True)))

    def _known(self, key: Hashable, make: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
        """The form for this key; it keeps the objects alive whose ids are in the key."""
        form = self._forms.get(key)
        if form is None:
            if len(self._forms) >= _KEPT_FUNCTIONS:
                self._forms.clear()
            form = self._forms[key] = make()
        return form


def iterate(iterable: Iterable[Any]) -> Iterator[Any]:
    """An iterator over `iterable`.

    Raises:
        TypeError: it cannot be iterated over.
    """
    try:
        return iter(iterable)
    except TypeError:
        raise TypeError(f"Parallel(...) takes an iterable of delayed(f)(...) calls, not {short_repr(iterable)}") from None


def check_call(call: Any) -> None:
    """Refuses what is not a call.

    Raises:
        TypeError: it is not a call; the message says what it should be.
    """
    whole = isinstance(call, tuple | list) and len(call) == 3 and callable(call[0])
    if not whole or not isinstance(call[1], tuple | list) or not isinstance(call[2], dict):
        hint = "; write delayed(f)(x), not delayed(f(x)) or delayed(f)" if hasattr(call, "__wrapped__") else ""
        raise TypeError(
            f"Parallel(...) takes calls, delayed(f)(...) or (function, args, kwargs) tuples, not {short_repr(call)}{hint}"
        )


def _function_key(function: Callable[..., Any]) -> Hashable:
    if isinstance(function, MethodType):
        return id(function.__self__), id(function.__func__)
    if isinstance(function, BuiltinMethodType) and not isinstance(function.__self__, ModuleType | None):
        return id(function.__self__), function.__name__
    return id(function)


def _form_key(call: Call) -> Hashable:
    function, arguments, keywords = call
    return _function_key(function), len(arguments), tuple(keywords)


def each_its_own(*_: object) -> Any:
    """Stands for the functions of a run whose batches have their own."""
    raise AssertionError("a batch of calls says what they call")


class CallsSession(Session):
    """Sessions of one executor, one for each function of the run.

    The first function's session lends the places, and lives as long as the run. If there are very many other functions, only
    those that were used last have a session.
    """

    _first: Session | None = None
    _first_id = 0  # id of the function, which the session keeps alive

    def __init__(self, executor: Executor, program: Program, hints: Hints) -> None:
        self._executor = executor
        self._program = program
        self._hints = hints
        self._others: dict[int, Session] = {}  # {id of the function, which the value keeps alive: …}, newest use last
        self._closed: list[Mapping[str, int]] = []  # the counts of closed sessions

    def pack(self, batch: Batch, budget: float) -> Parcel:
        function = batch.function
        assert function is not None, "a source of calls says what they call"
        if self._first is None:
            self._first, self._first_id = self._open(function), id(function)
        if id(function) == self._first_id:
            return self._first.pack(batch, budget)
        session = self._others.pop(id(function), None)
        if session is None:
            session = self._open(function)
            # A run has no more than two parcels for each place, so those of a session that is closed here have been sent
            while len(self._others) >= max(_KEPT_FUNCTIONS, 4 * self._executor.places):
                self._close_one()
        self._others[id(function)] = session
        return session.pack(batch, budget)

    def _open(self, function: Callable[..., Any]) -> Session:
        return self._executor.open(Program(function, *self._program[1:]), self._hints)

    @property
    def _lending(self) -> Session:
        assert self._first is not None, "a batch is packed before a place is leased for it"
        return self._first

    def lease_nowait(self) -> Place | None:
        return self._lending.lease_nowait()

    async def lease(self) -> Place:
        return await self._lending.lease()

    def release(self, place: Place) -> None:
        self._lending.release(place)

    def counters(self) -> Mapping[str, int]:
        first = {} if self._first is None else self._first.counters()
        counted = Counter(first)
        for counters in (*self._closed, *[session.counters() for session in self._others.values()]):
            counted.update(counters)
        return counted

    def close(self) -> None:
        while self._others:
            self._close_one()
        if self._first is not None:
            self._first.close()

    def _close_one(self) -> None:
        session = self._others.pop(next(iter(self._others)))
        session.close()
        self._closed = [Counter(*self._closed) + Counter(session.counters())]
