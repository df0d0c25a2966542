"""`Memory`: a place for results on disk, and the settings of the functions that are cached there."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable, Collection, Coroutine
from datetime import timedelta
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from asyncpar._cache.cached import CachedCoroutineFunction, CachedFunction, Options, make_cached
from asyncpar._cache.compression import CompressOption
from asyncpar._cache.pruning import Limits, prune
from asyncpar._cache.settings import Settings, absolute, to_age, to_size
from asyncpar._cache.shelf import Rules, Validate, prune_alone

P = ParamSpec("P")
T = TypeVar("T")


class Decorator(Protocol):
    """What `memory.cache(...)` is without a function."""

    @overload
    def __call__(self, func: Callable[P, Coroutine[Any, Any, T]], /) -> CachedCoroutineFunction[P, T]: ...
    @overload
    def __call__(self, func: Callable[P, T], /) -> CachedFunction[P, T]: ...


class Memory:
    """Keeps the results of functions on disk, and computes each call once: for all coroutines, threads and processes.

    A result is found again if the function has the same code, and is called with equal arguments. Calls that
    run at the same time share one computation. A coroutine function's cached twin is awaited; that of a plain function is
    called, or awaited as `twin.acall(...)`, and then neither the disk nor the function holds the event loop.

    `pmap`, `asyncpar.map` and `Parallel` look the calls of a twin up before they ask a worker; `pmap(f, xs, cache=memory)` is
    `pmap(memory.cache(f), xs)`.

    Entries are checked when they are read. One that is damaged is computed again, and so is one that a killed process was
    computing. A result that cannot be kept is returned all the same, with a `CacheWarning`.

    Args:
        location: a folder, made when it is needed, readable for its owner only. None: nothing is kept.
        backend: only "local".
        mmap_mode: maps large arrays from the file instead of reading them: "r" for reading only; "c" lets a caller write to
            them, and nobody else sees that ("r+" and "w+" mean the same here, because entries do not change). What is mapped
            is not checked, except with `verify` or `key`.
        compress: True, a level from 0 to 9, a method ("zlib", "gzip", "bz2", "lzma", "xz", "lz4", "zstd"), or both as a tuple.
        verbose: 0 prints nothing, 1 each call that is computed, 2 also each result that is found.
        backend_options: nothing; joblib's parameter.
        size_limit: bytes, or a text such as "10G". When there is more, entries that were not used for longest are removed.
        age_limit: seconds, or a timedelta: older results are computed again.
        durable: waits until a result is on the disk. Without it, what was written just before the machine crashed may have to
            be computed again.
        key: 16 to 64 secret bytes, kept elsewhere. Entries are signed, and none is unpickled whose signature is not
            right. Others may then write to the location. Twins that travel to workers carry the key.
        strict: refuses arguments of which only their pickles say what is in them.
        serializer: "pickle", or "plain", which keeps plain data and arrays, and runs no code when it reads them;
            ("plain", Class, ...) adds dataclasses.
        verify: "full" checks what is mapped, too, by reading all of it.

    Attributes:
        location: the folder, as an absolute path, or None.

    Raises:
        ValueError: a parameter has a value that it cannot have.
        UnsafeCacheError: the location belongs to another user, or others may write to it.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> memory = Memory(folder.name, verbose=0)
        >>> @memory.cache
        ... def square(x):
        ...     print("computing")
        ...     return x * x
        >>> square(3)
        computing
        9
        >>> square(3)
        9
        >>> folder.cleanup()
    """

    __module__ = "asyncpar"

    def __init__(
        self,
        location: str | os.PathLike[str] | None = None,
        backend: str = "local",
        mmap_mode: str | None = None,
        compress: CompressOption = False,
        verbose: int = 1,
        backend_options: dict[str, Any] | None = None,
        *,
        size_limit: int | str | None = None,
        age_limit: float | timedelta | None = None,
        durable: bool = False,
        key: bytes | None = None,
        strict: bool = False,
        serializer: Any = "pickle",
        verify: str = "auto",
    ) -> None:
        if backend != "local":
            raise ValueError(f'backend is "local", not {backend!r:.200}')
        if backend_options:
            raise ValueError(f"there are no options for the backend; {', '.join(backend_options)} may be a parameter of Memory")
        self._settings = Settings(absolute(location), mmap_mode, compress, durable, key, serializer, verify)
        self._settings.check()
        self._limits = to_size(size_limit, "size_limit"), to_age(age_limit, "age_limit")
        self._strict = strict
        self.verbose = int(verbose)
        self._store = None if location is None else self._settings.store()

    @property
    def location(self) -> str | None:
        return self._settings.location

    @overload
    def cache(
        self,
        func: Callable[P, Coroutine[Any, Any, T]],
        ignore: Collection[str] | None = None,
        verbose: int | None = None,
        mmap_mode: Any = False,
        cache_validation_callback: Validate | None = None,
        *,
        version: object = None,
        follow: bool = False,
        key: Callable[..., object] | None = None,
    ) -> CachedCoroutineFunction[P, T]: ...

    @overload
    def cache(
        self,
        func: Callable[P, T],
        ignore: Collection[str] | None = None,
        verbose: int | None = None,
        mmap_mode: Any = False,
        cache_validation_callback: Validate | None = None,
        *,
        version: object = None,
        follow: bool = False,
        key: Callable[..., object] | None = None,
    ) -> CachedFunction[P, T]: ...

    @overload
    def cache(
        self,
        func: None = None,
        ignore: Collection[str] | None = None,
        verbose: int | None = None,
        mmap_mode: Any = False,
        cache_validation_callback: Validate | None = None,
        *,
        version: object = None,
        follow: bool = False,
        key: Callable[..., object] | None = None,
    ) -> Decorator: ...

    def cache(
        self,
        func: Callable[..., Any] | None = None,
        ignore: Collection[str] | None = None,
        verbose: int | None = None,
        mmap_mode: Any = False,
        cache_validation_callback: Validate | None = None,
        *,
        version: object = None,
        follow: bool = False,
        key: Callable[..., object] | None = None,
    ) -> Any:
        """The cached twin of a function, a coroutine function, or a method. Also a decorator, with and without arguments.

        Args:
            func: what to cache. Its results must be such that they can be pickled; generators cannot.
            ignore: names of parameters that do not decide about the result, such as `verbose`.
            verbose: as in `Memory`; None takes what that has.
            mmap_mode: as in `Memory`; False takes what that has.
            cache_validation_callback: is asked about each result that is found, with a dict of `duration`, `time` (when it was
                computed) and `input_args`. If it returns a false value, the call is computed again. See `expires_after`.
            version: a mark of your own. Results of another version are not found.
            follow: also notice changes in modules of the same package that the function's module imports.
            key: is called with the arguments of a call, in any thread, and returns what stands for them in the key: anything
                that has a key itself. Calls for which it returns the same have the same result. It is to be quick, and gets
                the object of a method first.

        Raises:
            ValueError: `ignore` names something that is no parameter, or there is `key` as well.
            TypeError: `func` is a generator function, or something in its closure has no key.
        """
        if isinstance(ignore, str):
            raise ValueError(f"ignore is a list of names: [{ignore!r}]")
        if cache_validation_callback is not None and not callable(cache_validation_callback):
            raise ValueError(f"cache_validation_callback needs to be callable, not {cache_validation_callback!r:.200}")
        if key is not None and (ignore or not callable(key) or inspect.iscoroutinefunction(key)):
            raise ValueError("key is a plain function of the call's arguments, and takes the place of ignore")

        def decorate(func: Callable[..., Any]) -> CachedFunction[..., Any]:
            settings = self._settings
            if mmap_mode is not False:
                settings = settings.with_map_mode(mmap_mode)
            size, age = self._limits
            rules = Rules(size, age, cache_validation_callback)
            shown = self.verbose if verbose is None else int(verbose)
            return make_cached(func, Options(settings, rules, tuple(ignore or ()), version, follow, self._strict, shown, key))

        return decorate if func is None else decorate(func)

    def eval(self, func: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Calls the cached twin of `func`. Awaited if it is a coroutine function."""
        cached: CachedFunction[..., T] = self.cache(func)
        return cached(*args, **kwargs)

    def clear(self, warn: bool = True) -> None:
        """Forgets all results."""
        if self._store is not None:
            if warn and self.verbose > 0:
                print(f"[Memory] Clearing everything in {self.location}")
            self._store.clear()

    def reduce_size(
        self,
        bytes_limit: int | str | None = None,
        items_limit: int | None = None,
        age_limit: float | timedelta | None = None,
    ) -> None:
        """Removes results that were not used for longest, until the limits hold; those of `Memory` if none is given.

        Args:
            bytes_limit: as `size_limit` of `Memory`.
            items_limit: how many results may stay.
            age_limit: results that were not used for so many seconds are removed.
        """
        if self._store is None:
            return
        limits = Limits(to_size(bytes_limit, "bytes_limit"), items_limit, to_age(age_limit, "age_limit"))
        if limits == Limits():
            prune_alone(self._store, Limits(self._limits[0], age=self._limits[1]))
        else:
            prune(self._store.folder, limits)

    def __reduce__(self) -> Any:
        return _rebuilt, (self._settings, self._limits, self._strict, self.verbose)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """One that joblib has pickled, in a model for instance, while asyncpar is in joblib's place: with the same settings."""
        settings = {name: state[name] for name in ("location", "mmap_mode", "compress") if name in state}
        self.__init__(**settings, verbose=state.get("_verbose", 1))  # type: ignore[misc]  # as `__new__` has made it

    def __repr__(self) -> str:
        return f"Memory(location={self.location!r})"


