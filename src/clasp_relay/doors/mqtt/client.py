"""A client's connection: splits its stream into packets, and handles them one after the other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from clasp_relay.core.session.sessions import Session
from clasp_relay.doors.mqtt.broker import Broker
from clasp_relay.doors.mqtt.claims import Claim
from clasp_relay.doors.mqtt.connecting import Connecting, read_limits
from clasp_relay.doors.mqtt.link import MqttLink
from clasp_relay.doors.mqtt.live import LiveClient
from clasp_relay.doors.mqtt.reasons import Reason, end_reason
from clasp_relay.doors.packet_queue import MAX_WAITING_BYTES, PacketQueue
from clasp_relay.errors import CloseCode, DecodeError
from clasp_relay.logs import events
from clasp_relay.net.outbox import Outbox
from clasp_relay.wire.mqtt.packets import (
    MAX_PACKET_BYTES,
    Connect,
    DisconnectPacket,
    PacketReader,
    PacketTooLong,
    Prop,
    PublishPacket,
    decode_packet,
)


class MqttClient:
    """A client's connection over any transport. Implements ``net.websocket.SessionPort``.

    Args:
        broker: the broker.
        outbox: its outbox.
        address: the client's address.
        wrap: puts bytes into the transport's message.
        transport: names the transport, since the bytes of one version differ between transports.
    """

    def __init__(
        self, broker: Broker, outbox: Outbox, address: str, wrap: Callable[[bytes], bytes], transport: str
    ) -> None:
        self._broker = broker
        self._link = MqttLink(outbox, wrap, transport, partial(broker.refuse, address))
        self._address = address
        self._waiting = PacketQueue(broker.reactor)
        self._reader = PacketReader()
        self._live: LiveClient | None = None
        """None before its CONNECT was accepted, and after its end."""

    # net.websocket.SessionPort

    @property
    def id(self) -> str:
        """The id of its session in the log."""
        return "" if self._live is None else self._live.core.id

    @property
    def is_live(self) -> bool:
        """Whether its CONNECT was accepted."""
        return self._live is not None

    @property
    def is_busy(self) -> bool:
        """See ``net.websocket.SessionPort``."""
        return self._live is not None and (self._live.core.is_busy or self._waiting.is_on)

    # From the transport

    def feed(self, data: bytes) -> None:
        """Handles a piece of the client's stream. Never raises."""
        self._guarded(partial(self._feed, data))

    def close(self, close_code: CloseCode, reason: str) -> None:
        """Ends the connection, with a DISCONNECT if the version has one."""
        self._link.close(close_code, reason)

    def last_word(self, close_code: CloseCode, reason: str) -> bytes:
        """Returns the bytes of a DISCONNECT, for a connection whose queue is closed."""
        return self._link.last_word(end_reason(close_code), reason)

    def gone(self, cause: str) -> None:
        """Ends the client's part, which may publish its will, since the connection is gone.

        Args:
            cause: the cause, as text for people.
        """
        if self._live is not None and not self._link.is_closing:
            self._guarded(partial(self._take_rest, self._live))
        self._link.is_closing = True
        self._waiting.stop()
        live, self._live = self._live, None
        if live is not None:
            self._broker.leave(self, live.session.key)
            live.end(cause)

    # From the broker

    def came_before(self, claim: Claim) -> bool:
        """See ``broker.Connected``."""
        return self._live is None or self._live.came_before(claim)

    def taken_over(self) -> None:
        """See ``broker.Connected``."""
        text = "another connection took over the session"
        self._link.end(Reason.SESSION_TAKEN_OVER, CloseCode.POLICY_VIOLATION, text)
        self.gone(text)

    # Packets

    def _feed(self, data: bytes) -> None:
        for packet in self._reader.feed(data):
            if self._link.is_closing:
                return
            self._broker.counts.messages += 1
            if self._waiting.is_on:
                self._wait(packet)
            else:
                self._take(packet)

    def _take(self, data: bytes) -> None:
        packet = decode_packet(data, self._link.version)
        if self._live is not None:
            self._live.take(packet)
        elif isinstance(packet, Connect):
            Connecting(self._broker, self._link, self._address, self._waiting, self._enter, self._go_on).begin(packet)
        else:
            raise DecodeError("the first MQTT packet is no CONNECT")

    def _wait(self, packet: bytes) -> None:
        """Queues a packet behind the one that is being handled, within limits."""
        if not self._waiting.add(packet, MAX_PACKET_BYTES if self._live is None else MAX_WAITING_BYTES):
            text = f"too many MQTT packets before the {'CONNACK' if self._live is None else 'answer to one of them'}"
            self._link.refuse(text)
            self._link.end(Reason.RATE_TOO_HIGH, CloseCode.POLICY_VIOLATION, text)

    def _go_on(self, done: Callable[[], None]) -> None:
        """Handles the waiting packets."""
        self._waiting.end()
        self._guarded(partial(self._take_waiting, done))

    def _take_waiting(self, done: Callable[[], None]) -> None:
        if self._link.is_closing:
            return
        done()
        while not self._link.is_closing:
            packet = self._waiting.next()
            if packet is None:
                return
            self._take(packet)

    def _take_rest(self, live: LiveClient) -> None:
        """Takes the waiting packets of a lost client that need no answer: PUBLISHes and a DISCONNECT."""
        self._waiting.end()
        while not self._link.is_closing:
            packet = self._waiting.next()
            if packet is None:
                return
            message = decode_packet(packet, self._link.version)
            if isinstance(message, PublishPacket | DisconnectPacket):
                live.take(message)

    def _guarded(self, call: Callable[[], None]) -> None:
        """Calls a function, and ends the connection if it raises: by an error of the client's or an internal one."""
        try:
            call()
        except DecodeError as error:
            self._link.refuse(error.message)
            reason = Reason.PACKET_TOO_LARGE if isinstance(error, PacketTooLong) else Reason.MALFORMED_PACKET
            self._link.end(reason, CloseCode.PROTOCOL_ERROR, error.message)
        except Exception:
            events.CONNECTION_FAULT.failure(action="handled an MQTT packet")
            self._link.close(CloseCode.INTERNAL, "internal error")

    def _enter(self, connect: Connect, core: Session) -> None:
        """Begins the session of a client whose identity is known."""
        broker, link = self._broker, self._link
        expiry_s, properties = read_limits(connect, link)
        client_id = connect.client_id
        if not client_id:
            client_id = properties[Prop.ASSIGNED_CLIENT_ID] = broker.new_client_id()
        if core.identity.ends_with_session:
            expiry_s = 0
        key = (core.identity.subject, client_id)
        session, was_there = broker.enter(self, key, clean=connect.clean)
        self._live = LiveClient(broker, link, self._waiting, core, session, expiry_s, self._go_on)
        self._live.begin(connect, properties, was_there=was_there)
