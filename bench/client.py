"""A small CLASP client on a blocking socket, for tasks that the load generator does not support."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

_U16 = struct.Struct(">H")
_U64 = struct.Struct(">Q")
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: clasp\r\n\r\n"
)
"""The WebSocket upgrade request."""
_BINARY, _CLOSE = 0x82, 0x88
SNAPSHOT, ACK = 0x23, 0x50


class Client:
    """An upgraded connection. Messages without ``confirm`` have QoS 0, so they are not acknowledged.

    Args:
        port: where the relay listens.
    """

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(UPGRADE)
        self._data = b""
        while b"\r\n\r\n" not in self._data:
            self._data += self._socket.recv(65536)
        self._data = self._data.partition(b"\r\n\r\n")[2]

    def hello(self, token: str = "") -> None:
        """Sends HELLO."""
        self.send(b"\x01\x01\xf8" + _text("bench") + _text(token))

    def subscribe(self, pattern: str) -> None:
        """Subscribes to a pattern."""
        self.send(b"\x10\x00\x00\x00\x01" + _text(pattern) + b"\xff\x00")

    def set_number(self, address: str, number: float, *, confirm: bool = False) -> None:
        """Sets an F64; ``confirm`` asks for an ACK."""
        self.send(b"\x21\x07" + _text(address) + struct.pack(">d", number), confirm=confirm)

    def set_name(self, address: str, name: str) -> None:
        """Sets a map with a name, like the presence of a member of a room."""
        self.send(b"\x21\x0b" + _text(address) + b"\x00\x01" + _text("name") + b"\x08" + _text(name))

    def publish(self, address: str, value: bytes, *, confirm: bool = False) -> None:
        """Publishes an event; its value is encoded, with its type first."""
        self.send(b"\x20\x20" + _text(address) + b"\x01" + value, confirm=confirm)

    def payloads(self) -> Iterator[bytes]:
        """Yields the payload of every received frame; skips pings.

        Raises:
            ConnectionError: the server ends the connection.
        """
        data, at = self._data, 0
        while True:
            while True:
                end, start = _extent(data, at)
                if end > len(data):
                    break
                if data[at] == _BINARY:
                    yield data[start + 4 : end]
                elif data[at] == _CLOSE:
                    raise ConnectionError(f"closed by the server: {data[start + 2 : end].decode('utf-8', 'replace')}")
                at = end
            more = self._socket.recv(1 << 20)
            if not more:
                raise ConnectionError("closed by the server")
            data, at = data[at:] + more, 0

    def close(self) -> None:
        """Ends the connection."""
        self._socket.close()

    def send(self, payload: bytes, *, confirm: bool = False) -> None:
        """Sends one message of up to 64 KiB, given as its payload; ``confirm`` means QoS 1."""
        frame = (b"\x53\x41" if confirm else b"\x53\x01") + _U16.pack(len(payload)) + payload
        self.write(frame)

    def write(self, frame: bytes) -> None:
        """Writes a CLASP frame as a WebSocket message, whose mask is zero."""
        self._socket.sendall(head(frame) + bytes(4) + frame)


def head(frame: bytes) -> bytes:
    """Returns the header of a client's WebSocket message, without the mask."""
    return b"\x82" + (bytes((0x80 | len(frame),)) if len(frame) < 126 else b"\xfe" + _U16.pack(len(frame)))


def _text(text: str) -> bytes:
    raw = text.encode()
    return _U16.pack(len(raw)) + raw


def _extent(data: bytes, at: int) -> tuple[int, int]:
    """Returns end and start of the WebSocket message at ``at``; an end beyond the data if it is incomplete."""
    if len(data) < at + 10 and (len(data) < at + 2 or data[at + 1] >= 126):
        return len(data) + 1, 0
    size, start = data[at + 1], at + 2
    if size == 126:
        (size,), start = _U16.unpack_from(data, start), at + 4
    elif size == 127:
        (size,), start = _U64.unpack_from(data, start), at + 10
    return start + size, start
