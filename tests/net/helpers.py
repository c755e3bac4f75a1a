"""Connections in memory: Twisted's own TCP transport on a socket of bytes, and a WebSocket client's side of it."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Connection
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from clasp_relay.core.ports import Codec, Frame, Kind, Outbox
from clasp_relay.errors import CloseCode, ErrorCode
from clasp_relay.net.admission import NetLimits
from clasp_relay.net.frames import CODEC, wire_bytes
from clasp_relay.net.turn import TurnWriter
from clasp_relay.net.websocket import ClaspFactory, ClaspProtocol
from clasp_relay.wire.codec import encode_to_frame
from clasp_relay.wire.messages import Error

ENDLESS = 1 << 60


class _Socket:
    """A socket whose peer takes so much and no more.

    Args:
        pipe: whose it is.
    """

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    def send(self, data: bytes) -> int:
        """Takes what there is room for."""
        pipe = self._pipe
        pipe.on_send()
        if pipe.is_broken:
            raise ConnectionResetError(errno.ECONNRESET, "the peer is gone")
        taken = bytes(memoryview(data)[: pipe.room_bytes])
        if data and not taken:
            raise BlockingIOError(errno.EWOULDBLOCK, "the peer takes nothing")
        pipe.room_bytes -= len(taken)
        pipe.taken += taken
        pipe.writes += 1
        return len(taken)


class Pipe(Connection):
    """Twisted's TCP transport with its buffers and producer rules, over bytes instead of a socket.

    Args:
        reactor: for the delayed calls of the transport.
        room_bytes: how much the peer's end takes until ``drain``.
    """

    def __init__(self, reactor: Any, room_bytes: int = ENDLESS, host: str = "192.0.2.1") -> None:
        FileDescriptor.__init__(self, reactor)
        self.connected = 1
        self.socket: Any = _Socket(self)
        self.fileno: Any = None
        self.room_bytes = room_bytes
        self.taken = bytearray()
        self.writes = 0
        self.is_broken = False
        self.on_send: Callable[[], None] = lambda: None
        """Is called for each piece that is handed to the socket."""
        self.options: list[str] = []
        self.host = host
        self.protocol: Any = Protocol()

    def drain(self, room_bytes: int = ENDLESS) -> None:
        """Makes room, and lets the transport write as a reactor does."""
        self.room_bytes += room_bytes
        reactor: Any = self.reactor
        while self in reactor.writers and self.room_bytes:
            result = self.doWrite()
            if result is not None:
                self.connectionLost(Failure(result))

    def lose(self, clean: bool = False) -> None:
        """The peer is gone."""
        self.connectionLost(Failure(ConnectionDone() if clean else ConnectionLost()))

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: N802
        """Notes the option."""
        self.options.append(f"nodelay {enabled}")

    def setTcpKeepAlive(self, enabled: bool) -> None:  # noqa: N802
        """Notes the option."""
        self.options.append(f"keepalive {enabled}")

    def getPeer(self) -> IPv4Address:  # noqa: N802
        """Returns the peer's address."""
        return IPv4Address("TCP", self.host, 4711)

    def getHost(self) -> IPv4Address:  # noqa: N802
        """Returns our address."""
        return IPv4Address("TCP", "192.0.2.99", 7330)

    def _closeSocket(self, orderly: bool) -> None:  # noqa: N802
        self.options.append("closed" if orderly else "reset")


class FakeConnection:
    """What an outbox needs of its connection."""

    def __init__(self, transport: Any, lane: str = "") -> None:
        self.transport = transport
        self.lane = lane
        self.codec: Codec = CODEC
        self.trace: Callable[[bytes], None] | None = None
        self.slow_bytes: list[int] = []
        self.events: list[object] = []

    def send_close(self, close_code: CloseCode, reason: str) -> None:
        """Notes it."""
        self.events.append((close_code, reason))

    def expect_end(self) -> None:
        """Notes it."""
        self.events.append("expect_end")

    def answer_ping(self, payload: bytes) -> None:
        """Notes it."""
        self.events.append(payload)

    def slow(self, waiting_bytes: int) -> None:
        """Notes it."""
        self.slow_bytes.append(waiting_bytes)

    def abort(self) -> None:
        """Notes it."""
        self.events.append("abort")


class MemorySession:
    """A session of ``MemoryRelay``."""

    def __init__(self, outbox: Outbox, peer: str, codec: Codec) -> None:
        self.outbox = outbox
        self.codec = codec
        self.peer = peer
        self.id = "a session"
        self.is_live = False
        self.is_busy = False
        self.received: list[bytes] = []
        self.disconnects = 0
        self.cause = ""


class MemoryRelay:
    """A relay that echoes: a session is live after its first message, and each message comes back."""

    def __init__(self) -> None:
        self.sessions: list[MemorySession] = []
        self.on_receive: Callable[[MemorySession, bytes], None] = lambda session, data: session.outbox.send(keep(data))

    def connect(self, outbox: Outbox, peer: str, codec: Codec) -> MemorySession:
        """Begins a session."""
        session = MemorySession(outbox, peer, codec)
        self.sessions.append(session)
        return session

    def receive(self, session: MemorySession, data: bytes) -> None:
        """Takes a message."""
        session.received.append(data)
        session.is_live = True
        self.on_receive(session, data)

    def disconnect(self, session: MemorySession, cause: str) -> None:
        """Ends a session."""
        session.disconnects += 1
        session.cause = cause


