"""Waits until a socket can be read, for the cost of one future.

`anyio.wait_readable` registers the socket with the event loop's selector and unregisters it again for each wait: two system
calls and 10 µs of Python, a tenth of the whole round trip to a worker. A `Readiness` leaves it registered between waits. If a
socket becomes readable while nothing waits for it (its worker died), it is unregistered at once, so that the loop does not spin
on it. The next wait registers it again.

On trio, whose own wait is as cheap as possible, this uses `anyio.wait_readable`.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

if TYPE_CHECKING:
    import asyncio


class Readiness:
    """Waits for one socket, one waiter at a time, in one event loop. Call `close` before the socket is closed."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop: Any = None  # asyncio's loop, once there was a wait in it
        self._entered = False
        self._future: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        """Returns when the socket can be read, or has ended."""
        if self._loop is None:
            self._loop = anyio.lowlevel.current_token().native_token
        if not hasattr(self._loop, "add_reader"):  # trio
            await anyio.wait_readable(self._sock)
            return
        if not self._entered:
            self._loop.add_reader(self._sock, self._on_readable)
            self._entered = True
        future = self._future = self._loop.create_future()
        try:
            await future
        finally:
            self._future = None

    def close(self) -> None:
        """Takes the socket out of the selector."""
        if self._entered and not self._loop.is_closed():
            self._loop.remove_reader(self._sock)
        self._entered = False

    def leave(self) -> None:
        """In a forked copy of this process: leaves the selector alone, which the copy shares with the original."""
        self._entered = False

    def _on_readable(self) -> None:
        if self._future is None:
            self.close()
        elif not self._future.done():
            self._future.set_result(None)
