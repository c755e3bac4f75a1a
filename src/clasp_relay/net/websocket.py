"""CLASP over WebSocket: the clients' connections, and the factory that makes, counts and ends them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from autobahn.twisted.websocket import WebSocketServerFactory
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from clasp_relay.core.ports import Codec, Outbox
from clasp_relay.errors import CloseCode, ErrorCode
from clasp_relay.logs import events
from clasp_relay.net.admission import Admission, NetLimits, same_address
from clasp_relay.net.closing import Closable, CloseAll, EndQueue
from clasp_relay.net.frames import CODEC, ControlFrames, FastPathProtocol
from clasp_relay.net.liveness import Liveness, Pinged
from clasp_relay.net.observer import NetObserver, UnwatchedNet
from clasp_relay.net.open_files import is_short
from clasp_relay.net.outbox import Outbox as SocketOutbox
from clasp_relay.net.reading import Reading
from clasp_relay.net.turn import TurnWriter
from clasp_relay.wire.constants import MAX_FRAME_BYTES

SUBPROTOCOLS = ("clasp", "clasp.v2")
"""The subprotocols of CLASP. A client fails the connection unless the answer names one that it offered."""

END_TIMEOUT_S = 10.0
"""Time in s for a peer to read what was sent and to answer a Close; then the connection is aborted."""

MAX_REASON_BYTES = 123
"""A control frame carries 125 bytes, two of them the close code (RFC 6455 §5.5)."""

_CLOSED = FastPathProtocol.STATE_CLOSED
_PING = b"\x89\x00"
_OPCODE_PONG = 10


class SessionPort(Protocol):
    """A session, as far as its connection uses it."""

    @property
    def id(self) -> str:
        """The id of the session, for the log."""

    @property
    def is_live(self) -> bool:
        """Whether its HELLO was accepted, and it has not ended."""

    @property
    def is_busy(self) -> bool:
        """Whether a message is being handled in pieces; later ones have to wait."""


S = TypeVar("S", bound=SessionPort)


class CountedConnection(Closable, Pinged, Protocol):
    """A client's TCP connection, of any door. Hashable by identity."""

    address: str
    """The client's address; empty if there is none."""
    lane: str
    """Its lane (``core.lanes``); set by the factory."""

    @property
    def waiting_bytes(self) -> int:
        """The bytes that were sent and have not left this process, as far as that is known."""


class RelayPort(Protocol[S]):
    """The relay. None of its methods raises."""

    def connect(self, outbox: Outbox, peer: str, codec: Codec) -> S:
        """Begins a session.

        Args:
            outbox: its outbox.
            peer: the client's address.
            codec: its protocol.
        """

    def receive(self, session: S, data: bytes) -> None:
        """Handles one message, in the session's codec."""

    def disconnect(self, session: S, cause: str) -> None:
        """Ends a session; does nothing if it has already ended.

        Args:
            session: the session.
            cause: the cause, for people.
        """


class Draining:
    """The part of a connection with an outbox that tells which bytes have not left this process."""

    transport: Any
    outbox: SocketOutbox | None = None
    """Its outbox; None before the upgrade and after the end."""

    @property
    def is_drained(self) -> bool:
        """Whether all that was sent has left this process, as far as the transport tells."""
        return not buffered_bytes(self.transport) and (self.outbox is None or self.outbox.is_drained)

    @property
    def waiting_bytes(self) -> int:
        """The bytes that were sent and have not left this process, as far as that is known."""
        backlog = None if self.outbox is None else self.outbox.backlog
        return buffered_bytes(self.transport) + (0 if backlog is None else backlog.size_bytes)


