"""A worker's side of the shared memory (`_memory/loans.py`): arguments that it borrows, and results that it lends.

The mappings of a batch are kept until the next batch has been read, or until the worker is told to rest. So an object that many
calls share is mapped once, and not once for each batch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from mmap import mmap

from asyncpar._basics.notes import add_note
from asyncpar._memory.blocks import Area, Block
from asyncpar._memory.buffers import Buffer
from asyncpar._memory.loans import RESULTS, Loans, Mappings, MmapMode, map_ledgers
from asyncpar._wire.decoder import Decoder
from asyncpar._wire.frames import Frame


class SharedMemory:
    """The shared memory of one worker process: its own file, and the file with the arguments for all workers."""

    def __init__(self, file_fd: int, arguments_fd: int) -> None:
        self._arguments_fd = arguments_fd
        arguments, results = map_ledgers(file_fd)
        self._mappings = Mappings(arguments_fd, arguments)
        self._loans = Loans(results)
        self._area = Area(file_fd, RESULTS, RESULTS, self._loans.collect)
        self._placer: _ResultPlacer | None = None

    @property
    def borrows(self) -> bool:
        """Whether anything that the parent lends is in use here."""
        return self._mappings.in_use

    def leave_to_original(self) -> None:
        """In a forked copy of the worker: existing mappings stay, and no more can be made."""
        self._area.leave_to_original()
        os.close(self._arguments_fd)

    def begin_batch(self, decoder: Decoder, mode: MmapMode) -> list[mmap]:
        """Lets the decoder read what the parent lends. Keep the return value until then: it holds the last batch's mappings."""
        decoder.map_shared = partial(self._mappings.map_again, mode=mode)
        decoder.map_private = partial(self._mappings.map, mode="c")
        return self.let_go()

    def let_go(self) -> list[mmap]:
        """Stops keeping the mappings of the last batch. Only the return value still holds them."""
        return self._mappings.let_go()

    def limit_results(self, most_bytes: int) -> None:
        """Limits the results that are lent at once to `most_bytes`."""
        self._area.limit(RESULTS + most_bytes)

    def placer_from(self, threshold: int) -> _ResultPlacer:
        """Takes results of `threshold` bytes or more, as long as there is room."""
        if self._placer is None or self._placer.threshold != threshold:
            self._placer = _ResultPlacer(self._area, threshold)
        return self._placer

    def lend(self, frame: Frame) -> Frame:
        """The frame as it is sent, with its blocks lent to the parent."""
        return frame._replace(buffers=self._loans.lend_all(frame.buffers)) if frame.buffers else frame

    def explain(self, errors: dict[int, BaseException], mode: MmapMode) -> None:
        """Adds a note to errors that come from writing to what is only lent."""
        if mode == "r" and self.borrows:
            _explain_read_only(errors)

    def rest(self, *, thoroughly: bool) -> None:
        """There is nothing to do now: drops all mappings. `thoroughly`: also frees memory that nobody has borrowed."""
        self.let_go()
        if thoroughly:
            self._loans.collect()
            while self._area.trim():
                pass


def _explain_read_only(errors: dict[int, BaseException]) -> None:
    for error in errors.values():
        message = error.args[0] if type(error) is ValueError and error.args else None
        if type(message) is str and message.endswith(" is read-only"):  # numpy's message for an array
            add_note(
                error,
                "large arguments are shared between workers, and read-only; "
                'mmap_mode="c" gives each call a copy that is made when it is written to',
            )


class _ResultPlacer:
    holds_results = True
    shows_views = False

    def __init__(self, area: Area, threshold: int) -> None:
        self._area = area
        self.threshold = threshold

    def find(self, data: memoryview, /) -> Block | None:
        return None

    def __call__(self, data: memoryview, /) -> Block | None:
        return self._area.copy(data)

    def copy(self, pieces: Sequence[Buffer], /) -> Block | None:
        return self._area.copy(*pieces)