REQUEST = (
    b"GET /ws HTTP/1.1\r\nHost: relay.example:7330\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)
UPGRADE = REQUEST + b"Sec-WebSocket-Protocol: clasp\r\n\r\n"


def client_frame(payload: bytes, opcode: int = 2, *, fin: bool = True, mask: bytes | None = None) -> bytes:
    """Returns a masked WebSocket frame as a client sends it."""
    key = os.urandom(4) if mask is None else mask
    length = len(payload)
    if length < 126:
        head = bytes((fin << 7 | opcode, 0x80 | length))
    elif length <= 0xFFFF:
        head = struct.pack(">BBH", fin << 7 | opcode, 0xFE, length)
    else:
        head = struct.pack(">BBQ", fin << 7 | opcode, 0xFF, length)
    return head + key + bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))


def server_frames(data: bytes) -> list[tuple[int, bytes]]:
    """Takes a server's bytes apart into (opcode, payload)."""
    frames = []
    at = 0
    while at < len(data):
        opcode, length = data[at] & 0x0F, data[at + 1]
        at += 2
        if length == 126:
            length = int.from_bytes(data[at : at + 2], "big")
            at += 2
        elif length == 127:
            length = int.from_bytes(data[at : at + 8], "big")
            at += 8
        frames.append((opcode, bytes(data[at : at + length])))
        at += length
    return frames


class Site:
    """A factory with a relay in memory, and clients that connect to it."""

    def __init__(self, limits: NetLimits | None = None, **options: Any) -> None:
        self.reactor = MemoryReactorClock()
        self.relay = MemoryRelay()
        self.writer = TurnWriter(self.reactor)
        self.factory = ClaspFactory(self.relay, self.writer, self.reactor, limits, **options)

    def connect(self, host: str = "192.0.2.1", room_bytes: int = ENDLESS) -> Client:
        """Opens a TCP connection."""
        protocol = self.factory.buildProtocol(None)
        assert protocol is not None
        return Client(self, protocol, Pipe(self.reactor, room_bytes, host))

    def open(self, host: str = "192.0.2.1", room_bytes: int = ENDLESS, hello: bytes = b"hello") -> Client:
        """Opens a session that is live."""
        client = self.connect(host, room_bytes)
        client.send(UPGRADE, client_frame(hello))
        client.turn()
        client.clear()
        return client


class Client:
    """A client's side of a connection."""

    def __init__(self, site: Site, protocol: ClaspProtocol, pipe: Pipe) -> None:
        self.site = site
        self.protocol = protocol
        self.pipe = pipe
        pipe.protocol = protocol
        protocol.makeConnection(pipe)

    def send(self, *data: bytes) -> None:
        """Sends bytes, unless the connection is gone."""
        for each in data:
            if self.pipe.connected:
                self.protocol.dataReceived(each)
                self.pipe.drain(0)

    def turn(self, seconds: float = 0) -> None:
        """Lets the event loop turn."""
        self.site.reactor.advance(seconds)
        self.pipe.drain(0)

    def clear(self) -> None:
        """Forgets what came."""
        self.pipe.taken.clear()

    @property
    def head(self) -> str:
        """Returns the HTTP response's head."""
        return bytes(self.pipe.taken).partition(b"\r\n\r\n")[0].decode()

    @property
    def frames(self) -> list[tuple[int, bytes]]:
        """Returns the WebSocket frames that came, after a HTTP response if there is one."""
        taken = bytes(self.pipe.taken)
        return server_frames(taken.partition(b"\r\n\r\n")[2] if taken.startswith(b"HTTP/") else taken)

    @property
    def closes(self) -> list[tuple[int, str]]:
        """Returns code and reason of the Close frames that came."""
        return [(int.from_bytes(data[:2], "big"), data[2:].decode()) for opcode, data in self.frames if opcode == 8]


def keep(data: bytes) -> Frame:
    """Returns a frame that is never dropped."""
    return Frame(wire_bytes(data))


def param(address: str, data: bytes) -> Frame:
    """Returns a param's frame."""
    return Frame(wire_bytes(data), Kind.PARAM, address)


def drop(data: bytes) -> Frame:
    """Returns a stream's frame."""
    return Frame(wire_bytes(data), Kind.DROP, "/s")


def payload(frame: Frame) -> bytes:
    """Returns what is in a frame's WebSocket message."""
    ((_, data),) = server_frames(frame.wire)
    return data


def packed(*messages: bytes) -> Iterator[bytes]:
    """Returns a snapshot of some WebSocket messages."""
    return map(wire_bytes, messages)


def error_payload(code: ErrorCode, message: str) -> bytes:
    """Returns an ERROR as a CLASP frame."""
    return encode_to_frame(Error(code, message))


def datas(frames: Iterable[tuple[int, bytes]]) -> list[bytes]:
    """Returns the payloads of the binary messages."""
    return [data for opcode, data in frames if opcode == 2]
