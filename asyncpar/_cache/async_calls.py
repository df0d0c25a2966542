"""A call of a cached function that is awaited. Whatever may touch the disk for long is done in threads.

Looking up is different: reading a small entry takes some microseconds, and handing it to a thread ten times as long. So on a
local file system an entry of at most `READ_AT_ONCE` bytes is read in the event loop; on any other, and if it is larger, in a
thread. The same goes for making the key of small arguments.

Computing is a task of the event loop (`_platform/background.py`) that no caller owns, so a caller that is cancelled disturbs no
other. A plain function is called in a thread. Only the calls of a map compute in their own task, because none of them may go on
when the map has ended; whoever has waited for such a call then begins anew.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from asyncpar._cache.entries import Found
from asyncpar._cache.flights import LOST, Flight, Landing, Within, begin_or_join
from asyncpar._cache.keys import are_small
from asyncpar._cache.locks import Claim, Handover
from asyncpar._cache.shelf import Arguments, Shelf
from asyncpar._cache.store import READ_AT_ONCE
from asyncpar._cache.sync_calls import Compute, compute_claimed, kept
from asyncpar._platform.background import LoopHandle, is_own_cancellation, start_background
from asyncpar._platform.off_loop import run_off_loop
from asyncpar._wire.pace import nap

_MOST_LOST = 2  # flights of one caller: one may be lost when its event loop ends; others were cancelled by what they computed


async def key_of(shelf: Shelf, arguments: Arguments) -> bytes:
    """The key of a call."""
    if shelf.keyer.identity.is_known and are_small(*arguments):  # finding a function's source may mean compiling a file
        return shelf.key(*arguments)
    return await run_off_loop(partial(shelf.key, *arguments, pause=nap))


async def look_up(shelf: Shelf, key: bytes, arguments: Arguments) -> Found | None:
    """The result of a call, if it is kept and still valid."""
    store = shelf.store
    if not store.is_local:
        return await run_off_loop(lambda: shelf.look_up(key, arguments, breathe=True))
    fd = store.open(shelf.folder, key)
    if fd is None:
        return shelf.checked(None, arguments)
    if os.fstat(fd).st_size <= READ_AT_ONCE:
        return shelf.checked(store.read_open(fd, shelf.folder, key), arguments)
    os.close(fd)  # not handed on: a caller that is cancelled before a thread has it would leave it open
    return shelf.checked(await run_off_loop(lambda: store.read(shelf.folder, key, breathe=True)), arguments)


async def found_or_computed(shelf: Shelf, key: bytes, compute: Callable[[], Any], *, is_async: bool) -> Any:
    """The result of a call that was not found at first. `compute` makes the call; if `is_async`, what it returns is awaited.

    Raises:
        BaseException: what the call raises.
    """
    since = shelf.time_of_miss(key)
    lost = 0
    while True:
        flight, is_ours = begin_or_join((shelf.folder, key))
        landing = await _landing(flight, _Task(flight, shelf, key, since, compute, is_async) if is_ours else None)
        if landing.has_value_for_caller(is_ours=is_ours):
            return landing.value
        if landing.how == "kept":
            found = await _look_again(shelf, key, since)
            if found is not None:
                return found.value
        lost += is_ours and landing.how == "lost"
        if lost > _MOST_LOST:
            raise anyio.get_cancelled_exc_class()


async def landed_here(shelf: Shelf, key: bytes, compute: Compute, *, alone: bool = False) -> Landing:
    """The same for a call of a coroutine function that is awaited in this very task, and ends with it: a call of a map.

    Returns how it came about: kept or unkept. `alone`: nobody is waited for, though others may compute it, too.
    """
    since = shelf.time_of_miss(key)
    if alone:
        return await _await_result(Flight((shelf.folder, key)), shelf, key, since, compute)
    while True:
        flight, is_ours = begin_or_join((shelf.folder, key))
        landing = await (_fly(flight, shelf, key, since, compute) if is_ours else _landing(flight, None))
        if landing.has_value_for_caller(is_ours=is_ours):
            return landing
        if landing.how == "kept":
            found = await _look_again(shelf, key, since)
            if found is not None:
                return Landing("kept", found.value)


async def _fly(flight: Flight, shelf: Shelf, key: bytes, since: float, compute: Compute) -> Landing:
    landing = LOST
    claim = None
    try:
        claim = await _claim(shelf, key)
        landing = await _await_result(flight, shelf, key, since, compute)
    except Exception as error:
        landing = Landing("failed", error=error)
    finally:
        if claim is not None:
            claim.release()
        flight.land(landing)  # lost, if this task is cancelled
    return landing


async def _look_again(shelf: Shelf, key: bytes, since: float) -> Found | None:
    if shelf.store.is_local and not shelf.store.has_file(shelf.folder, key):
        return None
    return await run_off_loop(lambda: shelf.look_again(key, since, breathe=True))


async def _landing(flight: Flight, task: _Task | None) -> Landing:
    landed = anyio.Event()
    loop = LoopHandle()
    ticket = flight.board(lambda: loop.call_soon(landed.set))
    try:
        if task is not None:
            await task.start(loop)
        await landed.wait()
    finally:
        flight.leave(ticket)
    assert flight.landing is not None, "it has landed"
    return flight.landing


class _Task:
    """The task that computes. It always lands its flight."""

    def __init__(
        self, flight: Flight, shelf: Shelf, key: bytes, since: float, compute: Callable[[], Any], is_async: bool
    ) -> None:
        self._flight = flight
        self._shelf = shelf
        self._key = key
        self._since = since
        self._compute = compute
        self._is_async = is_async
        flight.thread = threading.get_ident()
        self._cannot_be_cancelled = False

    async def start(self, loop: LoopHandle) -> None:
        try:
            task = await start_background(self._run, self._lose)
        except BaseException:
            self._lose()
            raise
        if not self._cannot_be_cancelled:
            self._flight.cancel = lambda: loop.call_soon(task.cancel)

    def _lose(self) -> None:
        self._flight.land(LOST)

    async def _run(self) -> None:
        landing = LOST
        try:
            landing = await self._claim_and_compute()
        except BaseException as error:
            if is_own_cancellation(error):
                raise
            landing = Landing("failed", error=error)
        finally:
            self._flight.land(landing)

    async def _claim_and_compute(self) -> Landing:
        claim = await _claim(self._shelf, self._key)
        try:
            if self._is_async:
                return await _await_result(self._flight, self._shelf, self._key, self._since, self._compute)
            # A thread cannot be cancelled, so the flight goes on without callers: those who come meanwhile can still join it
            self._cannot_be_cancelled = True
            self._flight.cancel = None
            return await anyio.to_thread.run_sync(self._compute_in_thread)
        finally:
            claim.release()

    def _compute_in_thread(self) -> Landing:
        return compute_claimed(self._flight, self._shelf, self._key, self._since, self._compute, breathe=True)


async def _await_result(flight: Flight, shelf: Shelf, key: bytes, since: float, compute: Compute) -> Landing:
    found = await _look_again(shelf, key, since)
    if found is not None:
        return Landing("kept", found.value)
    began = time.perf_counter()
    with Within(flight):
        awaitable: Awaitable[Any] = compute()
        value = await awaitable
    seconds = time.perf_counter() - began
    return await run_off_loop(lambda: kept(shelf, key, value, seconds, breathe=True))


async def _claim(shelf: Shelf, key: bytes) -> Claim:
    """The right to compute a key, once no other process has it."""
    claim = shelf.claim(key)
    if claim is not None:
        return claim
    arrived = anyio.Event()
    loop = LoopHandle()
    handover = Handover(lambda: loop.call_soon(arrived.set))
    shelf.store.locks.wait(key, handover)
    with handover:
        await arrived.wait()
    return handover.taken()
