"""The worker's side of Ray: an actor, which makes the calls of one batch after another, in the main thread of its process.

Nothing but the end of its process ends a call for certain. So where calls have a timeout, a thread watches the control page. If
it finds a call overdue, it leaves word which one it is, in the cluster's table of keys and values, and kills the process. The
time before the first call, when the function is read and perhaps imports much, does not count.

`pool_main.py` does the rest, as for all clusters.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from asyncpar._child.control import POSITION, RECEIVED, ControlPage, seconds_left
from asyncpar._child.pool_main import PoolAnswer, control_page, run_in_cluster
from asyncpar._memory.loans import MmapMode


class Introduction(NamedTuple):
    """What a worker says of itself.

    Attributes:
        version: of asyncpar.
        node: where it runs.
        processors: how many the cluster has now.
    """

    version: str
    pid: int
    node: str
    processors: float


class Message(NamedTuple):
    """A batch.

    Attributes:
        program_parts: how many of the parts are the program's.
        parts: None stands for data that Ray keeps, which comes as an argument of its own.
        timeout: for each call.
        word: the key under which to leave word.
    """

    program_id: int
    mode: MmapMode
    depth: int
    program_parts: int
    parts: Sequence[Any]
    timeout: float | None
    word: str


def own_version() -> str:
    version: str = sys.modules["asyncpar"].__version__
    return version


class RayWorker:
    """An actor."""

    _watch: _Watch | None = None

    def introduce(self) -> Introduction:
        import ray

        processors = ray.cluster_resources().get("CPU", 0.0)
        return Introduction(own_version(), os.getpid(), ray.get_runtime_context().get_node_id(), processors)

    def run(self, message: Message, *kept: Any) -> PoolAnswer:
        data = iter(kept)
        parts = [next(data) if part is None else part for part in message.parts]
        if message.timeout is None:
            return self._run(message, parts)
        if self._watch is None:
            self._watch = _Watch(control_page())
        self._watch.begin(message.timeout, message.word)
        try:
            return self._run(message, parts)
        finally:
            self._watch.end()

    def _run(self, message: Message, parts: Sequence[Any]) -> PoolAnswer:
        return run_in_cluster(message.program_id, message.mode, message.depth, message.program_parts, *parts)


class _Watch:
    """Ends the process when a call is overdue."""

    def __init__(self, page: ControlPage) -> None:
        self._page = page
        self._changed = threading.Condition()
        self._timeout: float | None = None  # of the calls of this batch; None: nothing is to be watched
        self._word = ""
        threading.Thread(target=self._live, name="asyncpar-watch", daemon=True).start()

    def begin(self, timeout: float, word: str) -> None:
        with self._changed:
            self._page[POSITION] = RECEIVED
            self._timeout, self._word = timeout, word
            self._changed.notify()

    def end(self) -> None:
        with self._changed:
            self._timeout = None

    def _live(self) -> None:
        with self._changed:
            while True:
                if self._timeout is None:
                    self._changed.wait()
                    continue
                position = int(self._page[POSITION])  # before the time, as the control page wants it
                left = seconds_left(self._page, self._timeout)
                if left <= 0:
                    _leave_word_and_die(self._word, position)
                self._changed.wait(left)


def _leave_word_and_die(word: str, position: int) -> NoReturn:
    from ray.experimental import internal_kv

    try:
        internal_kv._internal_kv_put(word, str(position))
    finally:
        os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a process that has killed itself does not go on")
