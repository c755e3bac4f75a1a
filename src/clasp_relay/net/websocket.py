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
"""What a client may ask for; it fails the connection unless the answer names one that it asked for."""

END_TIMEOUT_S = 10.0
"""How long a peer has to take what was sent and answer a Close, before the connection is aborted."""

MAX_REASON_BYTES = 123
"""A control frame carries 125 bytes, two of them the close code (RFC 6455 §5.5)."""

_CLOSED = FastPathProtocol.STATE_CLOSED
_PING = b"\x89\x00"
_OPCODE_PONG = 10


class SessionPort(Protocol):
    """A session, as far as its connection looks at it."""

    @property
    def id(self) -> str:
        """What the session is called in the log."""

    @property
    def is_live(self) -> bool:
        """Whether HELLO was accepted and WELCOME sent."""

    @property
    def is_busy(self) -> bool:
        """Whether a message of it is still at work; those behind it have to wait."""


S = TypeVar("S", bound=SessionPort)


class CountedConnection(Closable, Pinged, Protocol):
    """A client's TCP connection, at whichever door. Hashable by identity."""

    address: str
    """The client's address; empty where there is none."""
    lane: str
    """What has one place in a turn with it; see ``core.lanes``. Set by the factory."""

    @property
    def waiting_bytes(self) -> int:
        """How much was sent and has not left this process, as far as that is known."""


class RelayPort(Protocol[S]):
    """The relay. None of its methods raises."""

    def connect(self, outbox: Outbox, peer: str, codec: Codec) -> S:
        """Begins a session.

        Args:
            outbox: its way out.
            peer: the client's address.
            codec: the protocol that it speaks.
        """

    def receive(self, session: S, data: bytes) -> None:
        """Takes one message, in the session's codec."""

    def disconnect(self, session: S, cause: str) -> None:
        """Ends a session; harmless when it has ended already.

        Args:
            session: which.
            cause: why, for people.
        """


class Draining:
    """A connection with an outbox, as far as it tells what has not left this process."""

    transport: Any
    outbox: SocketOutbox | None = None
    """Its way out, while it has one."""

    @property
    def is_drained(self) -> bool:
        """Whether all that was sent has left this process, as far as the transport tells."""
        return not buffered_bytes(self.transport) and (self.outbox is None or self.outbox.is_drained)

    @property
    def waiting_bytes(self) -> int:
        """How much was sent and has not left this process, as far as that is known."""
        backlog = None if self.outbox is None else self.outbox.backlog
        return buffered_bytes(self.transport) + (0 if backlog is None else backlog.size_bytes)


class ClaspProtocol(Draining, FastPathProtocol):  # type: ignore[misc]  # Autobahn's own bases disagree
    """A client's connection. Made by ``ClaspFactory``."""

    factory: ClaspFactory

    codec: Codec = CODEC
    """See ``outbox.Connection``."""
    address = ""
    """The client's address; empty where there is none, as on a Unix socket."""
    lane = ""
    """See ``CountedConnection``."""
    cause = ""
    """Why it ends, for people, once that is known."""
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
        """The client's TCP connection is there: it has 10 s for TLS and upgrade, however they drip."""
        factory = self.factory
        self._port = factory.relay
        factory.connected(self, peer_host(self.transport))
        self._timer = factory.reactor.callLater(factory.limits.hello_timeout_s, self._hello_is_late)
        super().connectionMade()
        keep_alive = getattr(self.transport, "setTcpKeepAlive", None)
        if keep_alive is not None:
            keep_alive(True)

    def dataReceived(self, data: bytes) -> None:
        """Takes bytes. Once the connection is being dropped they are thrown away and not collected."""
        self.heard = True
        self.factory.writer.counters.received_bytes += len(data)
        if self.state != _CLOSED:
            self._dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone, whatever ended it."""
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
        # Autobahn's Deferred of this name holds the protocol as its result: a cycle.
        self.is_closed = self.outbox = None

    # From Autobahn: the upgrade

    def on_tls(self) -> None:
        """See the base class."""
        self.factory.turn_away(peer_host(self.transport), "the client speaks TLS, but this port does not")
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
        """The upgrade is done: a session begins, which has 10 s for HELLO, or the client reads why there is none."""
        self.forget_request()
        if self._timer is not None:
            self._timer.reset(self.factory.limits.hello_timeout_s)
        factory = self.factory
        if factory.observer.traces:
            self.trace = self._tell_sent
        outbox = self.outbox = SocketOutbox(self, factory.writer, factory.limits.outbox_bytes)
        # Behind a web server's resource the HTTP channel may still be registered.
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
        """Counts a pong; that it came shows that the peer is alive."""
        self._count_control()

    def _count_control(self) -> ControlFrames | None:
        """Counts a control frame; None when the session is closed, for its number or for another reason."""
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
        """Ends the TCP connection, in order where the WebSocket ended in order."""
        if self.outbox is not None:
            self.outbox.close_now()
        # Autobahn resets the connection once the peer has answered a Close; some peers call that an error.
        super().dropConnection(abort and not self.wasClean)
        self.expect_end()

    def close(self, close_code: CloseCode, reason: str) -> None:
        """Ends the session, or a connection that is none yet."""
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
        """Pings the peer; ends the session when nothing came from it for too long."""
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
        """Says why a connection ended that nobody here ended."""
        code = self.remoteCloseCode
        if code is not None:
            return f"closed by the client ({code} {self.remoteCloseReason or ''}".rstrip() + ")"
        return "the client hung up" if lost.check(ConnectionDone) else "the connection was lost"

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()


def buffered_bytes(transport: Any) -> int:
    """Returns how much a transport keeps in memory: what TLS has not encrypted yet, and what TCP has not sent."""
    size_bytes = 0
    while transport is not None:
        aggregator = getattr(transport, "_aggregator", None)
        size_bytes += sum(map(len, getattr(aggregator, "_buffer", ())))
        size_bytes += sum(map(len, getattr(transport, "_appSendBuffer", ())))
        size_bytes += len(getattr(transport, "dataBuffer", b"")) + getattr(transport, "_tempDataLen", 0)
        transport = getattr(transport, "transport", None)
    return size_bytes


def peer_host(transport: Any) -> str:
    """Returns the address of a transport's peer; empty where it has none."""
    return str(getattr(transport.getPeer(), "host", ""))


