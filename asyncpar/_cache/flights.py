"""One computation for each key in this process: the first to ask begins a flight, and the others wait for it to land.

A flight does not belong to the caller that began it. In the async door it is a task of the event loop; callers may be cancelled
one by one, and only when the last one has left is the computing cancelled. In the sync door it is the thread of the first
caller, which waits anyway.

# Guarantees

- Each flight lands, whatever happens: with a result, an error, or *lost* (its event loop was closed, its caller interrupted or
  abandoned in its thread, or all callers left). Callers that wait for a lost one try again, and one of them begins the next.
- Its error is raised by every caller that waited, since they asked for the same call at the same time. Later callers compute
  anew.
- Callers that only waited read the result from the disk, so that no two callers hold one mutable object. If it could not be
  kept there, they share it.
- A call that asks for its own result gets a RuntimeError, where it would wait for itself for ever.
- A thread does not wait for a flight that is a task of the event loop which runs in that thread: it holds that loop. Such a
  call is computed by itself (`is_of_this_thread`).

Threads and event loops may all wait for the same flight: landing calls back, and each caller brings a callback for its kind of
waiting.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple, TypeAlias

Place: TypeAlias = tuple[str, bytes]  # the function's folder, and the key


class Landing(NamedTuple):
    """How a flight has ended. `value` is also there if it has been kept on disk; `size` is what it takes there, where this
    process has just written it.
    """

    how: Literal["kept", "unkept", "failed", "lost"]
    value: Any = None
    error: BaseException | None = None
    size: int = 0

    def has_value_for_caller(self, *, is_ours: bool) -> bool:
        """Whether a caller, who has begun the flight or only waited, takes the value from here. If not, a kept result is to be
        read, and one more flight follows a lost one.

        Raises:
            BaseException: the call has failed.
        """
        if self.error is not None:
            raise self.error
        return self.how == "unkept" or (is_ours and self.how == "kept")


LOST = Landing("lost")

_flights: dict[Place, Flight] = {}
_mutex = threading.Lock()  # of all flights: it is held for a few instructions
_computing: ContextVar[frozenset[Place]] = ContextVar("asyncpar_computing", default=frozenset())


class Flight:
    """The computing of one key. `cancel`, if there is one, is called in any thread when nobody waits any more."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.cancel: Callable[[], object] | None = None
        self.landing: Landing | None = None
        self.thread: int | None = None  # whose event loop it needs
        self._callbacks: dict[object, Callable[[], object]] = {}

    @property
    def is_of_this_thread(self) -> bool:
        return self.thread == threading.get_ident()

    def board(self, callback: Callable[[], object]) -> object:
        """Has `callback` called when it has landed, in any thread; at once if it has. Returns a ticket for `leave`."""
        ticket = object()
        with _mutex:
            if self.landing is None:
                self._callbacks[ticket] = callback
                return ticket
        callback()
        return ticket

    def leave(self, ticket: object) -> None:
        """The caller does not wait any more."""
        with _mutex:
            self._callbacks.pop(ticket, None)
            cancel = self.cancel if not self._callbacks and self.landing is None else None
        if cancel is not None:
            cancel()

    def land(self, landing: Landing) -> None:
        """Ends it, once; later calls do nothing."""
        with _mutex:
            if self.landing is not None:
                return
            self.landing = landing
            callbacks = list(self._callbacks.values())
            self._callbacks.clear()
            if _flights.get(self.place) is self:
                del _flights[self.place]
        for callback in callbacks:
            callback()

    def wait(self) -> Landing:
        """Blocks the thread until it has landed."""
        landed = threading.Event()
        ticket = self.board(landed.set)
        try:
            landed.wait()
        finally:
            self.leave(ticket)
        assert self.landing is not None, "it has landed"
        return self.landing


def begin_or_join(place: Place) -> tuple[Flight, bool]:
    """The flight for a key, and whether the caller has begun it and must see that it lands.

    Raises:
        RuntimeError: the caller runs within that very flight.
    """
    with _mutex:
        flight = _flights.get(place)
        if flight is None:
            flight = _flights[place] = Flight(place)
            return flight, True
    if place in _computing.get():
        raise RuntimeError(
            f"a cached call of {os.path.basename(place[0])} asks for its own result: it calls itself with the same arguments"
        )
    return flight, False


def give_up(place: Place) -> None:
    """Nobody is to wait for this key's flight any more: the call that computes it has been abandoned, and may never end."""
    flight = _flights.get(place)
    if flight is not None:
        flight.land(LOST)


class Within:
    """While it is entered, the current context computes this flight."""

    def __init__(self, flight: Flight) -> None:
        self._place = flight.place

    def __enter__(self) -> None:
        self._token = _computing.set(_computing.get() | {self._place})

    def __exit__(self, *_: object) -> None:
        _computing.reset(self._token)


def _start_again_in_a_fork() -> None:
    """The threads that would have landed them are not there."""
    global _mutex
    _mutex = threading.Lock()
    _flights.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_again_in_a_fork)
