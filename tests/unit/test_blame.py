"""The part that cannot be pickled is found wherever it hides, and the search survives whatever it meets."""

from __future__ import annotations

import asyncio
import collections
import functools
import pickle
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from asyncpar import PicklingError, RemoteError
from asyncpar._wire import blame, codec, pickler
from asyncpar._wire.blame import find_unpicklable, refuse, refuse_function

LOCK = threading.Lock()


@pytest.fixture(autouse=True)
def no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blame, "_MOST_SECONDS", 30.0)  # the machine may pause


@dataclass
class Model:
    name: str
    lock: Any


@dataclass(frozen=True, slots=True)
class FrozenModel:
    name: str
    lock: Any


class Slotted:
    __slots__ = ("__private", "name")

    def __init__(self, private: object) -> None:
        self.name = "slotted"
        self.__private = private


class SlottedAndOpen(Slotted):
    def __init__(self, private: object) -> None:
        super().__init__(None)
        self.lock = private


class Point(NamedTuple):
    x: int
    y: Any


def nothing() -> Iterator[int]:
    yield from ()


class Careful:
    """Drops its lock; keeps a generator."""

    def __init__(self) -> None:
        self.lock = LOCK
        self.rows = nothing()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "lock"}


class Renames:
    def __init__(self) -> None:
        self._lock = LOCK

    def __getstate__(self) -> dict[str, Any]:
        return {"lock": self._lock}


