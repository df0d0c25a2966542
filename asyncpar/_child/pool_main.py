"""Runs in the workers of pools that are not ours: one batch per task, of any run.

A task contains its program's number and the message of a batch. The program itself is in the message only if it is small, or if
this worker has said that it does not know it (`UNKNOWN`). So a large function goes once to each worker (or to each place at
the beginning of a run), although it is not known beforehand which worker takes a task.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TypeAlias

from asyncpar._child.batch_server import BatchServer, failure
from asyncpar._child.control import private_page
from asyncpar._child.protocol import BATCH
from asyncpar._platform.nesting import context_of_a_pool_worker
from asyncpar._wire.decoder import Decoder
from asyncpar._wire.frames import Frame

UNKNOWN = 0  # instead of a kind of frame
_KEPT_PROGRAMS = 64  # the most recently used ones; others are requested again

PoolAnswer: TypeAlias = tuple[int, bytes, list[bytearray], str]  # kind of frame, payload, buffers, name of the worker

_here = threading.local()  # a pool may run several tasks in the threads of one process


class _Server:
    """The batch server of one thread, and the programs that it knows, in the order of their last use."""

    def __init__(self) -> None:
        self.server = BatchServer(private_page(), None)
        self._used: deque[int] = deque()

    def note_use(self, program_id: int) -> None:
        if program_id in self._used:
            self._used.remove(program_id)
        self._used.append(program_id)
        if len(self._used) > _KEPT_PROGRAMS:
            self.server.forget((self._used.popleft(),))


def run_in_pool(program_id: int, has_program: bool, depth: int, payload: bytes, buffers: list[bytearray]) -> PoolAnswer:
    """Makes the calls of one batch."""
    worker = getattr(_here, "worker", None)
    if worker is None:
        worker = _here.worker = _Server()
    who = f"pool worker {os.getpid()}"
    server = worker.server
    if not has_program and not server.knows(program_id):
        return UNKNOWN, b"", [], who
    worker.note_use(program_id)
    try:
        answer = context_of_a_pool_worker(depth).run(server.answer, Decoder(Frame(BATCH, payload, buffers)), lends=False)
    except BaseException as error:  # raised by reading the function: the run cannot go on
        answer = failure(error)
    return answer.kind, bytes(answer.payload), [bytearray(buffer) for buffer in answer.buffers], who
