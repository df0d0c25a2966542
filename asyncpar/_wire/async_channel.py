"""The parent's end of a channel: the same frames as `_wire/channel.py`, awaited instead of blocking.

The socket is tried first and awaited only when it would block: a small frame is one system call. The answer to a short call
is often there when its batch has been sent, because the kernel lets the worker run at once; then nothing is awaited at all. But
only a few answers in a row are taken in this way, and between two pieces of a large frame the event loop runs. So no number of
frames, and no frame, however large, blocks it for long.
"""

import os
import socket

import anyio
import anyio.lowlevel

from asyncpar._memory.buffers import Buffer, Shared
from asyncpar._memory.loans import Mappings
from asyncpar._wire.frames import Frame, FrameReader, first_piece, to_parts, weigh, without
from asyncpar._wire.readiness import Readiness

_MOST_AT_ONCE = 10  # answers that are taken one after another without a turn of the event loop: well below a millisecond


def close_copy(sock: socket.socket) -> None:
    """Closes this process's descriptor of a socket at once. `close` would wait until uvloop removes its reader."""
    descriptor = sock.detach()
    if descriptor >= 0:  # else it is already closed
        os.close(descriptor)


class AsyncChannel:
    """Sends and receives frames over a non-blocking socket that it owns.

    Cancelling `receive` loses nothing: the next call goes on where it stopped. Cancelling `send` can leave half a frame
    behind. `broken` then says that the channel cannot be used any more. `mappings`: of what the other end lends, if it does.

    Raises:
        EOFError: the other end is closed.
    """

    def __init__(self, sock: socket.socket, mappings: Mappings | None) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._reader = FrameReader()
        self._readiness = Readiness(sock)
        self._mappings = mappings
        self.shared_bytes = 0  # of the last frame that came
        self.broken = False
        self._at_once = 0  # answers since the event loop has had its turn

    def send_at_once(self, frame: Frame) -> list[Buffer]:
        """Sends as much of the frame as the socket takes now; returns what is left, for `send_rest`."""
        parts = to_parts(frame)
        self.broken = True  # until the whole frame has been sent
        sent = self._send_some(parts)
        if sent == len(parts[0]) and len(parts) == 1:
            self.broken = False
            return []
        return without(parts, sent)

    async def send(self, frame: Frame) -> None:
        await self.send_rest(self.send_at_once(frame))

    async def send_rest(self, parts: list[Buffer]) -> None:
        """What `send_at_once` has left."""
        while parts:
            sent = self._send_some(parts)
            if not sent:
                await anyio.wait_writable(self._sock)
                continue
            parts = without(parts, sent)
            if parts:
                await anyio.lowlevel.checkpoint()
        self.broken = False

    def _send_some(self, parts: list[Buffer]) -> int:
        """How many bytes the socket takes now; 0: none."""
        try:
            return self._sock.send(first_piece(parts))
        except BlockingIOError:
            return 0
        except (BrokenPipeError, ConnectionResetError):
            raise EOFError("the worker has closed the channel") from None

    async def receive(self) -> Frame:
        reader = self._reader
        frame = reader.take()
        if frame is None and self._at_once < _MOST_AT_ONCE and self._receive_some():
            frame = reader.take()
            self._at_once += 1
        while frame is None:
            await self._readiness.wait()
            self._at_once = 0
            if self._receive_some():
                frame = reader.take()
        self.shared_bytes = 0
        return self._mapped(frame) if frame.buffers else frame

    def _receive_some(self) -> bool:
        """Whether there was something to receive."""
        try:
            count = self._sock.recv_into(self._reader.space())
        except BlockingIOError:
            return False
        except ConnectionResetError:
            count = 0
        if not count:
            raise EOFError("the worker has closed the channel")
        self._reader.advance(count)
        return True

    def _mapped(self, frame: Frame) -> Frame:
        """The frame with views of the buffers that are lent to us. They are given back when the views are gone."""
        if self._mappings is None:
            return frame
        _, self.shared_bytes = weigh(frame)
        buffers = [self._mappings.map(buffer, "r+") if isinstance(buffer, Shared) else buffer for buffer in frame.buffers]
        return Frame(frame.kind, frame.payload, buffers, frame.ticket)

    def send_nowait(self, frame: Frame) -> None:
        """Sends a small frame to a worker that is listening. A channel that cannot take the whole frame is broken."""
        if self.broken:  # anything sent after half a frame would be read as the other half
            return
        parts = to_parts(frame)
        try:
            self.broken = self._sock.sendmsg(parts) < sum(map(len, parts))
        except OSError:
            self.broken = True

    def has_ended(self) -> bool:
        """Whether the other end is closed, and there is nothing left to read."""
        try:
            return not self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True

    def shutdown(self) -> None:
        """Lets both ends read the end of the stream, even one that is waiting at the moment."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:  # the other end has gone, or this one is closed
            return

    def leave(self) -> None:
        """In a forked copy of this process: closes the copy's socket, and leaves the channel to the original."""
        self.broken = True
        if self._mappings is not None:
            self._mappings.end()
        self._readiness.leave()
        close_copy(self._sock)

    def close(self) -> None:
        if self._mappings is not None:
            self._mappings.end()
        self._readiness.close()
        self._sock.close()
