"""A WebSocket client that sends the bytes that it is told to send, right or wrong."""

from __future__ import annotations

import base64
import os
import socket
import ssl
import struct
from collections.abc import Callable, Iterable
from typing import NamedTuple, Self, TypeVar

from clasp_relay.wire.codec import decode, encode
from clasp_relay.wire.frame import decode_frame, encode_frame
from clasp_relay.wire.messages import Error, Hello, Message, Ping, Pong, Snapshot, Welcome
from tests.integration.process import PATIENCE_S

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

AnyMessage = TypeVar("AnyMessage")


class Closed(Exception):
    """The relay has sent a Close. ``code`` is None where the connection ended without one."""

    def __init__(self, code: int | None, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Response(NamedTuple):
    """An HTTP response."""

    status: int
    headers: dict[str, str]


class RawClient:
    """A TCP connection that asks for a WebSocket.

    Args:
        port: where the relay listens.
        path: what is asked for.
        subprotocols: what is offered.
        headers: more lines of the request.
        receive_buffer: bytes that the system keeps for us; small ones make a slow reader.
        tls: how to speak TLS; None for not at all.
        source: the address that it comes from; all of 127.0.0.0/8 are this machine's. Empty: any.
        host: the address of the relay.
        patience_s: how long it waits for anything.
    """

    def __init__(
        self,
        port: int,
        *,
        path: str = "/",
        subprotocols: Iterable[str] = ("clasp",),
        headers: Iterable[str] = (),
        receive_buffer: int = 0,
        tls: ssl.SSLContext | None = None,
        source: str = "",
        host: str = "127.0.0.1",
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(patience_s)
        if source:
            self.socket.bind((source, 0))
        self.socket.connect((host, port))
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self._data = bytearray()
        offered = ", ".join(subprotocols)
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {host}:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            "Sec-WebSocket-Version: 13",
            *([f"Sec-WebSocket-Protocol: {offered}"] if offered else []),
            *headers,
        ]
        self.socket.sendall("\r\n".join((*lines, "", "")).encode())
        self.response = self._read_response()

    @classmethod
    def live(cls, port: int, *, receive_buffer: int = 0, tls: ssl.SSLContext | None = None) -> Self:
        """Returns a client that is past HELLO and the first SNAPSHOT."""
        client = cls(port, receive_buffer=receive_buffer, tls=tls)
        client.send(Hello(1, 0xF8, "raw"))
        client.receive(Welcome)
        client.receive(Snapshot)
        return client

    # Sending

    def send(self, *messages: Message, qos: int = 0) -> None:
        """Sends CLASP messages, all in one write."""
        self.send_raw(b"".join(ws_frame(BINARY, encode_frame(encode(message), qos)) for message in messages))

    def send_frame(self, data: bytes, opcode: int = BINARY, *, fin: bool = True, masked: bool = True) -> None:
        """Sends one WebSocket frame."""
        self.send_raw(ws_frame(opcode, data, fin=fin, masked=masked))

    def send_raw(self, data: bytes) -> None:
        """Sends bytes."""
        self.socket.sendall(data)

    def reset(self) -> None:
        """Tears the connection off, with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        """Ends the TCP connection."""
        self.socket.close()

    # Receiving

    def receive_frame(self) -> tuple[int, bytes]:
        """Returns opcode and payload of the next WebSocket frame.

        Raises:
            Closed: the connection has ended.
        """
        head = self._take(2)
        size = head[1]
        if size == 126:
            (size,) = struct.unpack(">H", self._take(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", self._take(8))
        return head[0] & 0x0F, self._take(size)

    def receive_any(self) -> Message:
        """Returns the next CLASP message; answers pings.

        Raises:
            Closed: the session has ended.
        """
        while True:
            opcode, payload = self.receive_frame()
            if opcode == PING:
                self.send_frame(payload, PONG)
            elif opcode == CLOSE:
                raise Closed(int.from_bytes(payload[:2], "big") or None, payload[2:].decode())
            elif opcode == BINARY:
                return decode(decode_frame(payload).payload)

    def receive(self, kind: type[AnyMessage]) -> AnyMessage:
        """Returns the next CLASP message, which must be of a kind."""
        message = self.receive_any()
        if not isinstance(message, kind):
            raise AssertionError(f"{str(message)[:500]} instead of {kind.__name__}")
        return message

    def receive_until(self, is_last: Callable[[Message], bool]) -> list[Message]:
        """Returns the messages up to one."""
        messages = [self.receive_any()]
        while not is_last(messages[-1]):
            messages.append(self.receive_any())
        return messages

    def settle(self) -> list[Message]:
        """Returns what has been sent to this client so far: all before the PONG to a PING."""
        self.send(Ping())
        return self.receive_until(lambda message: isinstance(message, Pong))[:-1]

    def refusal(self) -> Error:
        """Returns the one ERROR that what was sent has led to."""
        messages = self.settle()
        if len(messages) != 1 or not isinstance(messages[0], Error):
            raise AssertionError(f"{str(messages)[:500]} instead of one ERROR")
        return messages[0]

    def end(self) -> tuple[list[Message], Closed]:
        """Returns what still comes, and how the session ends."""
        messages = []
        while True:
            try:
                messages.append(self.receive_any())
            except Closed as closed:
                return messages, closed

    def wait_for_eof(self) -> bytes:
        """Returns what comes until the relay ends the TCP connection."""
        data = bytes(self._data)
        self._data.clear()
        try:
            while piece := self.socket.recv(65536):
                data += piece
        except ConnectionResetError:
            pass
        return data

    def _take(self, size: int) -> bytes:
        while len(self._data) < size:
            try:
                piece = self.socket.recv(65536)
            except ConnectionResetError:
                piece = b""
            if not piece:
                raise Closed(None)
            self._data += piece
        taken = bytes(self._data[:size])
        del self._data[:size]
        return taken

    def _read_response(self) -> Response:
        while b"\r\n\r\n" not in self._data:
            piece = self.socket.recv(65536)
            if not piece:
                raise Closed(None)
            self._data += piece
        head, _, rest = bytes(self._data).partition(b"\r\n\r\n")
        self._data[:] = rest
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = (line.split(":", 1) for line in lines)
        return Response(int(first.split()[1]), {name.strip().lower(): value.strip() for name, value in fields})


def ws_frame(opcode: int, data: bytes, *, fin: bool = True, masked: bool = True) -> bytes:
    """Returns a WebSocket frame (RFC 6455 §5.2)."""
    size, mask_bit = len(data), 0x80 if masked else 0
    if size < 126:
        head = struct.pack(">BB", opcode | (0x80 if fin else 0), mask_bit | size)
    elif size < 1 << 16:
        head = struct.pack(">BBH", opcode | (0x80 if fin else 0), mask_bit | 126, size)
    else:
        head = struct.pack(">BBQ", opcode | (0x80 if fin else 0), mask_bit | 127, size)
    if not masked:
        return head + data
    key = os.urandom(4)
    mask = int.from_bytes((key * (size // 4 + 1))[:size], "big")
    return head + key + (int.from_bytes(data, "big") ^ mask).to_bytes(size, "big")
