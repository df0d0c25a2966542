"""A call of a cached function in the caller's own thread: look it up, and else compute it, once for all who ask."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from asyncpar._cache.flights import LOST, Flight, Landing, Within, begin_or_join
from asyncpar._cache.locks import Claim, Handover
from asyncpar._cache.shelf import Shelf

Compute = Callable[[], Any]


def found_or_computed(shelf: Shelf, key: bytes, compute: Compute) -> Any:
    """The result of a call that was not found at first.

    Raises:
        BaseException: what `compute` raises.
    """
    return landed(shelf, key, compute).value


def landed(shelf: Shelf, key: bytes, compute: Compute, *, alone: bool = False) -> Landing:
    """The same, with how it came about: kept or unkept. `alone`: nobody is waited for, though others may compute it, too."""
    since = shelf.time_of_miss(key)
    if alone:
        return compute_claimed(Flight((shelf.folder, key)), shelf, key, since, compute)
    while True:
        flight, is_ours = begin_or_join((shelf.folder, key))
        if flight.is_of_this_thread:  # it cannot be waited for
            return compute_claimed(Flight((shelf.folder, key)), shelf, key, since, compute)
        landing = _fly(flight, shelf, key, since, compute) if is_ours else flight.wait()
        if landing.has_value_for_caller(is_ours=is_ours):
            return landing
        if landing.how == "kept":
            found = shelf.look_again(key, since)
            if found is not None:
                return Landing("kept", found.value)


def _fly(flight: Flight, shelf: Shelf, key: bytes, since: float, compute: Compute) -> Landing:
    """Computes, or waits while another process does, and lands the flight."""
    landing = LOST
    claim = None
    try:
        claim = shelf.claim(key) or _wait_for_claim(shelf, key)
        landing = compute_claimed(flight, shelf, key, since, compute)
    except Exception as error:
        landing = Landing("failed", error=error)
    finally:
        if claim is not None:
            claim.release()
        flight.land(landing)  # lost, if this is Ctrl-C
    return landing


def compute_claimed(
    flight: Flight, shelf: Shelf, key: bytes, since: float, compute: Compute, *, breathe: bool = False
) -> Landing:
    """Looks again, since another process may have been faster, and computes and keeps the result."""
    found = shelf.look_again(key, since, breathe=breathe)
    if found is not None:
        return Landing("kept", found.value)
    began = time.perf_counter()
    with Within(flight):
        value = compute()
    return kept(shelf, key, value, time.perf_counter() - began, breathe=breathe)


def kept(shelf: Shelf, key: bytes, value: Any, seconds: float, *, breathe: bool = False) -> Landing:
    """Keeps a result. With `mmap_mode`, what a caller gets is mapped, as it will be next time."""
    size = shelf.keep(key, value, seconds, breathe=breathe)
    if not size:
        return Landing("unkept", value)
    if shelf.store.reader.map_mode is not None:
        found = shelf.store.read(shelf.folder, key, breathe=breathe)
        if found is not None:
            value = found.value
    return Landing("kept", value, size=size)


def _wait_for_claim(shelf: Shelf, key: bytes) -> Claim:
    arrived = threading.Event()
    handover = Handover(arrived.set)
    shelf.store.locks.wait(key, handover)
    with handover:
        arrived.wait()
    return handover.taken()
