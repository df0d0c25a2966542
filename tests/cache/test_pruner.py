"""The thread that prunes a store: at most one, which others may wait for at any time."""

from __future__ import annotations

import threading

import pytest

from asyncpar._cache.pruner import Pruner


def test_threads_that_start_and_wait_at_once_share_one_pruning() -> None:
    pruner = Pruner()
    running: list[int] = []
    most: list[int] = []

    def prune() -> None:
        running.append(1)
        most.append(len(running))
        running.pop()

    def work() -> None:
        for _ in range(300):
            pruner.start(prune)
            pruner.wait()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pruner.wait()
    assert set(most) == {1}


def test_without_a_thread_it_is_done_by_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    pruner = Pruner()
    pruned: list[int] = []
    pruner.start(lambda: pruned.append(1))
    pruner.wait()
    assert pruned == [1]
