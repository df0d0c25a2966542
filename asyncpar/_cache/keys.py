"""The key of a call: what function, with what arguments. Calls with the same key have the same result.

    key = blake2b(prefix of the function + canonical form of the bound arguments)

Users may say what stands for the arguments (`key=`). Then the function that says so is part of the key as well, since what it
returns means something else once it has been edited.

Making a key needs no disk, so a map can compute the keys of its items before it looks any of them up.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from hashlib import blake2b
from marshal import dumps
from types import FunctionType
from typing import Any, TypeAlias

from asyncpar._cache.binding import make_binder
from asyncpar._cache.forms import SCALARS, Forms, Pause, UnstableValueError, form_of_plain
from asyncpar._cache.functions import Identity, check_surroundings
from asyncpar._cache.parts import parts_of

Key: TypeAlias = bytes

KEY_BYTES = 20

_FORMAT = 2  # of marshal, as in forms.py
_SMALL_ELEMENTS = 64  # of a container that is looked at to see whether a value is small
_SMALL_BYTES = 1 << 14
_DESCRIBED = b"described"  # begins no form
_CONTAINERS = frozenset({list, tuple, dict, set, frozenset})


class Keyer:
    """Makes the keys of the calls of one function.

    Args:
        function: any callable.
        ignore: parameters that do not count.
        describe: is called with the arguments, and returns what stands for them.
        version: the user's own mark of the function.
        follow: whether the source of what it may call counts.
        strict: refuse arguments that only their pickles would describe.

    Raises:
        ValueError: a name in `ignore` is no parameter.
        UnstableValueError: the function's closure has no form.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        ignore: Collection[str] = (),
        version: object = None,
        *,
        follow: bool = False,
        strict: bool = False,
        describe: Callable[..., object] | None = None,
    ) -> None:
        self._function = function
        self._ignore = ignore
        self._version = version
        self._follow = follow
        self._strict = strict
        self._describe = describe
        self._describer = None if describe is None else Identity(describe)
        self._begin()
        check_surroundings(function)

    def _begin(self) -> None:
        """Looks at the function as it is now. Tools that reload modules put new code into functions that are there already."""
        self.identity = Identity(self._function, self._version, self._ignore, follow=self._follow)
        plain, first = self.identity.plain, self.identity.bound
        bind, self._names = make_binder(plain if first else self._function, self._ignore)
        self._bind = functools.partial(bind, *first) if first else bind
        self._plain = plain if isinstance(plain, FunctionType) else are_small  # which nobody changes
        self._code, self._defaults = self._plain.__code__, self._plain.__defaults__

    def key(self, args: tuple[Any, ...], kwargs: dict[str, Any], pause: Pause | None = None) -> Key:
        """The key of a call. `pause` is called now and then if it takes long.

        Raises:
            TypeError: the function does not take these arguments; or (`UnstableValueError`) one of them has no stable key.
        """
        plain = self._plain
        if plain.__code__ is not self._code or plain.__defaults__ is not self._defaults:
            self._begin()
        bound = self._bind(*args, **kwargs)
        if self._describe is not None:
            material: Any = self._describe(*self.identity.bound, *args, **kwargs)
            bound = (material,)
        if SCALARS.issuperset(map(type, bound)):
            form = dumps(bound, _FORMAT)
        else:
            try:
                form = form_of_plain(bound) or Forms(parts_of, strict=self._strict, pause=pause).form(bound)
            except UnstableValueError as error:
                raise self._named(bound, error) from error
            except RecursionError as error:
                raise UnstableValueError(f"an argument of {self.identity.name} is nested too deeply for a key") from error
        prefix = self.identity.prefix()
        if self._describer is not None:
            prefix += _DESCRIBED + self._describer.prefix()
        return blake2b(prefix + form, digest_size=KEY_BYTES).digest()

    def shown(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments that count, by name."""
        return dict(zip(self._names, self._bind(*args, **kwargs), strict=True))

    def _named(self, bound: tuple[Any, ...], error: UnstableValueError) -> UnstableValueError:
        """The error with the name of the argument that has no form."""
        if self._describe is not None:
            return UnstableValueError(f"what key= returns for {self.identity.name}: {error}")
        for name, value in zip(self._names, bound, strict=True):
            try:
                Forms(parts_of, strict=self._strict).form(value)
            except UnstableValueError:
                return UnstableValueError(f"argument {name!r} of {self.identity.name}: {error}")
        return error


def are_small(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the key of such arguments is made so fast that the event loop can wait for it: in some microseconds."""
    if SCALARS.issuperset(map(type, args)) and not kwargs:
        return sum(len(value) for value in args if type(value) is str or type(value) is bytes) < _SMALL_BYTES
    return all(map(_is_small, args)) and all(map(_is_small, kwargs.values()))


def _is_small(value: Any) -> bool:
    kind = type(value)
    if kind in _CONTAINERS:
        if len(value) > _SMALL_ELEMENTS:
            return False
        held = (*value, *value.values()) if kind is dict else value
        return all(type(element) in SCALARS and _is_small(element) for element in held)
    if kind is str or kind is bytes:
        return len(value) < _SMALL_BYTES
    return kind in SCALARS
