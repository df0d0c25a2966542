"""What decides a key besides the arguments: the function's code, its closure, the constants it reads; and what does not."""

from __future__ import annotations

import functools
import linecache
import math
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from asyncpar._cache.forms import UnstableValueError
from asyncpar._cache.keys import Keyer, are_small
from asyncpar._cache.sources import digest_of_code


def load(folder: Path, text: str, name: str = "loaded") -> ModuleType:
    """A module made of this text, as if by a fresh process."""
    path = folder / f"{name}.py"
    path.write_text(textwrap.dedent(text))
    linecache.checkcache(str(path))
    module = ModuleType(name)
    module.__file__ = str(path)
    exec(compile(path.read_text(), str(path), "exec", dont_inherit=True), vars(module))
    return module


def key_of(function: Callable[..., Any], *args: Any, **options: Any) -> bytes:
    return Keyer(function, **options).key(args, {})


def plain(a: int, /, b: int = 2, *rest: int, c: int = 3, **others: int) -> None: ...


@pytest.mark.parametrize(("args", "kwargs"), [((1,), {}), ((1, 2), {}), ((1,), {"b": 2}), ((1,), {"c": 3, "b": 2})], ids=repr)
def test_a_call_has_one_key_however_it_is_written(args: Any, kwargs: Any) -> None:
    assert Keyer(plain).key(args, kwargs) == Keyer(plain).key((1, 2), {"c": 3})


@pytest.mark.parametrize(("args", "kwargs"), [((1, 3), {}), ((1, 2, 3), {}), ((1,), {"c": 4}), ((1,), {"d": 1})], ids=repr)
def test_other_arguments_have_another_key(args: Any, kwargs: Any) -> None:
    assert Keyer(plain).key(args, kwargs) != Keyer(plain).key((1,), {})


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((), {"a": 1})], ids=repr)
def test_a_wrong_call_is_refused_as_the_function_would(args: Any, kwargs: Any) -> None:
    with pytest.raises(TypeError) as own:
        plain(*args, **kwargs)
    with pytest.raises(TypeError) as bound:
        Keyer(plain).key(args, kwargs)
    assert str(bound.value) == str(own.value)


@pytest.mark.parametrize("ignore", [["b"], ["rest"], ["*"], ["others"], ["**"], ["c", "b"]])
def test_ignored_parameters_do_not_count(ignore: list[str]) -> None:
    keyer = Keyer(plain, ignore)
    one = keyer.key((1, 2), {})
    changed: dict[str, tuple[Any, Any]] = {
        "b": ((1, 5), {}), "rest": ((1, 2, 9), {}), "*": ((1, 2, 9), {}),
        "others": ((1, 2), {"d": 1}), "**": ((1, 2), {"d": 1}), "c": ((1, 2), {"c": 9}),
    }  # fmt: skip
    assert keyer.key(*changed[ignore[0]]) == one
    assert keyer.key((7, 2), {}) != one


def add(a: int, b: int) -> int:
    return a + b


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def test_parameters_of_a_decorated_function_may_be_ignored() -> None:
    wrapped = decorated(plain)
    assert Keyer(wrapped, ["b"]).key((1, 5), {}) == Keyer(wrapped, ["b"]).key((1,), {"b": 6})
    assert Keyer(wrapped, ["b"]).key((1, 5), {}) != Keyer(wrapped, ["b"]).key((2, 5), {})
    assert Keyer(wrapped, ["args"]).key((1, 5), {}) == Keyer(wrapped, ["args"]).key((2,), {})
    with pytest.raises(ValueError, match="ignore names"):
        Keyer(wrapped, ["z"])


def test_a_function_that_wraps_a_built_in_one_has_its_own_parameters() -> None:
    wrapped = functools.wraps(getattr)(add)
    assert Keyer(wrapped, []).key((1,), {"b": 2}) == Keyer(wrapped, []).key((1, 2), {})
    assert Keyer(wrapped, ["b"]).key((1, 5), {}) == Keyer(wrapped, ["b"]).key((1, 6), {})


def test_twins_that_ignore_different_parameters_do_not_share_keys() -> None:
    assert Keyer(plain, ["a"]).key((1, 5), {}) != Keyer(plain, ["b"]).key((5, 1), {})


def test_an_unknown_name_in_ignore_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ignore names \['z'\], but plain has the parameters a, b, \*rest, c, \*\*others"):
        Keyer(plain, ["z"])


