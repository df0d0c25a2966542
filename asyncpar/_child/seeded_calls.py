"""Calls that have a random stream of their own, with `seed=`.

    pmap(f, items, seed=42)     parent: sends `SeededCall(f, 42)`, and the indices of the calls as one more column
    SeededCall.__call__         worker: notes seed and index for the time of the call
    current_call().rng          the call: a generator that is made of these two, when it is asked for

The stream is a function of the seed and the index of the item, and of nothing else: not of the worker, the batch, the order in
which calls run, or whether a call has been tried before. So each attempt of a call begins its stream anew.

- `rng` is seeded with the SHA-512 digest of both numbers. So streams of neighbouring seeds or indices have nothing in common,
  and they are the same in every release of Python and on every platform: `random.Random` takes an int as it is.
- `generator` is what numpy itself gives to the child `index` of a `SeedSequence`.

What a call is told lies in a context variable. So threads and coroutines that make calls at the same time do not see each
other's. A call of a map within the call is another one, and has a stream only if that map has a seed. It would inherit the
variable. In threads, the depth in workers tells the two apart. In the caller's thread or event loop, whoever makes such calls
hides the variable from them (`_platform/current_worker.py`).

Refused: to seed the global generators of `random` and `numpy.random`. Threads and coroutines share them, and what a call does
to them would remain.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from asyncpar._basics.forms import Form
from asyncpar._platform.current_worker import seeded_call
from asyncpar._platform.nesting import depth

if TYPE_CHECKING:
    import numpy


class CurrentCall:
    """The call of a map with `seed=` that is running now, with its random stream. `current_call()` returns it.

    Attributes:
        index: position of its item in the input, from 0.
    """

    __slots__ = ("_depth", "_generator", "_rng", "_seed", "index")

    def __init__(self, seed: int, index: int) -> None:
        self._seed = seed
        self.index = index
        self._depth = depth()
        self._rng: random.Random | None = None
        self._generator: numpy.random.Generator | None = None

    @property
    def rng(self) -> random.Random:
        """The call's generator of the standard library, the same object throughout the call.

        It is `random.Random(n)`, where n is the SHA-512 digest of the text "asyncpar {seed:x} {index:x}", read as one
        big-endian number.
        """
        if self._rng is None:
            import hashlib

            digest = hashlib.sha512(f"asyncpar {self._seed:x} {self.index:x}".encode("ascii")).digest()
            self._rng = random.Random(int.from_bytes(digest, "big"))  # noqa: S311 - nothing secret
        return self._rng

    @property
    def generator(self) -> numpy.random.Generator:
        """The call's generator of numpy, the same object throughout the call.

        It is `Generator(PCG64(SeedSequence(seed, spawn_key=(index,))))`, the stream of `SeedSequence(seed).spawn(n)[index]`.
        """
        if self._generator is None:
            from numpy.random import PCG64, Generator, SeedSequence

            self._generator = Generator(PCG64(SeedSequence(self._seed, spawn_key=(self.index,))))
        return self._generator

    def __repr__(self) -> str:
        return f"<call {self.index} of a map with seed={self._seed:#x}>"


def current_call() -> CurrentCall:
    """The call that is running now, in a map with `seed=`: its index, and random streams that depend only on seed and index.

    Raises:
        RuntimeError: the code does not run in a call of such a map.

    >>> import asyncpar
    >>> def throw(dice):
    ...     rng = asyncpar.current_call().rng
    ...     return sum(rng.randint(1, 6) for _ in range(dice))
    >>> list(asyncpar.map(throw, [1, 2, 3], seed=7)) == list(asyncpar.map(throw, [1, 2, 3], seed=7, executor="thread"))
    True
    """
    call: CurrentCall | None = seeded_call.get()
    if call is None or call._depth != depth():
        raise RuntimeError(
            "current_call() is for code that runs in a call of a map with a seed, and here is none; write "
            "pmap(f, items, seed=42), or asyncpar.map or Parallel with seed=, and call it within f"
        )
    return call


class SeededCall(Form):
    """Calls of `function` with a stream. The last column has their indices."""

    __slots__ = ("seed",)

    def __init__(self, function: Callable[..., Any], seed: int) -> None:
        super().__init__(function)
        self.seed = seed

    def __call__(self, *row: Any) -> Any:
        return call_seeded(self.function, self.seed, row[-1], *row[:-1])


class SeededCoroutineCall(SeededCall):
    """The same for a coroutine function."""

    __slots__ = ()

    async def __call__(self, *row: Any) -> Any:
        before = seeded_call.get()
        seeded_call.set(CurrentCall(self.seed, row[-1]))
        try:
            return await self.function(*row[:-1])
        finally:
            seeded_call.set(before)  # and no `reset`, which raises if the coroutine is closed in another context


def call_seeded(function: Callable[..., Any], seed: int, index: int, /, *arguments: Any, **keywords: Any) -> Any:
    """What `function` returns, called with these arguments as the call of that index."""
    before = seeded_call.get()
    seeded_call.set(CurrentCall(seed, index))
    try:
        return function(*arguments, **keywords)
    finally:
        seeded_call.set(before)