class ClaspProtocol(Draining, FastPathProtocol):  # type: ignore[misc]  # Autobahn's own bases disagree
    """A client's connection. Made by ``ClaspFactory``."""

    factory: ClaspFactory

    codec: Codec = CODEC
    """See ``outbox.Connection``."""
    address = ""
    """The client's address; empty if there is none, as on a Unix socket."""
    lane = ""
    """See ``CountedConnection``."""
    cause = ""
    """The cause of its end, for people, once that is known."""
    trace: Callable[[bytes], None] | None = None
    """See ``outbox.Connection``."""
    heard = False
    """Whether anything was received since the last liveness check."""
    _silent_s = 0.0
    _session: SessionPort | None = None
    _port: RelayPort[Any]
    _timer: IDelayedCall | None = None
    _controls: ControlFrames | None = None
    _is_ending = False
    _drops_with_close = False

    # From the transport

    def connectionMade(self) -> None:
        """Begins a TCP connection: the client has 10 s for TLS and the upgrade together."""
        factory = self.factory
        self._port = factory.relay
        factory.connected(self, peer_host(self.transport))
        self._timer = factory.reactor.callLater(factory.limits.hello_timeout_s, self._hello_is_late)
        super().connectionMade()
        keep_alive = getattr(self.transport, "setTcpKeepAlive", None)
        if keep_alive is not None:
            keep_alive(True)

    def dataReceived(self, data: bytes) -> None:
        """Handles received bytes; once the connection is being dropped, they are discarded."""
        self.heard = True
        self.factory.writer.counters.received_bytes += len(data)
        if self.state != _CLOSED:
            self._dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Ends the session of a connection that was lost, for whatever cause."""
        self._stop_timer()
        self.factory.reading.forget(self)
        if self._controls is not None:
            self._controls.stop()
            self._controls = None
        if self.outbox is not None:
            self.outbox.close_now()
        session, self._session = self._session, None
        if session is not None:
            disconnect, cause = self._port.disconnect, self.cause or self._cause_of(reason)
            self.factory.end_queue.add(lambda: disconnect(session, cause), self.lane)
        self.factory.forget(self)
        super().connectionLost(reason)
        # Autobahn's Deferred of the first name holds the protocol as its result, and so does ``trace``: cycles.
        self.is_closed = self.outbox = self.trace = None

    # From Autobahn: the upgrade

    def on_tls(self) -> None:
        """See the base class."""
        self.factory.turn_away(peer_host(self.transport), "the client speaks TLS, but this port does not")
        super().on_tls()

    def onConnect(self, request: ConnectionRequest) -> str | None:
        """Decides about an upgrade.

        Returns:
            The subprotocol; None if the client offers none.

        Raises:
            ConnectionDeny: 403 for a web page of another origin; 400 if the client offers only unknown subprotocols.
        """
        factory = self.factory
        headers = request.headers
        self.address = factory.client_address(peer_host(self.transport), headers.get("x-forwarded-for", ""))
        factory.located(self)
        if request.origin and not factory.allows_origin(request.origin, headers.get("host", "")):
            factory.turn_away(self.address, "a web page of another origin")
            raise ConnectionDeny(403, "this origin may not connect")
        if not request.protocols:
            return None
        for subprotocol in SUBPROTOCOLS:
            if subprotocol in request.protocols:
                return subprotocol
        for subprotocol, (port, codec) in factory.others.items():
            if subprotocol in request.protocols:
                self._port, self.codec = port, codec
                return subprotocol
        raise ConnectionDeny(400, "none of the subprotocols is known; this is clasp")

    def onOpen(self) -> None:
        """Begins a session after the upgrade, with 10 s for HELLO; or sends the reason of a refusal, and closes."""
        self.forget_request()
        if self._timer is not None:
            self._timer.reset(self.factory.limits.hello_timeout_s)
        factory = self.factory
        if factory.observer.traces:
            self.trace = self._tell_sent
        outbox = self.outbox = SocketOutbox(self, factory.writer, factory.limits.outbox_bytes)
        # With a ``WebSocketResource`` of a web server, the HTTP channel may still be registered as producer.
        self.transport.unregisterProducer()
        self.transport.registerProducer(outbox, True)
        refusal = factory.admit(self)
        if refusal is not None:
            factory.turn_away(self.address, refusal)
            outbox.send_error(ErrorCode.OVERLOADED, refusal)
            outbox.close(CloseCode.TRY_AGAIN_LATER, refusal)
            return
        try:
            self._session = self._port.connect(outbox, self.address, self.codec)
        except Exception:
            events.CONNECTION_FAULT.failure(action="began a session")
            outbox.close(CloseCode.INTERNAL, "internal error")

    # From Autobahn: messages

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N803
        """Passes a message to the relay; a text message is a protocol error."""
        outbox, session = self.outbox, self._session
        if outbox is None or outbox.is_closing or session is None:
            return
        if not isBinary:
            self.factory.writer.counters.texts += 1
            outbox.send_error(ErrorCode.MESSAGE, "text messages are no CLASP")
            outbox.close(CloseCode.UNSUPPORTED_DATA, "text messages are no CLASP")
            return
        try:
            self._port.receive(session, payload)
        except Exception:
            events.CONNECTION_FAULT.failure(action="handled a message")
            outbox.close(CloseCode.INTERNAL, "internal error")
        if self._timer is not None and session.is_live and not outbox.is_closing:
            self._stop_timer()

    def onPing(self, payload: bytes) -> None:
        """Answers a ping, unless the peer does not read its pongs."""
        controls = self._count_control()
        if controls is not None and self.outbox is not None and self.outbox.may_pong(payload):
            controls.answer(payload)

    def onPong(self, payload: bytes) -> None:  # noqa: ARG002
        """Counts a pong; ``dataReceived`` has noted that the peer is alive."""
        self._count_control()

    def _count_control(self) -> ControlFrames | None:
        """Counts a control frame; returns None if the session is closed, because of too many of them or otherwise."""
        outbox, session = self.outbox, self._session
        if outbox is None or outbox.is_closing:
            return None
        if self._controls is None:
            self._controls = ControlFrames(self.factory.reactor, self.answer_ping)
        reason = self._controls.count(session is not None and session.is_live)
        if reason is None:
            return self._controls
        self._drops_with_close = True
        outbox.close(CloseCode.POLICY_VIOLATION, reason)
        return None

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
                self.outbox.flush_and_close()
            except Exception:
                events.CONNECTION_FAULT.failure(action="wrote to a session")
        super().sendCloseFrame(code, reasonUtf8, isReply)
        self.expect_end()

    def dropConnection(self, abort: bool = False) -> None:
        """Ends the TCP connection: with a reset only if the WebSocket did not end cleanly."""
        if self.outbox is not None:
            self.outbox.close_now()
        # Autobahn resets the connection once the peer has answered a Close; some peers call that an error.
        super().dropConnection(abort and not self.wasClean)
        self.expect_end()

    def close(self, close_code: CloseCode, reason: str) -> None:
        """Closes the session; aborts a connection that is not a session yet."""
        if self.outbox is None:
            self.abort()
        else:
            self.outbox.close(close_code, reason)

    def send_close(self, close_code: CloseCode, reason: str) -> None:
        """See ``outbox.Connection``; the reason is cut between characters to what a Close frame carries."""
        cut = reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
        self.sendCloseFrame(int(close_code), cut.encode(), False)
        if self._drops_with_close:
            self.dropConnection()

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
        """Pings the peer; ends the session if nothing was received within the idle timeout."""
        outbox = self.outbox
        if outbox is None or outbox.is_closing:
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
        if outbox is None or not outbox.is_drained:
            self.abort()
            return
        self._drops_with_close = True
        reason = f"no HELLO within {self.factory.limits.hello_timeout_s:g} s"
        outbox.send_error(ErrorCode.UNAUTHENTICATED, reason)
        outbox.close(CloseCode.POLICY_VIOLATION, reason)

    def _tell_sent(self, data: bytes) -> None:
        self.factory.observer.sent("" if self._session is None else self._session.id, data)

    def _cause_of(self, lost: Failure) -> str:
        """Returns why a connection ended that the relay did not end, for people."""
        code = self.remoteCloseCode
        if code is not None:
            return f"closed by the client ({code} {self.remoteCloseReason or ''}".rstrip() + ")"
        return "the client hung up" if lost.check(ConnectionDone) else "the connection was lost"

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()


def buffered_bytes(transport: Any) -> int:
    """Returns the bytes that a transport keeps in memory: those not yet encrypted by TLS, and those not yet sent."""
    size_bytes = 0
    while transport is not None:
        aggregator = getattr(transport, "_aggregator", None)
        size_bytes += sum(map(len, getattr(aggregator, "_buffer", ())))
        size_bytes += sum(map(len, getattr(transport, "_appSendBuffer", ())))
        size_bytes += len(getattr(transport, "dataBuffer", b"")) + getattr(transport, "_tempDataLen", 0)
        transport = getattr(transport, "transport", None)
    return size_bytes


def peer_host(transport: Any) -> str:
    """Returns the address of a transport's peer; empty if it has none."""
    return str(getattr(transport.getPeer(), "host", ""))