def test_an_argument_without_a_key_is_named() -> None:
    with pytest.raises(UnstableValueError, match=r"argument 'b' of plain: .*lock.*ignore"):
        import threading

        Keyer(plain).key((1, threading.Lock()), {})


FUNCTION = """
    RATE = 2

    def f(x, y=1):
        return x * y + RATE
"""
SAME = [
    FUNCTION.replace("    def", "\n\n    # a comment\n    def"),
    FUNCTION.replace("return x", '"""Documented."""\n        return x'),
    FUNCTION.replace("x * y + RATE", "(x   * y) + RATE  # explained"),
    FUNCTION.replace("RATE = 2", "RATE = 2\n    OTHER = 5"),
]
OTHERS = [
    FUNCTION.replace("x * y", "y * x"),
    FUNCTION.replace("RATE = 2", "RATE = 3"),
    FUNCTION.replace("RATE = 2", "RATE = 2.0"),
    FUNCTION.replace("def f(x, y=1)", "def f(x, y=2)"),
]


@pytest.mark.parametrize("text", SAME)
def test_comments_layout_and_documentation_do_not_change_a_key(tmp_path: Path, text: str) -> None:
    before = key_of(load(tmp_path, FUNCTION).f, 1)
    assert key_of(load(tmp_path, text).f, 1) == before


@pytest.mark.parametrize("text", OTHERS)
def test_code_defaults_and_constants_change_a_key(tmp_path: Path, text: str) -> None:
    before = key_of(load(tmp_path, FUNCTION).f, 1)
    assert key_of(load(tmp_path, text).f, 1) != before


def test_a_global_that_changes_while_the_program_runs_changes_the_key(tmp_path: Path) -> None:
    module = load(tmp_path, FUNCTION)
    keyer = Keyer(module.f)
    before = keyer.key((1,), {})
    vars(module)["RATE"] = 5
    assert keyer.key((1,), {}) != before
    vars(module)["RATE"] = 2
    assert keyer.key((1,), {}) == before


def test_a_global_that_the_function_sets_does_not_count(tmp_path: Path) -> None:
    module = load(tmp_path, "calls = 0\ndef f(x):\n    global calls\n    calls += 1\n    return x")
    keyer = Keyer(module.f)
    before = keyer.key((1,), {})
    module.f(1)
    assert keyer.key((1,), {}) == before


def test_a_file_that_was_edited_after_its_import_does_not_lend_its_new_source_to_the_old_code(tmp_path: Path) -> None:
    old = load(tmp_path, FUNCTION)
    (tmp_path / "loaded.py").write_text(textwrap.dedent(OTHERS[0]))
    linecache.checkcache(str(tmp_path / "loaded.py"))
    key_of_old = key_of(old.f, 1)
    assert key_of_old != key_of(load(tmp_path, OTHERS[0]).f, 1)


def test_two_lambdas_on_one_line_are_told_apart(tmp_path: Path) -> None:
    module = load(tmp_path, "pair = (lambda x: x + 1), (lambda x: x + 2)\nnested = lambda: (lambda x: x + 1)")
    keys = {key_of(function, 1) for function in (*module.pair, module.nested())}
    assert len(keys) == 3
    assert {digest_of_code(function.__code__).digest for function in module.pair}.isdisjoint(
        digest_of_code(function.__code__).of_code for function in module.pair
    )


def test_a_function_without_source_has_the_key_of_its_code() -> None:
    def made(text: str) -> Any:
        space: dict[str, Any] = {}
        exec(text, space)
        return space["f"]

    assert key_of(made("def f(x): return x"), 1) == key_of(made("def f(x): return x"), 1)
    assert key_of(made("def f(x): return x"), 1) != key_of(made("def f(x): return -x"), 1)


def scaled(factor: Any) -> Callable[[int], int]:
    def f(x: int) -> int:
        return int(factor * x)

    return f


def test_the_closure_counts_also_when_it_changes_in_place() -> None:
    assert key_of(scaled(2), 1) == key_of(scaled(2), 1) != key_of(scaled(3), 1)
    box = [1]
    keyer = Keyer(scaled(box))
    before = keyer.key((1,), {})
    box.append(2)
    assert keyer.key((1,), {}) != before


def test_a_closure_without_a_key_is_refused_at_once() -> None:
    import threading

    with pytest.raises(UnstableValueError, match="the variable 'factor' in the closure of scaled"):
        Keyer(scaled(threading.Lock()))


