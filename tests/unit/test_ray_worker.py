"""What a Ray worker keeps, without Ray."""

from __future__ import annotations

import sys

from asyncpar._child.ray_worker import Message, RayWorker


def message(word: str) -> Message:
    return Message(1, "r", 0, 0, [], None, word)


def test_a_batch_that_is_taken_back_does_not_run() -> None:
    worker = RayWorker()
    assert worker.stop("batch")
    assert worker.run(message("batch")) is None


def test_a_worker_does_not_keep_the_word_of_each_batch_that_was_cancelled_too_late() -> None:
    worker = RayWorker()
    words = [f"batch {number}" for number in range(1000)]
    before = sys.getrefcount(words[0])
    for word in words:
        assert worker.stop(word)
    after = sys.getrefcount(words[0])
    assert after == before
    assert worker.run(message(words[-1])) is None
