"""Listens for MQTT: over TCP and TLS on ports of its own, and over WebSocket on the relay's."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from clasp_relay.core.ports import Codec
from clasp_relay.core.ports import Outbox as AnyOutbox
from clasp_relay.doors.door import Ports, refusal_of
from clasp_relay.doors.mqtt.broker import Broker
from clasp_relay.doors.mqtt.client import MqttClient
from clasp_relay.doors.stream import StreamConnection, StreamFactory
from clasp_relay.errors import CloseCode
from clasp_relay.logs import events
from clasp_relay.net.frames import wire_bytes
from clasp_relay.net.listening import TcpPlace, listen
from clasp_relay.net.outbox import Outbox
from clasp_relay.net.tls import ServerTls

POWER = "a client's password is its token (clasp-relay token create), «anonymous» in the policy gives scopes to others"


class MqttOverWebSocket:
    """The clients over WebSocket, with the subprotocol ``mqtt`` ([5] 6). Implements ``net.websocket.RelayPort``.

    Args:
        broker: the broker.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def connect(self, outbox: AnyOutbox, peer: str, _codec: Codec) -> MqttClient:
        """See ``RelayPort``."""
        assert isinstance(outbox, Outbox), "a connection's way out is that of net"
        self._broker.counts.clients += 1
        return MqttClient(self._broker, outbox, peer, wire_bytes, "websocket")

    def receive(self, client: MqttClient, data: bytes) -> None:
        """See ``RelayPort``; a WebSocket message is a piece of the stream."""
        client.feed(data)

    def disconnect(self, client: MqttClient, cause: str) -> None:
        """See ``RelayPort``."""
        self._broker.counts.clients -= 1
        client.gone(cause)


class MqttConnection(StreamConnection):
    """A client over TCP or TLS."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker.gate, broker.counts, broker.publisher.codec)
        self._broker = broker
        self._client: MqttClient | None = None

    @property
    def is_live(self) -> bool:
        """See the base class."""
        return self._client is not None and self._client.is_live

    @property
    def is_busy(self) -> bool:
        """See the base class."""
        return self._client is not None and self._client.is_busy

    @property
    def session_id(self) -> str:
        """See the base class."""
        return "" if self._client is None else self._client.id

    def begin(self, outbox: Outbox) -> None:
        """See the base class."""
        self._client = MqttClient(self._broker, outbox, self.address, bytes, "tcp")

    def turned_away(self, outbox: Outbox, refusal: str) -> None:
        """See the base class: does nothing, since the client's version is not known yet."""

    def take(self, data: bytes) -> None:
        """See the base class."""
        if self._client is not None:
            self._client.feed(data)

    def late(self, outbox: Outbox, reason: str) -> None:
        """See the base class: a client that has sent no CONNECT is told nothing ([5] 3.1.4)."""

    def say_end(self, close_code: CloseCode, reason: str) -> None:
        """See the base class: for a client that is too slow, after its waiting messages were dropped."""
        if self._client is not None:
            self.transport.write(self._client.last_word(close_code, reason))

    def gone(self, cause: str) -> None:
        """See the base class."""
        client, self._client = self._client, None
        if client is not None:
            client.gone(cause)

    def close(self, close_code: CloseCode, reason: str) -> None:
        """Ends the session, with a DISCONNECT if the version has one."""
        if self._client is not None:
            self._client.close(close_code, reason)
        super().close(close_code, reason)

    def look_after(self, silent_s: float) -> None:
        """Does nothing: the keep-alive interval is the client's choice, and TCP's own finds a dead peer."""


class MqttDoor:
    """Listens for MQTT. Implements ``door.Door``.

    Args:
        reactor: accepts the connections.
        plain: the address and port for TCP; None for none.
        tls: the address and port for TLS; None for none.
        broker: the broker.
    """

    def __init__(self, reactor: Any, plain: TcpPlace | None, tls: TcpPlace | None, broker: Broker) -> None:
        self._reactor = reactor
        self._plain = plain
        self._tls = tls
        self.broker = broker
        """The broker of all clients."""
        self.counts = (broker.counts,)
        """See ``Door``."""
        self.ports = Ports("MQTT")
        """Its ports."""
        self._tls_ports = Ports("MQTT over TLS")
        self._is_powerless = False

    def open(self, tls: ServerTls | None) -> None:
        """See ``Door``."""
        if self.ports or self._tls_ports:
            return
        broker, relay, codec = self.broker, self.broker.relay, self.broker.publisher.codec
        self._is_powerless = refusal_of(relay, "", codec) is not None
        codec.load(relay.params.all())
        factory = StreamFactory(broker.gate, broker.counts, lambda: MqttConnection(broker))
        if self._plain is not None:
            self.ports.add(listen(self._reactor, self._plain, factory, "--mqtt-port"))
        if self._tls is not None:
            self._tls_ports.add(listen(self._reactor, self._tls._replace(tls=tls), factory, "--mqtts-port"))

    def close(self) -> Deferred[Any]:
        """See ``Door``."""
        self.broker.stop()
        return self.ports.close().addCallback(lambda _: self._tls_ports.close())

    def started(self, _port: int | None) -> None:
        """See ``Door``."""
        self.ports.log()
        self._tls_ports.log()
        if self._is_powerless:
            events.DOOR_POWERLESS.log(door="MQTT", remedy=POWER)