def test_a_function_that_refers_to_itself_has_a_key() -> None:
    def recursive(x: int) -> int:
        return recursive(x - 1) if x else 0

    assert key_of(recursive, 1) == key_of(recursive, 1)


class Counter:
    def __init__(self, step: int) -> None:
        self.step = step

    def add(self, x: int) -> int:
        return x + self.step

    def __call__(self, x: int) -> int:
        return x + self.step


def test_the_object_of_a_bound_method_counts() -> None:
    assert key_of(Counter(1).add, 1) == key_of(Counter(1).add, 1) != key_of(Counter(2).add, 1)
    assert key_of(Counter(1), 1) == key_of(Counter(1), 1) != key_of(Counter(2), 1)
    assert key_of(Counter(1).add, 1, ignore=["self"]) == key_of(Counter(2).add, 1, ignore=["self"])


@pytest.mark.parametrize("function", [math.sqrt, functools.partial(pow, 2), max, str.upper, int], ids=repr)
def test_built_in_functions_partials_and_classes_have_keys(function: Any) -> None:
    assert key_of(function, "1") == key_of(function, "1") != key_of(function, "2")


class FineCounter(Counter):
    """Inherits `__call__`."""


def listed(x: int, values: list[int]) -> int:
    return x + len(values)


CHANGING: dict[str, Callable[[list[int]], Callable[..., Any]]] = {
    "argument of a partial": lambda box: functools.partial(listed, values=box),
    "closure in a partial": lambda box: functools.partial(scaled(box)),
    "object of a built-in method": lambda box: box.count,
    "inherited call": FineCounter,  # type: ignore[dict-item]
}


@pytest.mark.parametrize("name", CHANGING)
def test_what_changes_within_a_callable_counts(name: str) -> None:
    box = [1]
    keyer = Keyer(CHANGING[name](box))
    before = keyer.key((1,), {})
    assert keyer.key((1,), {}) == before
    box.append(1)
    assert keyer.key((1,), {}) != before


def test_new_code_and_new_defaults_of_an_old_function_count(tmp_path: Path) -> None:
    old = load(tmp_path, FUNCTION).f
    keyer = Keyer(old)
    before = keyer.key((1,), {})
    old.__defaults__ = (5,)
    assert keyer.key((1,), {}) == keyer.key((1, 5), {}) != before
    new = load(tmp_path, "def f(x, y=1, z=2):\n    return x + y + z").f
    old.__code__, old.__defaults__ = new.__code__, new.__defaults__
    assert keyer.key((1,), {}) == keyer.key((1, 1, 2), {}) != before


def test_the_body_of_a_cached_class_counts(tmp_path: Path) -> None:
    text = "class Ship:\n    def __init__(self, x):\n        self.x = x"
    before = key_of(load(tmp_path, text).Ship, 1)
    assert key_of(load(tmp_path, text).Ship, 1) == before
    assert key_of(load(tmp_path, text.replace("= x", "= -x")).Ship, 1) != before


def test_the_functions_of_a_dispatching_one_count_and_what_it_has_met_does_not() -> None:
    dispatching: Any = functools.singledispatch(plain)
    keyer = Keyer(dispatching)
    before = keyer.key((1,), {})
    dispatching("1")
    assert keyer.key((1,), {}) == before
    dispatching.register(str, listed)
    assert keyer.key((1,), {}) != before


def test_the_version_counts() -> None:
    assert key_of(plain, 1, version=1) == key_of(plain, 1, version=1) != key_of(plain, 1, version=2)


PACKAGE = {
    "__init__": "",
    "main": "from pkg.tools import Tool\nimport pkg.tables\ndef f(x):\n    return Tool().use(x)\n",
    "tools": "class Tool:\n    def use(self, x):\n        return helper(x)\ndef helper(x):\n    return x + 1\n",
    "tables": "TABLE = {1: 2}\n",
    "unrelated": "A = 1\n",
}
PROGRAM = """
import sys; sys.path.insert(0, {folder!r})
from pkg.main import f
from asyncpar._cache.keys import Keyer
print(Keyer(f, follow={follow}).key((1,), {{}}).hex())
"""


