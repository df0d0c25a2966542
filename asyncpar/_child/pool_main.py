"""Runs in the workers of pools and clusters that are not ours: one batch per task, of any run.

A task contains its program's number and the parts of a message: the pickle, and the buffers that it refers to. The program is
in a message of its own. It is there if it is small, if the engine keeps it, so that it travels once to each worker, or if this
worker has said that it does not know it (`UNKNOWN`). So a large function goes once to each worker (or to each place at the
beginning of a run), although it is not known beforehand which worker takes a task.

A worker keeps the programs that it used last. Where an engine keeps one copy of its data for all tasks of a process, the
program lives with it instead, and goes when the engine drops that: after the run.

Clusters pass data on in *boxes*. A cluster keeps what is in one and hands it to several tasks, which may run at the same time
in the same process. So the data is shown read-only there, unless the user wants a copy.
"""

from __future__ import annotations

import os
import pickle
import platform
import sys
import threading
from collections.abc import Sequence
from typing import Any, TypeAlias

from asyncpar._child.batch_server import BatchServer, Program, failure
from asyncpar._child.control import ControlPage, private_page
from asyncpar._child.protocol import BATCH
from asyncpar._memory.buffers import Buffer
from asyncpar._memory.loans import MmapMode
from asyncpar._platform.nesting import context_of_a_pool_worker
from asyncpar._wire.decoder import Decoder
from asyncpar._wire.frames import Frame

UNKNOWN = 0  # instead of a kind of frame
_KEPT_PROGRAMS = 64  # the most recently used ones; others are requested again
_KEPT_BYTES = 1 << 27  # of all of them, as they came, unless one alone has more; a guess

PoolAnswer: TypeAlias = tuple[int, Any, list[Any], str]  # kind of frame, payload, buffers, name of the worker

_here = threading.local()  # a pool may run several tasks in the threads of one process


class Server:
    """The batch server of one thread, its control page, and the programs that it keeps."""

    def __init__(self) -> None:
        self.page: ControlPage = private_page()
        self.server = BatchServer(self.page, None)
        self._sizes: dict[int, int] = {}  # {program id: bytes}, in the order of their last use

    def note_use(self, program_id: int, size: int) -> None:
        """`size`: of a program that is new; otherwise, what is known is right."""
        sizes = self._sizes
        sizes[program_id] = sizes.pop(program_id, size)
        while len(sizes) > 1 and (len(sizes) > _KEPT_PROGRAMS or sum(sizes.values()) > _KEPT_BYTES):
            oldest = next(iter(sizes))
            del sizes[oldest]
            self.server.forget((oldest,))


def run_in_pool(
    program_id: int, program: Sequence[Buffer] | None, mode: MmapMode, depth: int, parts: Sequence[Buffer]
) -> PoolAnswer:
    """Makes the calls of one batch. `mode`: how data in boxes is shown."""
    kind, payload, buffers = _run(program_id, program, mode, depth, parts)
    return kind, bytes(payload), [bytearray(buffer) for buffer in buffers], f"pool worker {os.getpid()}"


def run_in_cluster(program_id: int, mode: MmapMode, depth: int, program_parts: int, *parts: Any) -> PoolAnswer:
    """The same, with results in boxes. The first parts are the program's: a cluster sees only what is an argument itself.

    What the cluster keeps is in one box for all tasks of this process.
    """
    program = parts[:program_parts] or None
    keeper = next((part for part in program or () if type(part) is Box and part.is_kept), None)
    return _in_boxes(_run(program_id, program, mode, depth, parts[program_parts:], keeper))


def run_in_actor(program_id: int, mode: MmapMode, depth: int, program_parts: int, *parts: Any) -> PoolAnswer:
    """The same where each task has boxes of its own."""
    return _in_boxes(_run(program_id, parts[:program_parts] or None, mode, depth, parts[program_parts:]))


def _in_boxes(answer: tuple[int, Buffer, Sequence[Any]]) -> PoolAnswer:
    kind, payload, buffers = answer
    worker = f"worker {os.getpid()} on {platform.node()}"
    return kind, Box(payload, is_kept=False), [Box(buffer, is_kept=False) for buffer in buffers], worker


def _run(
    program_id: int,
    program: Sequence[Any] | None,
    mode: MmapMode,
    depth: int,
    parts: Sequence[Any],
    keeper: Box | None = None,
) -> tuple[int, Buffer, Sequence[Any]]:
    """`keeper`: the box that keeps the program, once it has been read."""
    worker = server_here()
    server = worker.server
    if keeper is not None and worker in keeper.programs:
        server.adopt(program_id, keeper.programs[worker])
    if program is None and not server.knows(program_id):
        return UNKNOWN, b"", []
    if keeper is None:
        worker.note_use(program_id, sum([_size_of(part) for part in program or ()]))
    run = context_of_a_pool_worker(depth).run
    try:
        if not server.knows(program_id):
            assert program is not None, "else it was asked for"
            run(server.take_on, program_id, _decoder(program, mode))
        answer = run(server.answer, _decoder(parts, mode), lends=False)
    except BaseException as error:  # raised by reading the function: the run cannot go on
        answer = failure(error)
    finally:
        if keeper is not None and server.knows(program_id):
            keeper.programs[worker] = server.release(program_id)
    return answer.kind, answer.payload, answer.buffers


def _size_of(part: Any) -> int:
    return part.data.nbytes if type(part) is Box else len(part)


def server_here() -> Server:
    """That of this thread."""
    worker: Server | None = getattr(_here, "worker", None)
    if worker is None:
        worker = _here.worker = Server()
    return worker


def _decoder(parts: Sequence[Any], mode: MmapMode) -> Decoder:
    payload, *buffers = [part.shown(mode) if type(part) is Box else part for part in parts]
    return Decoder(Frame(BATCH, payload, buffers))


class Box:
    """Data on its way through a cluster, which pickle hands out as a buffer.

    Attributes:
        is_kept: several tasks may see it.
        programs: those that were read from it, for each thread that has done so.
    """

    __slots__ = ("data", "is_kept", "programs")

    def __init__(self, data: Any, is_kept: bool) -> None:
        self.data = memoryview(data).cast("B")
        self.is_kept = is_kept
        self.programs: dict[Server, Program] = {}

    def shown(self, mode: MmapMode) -> memoryview:
        """The data as a call sees it."""
        if self.is_kept:
            return self.data.toreadonly() if mode == "r" else memoryview(bytearray(self.data))
        return memoryview(bytearray(self.data)) if self.data.readonly else self.data

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Box, (pickle.PickleBuffer(self.data) if protocol >= 5 else bytes(self.data), self.is_kept)

    def __sizeof__(self) -> int:
        """Clusters ask for it, to know how much memory they use."""
        return sys.getsizeof(b"") + self.data.nbytes
