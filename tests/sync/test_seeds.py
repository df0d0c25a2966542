"""`seed=` in code that is not async: the same streams as in `pmap`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

import asyncpar
from asyncpar import Memory, Parallel, current_call, delayed
from tests.calls.seeded import NO_CALL, DrawsThenFails, all_drawn, draw, maps_within
from tests.functions import add
from tests.interpreters import with_interpreters

ITEMS = [3, 0, 7, 7, 1, 0, 0, 2]
DRAWN = all_drawn(11, ITEMS)


@pytest.mark.parametrize("executor", ["process", "thread", "inline", None, with_interpreters("interpreter")])
def test_a_blocking_map_draws_the_same(executor: str | None) -> None:
    assert list(asyncpar.map(draw, ITEMS, seed=11, executor=executor)) == DRAWN


@pytest.mark.parametrize("executor", ["inline", "thread"])
def test_a_retry_of_a_blocking_map_begins_anew(tmp_path: Path, executor: str) -> None:
    failing = DrawsThenFails(tmp_path, {2: 1, 5: 2})
    assert list(asyncpar.map(failing, range(8), seed=11, retries=2, executor=executor)) == all_drawn(11, range(8))


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("backend", ["process", "thread"])
def test_tasks_draw_by_their_place_in_the_iterable(n_jobs: int, backend: str) -> None:
    def calls_of(item: int, form: int) -> Any:
        if form == 0:
            return delayed(draw)(item)
        return delayed(draw)(item=item) if form == 1 else delayed(lambda item: draw(item))(item)

    parallel = Parallel(n_jobs, backend, seed=11)
    for forms in ([0] * 8, [1] * 8, [0, 1, 2, 1, 0, 0, 2, 1]):
        calls = [calls_of(item, form) for item, form in zip(ITEMS, forms, strict=True)]
        assert parallel(calls) == DRAWN
    assert parallel(delayed(draw)() for _ in range(4)) == [(None, *rest) for _, *rest in all_drawn(11, [None] * 4)]


def test_calls_of_tasks_within_a_call_have_no_stream_of_its() -> None:
    assert list(asyncpar.map(maps_within, [1, 2], seed=11)) == [[NO_CALL] * 5] * 2
    for n_jobs in (1, 2):
        assert Parallel(n_jobs, "thread", seed=11)(delayed(maps_within)(item) for item in (1, 2)) == [[NO_CALL] * 5] * 2


# Cached functions


@pytest.mark.filterwarnings("ignore::asyncpar.CacheWarning")
def test_cached_functions_are_refused(tmp_path: Path) -> None:
    memory = Memory(tmp_path, verbose=0)
    twin = memory.cache(add)
    caches: list[Any] = [{"cache": memory}, {}]
    for options in caches:
        with pytest.raises(ValueError, match="a cached function cannot have a seed"):
            asyncpar.map(twin, [1], [2], seed=1, **options)
    with pytest.raises(ValueError, match="a cached function cannot have a seed"):
        list(asyncpar.map(partial(twin, 1), [2], seed=1))
    for n_jobs in (1, 2):
        for calls in (
            [delayed(twin)(1, 2)],
            [delayed(partial(partial(twin), 1))(2)],
            [delayed(twin)(1, b=2)],
            [delayed(twin)(1, 2), delayed(add)(b=1, a=2)] * 9,
        ):
            with pytest.raises(ValueError, match="a cached function cannot have a seed"):
                Parallel(n_jobs, seed=1)(calls)


def test_a_memory_that_keeps_nothing_does_not_matter() -> None:
    assert list(asyncpar.map(draw, ITEMS, seed=11, cache=Memory(None, verbose=0))) == DRAWN


def test_a_map_in_a_call_has_streams_only_if_it_has_a_seed() -> None:
    def outer(item: int) -> list[Any]:
        before = current_call().rng
        inner = list(asyncpar.map(draw, [item], seed=5, executor="thread"))
        with pytest.raises(RuntimeError, match="a call of a map with a seed"):
            list(asyncpar.map(draw, [item], executor="thread"))
        assert current_call().rng is before
        return inner

    assert list(asyncpar.map(outer, [0, 1], executor="thread", seed=11)) == [all_drawn(5, [0]), all_drawn(5, [1])]