def key_in_a_fresh_process(folder: Path, modules: dict[str, str], *, follow: bool = True) -> str:
    (folder / "pkg").mkdir(exist_ok=True)
    for name, text in modules.items():
        (folder / "pkg" / f"{name}.py").write_text(text)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONDONTWRITEBYTECODE": "1"}
    program = PROGRAM.format(folder=str(folder), follow=follow)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize(
    ("module", "text", "same"),
    [
        ("tools", PACKAGE["tools"].replace("x + 1", "x + 2"), False),
        ("tables", "TABLE = {1: 3}\n", False),
        ("tools", "# a comment\n" + PACKAGE["tools"], True),
        ("unrelated", "A = 2\n", True),
    ],
)
def test_follow_sees_changes_in_what_a_function_may_call(tmp_path: Path, module: str, text: str, same: bool) -> None:
    before = key_in_a_fresh_process(tmp_path, PACKAGE)
    assert key_in_a_fresh_process(tmp_path, PACKAGE) == before
    assert (key_in_a_fresh_process(tmp_path, PACKAGE | {module: text}) == before) is same


def test_without_follow_callees_do_not_count(tmp_path: Path) -> None:
    before = key_in_a_fresh_process(tmp_path, PACKAGE, follow=False)
    changed = PACKAGE | {"tools": PACKAGE["tools"].replace("x + 1", "x + 2")}
    assert key_in_a_fresh_process(tmp_path, changed, follow=False) == before


def test_follow_gives_a_module_that_was_edited_after_its_import_a_key_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("edited", "edited.main"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "edited").mkdir()
    (tmp_path / "edited" / "__init__.py").touch()
    (tmp_path / "edited" / "main.py").write_text("def f(x):\n    return g(x)\ndef g(x):\n    return x\n")
    import importlib

    module = importlib.import_module("edited.main")
    assert key_of(module.f, 1, follow=True) == key_of(module.f, 1, follow=True)
    (tmp_path / "edited" / "main.py").write_text("def f(x):\n    return g(x)\ndef g(x):\n    return -x\n")
    assert key_of(module.f, 1, follow=True) != key_of(module.f, 1, follow=True)
    for name in ("edited", "edited.main"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_a_functions_key_is_the_same_in_a_pickle(tmp_path: Path) -> None:
    argument = functools.partial(plain, 1)
    assert key_of(plain, argument) == key_of(plain, pickle.loads(pickle.dumps(argument)))


@pytest.mark.parametrize(
    ("value", "small"),
    [(1, True), ("x" * 10**6, False), ([1] * 10, True), ([1] * 10**4, False), ([[1]], False), (object(), False)],
)
def test_only_what_is_evidently_small_is_keyed_in_the_event_loop(value: Any, small: bool) -> None:
    assert are_small((value,), {}) is are_small((), {"x": value}) is small


def first_letter(x: str, y: int = 0) -> str:
    return x[:1]


def tens(x: int) -> int:
    return x // 10


def iter_of(x: int) -> Iterator[int]:
    yield x


def hundreds(x: int) -> int:
    return x // 100


def test_a_key_of_ones_own_takes_the_place_of_the_arguments() -> None:
    keyer = Keyer(plain, describe=first_letter)
    assert keyer.key(("ab", 1), {}) == keyer.key(("ac",), {"y": 2}) != keyer.key(("b",), {})
    assert keyer.key(("ab",), {}) != Keyer(plain).key(("a",), {})


def test_the_code_of_a_key_of_ones_own_counts() -> None:
    assert key_of(listed, 1, [], describe=lambda x, values: x) != key_of(listed, 1, [], describe=lambda x, values: -x)
    keys = {Keyer(scaled(2), describe=describe).key((1,), {}) for describe in (tens, hundreds, scaled(1), scaled(3))}
    assert len(keys) == 4


def test_a_key_of_ones_own_gets_the_object_of_a_method() -> None:
    describe: Callable[..., Any] = lambda counter, x: (counter.step, x)  # noqa: E731
    assert key_of(Counter(1).add, 1, describe=describe) == key_of(Counter(1).add, 1, describe=describe)
    assert key_of(Counter(1).add, 1, describe=describe) != key_of(Counter(2).add, 1, describe=describe)


def test_a_key_of_ones_own_without_a_form_is_refused_and_its_errors_arrive() -> None:
    with pytest.raises(UnstableValueError, match=r"what key= returns for tens: <generator"):
        key_of(tens, 1, describe=iter_of)
    with pytest.raises(ZeroDivisionError):
        key_of(tens, 1, describe=lambda x: x // 0)
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        Keyer(tens, describe=lambda x: x).key((), {})
