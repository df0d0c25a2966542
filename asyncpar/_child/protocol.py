"""The messages between parent, zygote and worker. Both sides import this module and nothing else of each other. A worker is a
process or an interpreter.

Parent and worker exchange frames (`_wire/frames.py`), strictly in turn. SETUP is answered by READY or FAILED. Each BATCH is
answered by DONE, by LAST (the worker has reached its limits and is to be dropped), by FAILED, or by INTERRUPTED (an interpreter
was interrupted between two calls, and what they returned is lost). Only FORGET has no answer.

Batches of coroutine calls do not take turns. Each is sent as BESIDE, with a ticket, and runs beside the others in the worker's
event loop (`event_loop.py`). Its answers have the same ticket: any number of PARTs, with the outcomes that are there, and then
one of DONE, LAST and FAILED. CANCEL, with a ticket and nothing else, cancels the calls of a batch, which is answered all the
same. A BATCH may come only when no other batch is under way.

Parent and zygote exchange records of fixed size over the control socket. A FORK record carries three descriptors: the worker's
end of its channel, its own file (control page, ledgers and results, `_memory/loans.py`), and the executor's file of arguments.
The zygote's first record is STARTED: it has preloaded, and is ready. At the end of a worker it reports that the worker EXITED
(in whatever way), was KILLED because the parent said so, or could not be started (NOT_FORKED).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from asyncpar._memory.buffers import Shared
from asyncpar._memory.loans import MmapMode
from asyncpar._wire.codec import EncodedColumn, EncodedElements
from asyncpar._wire.failures import PackedError
from asyncpar._wire.frames import Frame

# Kinds of frames between parent and worker
SETUP, READY, BATCH, DONE, LAST, FAILED, FORGET, INTERRUPTED, BESIDE, PART, CANCEL = range(1, 12)


class CallInterrupted(BaseException):
    """Is raised in the calls of an interpreter that are to end."""


# Messages are plain tuples, which pickle three times as fast as named ones.

# SETUP: the parent's surroundings at the moment of the request, which are working directory (None if it has been removed),
# environment, sys.path and sys.argv; the initializer, a column of one callable without arguments, or None; how many calls the
# worker may make, how many bytes it may hold (None: any number), how deep in workers it is, the key of multiprocessing, if
# that is loaded, the index of the worker, the number of the parent's process, and the modules to import before anything else.
Setup: TypeAlias = tuple[
    str | None,
    dict[str, str],
    list[str],
    list[str],
    EncodedElements | None,
    int | None,
    int | None,
    int,
    bytes | None,
    int,
    int,
    tuple[str, ...],
]

# A program's options: calls under way at once (0 for a plain function), whether to stop at an error, the timeout of a call,
# from how many bytes on buffers of results are shared, and how arguments in shared memory are mapped.
ProgramOptions: TypeAlias = tuple[int, bool, float | None, int, MmapMode]

# News for this worker: ids of programs to forget, how many bytes of results it may share at once, and the key of
# multiprocessing, if that is loaded.
News: TypeAlias = tuple[tuple[int, ...], int, bytes | None]

# BATCH and BESIDE: calls to run. The id of the program; its function with what it brings, a column of one, and its options, if
# this worker has not seen it; the pickles of more definitions (`_wire/definitions.py`) that it has not seen; the news, if there
# are any; the time budget of the batch in seconds; whether the run is near its end; the manner in which results are to be
# pickled (`_wire/codec.py`); and the columns.
BatchMessage: TypeAlias = tuple[
    int,
    tuple[EncodedElements, ProgramOptions] | None,
    list[bytes],
    News | None,
    float,
    bool,
    int,
    tuple[EncodedColumn, ...],
]

# FORGET: ids of programs to forget between two batches. If there are none, there may be nothing to do for a while, and the
# worker gives back its shared memory.

# DONE, LAST and PART: what `run_batch` reported. The values as a column, the packed errors by position, and the timings;
# whether arguments could not be read whole, so that the next ones are to be pickled one by one; and, if these are not the
# outcomes of the first calls of the batch, the positions of the calls that they are of, and of those that have not started.
DoneMessage: TypeAlias = tuple[
    EncodedColumn, dict[int, PackedError], list[tuple[int, float]], bool, tuple[list[int], list[int]] | None
]


# A PART has the positions of its calls once more as its last buffer, because the parent needs them before it reads the rest.


def with_positions(part: Frame, positions: Sequence[int]) -> Frame:
    """The frame of a PART, with the positions of its calls."""
    return part._replace(buffers=[*part.buffers, struct.pack(f"{len(positions)}I", *positions)])


def positions_of(part: Frame) -> list[int]:
    """The positions of the calls whose outcomes a PART has."""
    packed = part.buffers[-1]
    assert not isinstance(packed, Shared), "they are not lent"
    return memoryview(packed).cast("B").cast("I").tolist()


FORK, KILL, STARTED, EXITED, KILLED, NOT_FORKED = range(1, 7)  # kinds of records between parent and zygote
ZYGOTE_MARK = "ASYNCPAR_ZYGOTE"  # in the environment in which a zygote is started: which socket is the control socket

_INT = struct.Struct("i")
_RECORD = struct.Struct("<BxxxIQqqQ")
RECORD_SIZE = _RECORD.size


class Record(NamedTuple):
    """One message to or from the zygote. `code` is a wait status or an errno; `peak_memory` is in bytes."""

    kind: int
    worker_id: int
    pid: int = 0
    code: int = 0
    peak_memory: int = 0

    def pack(self) -> bytes:
        return _RECORD.pack(self.kind, 0, self.worker_id, self.pid, self.code, self.peak_memory)


def attach(descriptors: Sequence[int]) -> list[tuple[int, int, bytes]]:
    """Ancillary data that sends descriptors. (`socket.send_fds` imports a module each time, and may find the user's.)"""
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(descriptors)}i", *descriptors))] if descriptors else []


def receive_with_descriptors(sock: socket.socket, size: int, most_descriptors: int) -> tuple[bytes, list[int], bool]:
    """Data, the descriptors that came with it, and whether there were more."""
    data, attached, flags, _ = sock.recvmsg(size, socket.CMSG_LEN(most_descriptors * _INT.size))
    descriptors: list[int] = []
    for level, kind, content in attached:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            whole = len(content) // _INT.size * _INT.size
            descriptors += [descriptor for (descriptor,) in _INT.iter_unpack(content[:whole])]
    return data, descriptors, bool(flags & socket.MSG_CTRUNC)


def unpack_records(data: bytes) -> tuple[list[Record], bytes]:
    """The whole records in `data`, and the bytes of one that is still on its way."""
    whole = len(data) // RECORD_SIZE * RECORD_SIZE
    records = []
    for kind, _, worker_id, pid, code, peak_memory in _RECORD.iter_unpack(data[:whole]):
        records.append(Record(kind, worker_id, pid, code, peak_memory))
    return records, data[whole:]
