"""What becomes of a batch whose overdue call was interrupted: only that call fails, wherever the interruption has hit."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from asyncpar import CallTimeoutError
from asyncpar._child.control import NUMBERS
from asyncpar._child.interrupter import Interrupter
from asyncpar._child.protocol import CallInterrupted
from asyncpar._contract.batches import Batch, BatchDone, check_complete
from asyncpar._contract.executor import Program
from asyncpar._interpreters.worker import without_interrupted
from asyncpar._processes.parcel import PickledProgram, ProcessParcel, SentProgram

OPTIONS = (0, False, 1.0, 0, None)


def outcome(values: list[Any], hit: int | None, overdue: int, *, size: int = 6, concurrency: int = 0) -> BatchDone:
    """Of a batch of `size` calls, `values` came back, and an interruption has hit the call at `hit`."""
    batch = Batch(range(size), (list(range(size)),))
    program = PickledProgram(Program(abs, concurrency, False, 1.0), SentProgram(abs, OPTIONS, 1, None), None)
    errors: dict[int, BaseException] = {} if hit is None else {hit: CallInterrupted()}
    timings = [(1, 0.1)] * len(values)
    if hit is not None and hit > overdue:  # it was counted with the one before it
        timings = [*timings[:-2], (2, 0.1)]
    came_back = BatchDone(batch, values, errors, timings, "worker", batch.rest(len(values)))
    done = without_interrupted(came_back, range(overdue, overdue + 1), ProcessParcel(program, batch, 1.0))
    check_complete(len(batch), done, "InterpreterExecutor")
    return done


@pytest.mark.parametrize(("values", "hit"), [([0, 1, None], 2), ([0, 1, 2], None), ([0, 1, 2, None], 3)])
def test_the_overdue_call_times_out_whatever_was_hit(values: list[Any], hit: int | None) -> None:
    done = outcome(values, hit, 2)
    assert done.values == [0, 1, None]
    assert list(done.errors) == [2]
    assert isinstance(done.errors[2], CallTimeoutError)
    assert [index for part in done.rest for index in part.indices] == [3, 4, 5]


def test_a_call_that_was_hit_instead_is_run_again() -> None:
    done = outcome([0, 1, 2, None], 3, 2)
    assert [part.attempts for part in done.rest] == [2, 1]


def test_a_hit_beyond_the_last_call_is_nothing() -> None:
    done = outcome([0, 1, None], 2, 1, size=2)
    assert (done.values, list(done.errors), done.rest) == ([0, None], [1], ())


def test_of_overlapping_calls_the_one_that_was_hit_times_out() -> None:
    done = outcome([0, None, 2], 1, 0, size=3, concurrency=3)
    assert (done.values, list(done.errors), done.rest) == ([0, None, 2], [1], ())


class Hitting:
    """A lock with which an interruption hits the thread that has waited for it, just when it has got it."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self.release = lock.release
        self._hits = 1

    def __enter__(self) -> None:
        self._lock.acquire()
        if self._hits:
            self._hits -= 1
            raise CallInterrupted

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_an_interruption_that_hits_the_end_of_a_batch_leaves_no_lock_behind() -> None:
    near_end, far_end = socket.socketpair()
    with near_end:
        interrupter = Interrupter(far_end, memoryview(bytearray(8 * NUMBERS)).cast("d"), lambda: False)
        try:
            lock = interrupter._lock
            interrupter._lock = Hitting(lock)  # type: ignore[assignment]
            interrupter.begin()
            interrupter.end()
            interrupter._lock = lock
            with ThreadPoolExecutor(1) as other:
                assert other.submit(lock.acquire, blocking=False).result()
                other.submit(lock.release).result()
        finally:
            interrupter.close()
