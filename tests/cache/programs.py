"""What other processes run in these tests: `python -m tests.cache.programs NAME FOLDER ...`."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import threading
import time
from pathlib import Path

import numpy as np

from asyncpar import Memory, Parallel, delayed, pmap
from asyncpar._cache import flights
from tests.cache.mapped import slow


def ready(folder: str) -> None:
    """Says so, and waits until the test says that all may begin."""
    print("ready", flush=True)
    sys.stdin.readline()


def compute_slowly(folder: str, key: int) -> int:
    """Says that it runs, and ends when the test lets it."""
    Path(folder, f"began-{key}-{os.getpid()}-{time.monotonic_ns()}").touch()
    while not Path(folder, f"go-{key}").exists():
        time.sleep(0.001)
    return key * key


async def acompute_slowly(folder: str, key: int) -> int:
    return await asyncio.to_thread(compute_slowly, folder, key)


def many_coroutines(folder: str) -> None:
    """Twenty coroutines ask for one key; half of them are cancelled."""
    cached = Memory(f"{folder}/cache", verbose=0).cache(acompute_slowly)

    async def main() -> None:
        tasks = [asyncio.create_task(cached(folder, 7)) for _ in range(20)]
        while [len(flight._callbacks) for flight in flights._flights.values()] != [20]:
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        print("asked", flush=True)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        print([result for result in results if not isinstance(result, BaseException)], flush=True)

    ready(folder)
    asyncio.run(main())


def one_call(folder: str) -> None:
    """One call in the main thread; says when it returned."""
    cached = Memory(f"{folder}/cache", verbose=0).cache(compute_slowly)
    ready(folder)
    print(cached(folder, 7), time.monotonic_ns(), flush=True)


def close_a_loop_early(folder: str) -> None:
    """Closes an event loop in which a flight has begun but not its task, asks for the same key in another, and says so."""
    Path(folder, "go-7").touch()
    cached = Memory(f"{folder}/cache", verbose=0).cache(acompute_slowly)
    loop = asyncio.new_event_loop()

    async def begin() -> asyncio.Task[int]:
        task = loop.create_task(cached(folder, 7))
        while not flights._flights:
            await asyncio.sleep(0)
        return task

    ready(folder)
    task = loop.run_until_complete(begin())
    loop.close()
    print(len(flights._flights), asyncio.run(cached(folder, 7)), flush=True)
    os._exit(task.done())  # without the complaints about the task


def hold(folder: str, location: str) -> None:
    """Takes the claims on all keys that are asked for, and keeps them until it is killed."""
    from tests.cache.test_single_flight import double

    memory = Memory(location, verbose=0)
    cached = memory.cache(double)
    shelf = cached._shelf
    assert shelf is not None
    claim = shelf.claim(shelf.key((7,), {}))
    print("holding", claim is not None, flush=True)
    sys.stdin.readline()


def contend(folder: str, seed: str) -> None:
    """Four threads make calls in an order of their own, each call recording that it is computed."""
    cached = Memory(f"{folder}/cache", verbose=0).cache(record)
    wrong: list[int] = []

    def work(number: int) -> None:
        order = list(range(30))
        random.Random(f"{seed}-{number}").shuffle(order)
        wrong.extend(key for key in order if cached(folder, key) != key * key)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    ready(folder)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(wrong, flush=True)


def record(folder: str, key: int) -> int:
    Path(folder, f"computed-{key}-{os.getpid()}-{threading.get_ident()}-{time.monotonic_ns()}").touch()
    time.sleep(0.001)
    return key * key


def map_slowly(folder: str, how: str) -> None:
    """A map of two hundred calls of 5 ms in worker processes."""
    memory = Memory(f"{folder}/cache", verbose=0)

    async def main() -> list[int]:
        return await pmap(slow, [folder] * 200, range(200), cache=memory, executor="process", n_jobs=2)

    ready(folder)
    if how == "pmap":
        results = asyncio.run(main())
    else:
        results = Parallel(n_jobs=2)(delayed(memory.cache(slow))(folder, x) for x in range(200))
    print(results == list(range(200)), flush=True)


def write_for_ever(folder: str) -> None:
    """Writes entries until it is killed."""
    cached = Memory(f"{folder}/cache", verbose=0).cache(make_array)
    ready(folder)
    number = 0
    while True:
        cached(number % 5, time.monotonic_ns())
        cached.call(number % 5)
        number += 1


def make_array(key: int, salt: int = 0) -> np.ndarray:
    return np.full(100_000, key)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
