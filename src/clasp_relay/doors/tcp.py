"""CLASP over plain TCP, for boards without WebSocket: each frame follows its length, four bytes big-endian.

The frames, sessions, limits and the deadline for HELLO are those of WebSocket (``docs/doors.md``, Framed TCP).
"""

from __future__ import annotations

import struct
from typing import Any

from twisted.internet.defer import Deferred

from clasp_relay.core.ports import Frame
from clasp_relay.doors.door import DoorCounts, Ports
from clasp_relay.doors.stream import StreamConnection, StreamFactory
from clasp_relay.errors import CloseCode, ErrorCode
from clasp_relay.net.listening import TcpPlace, listen
from clasp_relay.net.outbox import Outbox
from clasp_relay.net.tls import ServerTls
from clasp_relay.net.websocket import ClaspFactory, RelayPort, SessionPort
from clasp_relay.wire.clasp import ClaspCodec
from clasp_relay.wire.constants import MAX_FRAME_BYTES
from clasp_relay.wire.messages import Ping

_LENGTH = struct.Struct(">I")


def wire_bytes(frame: bytes) -> bytes:
    """Returns a CLASP frame with its length in front."""
    return _LENGTH.pack(len(frame)) + frame


CODEC = ClaspCodec(wire_bytes)
"""The codec of all sessions of this door: one object, so that a message to many of them is encoded once."""

_PING = Frame(CODEC.encode(Ping()))


class TcpConnection(StreamConnection):
    """A client's connection.

    Args:
        gate: admits connections.
        counts: the counts of the door.
    """

    def __init__(self, gate: ClaspFactory, counts: DoorCounts) -> None:
        super().__init__(gate, counts, CODEC)
        self._relay: RelayPort[Any] = gate.relay
        self._session: SessionPort | None = None
        self._data = b""

    @property
    def is_live(self) -> bool:
        """See the base class."""
        return self._session is not None and self._session.is_live

    @property
    def is_busy(self) -> bool:
        """See the base class."""
        return self._session is not None and self._session.is_busy

    @property
    def session_id(self) -> str:
        """See the base class."""
        return "" if self._session is None else self._session.id

    def begin(self, outbox: Outbox) -> None:
        """See the base class."""
        self._session = self._relay.connect(outbox, self.address, self.codec)

    def turned_away(self, outbox: Outbox, refusal: str) -> None:
        """See the base class."""
        outbox.send_error(ErrorCode.OVERLOADED, refusal)

    def take(self, data: bytes) -> None:
        """Handles each complete frame; a length that no frame can have ends the session."""
        outbox, session = self.outbox, self._session
        if outbox is None or session is None:
            return
        data, at = self._data + data, 0
        while len(data) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(data, at)
            if length > MAX_FRAME_BYTES:
                self._refuse_length(outbox, length)
                return
            end = at + _LENGTH.size + length
            if end > len(data):
                break
            self.counts.messages += 1
            self._relay.receive(session, data[at + _LENGTH.size : end])
            at = end
            if outbox.is_closing:
                return
        self._data = data[at:]

    def _refuse_length(self, outbox: Outbox, length: int) -> None:
        self.counts.refused += 1
        reason = f"a frame of {length} bytes was announced, the longest has {MAX_FRAME_BYTES}"
        outbox.send_error(ErrorCode.FRAME, reason)
        outbox.close(CloseCode.TOO_BIG, reason)

    def late(self, outbox: Outbox, reason: str) -> None:
        """See the base class."""
        outbox.send_error(ErrorCode.UNAUTHENTICATED, reason)

    def gone(self, cause: str) -> None:
        """See the base class."""
        session, self._session = self._session, None
        if session is not None:
            self._relay.disconnect(session, cause)

    def look_after(self, silent_s: float) -> None:
        """Sends a CLASP PING; ends the session if the peer has been silent for too long."""
        timeout_s = self.gate.limits.session_timeout_s
        if self.outbox is None:
            return
        if silent_s >= timeout_s:
            self.outbox.close(CloseCode.POLICY_VIOLATION, f"nothing was received for {timeout_s:.0f} s")
        elif silent_s:
            self.outbox.send(_PING)


class TcpDoor:
    """Listens for framed TCP. Implements ``door.Door``.

    Args:
        reactor: accepts the connections.
        place: the address and port to listen on.
        gate: admits connections.
    """

    def __init__(self, reactor: Any, place: TcpPlace, gate: ClaspFactory) -> None:
        self._reactor = reactor
        self._place = place
        counts = DoorCounts("tcp")
        self.counts = (counts,)
        """See ``Door``."""
        self.ports = Ports("CLASP over TCP")
        """Its ports."""
        self._factory = StreamFactory(gate, counts, lambda: TcpConnection(gate, counts))

    def open(self, _tls: ServerTls | None) -> None:
        """See ``Door``."""
        if not self.ports:
            self.ports.add(listen(self._reactor, self._place, self._factory, "--tcp-port"))

    def close(self) -> Deferred[Any]:
        """See ``Door``."""
        return self.ports.close()

    def started(self, _port: int | None) -> None:
        """See ``Door``."""
        self.ports.log()
