"""Thousands of arrays with random sizes and lifetimes, workers killed meanwhile: no wrong byte, no growth."""

from __future__ import annotations

import gc
import random
import zlib
from typing import Any

import numpy as np
import pytest

from asyncpar import ProcessExecutor, WorkerDiedError, pmap
from tests.belongings import mappings, shared_bytes
from tests.calls.checked_arrays import check_and_answer, content

pytestmark = pytest.mark.anyio

_ROUNDS = 8
_ARRAYS = 50


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