def _rebuilt(settings: Settings, limits: tuple[int | None, float | None], strict: bool, verbose: int) -> Memory:
    return Memory(
        settings.location,
        mmap_mode=settings.mmap_mode,
        compress=settings.compress,
        verbose=verbose,
        size_limit=limits[0],
        age_limit=limits[1],
        durable=settings.durable,
        key=settings.key,
        strict=strict,
        serializer=settings.serializer,
        verify=settings.verify,
    )


def expires_after(
    days: float = 0,
    seconds: float = 0,
    microseconds: float = 0,
    milliseconds: float = 0,
    minutes: float = 0,
    hours: float = 0,
    weeks: float = 0,
) -> Validate:
    """A `cache_validation_callback` with which results are computed again when they are older than this.

    Example:
        >>> still_valid = expires_after(hours=1)
        >>> import time
        >>> still_valid({"time": time.time() - 1800}), still_valid({"time": time.time() - 7200})
        (True, False)
    """
    return _Expiry(timedelta(days, seconds, microseconds, milliseconds, minutes, hours, weeks).total_seconds())


class _Expiry:
    """An object, since it has to travel to workers with the twin that has it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __call__(self, metadata: dict[str, Any]) -> bool:
        return bool(time.time() - metadata["time"] < self._seconds)