class StateOfItsOwn:
    """What it pickles is held by no attribute."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def __getstate__(self) -> Any:
        return self._make()


class Rebuilds:
    def __init__(self, lock: object) -> None:
        self.holder = [lock]

    def __reduce__(self) -> tuple[Any, ...]:
        return Rebuilds, ("name", {"lock": self.holder[0]})


class Bag(list[Any]):
    pass


class Broken(Exception):
    def __init__(self, message: str, lock: object) -> None:
        super().__init__(message)
        self.lock = lock


def closure_of(lock: Any) -> Callable[[], object]:
    unset: object
    callback = lambda: (lock, unset)  # noqa: E731 - its `unset` has no value yet
    if lock is None:
        unset = None
    return callback


def by_value(source: str, **names: Any) -> Any:
    """The `f` that this source defines, in a module that nobody can import."""
    exec(source, {"__name__": "__main__", "lock": LOCK, **names}, namespace := names)
    return namespace["f"]


def with_attribute() -> Callable[..., Any]:
    f: Callable[..., Any] = by_value("def f(): pass")
    f.lock = LOCK  # type: ignore[attr-defined]
    return f


SHARED = {"lock": LOCK}
LONG = "k" * 1000

CASES: dict[str, tuple[Any, str]] = {
    "itself": (LOCK, "root"),
    "list": ([1, [2, LOCK, 3]], "root[1][1]"),
    "long list": ([*range(100_000), LOCK, *range(100_000)], "root[100000]"),
    "tuple": ((1, (LOCK,)), "root[1][0]"),
    "set": ({LOCK}, "list(root)[0]"),
    "frozenset": (frozenset({(1, LOCK)}), "list(root)[0][1]"),
    "dict value": ({"a": 1, 5: {b"b": LOCK}}, "root[5][b'b']"),
    "dict key": ({1: 1, (2, LOCK): 2}, "list(root)[1][1]"),
    "long key": ({1: 1, LONG: LOCK}, "list(root.values())[1]"),
    "huge key": ({10**5000: LOCK}, "list(root.values())[0]"),
    "key with a repr of its own": ({Point(1, 2): LOCK}, "list(root.values())[0]"),
    "attribute": (Model("m", [LOCK]), "root.lock[0]"),
    "slots": (Slotted(LOCK), "root._Slotted__private"),
    "dict and slots": (SlottedAndOpen(LOCK), "root.lock"),
    "frozen dataclass with slots": (FrozenModel("m", LOCK), "root.lock"),
    "named tuple": (Point(1, LOCK), "root.y"),
    "dropped by getstate": (Careful(), "root.rows"),
    "renamed by getstate": (Renames(), "root._lock"),
    "dict made by getstate": (StateOfItsOwn(lambda: {"lock": LOCK}), "root.__getstate__()['lock']"),
    "tuple made by getstate": (StateOfItsOwn(lambda: (1, LOCK)), "root.__getstate__()[1]"),
    "pair made by getstate": (StateOfItsOwn(lambda: (None, {"lock": LOCK})), "root.__getstate__()[1]['lock']"),
    "object made by getstate": (StateOfItsOwn(lambda: Model("m", LOCK)), "root.__getstate__().lock"),
    "made by reduce": (Rebuilds(LOCK), "root.__reduce_ex__(5)[1][1]['lock']"),
    "subclass of list": (Bag([1, LOCK]), "root[1]"),
    "deque": (collections.deque([1, LOCK]), "root[1]"),
    "ordered dict": (collections.OrderedDict(a=1, b=LOCK), "root['b']"),
    "default dict": (collections.defaultdict(closure_of(LOCK), a=1), "root.default_factory.__closure__['lock']"),
    "partial": (functools.partial(max, 1, LOCK), "root.args[1]"),
    "keyword of a partial": (functools.partial(max, key=[LOCK]), "root.keywords['key'][0]"),
    "function of a partial": (functools.partial(closure_of(LOCK)), "root.func.__closure__['lock']"),
    "bound method": (Model("m", LOCK).__repr__, "root.__self__.lock"),
    "method of a built-in": (LOCK.acquire, "root.__self__"),
    "closure": (closure_of([LOCK]), "root.__closure__['lock'][0]"),
    "globals": (by_value("def f(): return lock"), "root.__globals__['lock']"),
    "globals of an inner function": (by_value("def f(): return lambda: lock"), "root.__globals__['lock']"),
    "globals of a called function": (
        by_value("def f(): return g()", g=by_value("def f(): return lock")),
        "root.__globals__['g'].__globals__['lock']",
    ),
    "default": (by_value("def f(a, b=lock): pass"), "root.__defaults__[0]"),
    "keyword default": (by_value("def f(*, b=lock): pass"), "root.__kwdefaults__['b']"),
    "attribute of a function": (with_attribute(), "root.__dict__['lock']"),
    "wrapped": (functools.wraps(closure_of(LOCK))(closure_of(1)), "root.__dict__['__wrapped__'].__closure__['lock']"),
    "class": (by_value("class f: x = [lock]"), "root.x[0]"),
    "class of an object": (by_value("class f: x = lock")(), "root.__class__.x"),
    "base class": (by_value("class f(g): pass", g=by_value("class f: x = lock")), "root.__bases__[0].x"),
    "method of a class": (by_value("class f:\n def m(self): return lock"), "root.m.__globals__['lock']"),
    "static method": (
        by_value("class f:\n @staticmethod\n def m(): return lock"),
        "root.__dict__['m'].__func__.__globals__['lock']",
    ),
    "property": (
        by_value("class f:\n @property\n def m(self): return lock"),
        "root.__dict__['m'].fget.__globals__['lock']",
    ),
    "exception": (ValueError("bad", [LOCK]), "root.args[1][0]"),
    "attribute of an exception": (Broken("bad", LOCK), "root.lock"),
    "the first of several": ([SHARED, SHARED, [LOCK]], "root[0]['lock']"),
}


@pytest.mark.parametrize(("root", "path"), CASES.values(), ids=CASES)
def test_the_path_leads_to_the_culprit(root: Any, path: str) -> None:
    culprit = find_unpicklable(root, "root")
    assert culprit is not None
    assert (culprit.path, culprit.is_exact) == (path, True)
    if "__closure__" not in path and "rows" not in path:
        assert eval(path, {"root": root}) is culprit.value is LOCK


@pytest.mark.parametrize("value", [None, [1, {"a": (2, b"3")}], Point(1, 2), max, Model, np.arange(5), by_value("f = abs")])
def test_nothing_is_blamed_in_what_can_be_pickled(value: object) -> None:
    assert find_unpicklable(value, "root") is None


class Node:
    def __init__(self, parent: Node | None, lock: object = None) -> None:
        self.parent = parent
        self.children: list[Node] = []
        self.lock = lock
        if parent is not None:
            parent.children.append(self)


def test_a_link_back_to_the_parent_is_not_blamed() -> None:
    root = Node(None)
    Node(Node(root))
    guilty = Node(Node(root), LOCK)
    Node(guilty)
    culprit = find_unpicklable(root, "root")
    assert culprit is not None
    assert culprit.path == "root.children[1].children[0].lock"
    from_below = find_unpicklable(guilty.children[0], "leaf")
    assert from_below is not None
    assert eval(from_below.path, {"leaf": guilty.children[0]}) is LOCK


def test_a_list_that_holds_itself() -> None:
    root: list[Any] = [1]
    root += [root, {"root": root}, LOCK]
    culprit = find_unpicklable(root, "root")
    assert culprit is not None
    assert culprit.path == "root[3]"


def test_a_function_that_calls_itself() -> None:
    names: dict[str, Any] = {"__name__": "__main__", "lock": LOCK}
    exec("def f(): return f() or g()\ndef g(): return f() or lock", names)
    culprit = find_unpicklable(names["f"], "function")
    assert culprit is not None
    assert culprit.path == "function.__globals__['g'].__globals__['lock']"


def test_a_nest_too_deep_to_pickle_is_blamed_as_a_whole() -> None:
    root: list[Any] = []
    for _ in range(200_000):
        root = [root]
    culprit = find_unpicklable(root, "root")
    assert culprit is not None
    assert (culprit.path, culprit.is_exact) == ("root", True)


def test_a_culprit_below_the_greatest_depth() -> None:
    root: Any = LOCK
    for _ in range(100):
        root = [root]
    culprit = find_unpicklable(root, "root")
    assert culprit is not None
    assert culprit.path == "root" + "[0]" * 64
    assert culprit.describe().startswith("something in root[0][0]")


class Hostile:
    """Every question is answered with an exception of its own."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")

    def __repr__(self) -> str:
        raise RuntimeError("no words")

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("nothing equals this")