def any_origin(origin: str, host: str) -> bool:  # noqa: ARG001
    """Allows every origin."""
    return True


def socket_address(peer: str, forwarded_for: str) -> str:  # noqa: ARG001
    """Returns the socket's peer: no proxy is trusted."""
    return peer


def no_proxy(peer: str) -> bool:  # noqa: ARG001
    """Trusts no proxy."""
    return False


class ClaspFactory(WebSocketServerFactory):
    """Serves CLASP over WebSocket, on a port of its own or as a web server's ``WebSocketResource``.

    Args:
        relay: handles the messages.
        writer: writes to the sessions at the end of each turn; the relay's ``FanOut``.
        reactor: for its clock (``IReactorTime``).
        limits: the limits of connections.
        allows_origin: given Origin and Host of an upgrade, tells whether a page of this origin may connect.
        client_address: given the socket's peer and ``X-Forwarded-For`` (or an empty string), returns the
            client's address.
        address_group: maps a client address to what counts as one (``Admission``).
        is_proxy: tells whether a socket's peer is a trusted proxy, whose connections count for its clients.
        observer: gets reports about connections.
    """

    noisy = False

    def __init__(
        self,
        relay: RelayPort[Any],
        writer: TurnWriter,
        reactor: Any,
        limits: NetLimits | None = None,
        *,
        allows_origin: Callable[[str, str], bool] = any_origin,
        client_address: Callable[[str, str], str] = socket_address,
        address_group: Callable[[str], str] = same_address,
        is_proxy: Callable[[str], bool] = no_proxy,
        observer: NetObserver | None = None,
    ) -> None:
        super().__init__(server="", reactor=reactor)  # type: ignore[no-untyped-call]
        self.setProtocolOptions(  # type: ignore[no-untyped-call]
            webStatus=False,
            failByDrop=False,
            maxFramePayloadSize=MAX_FRAME_BYTES,
            maxMessagePayloadSize=MAX_FRAME_BYTES,
            # The protocol and ``liveness`` have timers of their own: Autobahn's run on a global reactor.
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
            autoPingInterval=0,
            utf8validateIncoming=False,  # text is refused, whatever it says
            tcpNoDelay=True,
            # Origins are decided by allows_origin.
            allowedOrigins=["*"],
            allowNullOrigin=True,
        )
        self.relay = relay
        self.others: dict[str, tuple[RelayPort[Any], Codec]] = {}
        """The relay and the codec of each other subprotocol. This layer encodes its ERRORs with the codec."""
        self.writer = writer
        self.limits = limits or NetLimits()
        self.allows_origin = allows_origin
        self.client_address = client_address
        self.observer: NetObserver = observer or UnwatchedNet()
        self.reading = Reading(reactor)
        """Gives connections their slices of a turn."""
        writer.unhandled = self.reading
        self.liveness = Liveness(reactor, self.limits.session_timeout_s)
        self.connections: set[CountedConnection] = set()
        """All TCP connections, upgraded or not, those of other doors included."""
        self.end_queue = EndQueue(reactor)
        self._admission = Admission(self.limits, address_group)
        self._address_group = address_group
        self._is_proxy = is_proxy
        self._is_stopping = False
        self._closing: CloseAll | None = None
        self.protocol = self._protocol_class()

    @property
    def sessions(self) -> int:
        """Number of connections that are upgraded and counted as sessions."""
        return len(self._admission)

    @property
    def waiting_bytes(self) -> int:
        """The bytes that wait for all connections together."""
        return sum(connection.waiting_bytes for connection in self.connections)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Makes the protocol for a new TCP connection, or None, which closes it at once."""
        return super().buildProtocol(addr) if self.accepts(getattr(addr, "host", "")) else None

    def accepts(self, host: str) -> bool:
        """Tells whether a new TCP connection is accepted; if not, it is counted as turned away.

        Args:
            host: the socket's peer.
        """
        max_connections = 2 * self.limits.max_sessions
        if self._is_stopping or (max_connections and len(self.connections) >= max_connections):
            refusal = "too many connections"
        elif not self._is_proxy(host) and not self._admission.may_connect(host):
            refusal = "too many connections from this address"
        elif is_short():
            refusal = "too many open files"
        else:
            return True
        self.turn_away(host, refusal)
        return False

    def connected(self, connection: CountedConnection, peer: str) -> None:
        """Counts a TCP connection.

        Args:
            connection: the connection.
            peer: the socket's peer; if it is a trusted proxy, the client's address is known only with the request.
        """
        self.connections.add(connection)
        connection.lane = self._address_group(peer)
        self._admission.connected(connection, "" if self._is_proxy(peer) else peer)

    def located(self, connection: CountedConnection) -> None:
        """Counts a connection for its client's address, once that is known."""
        connection.lane = self._address_group(connection.address)
        self._admission.connected(connection, connection.address)

    def turn_away(self, address: str, why: str) -> None:
        """Counts a connection that does not become a session, and tells the observer."""
        self.writer.counters.turned_away += 1
        self.observer.turned_away(address, why)

    def admit(self, connection: CountedConnection) -> str | None:
        """Counts an upgraded connection as a session.

        Returns:
            The reason of a refusal, for people; None if it is accepted.
        """
        refusal = "the server is stopping" if self._is_stopping else self._admission.admit(connection)
        if refusal is None:
            self.liveness.add(connection)
        return refusal

    def forget(self, connection: CountedConnection) -> None:
        """Stops counting a connection that has ended."""
        self.connections.discard(connection)
        self.liveness.remove(connection)
        self._admission.leave(connection)
        if self._closing is not None and not self.connections:
            self._closing.check()

    def stop_accepting(self) -> None:
        """Refuses all connections from now on."""
        self._is_stopping = True

    def close_all(
        self,
        code: CloseCode = CloseCode.GOING_AWAY,
        reason: str = "going away",
        batch: int = 100,
        timeout_s: float = 5,
    ) -> Deferred[int]:
        """Stops accepting, closes every session, and waits until their queues are empty.

        Args:
            code: the WebSocket close code.
            reason: the close reason.
            batch: connections that are closed in one turn of the event loop.
            timeout_s: seconds to wait; then the connections that are left are aborted.

        Returns:
            the number of connections that had to be aborted.
        """
        self.stop_accepting()
        if self._closing is None:
            self._closing = CloseAll(self.reactor, self.connections, timeout_s)
        return self._closing.start(code, reason, batch).addCallback(self._end_waiting)

    def _end_waiting(self, aborted: int) -> int:
        self.end_queue.end_all()
        return aborted

    def _protocol_class(self) -> type[ClaspProtocol]:
        """Returns the protocol with its options as class attributes.

        Otherwise Autobahn would copy some thirty of them to each connection, and format them all for a debug line. One
        of them is a function that is called with the client's compression offers only: as a method it would also get
        the protocol.
        """
        options = {name: getattr(self, name) for name in ClaspProtocol.CONFIG_ATTRS}
        options["perMessageCompressionAccept"] = staticmethod(options["perMessageCompressionAccept"])
        return type("ClaspProtocol", (ClaspProtocol,), {**options, "CONFIG_ATTRS": ()})
