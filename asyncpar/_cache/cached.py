"""The twin of a function that `Memory.cache` returns: it is called as the function is, and looks for the result first.

There are two kinds, for plain and for coroutine functions. Both do the same in the same order: make the key, look it up, and
leave the rest to `sync_calls.py` or `async_calls.py`. The first two steps are written out in `__call__`, because a hit is to
cost some microseconds.

A twin travels to workers by its name if it can be imported, and else as its function and its settings. The digest of the
function's source travels along, because a worker may not find the source (`sources.py`).
"""

from __future__ import annotations

import functools
import inspect
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

from asyncpar._cache import reports, sources, sync_calls
from asyncpar._cache.entries import Found
from asyncpar._cache.flights import Landing
from asyncpar._cache.keys import Keyer
from asyncpar._cache.settings import Settings
from asyncpar._cache.shelf import Arguments, Rules, Shelf
from asyncpar._cache.shelved import MemorizedResult

P = ParamSpec("P")
T = TypeVar("T")


class Options(NamedTuple):
    """How one function is cached."""

    settings: Settings
    rules: Rules
    ignore: tuple[str, ...] = ()
    version: object = None
    follow: bool = False
    strict: bool = False
    verbose: int = 1
    describe: Callable[..., object] | None = None


class CachedFunction(Generic[P, T]):
    """A function whose results are kept on disk. `Memory.cache` makes it.

    Attributes:
        func: the function itself.
        ignore: parameters that do not count.
    """

    __module__ = "asyncpar"
    __wrapped_by_asyncpar__ = True
    __name__: str
    __qualname__: str

    def __init__(self, func: Callable[P, Any], options: Options) -> None:
        functools.update_wrapper(self, func)
        self.func = func
        self.ignore = list(options.ignore)
        self._options = options
        self._verbose = options.verbose
        self._shelf: Shelf | None = None
        follow, strict, describe = options.follow, options.strict, options.describe
        keyer = Keyer(func, options.ignore, options.version, follow=follow, strict=strict, describe=describe)
        self._name = f"{getattr(func, '__module__', None)}.{keyer.identity.name}"
        if options.settings.location is not None:
            self._shelf = Shelf(options.settings.store(), keyer, options.rules)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of the call: kept, or computed and kept."""
        shelf = self._shelf
        result: T
        if shelf is None:
            result = self.func(*args, **kwargs)
            return result
        key = shelf.key(args, kwargs)
        found = shelf.look_up(key, (args, kwargs))
        if found is not None:
            if self._verbose > 1:
                self._report_loading(found)
            result = found.value
            return result
        result = sync_calls.found_or_computed(shelf, key, functools.partial(self._compute, args, kwargs))
        return result

    async def acall(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """The same, awaited: the disk is read and the function is called in threads, so the event loop goes on.

        A caller that is cancelled leaves the others alone. A thread cannot be cancelled: the call goes on, and its result is
        kept.
        """
        result: T = await self._awaited(args, kwargs, is_async=False)
        return result

    async def _awaited(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, is_async: bool) -> Any:
        from asyncpar._cache import async_calls

        compute = functools.partial(self._acompute if is_async else self._compute, args, kwargs)
        shelf = self._shelf
        if shelf is None:
            if is_async:
                return await compute()
            import anyio.to_thread

            return await anyio.to_thread.run_sync(compute)
        key = await async_calls.key_of(shelf, (args, kwargs))
        found = await async_calls.look_up(shelf, key, (args, kwargs))
        if found is not None:
            if self._verbose > 1:
                self._report_loading(found)
            return found.value
        return await async_calls.found_or_computed(shelf, key, compute, is_async=is_async)

    def call_and_shelve(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Computes the call if need be, and returns a small reference to its result."""
        return self._shelved((args, kwargs), lambda: self(*args, **kwargs))

    async def acall_and_shelve(self, *args: P.args, **kwargs: P.kwargs) -> MemorizedResult:
        """The same, awaited."""
        from asyncpar._platform.off_loop import run_off_loop

        value = await self.acall(*args, **kwargs)
        return await run_off_loop(lambda: self._shelved((args, kwargs), lambda: value))

    def check_call_in_cache(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Whether the call would be answered from the cache."""
        shelf = self._shelf
        return shelf is not None and shelf.has(shelf.key(args, kwargs), (args, kwargs))

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Computes the call in any case, keeps its result, and returns it with a dict that says how long it took, and when."""
        began = time.perf_counter()
        value = self._compute(args, kwargs)
        return value, self._kept_anew((args, kwargs), value, time.perf_counter() - began)

    def clear(self, warn: bool = True) -> None:
        """Forgets all results of the function, those of other versions of it included."""
        if self._shelf is not None:
            if warn and self._verbose > 0:
                print(f"[Memory] Clearing the results of {self._name}")
            self._shelf.store.clear(self._shelf.folder)

    def _shelved(self, arguments: Arguments, compute: Callable[[], Any]) -> MemorizedResult:
        shelf, settings = self._shelf, self._options.settings
        if shelf is None:
            return MemorizedResult(self._name, settings, "", b"", compute())
        key = shelf.key(*arguments)
        if shelf.has(key, arguments):
            return MemorizedResult(self._name, settings, shelf.folder, key)
        value = compute()
        if shelf.has(key, arguments):
            return MemorizedResult(self._name, settings, shelf.folder, key)
        return MemorizedResult(self._name, settings, shelf.folder, key, value)

    def _kept_anew(self, arguments: Arguments, value: Any, seconds: float) -> dict[str, Any]:
        shelf = self._shelf
        if shelf is None:
            return {}
        shelf.keep(shelf.key(*arguments), value, seconds)
        return {"duration": seconds, "time": time.time(), "input_args": shelf.shown(arguments)}

    def _compute(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._verbose < 1 or self._shelf is None:
            return self.func(*args, **kwargs)
        print(reports.calling(self._name, self._shelf.keyer.shown(args, kwargs)))
        began = time.perf_counter()
        value = self.func(*args, **kwargs)
        print(reports.called(self._name, time.perf_counter() - began))
        return value

    async def _acompute(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._verbose < 1 or self._shelf is None:
            return await self.func(*args, **kwargs)
        print(reports.calling(self._name, self._shelf.keyer.shown(args, kwargs)))
        began = time.perf_counter()
        value = await self.func(*args, **kwargs)
        print(reports.called(self._name, time.perf_counter() - began))
        return value

    def _report_loading(self, found: Found) -> None:
        print(reports.loading(self._name, found.seconds))

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else _Bound(self, instance)

    def __reduce__(self) -> Any:
        if _is_importable(self):
            return self.__qualname__
        identity = Keyer(self.func).identity if self._shelf is None else self._shelf.keyer.identity
        state = self.func, self._options, identity.source  # not at once: `func` may lead back to here
        return _new_coroutine_function if isinstance(self, CachedCoroutineFunction) else _new_function, (), state

    def __setstate__(self, state: tuple[Callable[..., Any], Options, sources.CodeDigest | None]) -> None:
        func, options, source = state
        if source is not None:
            sources.known.setdefault(source.of_code, source.digest)
        self.__init__(func, options)  # type: ignore[misc]  # as `__new__` has made it

    def __repr__(self) -> str:
        return f"<cached {self._name} in {self._options.settings.location}>"


class CachedCoroutineFunction(CachedFunction[P, Coroutine[Any, Any, T]]):
    """A coroutine function whose results are kept on disk: all that computes is awaited. `Memory.cache` makes it."""

    __module__ = "asyncpar"

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of the call: kept, or computed and kept."""
        result: T = await self._awaited(args, kwargs, is_async=True)
        return result

    acall: Any = __call__

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else _BoundCoroutineFunction(self, instance)

    def call_and_shelve(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, MemorizedResult]:
        """Computes the call if need be, and returns a small reference to its result."""
        return self.acall_and_shelve(*args, **kwargs)

    async def call(self, *args: P.args, **kwargs: P.kwargs) -> tuple[T, dict[str, Any]]:
        """Computes the call in any case, keeps its result, and returns it with a dict that says how long it took, and when."""
        from asyncpar._platform.off_loop import run_off_loop

        began = time.perf_counter()
        value = await self._acompute(args, kwargs)
        seconds = time.perf_counter() - began
        return value, await run_off_loop(lambda: self._kept_anew((args, kwargs), value, seconds))


class _Bound:
    """The twin of a method, as an attribute of an object: the object is the first argument."""

    def __init__(self, twin: CachedFunction[..., Any], instance: Any) -> None:
        self.__self__ = instance
        self.__func__ = twin

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__func__(self.__self__, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        held = getattr(self.__func__, name)
        return functools.partial(held, self.__self__) if name in _TAKING_ARGUMENTS else held


class _BoundCoroutineFunction(_Bound):
    """The same, so that it counts as a coroutine function."""

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return await self.__func__(self.__self__, *args, **kwargs)


_TAKING_ARGUMENTS = frozenset({"acall", "call", "call_and_shelve", "acall_and_shelve", "check_call_in_cache"})


def make_cached(func: Callable[..., Any], options: Options) -> CachedFunction[..., Any]:
    """The twin of a function.

    Raises:
        TypeError: it is a generator function, or no function.
        ValueError: `ignore` names something that is no parameter.
    """
    if isinstance(func, CachedFunction):
        func = func.func
    if isinstance(func, staticmethod | classmethod):
        kind = type(func).__name__
        raise TypeError(f"Memory.cache takes a function, not a {kind}: put @{kind} above @memory.cache")
    if not callable(func):
        raise TypeError(f"Memory.cache takes a function, not {func!r:.200}")
    called = func if inspect.isroutine(func) else type(func).__call__ if not isinstance(func, functools.partial) else func
    if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
        name = getattr(func, "__qualname__", repr(func))
        raise TypeError(
            f"{name} is a generator function, and a generator cannot be kept; return a list, or cache what it calls"
        )
    is_async = inspect.iscoroutinefunction(called)
    return (CachedCoroutineFunction if is_async else CachedFunction)(func, options)


def twin_of(function: Any) -> tuple[CachedFunction[..., Any], tuple[Any, ...]] | None:
    """The twin that a function is, and the arguments that it is bound to; None for any other, and where nothing is kept."""
    twin, bound = (function.__func__, (function.__self__,)) if isinstance(function, _Bound) else (function, ())
    return (twin, bound) if isinstance(twin, CachedFunction) and twin._shelf is not None else None


def shelf_of(twin: CachedFunction[..., Any]) -> Shelf:
    """Where the results of a twin are."""
    assert twin._shelf is not None, "`twin_of` gives only twins that keep something"
    return twin._shelf


def report_found(twin: CachedFunction[..., Any], found: Found) -> None:
    """Prints that a result has been found, if the twin is to."""
    if twin._verbose > 1:
        twin._report_loading(found)


def compute(twin: CachedFunction[..., Any], key: bytes, arguments: Arguments, *, alone: bool) -> Landing:
    """A call of a map that has this key and was not found; see `sync_calls.landed`."""
    return sync_calls.landed(shelf_of(twin), key, functools.partial(twin._compute, *arguments), alone=alone)


async def acompute(twin: CachedFunction[..., Any], key: bytes, arguments: Arguments, *, alone: bool) -> Landing:
    """The same for a coroutine function; see `async_calls.landed_here`."""
    from asyncpar._cache import async_calls

    return await async_calls.landed_here(shelf_of(twin), key, functools.partial(twin._acompute, *arguments), alone=alone)


def _is_importable(twin: CachedFunction[..., Any]) -> bool:
    name, module = getattr(twin, "__qualname__", None), sys.modules.get(twin.__module__)
    if name is None or module is None or twin.__module__ == "__main__":  # a partial, for one, has no name
        return False
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is twin


def _new_function() -> CachedFunction[..., Any]:
    return CachedFunction.__new__(CachedFunction)


def _new_coroutine_function() -> CachedCoroutineFunction[..., Any]:
    return CachedCoroutineFunction.__new__(CachedCoroutineFunction)
