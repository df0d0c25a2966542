"""Large items, functions and results arrive whole, and the event loop goes on while they are packed and unpacked."""

from __future__ import annotations

import functools
import operator
import pickle
import time
from typing import Any

import anyio
import numpy as np
import pytest

from asyncpar import ProcessExecutor, pmap
from tests.functions import double, identity, make_texts
from tests.loops import on_one_loop

pytestmark = pytest.mark.anyio

MIB = 1 << 20


def nest(size: int) -> list[Any]:
    return [{"number": number, "text": str(number), "more": [number] * 3} for number in range(size)]


PAYLOADS: dict[str, Any] = {
    "text": "ä" * (3 * MIB),
    "bytes": bytes(range(256)) * (16 * 1024),
    "bytearray": bytearray(range(256)) * (16 * 1024),
    "numbers": list(range(300_000)),
    "nest": nest(30_000),
    "arrays": {"one": np.arange(500_000.0), "two": [np.arange(300_000), "x"]},
    "strided array": np.arange(1_000_000.0).reshape(1000, 1000)[::2, ::3],
    "Fortran order": np.asfortranarray(np.arange(500_000.0).reshape(500, 1000)),
    "objects": np.array([{"a": 1}, "b" * MIB, None], dtype=object),
}


@on_one_loop
@pytest.mark.parametrize("batch_size", [1, 3])
async def test_a_large_item_comes_back_as_it_went(batch_size: int, subtests: pytest.Subtests) -> None:
    for name, payload in PAYLOADS.items():
        with subtests.test(name):
            small_beside = [1, payload, "small", payload]
            results = await pmap(identity, small_beside, executor="process", batch_size=batch_size)
            for sent, got in zip(small_beside, results, strict=True):
                assert type(got) is type(sent)
                if type(sent) in (dict, np.ndarray):
                    np.testing.assert_equal(got, sent)
                else:
                    assert got == sent


async def test_many_texts_that_are_large_together() -> None:
    texts = [str(number) * 1000 for number in range(1000)]
    assert await pmap(double, texts, executor="process", batch_size=500) == [text * 2 for text in texts]


async def test_a_large_function_arrives_once_and_works() -> None:
    table = nest(30_000)
    assert await pmap(lambda i: table[i]["number"], range(100), executor="process") == list(range(100))
    assert await pmap(functools.partial(operator.getitem, table), range(100), executor="process") == table[:100]


class Watch:
    """A task that measures how long this program computes without letting it run; other programs' time does not count."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def run(self) -> None:
        last = time.process_time()
        while True:
            await anyio.sleep(0.001)
            now = time.process_time()
            self.longest = max(self.longest, now - last)
            last = now


@pytest.mark.parametrize("way", ["item", "result", "function", "initializer"])
async def test_the_event_loop_is_not_held_while_much_is_packed_or_unpacked(way: str) -> None:
    texts = make_texts(1_000_000)
    began = time.process_time()
    pickled = pickle.dumps(texts)
    packed = time.process_time()
    pickle.loads(pickled)
    in_one_go = time.process_time() - packed if way == "result" else packed - began
    for _ in range(3):  # on a busy machine, the loop may be kept from its processor for a while
        longest = await longest_hold(way, texts)
        if longest < in_one_go / 2:
            break
    assert longest < in_one_go / 2


async def longest_hold(way: str, texts: list[str]) -> float:
    """Seconds of computing for which the event loop stood still while `texts` travelled."""
    watch = Watch()
    initializer = len if way == "initializer" else None
    async with ProcessExecutor(1, initializer=initializer, initargs=(texts,)) as executor, anyio.create_task_group() as group:
        if initializer is None:
            await pmap(double, [1], executor=executor)
        group.start_soon(watch.run)
        if way == "item":
            results: list[Any] = await pmap(len, [texts], executor=executor)
        elif way == "result":
            results = await pmap(make_texts, [len(texts)], executor=executor)
        elif way == "initializer":
            results = await pmap(double, [1], executor=executor)
        else:
            results = await pmap(functools.partial(operator.getitem, texts), [5], executor=executor)
        await anyio.sleep(0.01)  # so that it sees the end, too
        group.cancel_scope.cancel()
    assert results == {"item": [len(texts)], "result": [texts], "function": ["5"], "initializer": [2]}[way]
    return watch.longest
