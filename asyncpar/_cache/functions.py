"""What a function is, in a key: its module and name, the digest of its code, and what else decides what it computes.

That is, besides its arguments: the values in its closure, the scalars among the globals that it reads (a constant that is
edited, or set by a program, changes the key), and, with `follow=True`, the source of what it may call in its own package
(`followed.py`). Globals that are not scalars (modules, functions, tables) are not looked at otherwise, and neither are globals
that the function itself sets, which are usually counters or caches.

Code and source do not change, so their digest is made once. Globals and closures are looked at in each call: they cost a
comparison of identities where nothing has changed. A callable that is no Python function (a partial, a method of a list) may
hold what nobody sees changing, so it is looked at as a whole in each call.
"""

from __future__ import annotations

import builtins
import dis
import functools
from collections.abc import Callable, Collection, Iterator
from operator import is_
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any

from asyncpar._cache.classes import content_of_class
from asyncpar._cache.digests import digest
from asyncpar._cache.followed import digest_of_package
from asyncpar._cache.forms import SCALARS, Forms, UnstableValueError, is_flat
from asyncpar._cache.parts import parts_of
from asyncpar._cache.sources import CodeDigest, digest_of_code, functions_in, label_of_module

_DISPATCHING = "singledispatch.<locals>.wrapper"  # of functools, which keeps classes that it has met beside its functions
_ABSENT = "<no value>"  # of a global or a variable that has none yet


class Identity:
    """The part of a key that its function decides. `prefix()` is called for each key.

    Args:
        function: any callable.
        version: the user's own mark.
        ignored: names of parameters that are not in the key, where the others stand in their order.
        follow: whether the source of what it may call counts.
    """

    def __init__(
        self, function: Callable[..., Any], version: object = None, ignored: Collection[str] = (), *, follow: bool = False
    ) -> None:
        plain: Any
        plain, self.bound = _plain(function)
        self.module, self.name = _name(plain)
        self._function = plain
        self._version = version
        self._ignored = sorted(set(ignored))
        self._follow = follow
        self._globals = _watched(plain)
        self._cells = plain.__closure__ or () if isinstance(plain, FunctionType) else ()
        self._made: tuple[tuple[Any, ...], bytes] | None = None  # a prefix, with what had been seen then
        self._fixed: bytes | None = None

    @property
    def source(self) -> CodeDigest | None:
        """The digest of the function's code, if it is a Python function."""
        return digest_of_code(self._function.__code__) if isinstance(self._function, FunctionType) else None

    @property
    def plain(self) -> Callable[..., Any]:
        """The function itself, below a bound method or an object that can be called."""
        function: Callable[..., Any] = self._function
        return function

    @property
    def is_known(self) -> bool:
        """Whether the source of the function has been found, so that `prefix()` takes no longer than a microsecond or two."""
        return self._fixed is not None

    def prefix(self) -> bytes:
        """Bytes that are different for different functions.

        Raises:
            UnstableValueError: a value in the function's closure has no form.
        """
        made = self._made  # in one look: another thread may replace it
        if made is not None and (not made[0] or all(map(is_, self._look(), made[0]))):
            return made[1]
        seen = self._look()
        if self._fixed is None:
            followed = digest_of_package(self._function) if self._follow else None
            source = self.source
            head = (self.module, self.name, None if source is None else source.digest, followed)
            self._fixed = Forms(parts_of).form((head, self._version, self._ignored))
        around = self._around()
        prefix = digest(self._fixed + Forms(parts_of).form(around))
        if self._changes_visibly():
            self._made = seen, prefix
        return prefix

    def _around(self) -> object:
        """What may change from call to call."""
        function: Any = self._function
        if isinstance(function, FunctionType):
            return surroundings(function)
        return content_of_class(function, Forms(parts_of)) if isinstance(function, type) else function

    def _changes_visibly(self) -> bool:
        """Whether `_look` shows each change: others than scalars may change without being replaced."""
        if isinstance(self._function, FunctionType):
            return is_flat(map(_content, self._cells))
        return isinstance(self._function, BuiltinFunctionType) and isinstance(self._function.__self__, ModuleType)

    def _look(self) -> tuple[Any, ...]:
        """The values of globals and of the closure, now."""
        if not self._globals and not self._cells:
            return ()
        space = self._function.__globals__
        return (*map(space.get, self._globals), *map(_content, self._cells))


def surroundings(function: Any) -> object:
    """The scalar globals that a function reads, and its closure, by name."""
    if function.__code__.co_qualname == _DISPATCHING and isinstance(getattr(function, "registry", None), MappingProxyType):
        return None, dict(function.registry)
    space = function.__globals__
    read = {name: space[name] for name in _read_globals(function) if name in space and _is_scalar(space[name])}
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return read, {name: _content(cell) for name, cell in cells}


def form_of_function(function: FunctionType) -> object:
    """What stands for a function that is an argument, or in a closure."""
    name = _name(function)
    defaults = function.__defaults__, function.__kwdefaults__
    return name, digest_of_code(function.__code__).digest, defaults, surroundings(function)


def check_surroundings(function: Callable[..., Any]) -> None:
    """Refuses a function whose closure has no form, before it is called.

    Raises:
        UnstableValueError: the message names the variable.
    """
    plain, _ = _plain(function)
    if not isinstance(plain, FunctionType) or plain.__code__.co_qualname == _DISPATCHING:
        return
    for name, cell in zip(plain.__code__.co_freevars, plain.__closure__ or (), strict=True):
        try:
            Forms(parts_of).form(_content(cell))
        except UnstableValueError as error:
            raise UnstableValueError(f"the variable {name!r} in the closure of {plain.__qualname__}: {error}") from error


def _plain(function: Any) -> tuple[Any, tuple[Any, ...]]:
    """The function below a bound method or an object with `__call__`, and what it is bound to."""
    if isinstance(function, MethodType):
        return function.__func__, (function.__self__,)
    call = next((vars(base)["__call__"] for base in type(function).__mro__ if "__call__" in vars(base)), None)
    if isinstance(call, FunctionType) and not isinstance(function, FunctionType):
        return call, (function,)
    return function, ()


def _name(function: Any) -> tuple[str, str]:
    if isinstance(function, functools.partial):
        function = function.func
    module = getattr(function, "__module__", None) or type(function).__module__
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return label_of_module(module, getattr(function, "__code__", None)), name


def _watched(function: Any) -> tuple[str, ...]:
    """The globals that may be, or become, scalars: not those that are functions, classes or modules, or built-in names."""
    names = _read_globals(function)
    space = function.__globals__ if names else {}
    never = (FunctionType, BuiltinFunctionType, ModuleType, type)
    return tuple(name for name in names if not isinstance(space.get(name, vars(builtins).get(name)), never))


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _ABSENT


def _is_scalar(value: Any) -> bool:
    return type(value) in SCALARS or (type(value) is tuple and is_flat(value))


def _read_globals(function: Any) -> tuple[str, ...]:
    return _globals_of(function.__code__) if isinstance(function, FunctionType) else ()


@functools.lru_cache(maxsize=4096)
def _globals_of(code: CodeType) -> tuple[str, ...]:
    """The names of the globals that the code, and functions in it, read and do not set."""
    read, written = set(), set()
    for operation, name in _operations(code):
        if operation in ("LOAD_GLOBAL", "LOAD_NAME"):
            read.add(name)
        elif operation in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            written.add(name)
    return tuple(sorted(read - written))


def _operations(code: CodeType) -> Iterator[tuple[str, Any]]:
    for part in (code, *functions_in(code)):
        yield from ((step.opname, step.argval) for step in dis.get_instructions(part))
