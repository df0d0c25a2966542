"""An interpreter's side of the memory that the program shows it: large arguments, which it sees where they lie.

Their views come through a queue of the two interpreters, in the order in which messages name them, and nothing is copied. A
view keeps its memory in the program, for as long as it lives here. Results are not shown in return: the memory of an
interpreter that has been closed is never freed while somebody views it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from asyncpar._basics.notes import add_note
from asyncpar._memory.buffers import Shared
from asyncpar._memory.loans import NOWHERE, MmapMode
from asyncpar._wire.decoder import Decoder
from asyncpar._wire.frames import Frame

_REFUSAL = "does not support loading in subinterpreters"  # "module …" comes before
_REFUSALS = (  # of modules whose C code can be loaded only once in a process: of CPython, and of Cython
    _REFUSAL,
    "cannot load module more than once per process",
    "Interpreter change detected",
)


class ShownMemory:
    """Takes views out of the queue. `queue_id`: of a `concurrent.interpreters.Queue`."""

    def __init__(self, queue_id: int) -> None:
        self._queue_id = queue_id
        self._queue: Any = None
        self._placer = _Results()

    def begin_batch(self, decoder: Decoder, mode: MmapMode) -> None:
        taken: dict[int, memoryview] = {}  # {number of a view: it}: what cannot be read whole is read again
        decoder.map_shared = partial(self._map, taken, mode)
        decoder.map_private = partial(self._map, taken, "r")  # only pickles of whole columns, which are read and dropped

    def _map(self, taken: dict[int, memoryview], mode: MmapMode, shared: Shared) -> memoryview:
        if shared.serial not in taken:
            taken[shared.serial] = self._take(shared.serial)
        view = taken[shared.serial]
        if mode == "r+":
            return view
        return view.toreadonly() if mode == "r" else memoryview(bytearray(view))

    def _take(self, number: int) -> memoryview:
        """The view that a message names. What has come before it belongs to messages that were not sent."""
        if self._queue is None:
            from concurrent.interpreters import Queue  # takes 5 ms, and many workers never need it

            self._queue = Queue(self._queue_id)
        serial, view = -1, memoryview(b"")
        while serial != number:
            serial, view = self._queue.get_nowait()
        return view

    def let_go(self) -> None:
        """Nothing is kept from batch to batch."""

    def limit_results(self, most_bytes: int) -> None:
        """Results are copied, however many they are."""

    def placer_from(self, threshold: int) -> _Results:
        return self._placer

    def lend(self, frame: Frame) -> Frame:
        return frame

    def explain(self, errors: dict[int, BaseException], mode: MmapMode) -> None:
        """Adds notes to errors that come from what is different here."""
        for error in errors.values():
            if type(error) is TypeError and error.args == ("cannot modify read-only memory",) and mode == "r":
                add_note(error, 'large arguments are shown as they lie in the program, and read-only unless mmap_mode="r+"')
            elif isinstance(error, ImportError) and (module := _refused_module(error)) is not None:
                what = f"the module {module!r}" if module else "a module that it needs"
                add_note(
                    error,
                    f"{what} has C code that can be loaded only in the main interpreter of a process, and this call ran in "
                    'another one; use executor="process"',
                )

    def rest(self, *, thoroughly: bool) -> None:
        """There is nothing to give back."""


class _Results:
    """The placer of results: all of them travel with the message."""

    threshold = NOWHERE
    holds_results = True
    shows_views = True

    def find(self, data: object, /) -> None:
        return None

    def __call__(self, data: object, /) -> None:
        return None

    def copy(self, pieces: object, /) -> None:
        return None


def _refused_module(error: BaseException) -> str | None:
    """The module that cannot be loaded here, if that is what an import has failed with; "": which one is not known."""
    cause: BaseException | None = error
    while cause is not None:
        message = str(cause) if isinstance(cause, ImportError) else ""
        if any(refusal in message for refusal in _REFUSALS):
            return message.partition(_REFUSAL)[0].split()[-1] if _REFUSAL in message else ""
        cause = cause.__cause__ or cause.__context__
    return None