def any_origin(origin: str, host: str) -> bool:  # noqa: ARG001
    """Lets web pages of every origin connect."""
    return True


def socket_address(peer: str, forwarded_for: str) -> str:  # noqa: ARG001
    """Takes the socket's peer as the client, since no proxy is trusted."""
    return peer


def no_proxy(peer: str) -> bool:  # noqa: ARG001
    """Trusts no proxy."""
    return False


class ClaspFactory(WebSocketServerFactory):
    """Serves CLASP over WebSocket, on a port of its own or as a web server's ``WebSocketResource``.

    Args:
        relay: takes the messages.
        writer: writes to the sessions at the end of each turn; the one that the relay fans out with.
        reactor: for its clock (``IReactorTime``).
        limits: what connections may use.
        allows_origin: given Origin and Host of an upgrade, says whether a page from there may connect.
        client_address: given the socket's peer and ``X-Forwarded-For`` (or an empty string), returns the
            client's address.
        address_group: returns what is counted as one client address.
        is_proxy: says whether a socket's peer is a trusted proxy, whose connections count for its clients.
        observer: is told what happens to connections.
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
        """Who takes the messages of other subprotocols, and what an ERROR of this layer is there."""
        self.writer = writer
        self.limits = limits or NetLimits()
        self.allows_origin = allows_origin
        self.client_address = client_address
        self.observer: NetObserver = observer or UnwatchedNet()
        self.reading = Reading(reactor)
        """Who is read from in a turn."""
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
        """How many connections are upgraded and counted as sessions."""
        return len(self._admission)

    @property
    def waiting_bytes(self) -> int:
        """How much waits for slow connections, all together."""
        return sum(connection.waiting_bytes for connection in self.connections)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Makes the protocol for a new TCP connection, or None, which closes it at once."""
        return super().buildProtocol(addr) if self.accepts(getattr(addr, "host", "")) else None

    def accepts(self, host: str) -> bool:
        """Says whether a new TCP connection is accepted; if not, it is counted as turned away.

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
            peer: the socket's peer; if it is a trusted proxy, the client is known after the request.
        """
        self.connections.add(connection)
        connection.lane = self._address_group(peer)
        self._admission.connected(connection, "" if self._is_proxy(peer) else peer)

    def located(self, connection: CountedConnection) -> None:
        """Counts a connection for its client's address, which is known now."""
        connection.lane = self._address_group(connection.address)
        self._admission.connected(connection, connection.address)

    def turn_away(self, address: str, why: str) -> None:
        """Counts a connection that does not become a session, and tells the observer."""
        self.writer.counters.turned_away += 1
        self.observer.turned_away(address, why)

    def admit(self, connection: CountedConnection) -> str | None:
        """Counts an upgraded connection as a session.

        Returns:
            Why it cannot be one, for people; None when it is one.
        """
        refusal = "the server is stopping" if self._is_stopping else self._admission.admit(connection)
        if refusal is None:
            self.liveness.add(connection)
        return refusal

    def forget(self, connection: CountedConnection) -> None:
        """A connection is gone."""
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
            batch: how many are closed in one turn of the event loop.
            timeout_s: how long to wait; then what is left is aborted.

        Returns:
            How many connections had to be aborted.
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

        Autobahn copies some thirty of them to each connection, and formats them all for a debug line. One of them
        is a function, called with the client's compression offers only: as a method it would also get the protocol.
        """
        options = {name: getattr(self, name) for name in ClaspProtocol.CONFIG_ATTRS}
        options["perMessageCompressionAccept"] = staticmethod(options["perMessageCompressionAccept"])
        return type("ClaspProtocol", (ClaspProtocol,), {**options, "CONFIG_ATTRS": ()})
