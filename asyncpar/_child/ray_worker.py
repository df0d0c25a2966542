"""The worker's side of Ray: an actor, which makes the calls of one batch after another.

It has two threads. One makes the calls, and the other one listens: a batch that was cancelled is taken back if it has not
begun, and makes no further call if it has. A call that goes on nevertheless is ended with its process, by the parent.

A call that outlives its timeout is ended with its process, too, and the worker sees to that itself, since it knows when the
call began. A third thread watches the control page. If a call is overdue, it leaves word which one it is, in the cluster's
table of keys and values, and kills the process. A call that never lets another thread run is ended a second later, by a timer
of faulthandler, without a word. The time before the first call, when the function is read and perhaps imports much, does not
count.

`pool_main.py` does the rest, as for all clusters.
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

from asyncpar._child.control import POSITION, RECEIVED, STOP, ControlPage, seconds_left
from asyncpar._child.pool_main import PoolAnswer, Server, run_in_actor, server_here
from asyncpar._memory.loans import MmapMode

CONTROL = "asyncpar"  # the concurrency group of the actor that `stop` is in
_MOST_TAKEN_BACK = 64  # far more than the two batches that an actor has at a time
_MORE_SECONDS = 1.0  # than its timeout, for a call that lets no other thread run


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
        word: names the batch, and is the key under which to leave word.
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
    """An actor. `stop` runs in another thread than `run`."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._running = ""  # the word of the batch
        self._taken_back: deque[str] = deque(maxlen=_MOST_TAKEN_BACK)  # some were over already, and never come
        self._server: Server | None = None
        self._watch: _Watch | None = None

    def introduce(self) -> Introduction:
        ray: Any = importlib.import_module("ray")
        processors = ray.cluster_resources().get("CPU", 0.0)
        return Introduction(own_version(), os.getpid(), ray.get_runtime_context().get_node_id(), processors)

    def run(self, message: Message, *kept: Any) -> PoolAnswer | None:
        """The answer; None: it was taken back."""
        if self._server is None:
            self._server = server_here()
            self._watch = _Watch(self._server.page)
        with self._changing:
            if message.word in self._taken_back:
                self._taken_back.remove(message.word)
                return None
            self._running = message.word
            self._server.page[STOP] = 0.0
        data = iter(kept)
        parts = [next(data) if part is None else part for part in message.parts]
        try:
            if message.timeout is None or self._watch is None:
                return self._run(message, parts)
            with self._watch.over(message.timeout, message.word):
                return self._run(message, parts)
        finally:
            with self._changing:
                self._running = ""

    def stop(self, word: str) -> bool:
        """Takes a batch back, or has it make no further call. Returns whether it certainly does not run."""
        with self._changing:
            if self._running != word:
                self._taken_back.append(word)
                return True
            assert self._server is not None, "it was made before anything ran"
            self._server.page[STOP] = 1.0
            self._server.server.cancel_coroutines()
            return False

    def _run(self, message: Message, parts: Sequence[Any]) -> PoolAnswer:
        return run_in_actor(message.program_id, message.mode, message.depth, message.program_parts, *parts)


class _Watch:
    """Ends the process when a call is overdue."""

    def __init__(self, page: ControlPage) -> None:
        self._page = page
        self._changed = threading.Condition()
        self._timeout: float | None = None  # of the calls of this batch; None: nothing is to be watched
        self._word = ""
        self._lives = False

    @contextmanager
    def over(self, timeout: float, word: str) -> Iterator[None]:
        with self._changed:
            self._page[POSITION] = RECEIVED
            self._timeout, self._word = timeout, word
            if not self._lives:
                self._lives = True
                threading.Thread(target=self._live, name="asyncpar-watch", daemon=True).start()
            self._changed.notify()
            self._set_timer(timeout)  # the other thread may never run
        try:
            yield
        finally:
            with self._changed:
                self._timeout = None
                faulthandler.cancel_dump_traceback_later()

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
                self._set_timer(left)
                self._changed.wait(left)

    def _set_timer(self, seconds: float) -> None:
        faulthandler.dump_traceback_later(seconds + _MORE_SECONDS, exit=True)


def _leave_word_and_die(word: str, position: int) -> NoReturn:
    internal_kv: Any = importlib.import_module("ray.experimental.internal_kv")
    try:
        internal_kv._internal_kv_put(word, str(position))
    finally:
        os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a process that has killed itself does not go on")
