"""Makes the connections, counts them, and ends them all when the relay stops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress

from clasp_relay.errors import CloseCode
from clasp_relay.net.admission import Admission
from clasp_relay.net.closing import CloseAll
from clasp_relay.net.keeper import Keeper
from clasp_relay.net.limits import NetLimits
from clasp_relay.net.observer import NetObserver, UnwatchedNet
from clasp_relay.net.protocol import ClaspProtocol
from clasp_relay.net.relay_port import RelayPort
from clasp_relay.net.turn import TurnWriter
from clasp_relay.wire.constants import MAX_FRAME_BYTES


def any_origin(origin: str, host: str) -> bool:  # noqa: ARG001
    """Lets web pages of every origin connect."""
    return True


def socket_address(peer: str, forwarded_for: str) -> str:  # noqa: ARG001
    """Takes the socket's peer as the client, since no proxy is trusted."""
    return peer


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
        observer: NetObserver | None = None,
    ) -> None:
        super().__init__(server="", reactor=reactor)  # type: ignore[no-untyped-call]
        self.setProtocolOptions(  # type: ignore[no-untyped-call]
            webStatus=False,
            failByDrop=False,
            maxFramePayloadSize=MAX_FRAME_BYTES,
            maxMessagePayloadSize=MAX_FRAME_BYTES,
            # Time is kept by the protocol and the keeper: Autobahn's timers run on a global reactor.
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
        self.writer = writer
        self.limits = limits or NetLimits()
        self.allows_origin = allows_origin
        self.client_address = client_address
        self.observer: NetObserver = observer or UnwatchedNet()
        self.keeper = Keeper(reactor, self.limits.session_timeout_s)
        self.connections: set[ClaspProtocol] = set()
        """All TCP connections, upgraded or not."""
        self._admission = Admission(self.limits)
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
        if self._is_stopping or len(self.connections) >= 2 * self.limits.max_sessions:
            self.turn_away(getattr(addr, "host", ""), "too many connections")
            return None
        return super().buildProtocol(addr)

    def turn_away(self, address: str, why: str) -> None:
        """Counts a connection that does not become a session, and tells the observer."""
        self.writer.counters.turned_away += 1
        self.observer.turned_away(address, why)

    def admit(self, connection: ClaspProtocol) -> str | None:
        """Counts an upgraded connection as a session.

        Returns:
            Why it cannot be one, for people; None when it is one.
        """
        refusal = (
            "the server is stopping" if self._is_stopping else self._admission.admit(connection, connection.address)
        )
        if refusal is None:
            self.keeper.add(connection)
        return refusal

    def forget(self, connection: ClaspProtocol) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        self.keeper.remove(connection)
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
        return self._closing.start(code, reason, batch)

    def _protocol_class(self) -> type[ClaspProtocol]:
        """Returns the protocol with its options as class attributes.

        Autobahn copies some thirty of them to each connection, and formats them all for a debug line. One of them
        is a function, called with the client's compression offers only: as a method it would also get the protocol.
        """
        options = {name: getattr(self, name) for name in ClaspProtocol.CONFIG_ATTRS}
        options["perMessageCompressionAccept"] = staticmethod(options["perMessageCompressionAccept"])
        return type("ClaspProtocol", (ClaspProtocol,), {**options, "CONFIG_ATTRS": ()})
