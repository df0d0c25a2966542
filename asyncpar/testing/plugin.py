"""The fixture that `pytest_plugins = ["asyncpar.testing"]` brings."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from asyncpar.testing.leftovers import belongings, busy_threads, join_new_threads, left_since


@pytest.fixture
def nothing_is_left_behind(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails a test that leaves a process, thread, descriptor or file behind. (For a task that is left behind, its event loop
    warns; turn warnings into errors.)
    """
    temporary = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setenv("TMPDIR", str(temporary))
    before = belongings(temporary)
    threads = busy_threads()
    yield
    had_threads = not busy_threads() <= threads  # first: they may end while garbage is collected
    gc.collect()
    if had_threads or not busy_threads() <= threads:
        join_new_threads(threads)
        gc.collect()  # what these threads held
    left = left_since(before, temporary)
    assert not left, f"the test left behind: {left}"
