"""Exceptions on their way from a worker: what pickles arrives as itself, and what does not says why."""

from __future__ import annotations

import builtins
import dataclasses
import errno
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpar import RemoteError, RemoteTraceback
from asyncpar._basics.notes import add_note
from asyncpar._wire.failures import pack_error, unpack_error


class Ordinary(Exception):
    pass


class Token:
    """Equal to nothing but itself."""


class Finicky(Exception):
    """Its `__init__` does not take its `args`."""

    def __init__(self, first: object, second: object) -> None:
        super().__init__(f"{first} and {second}")
        self.first = first


class ChangesItsMessage(Exception):
    def __init__(self, code: object) -> None:
        super().__init__(f"code {code}")


class FinickyFromTheStart(Exception):
    def __new__(cls, code: int, *, detail: str) -> FinickyFromTheStart:
        return super().__new__(cls, code)

    def __init__(self, code: int, *, detail: str) -> None:
        super().__init__(code)
        self.detail = detail


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


class Own(Exception):
    """Has attributes of its own where Python has its own, and a view of what may be set."""

    __cause__ = property(lambda self: None)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} cannot be set")


class AddsNoNote(Exception):
    def add_note(self, note: str, /) -> None:
        raise RuntimeError("no notes, please")


class HasOtherNotes(Exception):
    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.__notes__ = 5  # type: ignore[assignment]


class NotesOfItsClass(Exception):
    __notes__ = ()  # type: ignore[assignment]


class Exits(Exception):
    """Whatever one asks it ends the program."""

    def __reduce__(self) -> Any:
        raise SystemExit(3)

    def __str__(self) -> str:
        raise SystemExit(3)


class ExitsWhenRead(Exception):
    def __reduce__(self) -> Any:
        return exit_now, ()


def exit_now() -> None:
    raise SystemExit(3)


class BecomesANumber(Exception):
    def __reduce__(self) -> Any:
        return int, (5,)


class Holding(Exception):
    """Refers to itself."""

    def __init__(self) -> None:
        super().__init__("holding")
        self.itself = self


def there_and_back(error: BaseException) -> BaseException:
    return unpack_error(pack_error(error))


plain = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=5))
odd = st.one_of(plain, st.builds(Token), st.builds(Ordinary, plain), st.builds(Finicky, plain, plain), st.just(threading.Lock))
arguments = st.recursive(
    odd,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
        st.builds(Ordinary, inner),
        st.builds(ExceptionGroup, st.just("group"), st.lists(st.builds(Ordinary, inner), min_size=1, max_size=2)),
    ),
    max_leaves=6,
)


def says(value: Any) -> Any:
    """What can be compared of a value that was copied."""
    if isinstance(value, BaseException):
        return type(value), says(value.args)
    if isinstance(value, list | tuple):
        return type(value), [says(element) for element in value]
    if isinstance(value, dict):
        return {key: says(element) for key, element in value.items()}
    return (type(value), repr(value)) if not isinstance(value, Token) else Token


@given(st.lists(arguments, max_size=3))
def test_an_exception_arrives_as_itself_whatever_it_holds(args: list[Any]) -> None:
    error = Ordinary(*args)
    assert says(there_and_back(error)) == says(error)


@given(plain, plain)
def test_exceptions_with_finicky_constructors_keep_type_and_words(first: Any, second: Any) -> None:
    for error in (Finicky(first, second), ChangesItsMessage(first), FinickyFromTheStart(5, detail="x"), Frozen(7)):
        arrived = there_and_back(error)
        assert type(arrived) is type(error)
        assert arrived.args == error.args
        assert str(arrived) == str(error)
        assert {k: v for k, v in vars(arrived).items() if v == v} == {k: v for k, v in vars(error).items() if v == v}


class PathIsMissing(OSError):
    def __init__(self, path: str) -> None:
        super().__init__(errno.ENOENT, "no such path", path)


class Undecodable(UnicodeDecodeError):
    def __init__(self, position: int) -> None:
        super().__init__("utf-8", b"..", position, position + 1, "bad byte")


class Malformed(SyntaxError):
    def __init__(self, line: int) -> None:
        super().__init__("malformed", ("file", line, 1, "text"))


class PluginIsMissing(ImportError):
    def __init__(self, plugin: str) -> None:
        super().__init__(f"no plugin {plugin}", name=plugin)


class Several(ExceptionGroup[Exception]):
    def __new__(cls, errors: list[Exception]) -> Several:
        return super().__new__(cls, "several", errors)

    def __init__(self, errors: list[Exception]) -> None:
        self.count = len(errors)


class Mixin:
    pass


class WithSlots(Mixin, Exception):
    __slots__ = ("code", "unset")

    def __init__(self, code: int, *, factor: int) -> None:
        super().__init__(code)
        self.code = code * factor


@dataclasses.dataclass(slots=True, kw_only=True)
class SlottedData(Exception):
    code: int


