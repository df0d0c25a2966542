"""Arguments in shared memory are copied once, whatever packs them at the same time."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from asyncpar._child.control import make_nameless_file
from asyncpar._contract.batches import Batch
from asyncpar._contract.executor import Program
from asyncpar._memory.blocks import Area
from asyncpar._memory.placer import Placer
from asyncpar._processes.parcel import PickledProgram, ProcessParcel, SentProgram


class Together:
    """A lock that nobody gets before so many have asked for it."""

    def __init__(self, many: int) -> None:
        self._barrier = threading.Barrier(many)
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._barrier.wait()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_an_array_that_two_threads_pack_at_once_is_copied_once_and_was_there_once() -> None:
    area: Any = Area(make_nameless_file(0), 0, 1 << 24, lambda: None)
    area.copying = Together(2)  # neither has found a copy before
    placer = Placer(lambda: area, 1 << 16)
    sent = SentProgram(len, (0, False, None, 1 << 16, "r"), 1, None)
    pickled = PickledProgram(Program(len), sent, placer)
    array = np.zeros(1 << 17, np.uint8)
    parcels = [ProcessParcel(pickled, Batch(range(x, x + 1), ([array],)), 1.0) for x in range(2)]
    threads = [threading.Thread(target=parcel.finish) for parcel in parcels]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    frames = [parcel.frame(pickles_read=1, news=None) for parcel in parcels]
    assert frames[0].buffers == frames[1].buffers
    assert pickled.hits == 1
    area.close()
