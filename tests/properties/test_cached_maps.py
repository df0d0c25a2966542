"""Whatever is mapped in whatever order: results are those of a loop, and what succeeds is computed once for each key."""

from __future__ import annotations

import itertools
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncpar import Executor, InlineExecutor, Memory, ThreadExecutor, pmap
from asyncpar._run import answering, looking_up

pytestmark = pytest.mark.filterwarnings("ignore::asyncpar.CacheWarning")


@pytest.fixture(autouse=True, params=[16, 0], ids=["in the loop", "in threads"])
def few(request: pytest.FixtureRequest) -> Iterator[None]:
    """How many calls are looked up in the event loop."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(looking_up, "FEW", request.param)
        patch.setattr(answering, "_MOST_AHEAD", 7)
        yield


class Calls:
    """What is computed: how often each item fails before it succeeds is given."""

    def __init__(self, failures: dict[int, int]) -> None:
        self.failures = failures
        self.made: Counter[int] = Counter()
        self._lock = threading.Lock()

    def __call__(self, x: int, calls: Any = None) -> Any:
        with self._lock:
            self.made[x] += 1
            failing = self.made[x] <= self.failures.get(x, 0)
        if failing:
            raise ValueError(x)
        return x if x % 2 else [x]


def compute(x: int, calls: Calls) -> Any:
    return calls(x)


async def compute_awaited(x: int, calls: Calls) -> Any:
    await anyio.lowlevel.checkpoint()
    return calls(x)


def loop_over(items: list[int], cached: set[int], failures: dict[int, int], retries: int) -> tuple[list[Any], Counter[int]]:
    """The results of a loop that caches and retries, and how often it computes each item."""
    known, made, results = set(cached), Counter[int](), []
    for x in items:
        result: Any = ValueError(x)
        for _ in range(retries + 1):
            if x not in known:
                made[x] += 1
            if x in known or made[x] > failures.get(x, 0):
                known.add(x)
                result = x if x % 2 else [x]
                break
        results.append(result)
    return results, made


EXECUTORS: dict[str, Any] = {"inline": InlineExecutor, "thread": lambda: ThreadExecutor(3)}


@pytest.mark.parametrize("where", [*EXECUTORS, "the caller's loop"])
@settings(max_examples=60)
@given(
    items=st.lists(st.integers(0, 9), max_size=40),
    cached=st.sets(st.integers(0, 9)),
    damaged=st.sets(st.integers(0, 9)),
    expired=st.sets(st.integers(0, 9)),
    failures=st.dictionaries(st.integers(0, 9), st.integers(0, 3)),
    retries=st.integers(0, 2),
    buffersize=st.none() | st.integers(1, 9),
    ordered=st.booleans(),
    is_streamed=st.booleans(),
)
def test_results_are_those_of_a_loop_and_what_succeeds_is_computed_once(
    where: str,
    items: list[int],
    cached: set[int],
    damaged: set[int],
    expired: set[int],
    failures: dict[int, int],
    retries: int,
    buffersize: int | None,
    ordered: bool,
    is_streamed: bool,
) -> None:
    calls = Calls(failures)
    is_async = where == "the caller's loop"
    old: set[str] = set()

    def is_valid(metadata: dict[str, Any]) -> bool:
        return not (metadata["input_args"]["x"] in old and metadata["time"] < began[0])

    began = [float("inf")]
    with tempfile.TemporaryDirectory() as folder:
        memory = Memory(folder, verbose=0)
        options: Any = {"ignore": ["calls"], "cache_validation_callback": is_valid if expired else None}
        twin = memory.cache(compute_awaited if is_async else compute, **options)
        filler = Calls({})
        for x in cached:
            if is_async:
                anyio.run(twin, x, filler)
            else:
                twin(x, filler)
        damage(folder, twin, cached & damaged)
        old.update(str(x) for x in expired)
        began[0] = time.time()

        async def main() -> list[Any]:
            executor: Executor | None = None if is_async else EXECUTORS[where]()
            run: Any = pmap(
                twin,
                items,
                itertools.repeat(calls),
                executor=executor,
                retries=retries,
                buffersize=buffersize,
                ordered=ordered,
                on_error="return",
            )
            try:
                return [result async for result in run] if is_streamed else await run
            finally:
                if executor is not None:
                    await executor.aclose()

        results = anyio.run(main)
        expected, made = loop_over(items, cached - damaged - expired, failures, retries)
        if ordered:
            assert list(map(str, results)) == list(map(str, expected))
        assert sorted(map(str, results)) == sorted(map(str, expected))
        assert calls.made == made
        lists = [result for result in results if isinstance(result, list)]
        assert len({id(result) for result in lists}) == len(lists)
        for x in set(items):
            assert twin.check_call_in_cache(x, calls) == any(result in (x, [x]) for result in results)


def damage(folder: str, twin: Any, items: set[int]) -> None:
    shelf = twin._shelf
    for x in items:
        key = shelf.key((x, None), {}).hex()
        path = Path(shelf.folder, key[:2], key[2:])
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
