"""A transport as an outbox writes to it: at once where that is possible, and with a known buffer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.tcp import Connection as TcpConnection

from clasp_relay.net.backlog import Counters


class Sink:
    """Writes to a transport.

    Over plain TCP a piece goes to the socket in the same turn, and only what the socket does not take
    goes to the transport's buffer. ``ITransport.write`` would wait for the reactor's next turn, and the way
    through the transport to the socket takes as long as all that is done for a subscriber besides.

    Args:
        transport: any ``ITransport``; None for one that takes nothing any more.
        counters: where bytes are counted.
        trace: is told of all that is written.
    """

    __slots__ = ("_counters", "_handed_bytes", "_send", "_trace", "_transport")

    def __init__(self, transport: Any, counters: Counters, trace: Callable[[bytes], None] | None = None) -> None:
        self._transport = transport
        is_direct = isinstance(transport, TcpConnection) and not transport.TLS
        self._send: Callable[[bytes], int] | None = transport.socket.send if is_direct else None
        self._handed_bytes = 0
        self._counters = counters
        self._trace = trace

    def write(self, data: bytes) -> None:
        """Writes behind all that was written before."""
        self._counters.sent_bytes += len(data)
        self.pass_on(data)

    def pass_on(self, data: bytes) -> None:
        """Writes like ``write``, for a caller that counts the bytes of many at once."""
        transport, send = self._transport, self._send
        if self._trace is not None:
            self._trace(data)
        if send is None:
            if transport is not None:
                self._handed_bytes = len(data)
                transport.write(data)
        elif transport.dataBuffer or transport._tempDataBuffer or transport.disconnecting:
            transport.write(data)
        else:
            try:
                taken = send(data)
            except OSError:
                # There is no room, or an error: the reactor meets it again and ends the connection as any other.
                taken = 0
            if taken != len(data):
                transport.write(data[taken:])

    @property
    def buffered_bytes(self) -> int:
        """How much the transport holds. Where it does not tell: the piece that made it ask for a pause."""
        transport = self._transport
        if self._send is None:
            return self._handed_bytes
        buffered: int = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
        return buffered


CLOSED = Sink(None, Counters())
"""Takes nothing; stands in for a transport that is gone."""
