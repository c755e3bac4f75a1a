"""One client's connection: HTTP upgrade, messages, liveness, and an end that is always told to the relay."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from clasp_relay.errors import CloseCode, ErrorCode
from clasp_relay.logs import events
from clasp_relay.net.connection import error_frame
from clasp_relay.net.fast_path import FastPathProtocol
from clasp_relay.net.framing import CODEC
from clasp_relay.net.outbox import Outbox
from clasp_relay.net.relay_port import SessionPort

if TYPE_CHECKING:
    from clasp_relay.net.factory import ClaspFactory

SUBPROTOCOLS = ("clasp", "clasp.v2")
"""What a client may ask for; it fails the connection unless the answer names one that it asked for."""

END_TIMEOUT_S = 10.0
"""How long a peer has to take what was sent and answer a Close, before the connection is aborted."""

_PING = b"\x89\x00"
_OPCODE_PONG = 10


class ClaspProtocol(FastPathProtocol):
    """A client's connection. Made by ``ClaspFactory``."""

    factory: ClaspFactory

    codec = CODEC
    """See ``connection.Connection``."""
    outbox: Outbox | None = None
    """The way out, from the upgrade on."""
    address = ""
    """The client's address; empty where there is none, as on a Unix socket."""
    cause = ""
    """Why it ends, for people, once that is known."""
    trace: Callable[[bytes], None] | None = None
    """See ``connection.Connection``."""
    heard = False
    """Whether anything was received since the keeper came by."""
    _silent_s = 0.0
    _session: SessionPort | None = None
    _timer: IDelayedCall | None = None
    _is_ending = False

    # From the transport

    def connectionMade(self) -> None:
        """The client's TCP connection is there: it has 10 s for TLS, upgrade and HELLO."""
        factory = self.factory
        factory.connections.add(self)
        self._timer = factory.reactor.callLater(factory.limits.hello_timeout_s, self._hello_is_late)
        super().connectionMade()
        keep_alive = getattr(self.transport, "setTcpKeepAlive", None)
        if keep_alive is not None:
            keep_alive(True)

    def dataReceived(self, data: bytes) -> None:
        """Takes bytes. Once the connection is being dropped they are thrown away and not collected."""
        self.heard = True
        self.factory.writer.counters.received_bytes += len(data)
        if self.state != self.STATE_CLOSED:
            self._dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone, whatever ended it."""
        self._stop_timer()
        if self.outbox is not None:
            self.outbox.shut()
        self.factory.forget(self)
        session, self._session = self._session, None
        try:
            if session is not None:
                self.factory.relay.disconnect(session, self.cause or self._cause_of(reason))
        except Exception:
            events.CONNECTION_FAULT.failure(action="ended a session")
        finally:
            super().connectionLost(reason)
            # Autobahn's Deferred of this name holds the protocol as its result: a cycle.
            self.is_closed = self.outbox = None

    # From Autobahn: the upgrade

    def on_tls(self) -> None:
        """See the base class."""
        self.factory.turn_away(_host(self.transport), "the client speaks TLS, but this port does not")
        super().on_tls()

    def onConnect(self, request: ConnectionRequest) -> str | None:
        """Decides about an upgrade.

        Returns:
            The subprotocol, or None when the client asks for none.

        Raises:
            ConnectionDeny: 403 for a web page of another origin, 400 when the client speaks no CLASP.
        """
        factory = self.factory
        headers = request.headers
        self.address = factory.client_address(_host(self.transport), headers.get("x-forwarded-for", ""))
        if request.origin and not factory.allows_origin(request.origin, headers.get("host", "")):
            factory.turn_away(self.address, "a web page of another origin")
            raise ConnectionDeny(403, "this origin may not connect")
        if not request.protocols:
            return None
        for subprotocol in SUBPROTOCOLS:
            if subprotocol in request.protocols:
                return subprotocol
        raise ConnectionDeny(400, "none of the subprotocols is known; this is clasp")

    def onOpen(self) -> None:
        """The upgrade is done: a session begins, or the client reads why there is none."""
        self.forget_request()
        factory = self.factory
        if factory.observer.traces:
            self.trace = self._tell_sent
        outbox = self.outbox = Outbox(self, factory.writer, factory.limits.outbox_bytes)
        # Behind a web server's resource the HTTP channel may still be registered.
        self.transport.unregisterProducer()
        self.transport.registerProducer(outbox, True)
        refusal = factory.admit(self)
        if refusal is not None:
            factory.turn_away(self.address, refusal)
            outbox.send(error_frame(self.codec, ErrorCode.OVERLOADED, refusal))
            outbox.close(CloseCode.TRY_AGAIN_LATER, refusal)
            return
        try:
            self._session = factory.relay.connect(outbox, self.address, self.codec)
        except Exception:
            events.CONNECTION_FAULT.failure(action="began a session")
            outbox.close(CloseCode.INTERNAL, "internal error")

    # From Autobahn: messages

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N803
        """Passes a message to the relay; a text message is a protocol error."""
        outbox, session = self.outbox, self._session
        if outbox is None or outbox.closing or session is None:
            return
        if not isBinary:
            self.factory.writer.counters.texts += 1
            outbox.send(error_frame(self.codec, ErrorCode.MESSAGE, "text messages are no CLASP"))
            outbox.close(CloseCode.UNSUPPORTED_DATA, "text messages are no CLASP")
            return
        try:
            self.factory.relay.receive(session, payload)
        except Exception:
            events.CONNECTION_FAULT.failure(action="handled a message")
            outbox.close(CloseCode.INTERNAL, "internal error")
        if self._timer is not None and session.is_live and not outbox.closing:
            self._stop_timer()

    def onPing(self, payload: bytes) -> None:
        """Answers a ping, unless the peer does not read its pongs."""
        if self.outbox is not None and self.outbox.pong(payload):
            self.answer_ping(payload)

    # The end

    def sendCloseFrame(  # noqa: N802
        self,
        code: int | None = None,
        reasonUtf8: bytes | None = None,  # noqa: N803
        isReply: bool = False,  # noqa: N803
    ) -> None:
        """Sends a Close behind all of this turn's frames; the peer has 10 s to answer it."""
        if not isReply:
            self.cause = self.cause or (reasonUtf8 or b"").decode(errors="replace")
        if self.outbox is not None:
            try:
                self.outbox.finish()
            except Exception:
                events.CONNECTION_FAULT.failure(action="wrote to a session")
        super().sendCloseFrame(code, reasonUtf8, isReply)
        self.expect_end()

    def dropConnection(self, abort: bool = False) -> None:
        """Ends the TCP connection, in order where the WebSocket ended in order."""
        if self.outbox is not None:
            self.outbox.shut()
        # Autobahn resets the connection once the peer has answered a Close; some peers call that an error.
        super().dropConnection(abort and not self.wasClean)
        self.expect_end()

    def close(self, close_code: CloseCode, reason: str) -> None:
        """Ends the session, or a connection that is none yet."""
        if self.outbox is None:
            self.abort()
        else:
            self.outbox.close(close_code, reason)

    @property
    def is_drained(self) -> bool:
        """Whether all that was sent has left this process, as far as the transport tells."""
        return not _buffered_bytes(self.transport) and (self.outbox is None or self.outbox.is_drained)

    @property
    def waiting_bytes(self) -> int:
        """How much was sent and has not left this process, as far as that is known."""
        backlog = None if self.outbox is None else self.outbox.backlog
        return _buffered_bytes(self.transport) + (0 if backlog is None else backlog.size_bytes)

    def send_close(self, close_code: CloseCode, reason: bytes) -> None:
        """See ``outbox.Connection``."""
        self.sendCloseFrame(int(close_code), reason, False)

    def answer_ping(self, payload: bytes) -> None:
        """See ``outbox.Connection``."""
        if self.state == self.STATE_OPEN:
            self.sendFrame(_OPCODE_PONG, payload)

    def expect_end(self) -> None:
        """See ``outbox.Connection``. The first call counts."""
        if self in self.factory.connections and not self._is_ending:
            self._stop_timer()
            self._is_ending = True
            self._timer = self.factory.reactor.callLater(END_TIMEOUT_S, self.abort)

    def slow(self, waiting_bytes: int) -> None:
        """See ``outbox.Connection``."""
        if self._session is not None:
            self.factory.observer.slow(self._session.id, self.address, waiting_bytes)

    def abort(self) -> None:
        """See ``outbox.Connection``."""
        self.cause = self.cause or "given up: it did not take what was sent"
        self._stop_timer()
        self.transport.abortConnection()

    # Time

    def keep_alive(self, interval_s: float) -> None:
        """Pings the peer; ends the session when nothing came from it for too long."""
        outbox = self.outbox
        if outbox is None or outbox.closing:
            return
        self._silent_s = 0.0 if self.heard else self._silent_s + interval_s
        self.heard = False
        timeout_s = self.factory.limits.session_timeout_s
        if self._silent_s >= timeout_s:
            outbox.close(CloseCode.POLICY_VIOLATION, f"nothing was received for {timeout_s:.0f} s")
        else:
            self.transport.write(_PING)

    def _hello_is_late(self) -> None:
        self._timer = None
        session, outbox = self._session, self.outbox
        if session is not None and session.is_live:
            return
        if outbox is None:
            self.abort()
            return
        reason = f"no HELLO within {self.factory.limits.hello_timeout_s:g} s"
        outbox.send(error_frame(self.codec, ErrorCode.UNAUTHENTICATED, reason))
        outbox.close(CloseCode.POLICY_VIOLATION, reason)

    def _tell_sent(self, data: bytes) -> None:
        self.factory.observer.sent("" if self._session is None else self._session.id, data)

    def _cause_of(self, lost: Failure) -> str:
        """Says why a connection ended that nobody here ended."""
        code = self.remoteCloseCode
        if code is not None:
            return f"closed by the client ({code} {self.remoteCloseReason or ''}".rstrip() + ")"
        return "the client hung up" if lost.check(ConnectionDone) else "the connection was lost"

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()


def _buffered_bytes(transport: Any) -> int:
    """Returns how much a transport keeps in memory: what TLS has not encrypted yet, and what TCP has not sent."""
    size_bytes = 0
    while transport is not None:
        aggregator = getattr(transport, "_aggregator", None)
        size_bytes += sum(map(len, getattr(aggregator, "_buffer", ())))
        size_bytes += sum(map(len, getattr(transport, "_appSendBuffer", ())))
        size_bytes += len(getattr(transport, "dataBuffer", b"")) + getattr(transport, "_tempDataLen", 0)
        transport = getattr(transport, "transport", None)
    return size_bytes


def _host(transport: Any) -> str:
    return str(getattr(transport.getPeer(), "host", ""))
