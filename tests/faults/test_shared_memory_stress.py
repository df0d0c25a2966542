"""Thousands of arrays with random sizes and lifetimes, workers killed meanwhile: no wrong byte, no growth."""

from __future__ import annotations

import gc
import os
import random
import zlib
from typing import Any

import numpy as np
import pytest

from asyncpar import ProcessExecutor, WorkerDiedError, pmap
from tests.belongings import mappings, shared_bytes

pytestmark = pytest.mark.anyio

_ROUNDS = 8
_ARRAYS = 50


def content(seed: int) -> np.ndarray[Any, Any]:
    size = 1 + seed * 7919 % 60_000
    return np.frombuffer(np.random.default_rng(seed).bytes(size), np.uint8)


_hoard: list[Any] = []


def check_and_answer(array: Any, checksum: int, seed: int) -> tuple[bool, Any]:
    """Says whether the array is what was sent, and sends another; keeps some, and dies now and then."""
    if seed % 97 == 13:
        os._exit(1)
    _hoard.append((array[::2], zlib.crc32(array[::2].tobytes())))
    if len(_hoard) > 5:
        _hoard.pop(seed % 5)
    unharmed = all(zlib.crc32(kept.tobytes()) == kept_sum for kept, kept_sum in _hoard)
    return unharmed and zlib.crc32(array) == checksum, content(seed + 1)


async def test_no_byte_is_wrong_and_nothing_grows() -> None:
    dice = random.Random(5)
    kept: list[tuple[int, Any]] = []
    gc.collect()
    before = mappings()
    async with ProcessExecutor(2, max_shared_bytes=16 << 20) as executor:
        for _ in range(_ROUNDS):
            seeds = [dice.randrange(10**6) for _ in range(_ARRAYS)]
            sent = [content(seed) for seed in seeds]
            answers: list[Any] = await pmap(
                check_and_answer, sent, map(zlib.crc32, sent), seeds, executor=executor, on_error="return", max_nbytes=4096
            )
            for seed, answer in zip(seeds, answers, strict=True):
                if isinstance(answer, WorkerDiedError):
                    assert seed % 97 == 13
                    continue
                right, array = answer
                assert right
                kept.append((seed + 1, array))
            dice.shuffle(kept)
            for seed, array in kept:
                np.testing.assert_array_equal(array, content(seed))
            del kept[30:]
        assert shared_bytes() <= 16 << 20
    kept.clear()
    del answers, answer, array, sent
    gc.collect()
    assert mappings() == before
