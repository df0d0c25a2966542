"""Large data goes to an engine once, and from then on tasks refer to it.

A buffer of a run is found again as in shared memory (`_memory/placer.py`): an array by its identity, for as long as it lives,
and other memory for as long as a batch that needs it is on its way. What is found is its *spot*, which has the engine's
reference once there is one. The first batch that is sent puts the data there, and the others wait for that.

Each batch holds the data as well as the spot. So when an engine loses what it keeps, the reference is dropped, and the batch
that is sent next puts the data there once more.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import anyio

from asyncpar._child.pool_main import Box
from asyncpar._engines.engine import Engine
from asyncpar._memory.buffers import Buffer, Elsewhere
from asyncpar._memory.placer import Copied
from asyncpar._wire.codec import OUT_OF_BAND_BYTES
from asyncpar._wire.pace import Breaths, join


class Spot:
    """Where an engine keeps one buffer. `reference`: the engine's, or None if it does not keep it now."""

    __slots__ = ("__weakref__", "length", "putting", "reference")

    def __init__(self, length: int) -> None:
        self.length = length
        self.reference: Any = None
        self.putting: anyio.Lock | None = None  # made in the event loop


class Placed(Elsewhere):
    """A buffer of a batch that an engine keeps, or is to keep."""

    __slots__ = ("data", "spot")

    def __init__(self, data: Buffer, spot: Spot, *, was_there: bool) -> None:
        super().__init__(was_there=was_there)
        self.data = data
        self.spot = spot

    def __len__(self) -> int:
        return self.spot.length

    async def refer(self, engine: Engine) -> tuple[Any, int]:
        """The engine's reference, and how many bytes were put there for it."""
        spot = self.spot
        if spot.putting is None:
            spot.putting = anyio.Lock()
        async with spot.putting:
            if spot.reference is not None:
                return spot.reference, 0
            spot.reference = await engine.put(self.data)
            return spot.reference, spot.length


def place(data: Buffer) -> Placed:
    """Data that will not be looked up."""
    return Placed(data, Spot(len(data)), was_there=False)


def boxed(parts: Sequence[Any], reference: type) -> list[Any]:
    """The parts as clusters take them. `reference`: the type of those that stand for data which the engine keeps."""
    return [
        part
        if isinstance(part, reference) or (type(part) is bytes and len(part) < OUT_OF_BAND_BYTES)
        else Box(part, is_kept=False)
        for part in parts
    ]


class EnginePlacer:
    """Has the engine keep the buffers of one run that have `threshold` bytes or more. Nothing is copied here."""

    holds_results = False
    shows_views = False

    def __init__(self, threshold: int) -> None:
        self.threshold = threshold
        self._spots: Copied[Spot] = Copied()
        self._looking = threading.Lock()  # otherwise two threads would make two spots for the same object

    def find(self, data: memoryview, /) -> Placed:
        with self._looking:
            spot = self._spots.find(data)
            if spot is not None:
                return Placed(data, spot, was_there=True)
            spot = Spot(data.nbytes)
            self._spots.remember(data, spot)
            return Placed(data, spot, was_there=False)

    __call__ = find

    def copy(self, pieces: Sequence[Buffer], /) -> Placed:
        return place(join(list(pieces), Breaths()))

    def forget(self) -> None:
        """The run is over, so its objects need not be recognised any more."""
        self._spots.forget()