class ReducesTo:
    def __init__(self, reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> Any:
        if isinstance(self.reduced, Exception):
            raise self.reduced
        return self.reduced


class BadIterator:
    def __iter__(self) -> BadIterator:
        return self

    def __next__(self) -> Any:
        raise RuntimeError("no more")


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    "make",
    [
        Hostile,
        lambda: ReducesTo(Unspeakable()),
        lambda: ReducesTo(5),
        lambda: ReducesTo(()),
        lambda: ReducesTo((list, 5)),
        lambda: ReducesTo((list, (), None, BadIterator())),
        lambda: ReducesTo((dict, (), None, None, 5)),
    ],
)
def test_objects_whose_own_methods_raise_are_blamed_themselves(make: Callable[[], Any]) -> None:
    culprit = make()  # here, because pytest, too, would like to look at it
    for root in ([1, culprit], [LOCK.__class__, {"a": 1}, (culprit,)]):
        found = find_unpicklable(root, "root")
        assert found is not None
        assert found.value is culprit
    error = refuse("it", culprit, "result", Unspeakable())
    assert str(error).endswith("cannot be pickled (Unspeakable: <its __str__ raised RuntimeError>)")
    assert "cannot be sent between processes" in str(refuse_function(culprit, ValueError("no")))


class OnlySometimes:
    def __init__(self) -> None:
        self.asked = 0

    def __reduce__(self) -> Any:
        self.asked += 1
        if self.asked == 1:
            raise RuntimeError("not yet")
        return dict, ()


def test_what_can_be_pickled_the_second_time_is_refused_without_a_path() -> None:
    fickle = OnlySometimes()
    with pytest.raises(RuntimeError) as caught:
        pickle.dumps(fickle)
    error = refuse("it", fickle, "result", caught.value)
    assert (str(error), error.path) == ("it cannot be sent between processes: RuntimeError: not yet", "")


class Slow:
    """Takes its time to be pickled, by a clock of its own."""

    now = 0.0

    def __reduce__(self) -> Any:
        Slow.now += 1.0
        return dict, ()


def test_a_search_that_runs_out_of_time_says_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blame, "time", SimpleNamespace(monotonic=lambda: Slow.now))
    monkeypatch.setattr(blame, "_MOST_SECONDS", 2.5)
    monkeypatch.setattr(Slow, "now", 0.0)
    error = refuse("it", {"a": [Slow(), Slow(), LOCK]}, "result", TypeError("no"))
    assert Slow.now <= 4.0
    assert "something in result" in str(error)
    assert error.path.startswith("result")


def test_a_long_trial_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blame, "_MOST_SECONDS", 0.0)
    culprit = find_unpicklable([*range(1_000_000), LOCK], "root")
    assert culprit is not None
    assert (culprit.path, culprit.is_exact) == ("root", False)


def test_large_arrays_are_not_copied() -> None:
    calls: list[int] = []

    class Counting(blame._Trials):
        def write(self, data: bytes) -> int:
            calls.append(len(data))
            return super().write(data)

    array = np.ones(1 << 20)
    trials = Counting()
    assert trials.failure_of([array, array[:5]]) is None
    assert sum(calls) < 1000
    strided = np.ones((100, 100))[:, ::2]
    assert trials.failure_of([strided]) is None


def test_a_failed_trial_keeps_nothing_alive() -> None:
    import gc
    import weakref

    gc.collect()
    gc.disable()
    try:
        model = Model("m", LOCK)
        seen = weakref.ref(model)
        find_unpicklable({"model": model}, "root")
        del model
        assert seen() is None
    finally:
        gc.enable()


async def _nothing() -> None:
    pass


def test_the_message_names_the_part_and_its_type() -> None:
    error = refuse("the item of call 3, item 5", [{"a": LOCK}], "arguments[1]", TypeError("cannot pickle it"))
    assert str(error) == (
        "the item of call 3, item 5 cannot be sent between processes: "
        "arguments[1][0]['a'], a _thread.lock, cannot be pickled (TypeError: cannot pickle it); it belongs to this process: "
        'make one inside the function, or once in each worker by an `initializer`, or run it with executor="thread"'
    )
    assert (error.path, error.type_name) == ("arguments[1][0]['a']", "_thread.lock")
    coroutine = _nothing()
    assert ", a coroutine, " in str(refuse("it", coroutine, "result", TypeError("no")))
    coroutine.close()
    loop = asyncio.new_event_loop()
    try:
        assert "result[0]" in refuse("it", [loop], "result", TypeError("no")).path
    finally:
        loop.close()


@pytest.mark.parametrize(
    "error", [PicklingError("no", "result.lock", "_thread.lock"), RemoteError("E", "bad", "error.args[0]")]
)
def test_the_errors_travel(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


def test_trials_use_the_protocol_of_the_codec() -> None:
    assert pickler.PROTOCOL == codec.PROTOCOL
