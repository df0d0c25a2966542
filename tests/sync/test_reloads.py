"""A `Parallel` call after a module was reloaded gets the new code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncpar import Parallel, delayed
from tests.reloaded import NEW, WAYS, Source, make_source


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    yield from make_source(tmp_path, monkeypatch)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("load_again", [Source.reload, Source.import_anew])
def test_a_parallel_call_gets_the_new_code(source: Source, way: Any, load_again: Callable[[Source], None]) -> None:
    with Parallel(n_jobs=2, batch_size=1) as parallel:
        assert parallel(delayed(way(source))(x) for x in (1, 2)) == [("old", 1), ("old", 2)]
        source.write(NEW)
        load_again(source)
        assert parallel(delayed(way(source))(x) for x in (1, 2)) == [("new", 1), ("new", 2)]
