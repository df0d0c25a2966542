"""Pauses of Python's garbage collector end, and change nothing that others have decided."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from asyncpar._platform.collector import CollectorPaused


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[tuple[int, int, int]]:
    before = gc.get_threshold()
    yield before
    gc.set_threshold(*before)
    gc.enable()


@contextmanager
def paused_in_a_thread() -> Iterator[None]:
    """Another thread pauses the collector for as long."""
    began, end = threading.Event(), threading.Event()

    def pause() -> None:
        with CollectorPaused():
            began.set()
            end.wait()

    thread = threading.Thread(target=pause)
    thread.start()
    began.wait()
    yield
    end.set()
    thread.join()


def test_the_collector_is_paused_until_the_last_pause_ends(thresholds: tuple[int, int, int]) -> None:
    with CollectorPaused():
        with CollectorPaused():
            assert gc.get_threshold()[0] > 10_000
        assert gc.get_threshold()[0] > 10_000
    assert gc.get_threshold() == thresholds


def test_pauses_in_several_threads_end_with_the_last(thresholds: tuple[int, int, int]) -> None:
    with ExitStack() as pauses:
        with CollectorPaused():
            pauses.enter_context(paused_in_a_thread())
        assert gc.get_threshold()[0] > 10_000
    assert gc.get_threshold() == thresholds


def test_what_is_decided_during_a_pause_stays() -> None:
    with CollectorPaused():
        gc.disable()
    assert not gc.isenabled()
    with CollectorPaused():
        gc.set_threshold(123, 4, 5)
    assert gc.get_threshold()[:2] == (123, 4)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_process_that_is_forked_during_a_pause_has_its_collector(thresholds: tuple[int, int, int]) -> None:
    with paused_in_a_thread():
        pid = os.fork()
        if not pid:
            with CollectorPaused():
                paused = gc.get_threshold()[0] > 10_000
            os._exit(0 if paused and gc.get_threshold() == thresholds else 1)
    assert os.waitpid(pid, 0)[1] == 0
