"""Calls that draw from the random stream that their map has given them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

import anyio.lowlevel

import asyncpar
from asyncpar import Parallel, current_call, delayed, pmap

Drawn: TypeAlias = tuple[object, int, float]  # the item, the call's index, and what it has drawn


def draw(item: object = None) -> Drawn:
    """Draws as often as the item says, so that a stream that calls share would show."""
    call = current_call()
    assert current_call().rng is call.rng
    for _ in range(item if isinstance(item, int) else 0):
        call.rng.random()
    return item, call.index, call.rng.random()


def draw_with_numpy(_: object) -> float:
    call = current_call()
    assert call.generator is call.generator
    return float(call.generator.random())


async def draw_soon(item: object) -> Drawn:
    """Lets the other calls draw in between."""
    call = current_call()
    await anyio.lowlevel.checkpoint()
    drawn = draw(item)
    await anyio.lowlevel.checkpoint()
    assert current_call() is call
    return drawn


class DrawsThenFails:
    """Draws, fails as often as `failures` says, in whatever process, and then returns what it has drawn."""

    def __init__(self, directory: Path, failures: dict[int, int]) -> None:
        self.directory = directory
        self.failures = failures

    def __call__(self, item: int) -> Drawn:
        drawn = draw(item)
        attempts = len(list(self.directory.glob(f"{item}-*")))
        if attempts < self.failures.get(item, 0):
            (self.directory / f"{item}-{attempts}").touch()
            raise ConnectionError(f"{item} is not ready")
        return drawn


def drawn_by_hand(seed: int, index: int, item: object) -> Drawn:
    """What a call is to draw, as the documentation has it."""
    digest = hashlib.sha512(f"asyncpar {seed:x} {index:x}".encode()).digest()
    rng = random.Random(int.from_bytes(digest, "big"))
    for _ in range(item if isinstance(item, int) else 0):
        rng.random()
    return item, index, rng.random()


def all_drawn(seed: int, items: Iterable[object]) -> list[Drawn]:
    return [drawn_by_hand(seed, index, item) for index, item in enumerate(items)]


NO_CALL = -1


def index_of_call(_: object = None) -> int:
    """The index of the current call, or that there is none."""
    try:
        return current_call().index
    except RuntimeError:
        return NO_CALL


async def index_soon(_: object) -> int:
    await anyio.lowlevel.checkpoint()
    return index_of_call()


def maps_within(_: object) -> list[int]:
    """What calls of maps within this call see, none of which has a seed."""
    own = current_call().rng
    seen = list(asyncpar.map(index_of_call, [1, 2], executor="inline"))
    seen += Parallel(1)(delayed(index_of_call)() for _ in range(2))
    seen.append(asyncpar.call(index_of_call, executor="inline"))
    assert current_call().rng is own
    return seen


async def maps_within_soon(_: object) -> list[int]:
    own = current_call().rng
    seen = await pmap(index_soon, [1, 2]) + await pmap(index_of_call, [1, 2], executor="inline")
    seen += [index async for index in pmap(index_soon, [1, 2])]
    seen += await pmap(index_soon, [1, 2], seed=3)
    assert current_call().rng is own
    return seen