@pytest.mark.parametrize(
    ("error", "attributes"),
    [
        (PathIsMissing("/there"), {"errno": errno.ENOENT, "strerror": "no such path", "filename": "/there"}),
        (Undecodable(1), {"reason": "bad byte", "start": 1, "end": 2, "object": b".."}),
        (Malformed(5), {"msg": "malformed", "lineno": 5, "filename": "file"}),
        (PluginIsMissing("audio"), {"name": "audio", "msg": "no plugin audio"}),
        (Several([ValueError(1), KeyError(2)]), {"count": 2, "message": "several"}),
        (WithSlots(2, factor=3), {"code": 6}),
        (SlottedData(code=7), {"code": 7}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_python_and_slots_keep_of_an_exception_arrives_too(error: BaseException, attributes: dict[str, Any]) -> None:
    arrived = there_and_back(error)
    assert type(arrived) is type(error)
    assert {name: getattr(arrived, name) for name in attributes} == attributes
    assert str(arrived) == str(error)


BUILT_IN = [
    FileNotFoundError(2, "gone", "name"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    ImportError("no", name="module", path="path"),
    SyntaxError("bad", ("file", 1, 2, "text")),
    KeyError("key"),
    StopIteration(5),
    SystemExit(4),
    KeyboardInterrupt(),
    ValueError(math.nan),
    ExceptionGroup("several", [ValueError(1), ExceptionGroup("inner", [Ordinary(Token())])]),
]


@pytest.mark.parametrize("error", BUILT_IN, ids=lambda error: type(error).__name__)
def test_pythons_own_exceptions_arrive_as_they_are(error: BaseException) -> None:
    arrived = there_and_back(error)
    assert says(arrived) == says(error)
    assert str(arrived) == str(error)
    if isinstance(error, FileNotFoundError):
        assert isinstance(arrived, FileNotFoundError)
        assert arrived.filename == "name"


@pytest.mark.parametrize("make", [lambda: Own("x"), lambda: AddsNoNote("x"), lambda: Frozen(3), Holding])
def test_exceptions_that_forbid_attributes_arrive_and_take_a_note(make: Callable[[], Exception]) -> None:
    arrived = there_and_back(make())
    assert type(arrived) is type(make())
    add_note(arrived, "raised by call 5")
    assert arrived.__notes__ == ["asyncpar: raised by call 5"]
    if not isinstance(arrived, Own):
        assert isinstance(arrived.__cause__, RemoteTraceback)


@pytest.mark.parametrize("kind", [HasOtherNotes, NotesOfItsClass])
def test_notes_of_another_kind_stay_as_they_are(kind: type[Exception]) -> None:
    arrived = there_and_back(kind("x"))
    before = arrived.__notes__
    add_note(arrived, "raised by call 5")
    assert arrived.__notes__ == before


def test_an_object_has_one_note_of_a_run_and_few_of_many() -> None:
    error = Ordinary("full")
    error.add_note("the user's own")
    for call in range(1000):
        add_note(error, f"raised by call {call}", run=1)
    assert error.__notes__ == ["the user's own", "asyncpar: raised by call 999"]
    add_note(error, "raised by call 3", run=2)  # of a map around that one
    assert error.__notes__ == ["the user's own", "asyncpar: raised by call 999", "asyncpar: raised by call 3"]
    for run in range(1000):
        add_note(error, "raised by call 0 of another run", run=run + 3)
        add_note(error, f"raised by call {run}", run=run + 3)
    assert len(error.__notes__) < 20
    assert error.__notes__[0] == "the user's own"
    assert error.__notes__[-1] == "asyncpar: raised by call 999"


def test_notes_travel_as_plain_texts() -> None:
    error = Ordinary("x")
    add_note(error, "raised by call 1", run=1)
    assert [type(note) for note in there_and_back(error).__notes__] == [str]


def test_what_cannot_be_pickled_says_what_in_it_and_what_cannot_be_read_says_why() -> None:
    locked = there_and_back(Ordinary(threading.Lock()))
    assert isinstance(locked, RemoteError)
    assert locked.culprit == "error.args[0], a _thread.lock"
    assert "cannot be pickled because of error.args[0], a _thread.lock" in str(locked)
    for error, reason in ((ExitsWhenRead("x"), "SystemExit: 3"), (BecomesANumber("x"), "gives int, which is not an exception")):
        misread = there_and_back(error)
        assert isinstance(misread, RemoteError)
        assert reason in misread.misread
        assert "was pickled, but reading the pickle raises" in str(misread)
        assert "cannot be pickled" not in str(misread)


def test_a_class_that_is_known_only_over_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = pack_error(Ordinary("x"))
    monkeypatch.delattr(f"{__name__}.Ordinary")
    error = unpack_error(packed)
    assert isinstance(error, RemoteError)
    assert error.type_name.endswith("test_failures.Ordinary")
    assert "AttributeError" in error.misread


def test_an_exception_that_ends_the_program_when_it_is_looked_at_does_not() -> None:
    error = there_and_back(Exits("x"))
    assert isinstance(error, RemoteError)
    assert error.message == "<its __str__ raised SystemExit>"


def test_the_traceback_of_an_exception_that_is_raised_again_and_again_is_cut() -> None:
    error = Ordinary("full")
    for _ in range(5000):
        try:
            raise error
        except Ordinary:
            continue
    assert len(pack_error(error).traceback) < 500_000


def test_no_type_of_pythons_own_exceptions_is_lost() -> None:
    for kind in vars(builtins).values():
        if (
            isinstance(kind, type)
            and issubclass(kind, BaseException)
            and not issubclass(kind, BaseExceptionGroup | UnicodeError)
        ):
            assert type(there_and_back(kind("x"))) is kind
