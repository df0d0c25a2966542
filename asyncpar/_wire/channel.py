"""A worker's end of its channel: whole frames over a blocking socket."""

import select
import socket
from collections.abc import Callable

from asyncpar._memory.buffers import Buffer
from asyncpar._wire.frames import Frame, FrameReader, to_parts, without

_PARTS_AT_ONCE = 256  # less than IOV_MAX, which is 1024 on Linux and at least 16 in POSIX; a guess


class Channel:
    """Sends and receives frames, and blocks until the whole frame has been transferred.

    `notice` is called each time data has arrived, before it is read.

    Raises:
        EOFError: the other end is closed.
    """

    def __init__(self, sock: socket.socket, notice: Callable[[], object]) -> None:
        self._sock = sock
        self._notice = notice
        # Waits in poll and not in recv: Linux also wakes a process that sleeps in recv when the *other* end has read something,
        # which costs the parent 10 µs for each answer that it reads.
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)
        self._reader = FrameReader()

    def send(self, frame: Frame) -> None:
        self.send_parts(to_parts(frame))

    def send_parts(self, parts: list[Buffer]) -> None:
        while parts:
            try:
                sent = self._sock.sendmsg(parts[:_PARTS_AT_ONCE])
            except (BrokenPipeError, ConnectionResetError):
                raise EOFError("the parent has closed the channel") from None
            parts = without(parts, sent)

    def send_some(self, parts: list[Buffer]) -> list[Buffer]:
        """Sends what the socket takes without blocking; returns what is left."""
        try:
            sent = self._sock.sendmsg(parts[:_PARTS_AT_ONCE], (), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return parts
        except (BrokenPipeError, ConnectionResetError):
            raise EOFError("the parent has closed the channel") from None
        return without(parts, sent)

    def receive(self) -> Frame:
        while (frame := self._reader.take()) is None:
            self._readable.poll()
            self.receive_some()
        return frame

    def receive_some(self) -> None:
        """Receives what is there. Blocks unless the socket can be read."""
        self._notice()
        try:
            count = self._sock.recv_into(self._reader.space())
        except ConnectionResetError:
            count = 0
        if not count:
            raise EOFError("the parent has closed the channel")
        self._reader.advance(count)

    def take(self) -> Frame | None:
        """The next frame if it has been received completely, else None."""
        return self._reader.take()

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()
