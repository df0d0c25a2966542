"""The canonical form of a value: bytes that are the same for equal content, and different for different content.

A key must not depend on the process, the hash seed, the order in which a dict was filled, or the version of Python, and a
pickle depends on all of these: it refers back to objects that it has seen, so that `[x, x]` and `[x, copy(x)]` differ.

# The form

Scalars of exactly the built-in types are marshalled. The old version 2 of marshal's format is the same in all Pythons, has no
references, and keeps types apart (1, 1.0 and True). It writes anything with a buffer as if it were bytes, so it is never given
anything but such scalars, and lists, tuples and dicts of them. Other containers are a tag, a count, and the forms of their
elements; those of sets and the keys of dicts are sorted. A form of more than `_SHORT_BYTES` is replaced by its digest, so forms
stay small, and an object that is reached on many paths costs one digest. Everything else is a name and *parts*: a simpler value
that stands for it (`parts.py`), such as the class and the fields of a dataclass.

# Guarantees

- Equal content has equal forms: dicts and sets in any order, arrays with any strides, and an object referred to twice and
  two equal objects.
- Different content has different forms, as far as the digests are different. The grammar can be read back without doubt: each
  form begins with its tag and ends where its tag and its counts say.
- Which path is taken depends on the content alone, so the shorter paths for flat lists and tables (a list of a hundred thousand
  small dicts takes a twentieth of the time) cannot make two forms for one value.

Refused: hashing pickles, as joblib does; a pure-Python walk over everything, ten times slower; `hash()`, whose seed changes.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from marshal import dumps
from operator import itemgetter
from typing import Any

from asyncpar._basics.wording import short_repr
from asyncpar._cache.digests import digest

SCALARS = frozenset({int, float, complex, bool, str, bytes, type(None)})

_FORMAT = 2  # of marshal
_SHORT_BYTES = 128  # four digests; a guess
_ORDERED = frozenset({frozenset({int}), frozenset({str}), frozenset({bytes})})  # what can be sorted as it is
_DIGEST, _FLAT_DICT, _DICT, _SET, _FROZENSET, _TABLE, _PARTS, _CYCLE, _LONG = (bytes([tag]) for tag in range(1, 10))
_SEQUENCES: dict[type, bytes] = {list: b"[", tuple: b"("}  # marshal's own tags
_CONTAINERS = frozenset({list, tuple, dict})
_PIECE = 4096  # elements that are handled at once, in C and with the GIL held: half a millisecond
_PLAIN_LEVELS = 3  # of small containers in one another that are marshalled at once
_PLAIN_ELEMENTS = 64
_NOT_PLAIN = object()

Pause = Callable[[], object]
Parts = Callable[[Any, "Forms"], tuple[object, object]]


class UnstableValueError(TypeError):
    """A value has no canonical form. The message says which, and what to do."""


def is_flat(values: Any) -> bool:
    """Whether all elements are scalars."""
    return SCALARS.issuperset(map(type, values))


def form_of_plain(values: Any) -> bytes | None:
    """The form of a tuple of scalars and of small lists, tuples and dicts of them, made in a microsecond or two; None if there
    is something else in it.
    """
    plain = _plain(values, _PLAIN_LEVELS + 1)
    return None if plain is _NOT_PLAIN else dumps(plain, _FORMAT)


class Forms:
    """Makes the forms of the values of one key.

    Args:
        parts_of: a name and a simpler value for whatever is not built in.
        strict: refuse what only its pickle would describe.
        pause: is called now and then, so that an event loop beside this thread gets the GIL.
        tell_maps_apart: an `np.memmap` has another form than an equal array.
    """

    def __init__(
        self, parts_of: Parts, *, strict: bool = False, pause: Pause | None = None, tell_maps_apart: bool = False
    ) -> None:
        self._parts_of = parts_of
        self._pause = pause
        self._until_pause = _PIECE
        self.strict = strict
        self.tell_maps_apart = tell_maps_apart
        self._known: dict[int, tuple[object, bytes]] = {}  # {id: (the object, which must stay alive; its form)}
        self._open: dict[int, int] = {}  # {id: its position on the path from the root}
        self._cyclic = False

    def form(self, value: Any) -> bytes:
        """The canonical form of `value`.

        Raises:
            UnstableValueError: it has none.
        """
        kind = type(value)
        if kind in _CONTAINERS:
            plain = _plain(value, _PLAIN_LEVELS)
            if plain is not _NOT_PLAIN:
                return _shortened(dumps(plain, _FORMAT))
            if kind is not dict and len(value) <= _PIECE and is_flat(value):
                return _shortened(dumps(value, _FORMAT))
        elif kind in SCALARS:
            return _shortened(dumps(value, _FORMAT))
        return self._form_of_deep(value, kind)

    def _form_of_deep(self, value: Any, kind: type) -> bytes:
        identity = id(value)
        known = self._known.get(identity)
        if known is not None:
            return known[1]
        position = self._open.get(identity)
        if position is not None:
            self._cyclic = True
            return _CYCLE + position.to_bytes(4, "little")
        self._open[identity] = len(self._open)
        try:
            form = _shortened(self._walk(value, kind))
        finally:
            del self._open[identity]
        if not self._cyclic:  # the form of a part of a cycle depends on where the cycle was entered
            self._known[identity] = value, form
        return form

    def _walk(self, value: Any, kind: type) -> bytes:
        self._until_pause -= len(value) if kind in _SEQUENCES else 1
        if self._until_pause < 0:
            self._until_pause = _PIECE
            if self._pause is not None:
                self._pause()
        if kind in _SEQUENCES:
            if len(value) > _PIECE:
                pieces = (value[begin : begin + _PIECE] for begin in range(0, len(value), _PIECE))
                return _LONG + _counted(_SEQUENCES[kind], list(map(self.form, pieces)))
            return _form_of_rows(value) or _form_of_table(value) or _counted(_SEQUENCES[kind], list(map(self.form, value)))
        if kind is dict:
            if is_flat(value.values()) and _is_of_str(value):
                names = sorted(value)
                return _FLAT_DICT + dumps((names, [value[name] for name in names]), _FORMAT)
            form = self.form
            return _counted(_DICT, sorted(form(key) + form(held) for key, held in value.items()))
        if kind is set or kind is frozenset:
            return self._form_of_set(value, _SET if kind is set else _FROZENSET)
        name, parts = self._parts_of(value, self)
        return _PARTS + self.form(name) + self.form(parts)

    def _form_of_set(self, value: Any, tag: bytes) -> bytes:
        if frozenset(map(type, value)) in _ORDERED:
            return tag + dumps(sorted(value), _FORMAT)
        return _counted(tag, sorted(map(self.form, value)))


def _plain(value: Any, levels: int) -> Any:
    """Small containers of scalars as marshal can write them at once: a dict becomes a tuple that begins with `...`, which is no
    scalar. `_NOT_PLAIN` if that is not possible.
    """
    kind = type(value)
    if not levels or len(value) > _PLAIN_ELEMENTS:
        return _NOT_PLAIN
    names: list[str] = []
    if kind is dict:
        if not _is_of_str(value):
            return _NOT_PLAIN
        names = sorted(value)
        value = [value[name] for name in names]
    if not is_flat(value):
        held: list[Any] = []
        for element in value:
            inner = type(element)
            if inner in _CONTAINERS:
                element = _plain(element, levels - 1)
                if element is _NOT_PLAIN:
                    return _NOT_PLAIN
            elif inner not in SCALARS:
                return _NOT_PLAIN
            held.append(element)
        value = held if kind is not tuple else tuple(held)
    return (..., names, value) if kind is dict else value


def _is_of_str(values: Any) -> bool:
    return set(map(type, values)) == {str}


def _shortened(form: bytes) -> bytes:
    return form if len(form) <= _SHORT_BYTES else _DIGEST + digest(form)


def _counted(tag: bytes, forms: list[bytes]) -> bytes:
    return b"".join((tag, len(forms).to_bytes(4, "little"), *forms))


def _form_of_rows(value: Any) -> bytes | None:
    """The form of a list of flat lists, or of flat tuples."""
    if _SEQUENCES.keys() >= set(map(type, value)) and is_flat(chain.from_iterable(value)):
        return dumps(value, _FORMAT)
    return None


def _form_of_table(value: Any) -> bytes | None:
    """The form of a list of flat dicts that all have the same names: the names, sorted, and a row for each dict."""
    if set(map(type, value)) != {dict}:
        return None
    orders = set(map(tuple, value))
    if not _is_of_str(chain.from_iterable(orders)):
        return None
    names = {tuple(sorted(order)) for order in orders}
    if len(names) != 1:
        return None
    (columns,) = names
    rows = list(map(itemgetter(*columns), value))
    if not is_flat(rows if len(columns) == 1 else chain.from_iterable(rows)):
        return None
    return _TABLE + _SEQUENCES[type(value)] + dumps((columns, rows), _FORMAT)


def without_form(value: object, reason: str) -> UnstableValueError:
    """The error for a value that has no form."""
    kind = type(value)
    return UnstableValueError(
        f"{short_repr(value)} has no stable key: {reason}; say what stands for it with "
        f"asyncpar.register_hasher({kind.__qualname__}, function), or leave the argument out of the key with ignore=[...]"
    )
