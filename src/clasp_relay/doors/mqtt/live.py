"""A client after its CONNECT: handles its packets, and its session when the connection ends."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from clasp_relay.core.session.account import MemoryKind
from clasp_relay.core.session.sessions import Session
from clasp_relay.core.work import Pieces
from clasp_relay.doors.mqtt.broker import MAX_KEPT_S, Broker
from clasp_relay.doors.mqtt.claims import Claim
from clasp_relay.doors.mqtt.link import MqttLink
from clasp_relay.doors.mqtt.publishing import Publishing
from clasp_relay.doors.mqtt.reasons import Reason
from clasp_relay.doors.mqtt.session import MqttSession
from clasp_relay.doors.mqtt.subscribing import FEW_FILTERS, check_filters
from clasp_relay.doors.mqtt.wills import LeftMessage
from clasp_relay.doors.packet_queue import PacketQueue
from clasp_relay.errors import CloseCode, DecodeError, RequestError
from clasp_relay.net.frames import ControlFrames
from clasp_relay.wire.mqtt.packets import (
    PINGRESP,
    Acknowledge,
    Connect,
    DisconnectPacket,
    PacketType,
    PingRequest,
    Prop,
    Properties,
    PublishPacket,
    SubscribePacket,
    UnsubscribePacket,
)


class LiveClient:
    """A client whose CONNECT was accepted.

    Args:
        broker: the broker.
        link: the outgoing side of its connection.
        waiting: the queue of its packets while one is being handled.
        core: its session in the core.
        session: its session here.
        expiry_s: how long that one is kept without a connection, in seconds.
        go_on: handles the waiting packets.
    """

    def __init__(
        self,
        broker: Broker,
        link: MqttLink,
        waiting: PacketQueue,
        core: Session,
        session: MqttSession,
        expiry_s: int,
        go_on: Callable[[Callable[[], None]], None],
    ) -> None:
        self._broker = broker
        self._link = link
        self._waiting = waiting
        self.core = core
        """Its session in the core."""
        self.session = session
        """Its session here."""
        self._expiry_s = expiry_s
        self._go_on = go_on
        self._publishing = Publishing(broker.publisher, link, waiting, core, session, go_on)
        self._controls = ControlFrames(broker.reactor, _no_pong)
        self._keep_alive_s = 0.0
        self._timer: IDelayedCall | None = None
        self._will: LeftMessage | None = None
        self._will_bytes = 0
        """The bytes that are counted for the will."""

    def begin(self, connect: Connect, properties: Properties, *, was_there: bool) -> None:
        """Begins the session in the core, and sends the CONNACK.

        Args:
            connect: the CONNECT.
            properties: the properties of the CONNACK.
            was_there: whether a kept session continues.
        """
        broker, core, session, link = self._broker, self.core, self.session, self._link
        core.outbox, core.name = session, session.client_id
        if broker.publisher.follows:
            core.when_decided = self._decided
        broker.relay.admit(core)
        broker.arrivals.claim(core, session, is_new=connect.clean)
        broker.relay.observer.began(core)
        broker.subscribing.attach(session, core)
        try:
            will = broker.wills.read(connect, session)
            if will is not None:
                core.account.take(MemoryKind.MESSAGES, will.kept_bytes)
                self._will, self._will_bytes = will, will.kept_bytes
        except RequestError as error:
            link.refuse(error.message)
        if self._will is not None:
            broker.wills.leave(core, self._will)
        link.let_in(was_there, properties)
        if was_there:
            broker.subscribing.subscribe_again(core, session)
        session.resume(link)
        # One and a half times the client's interval ([5] 3.1.2.10).
        self._keep_alive_s = 1.5 * connect.keep_alive_s
        self._renew_life()

    def came_before(self, claim: Claim) -> bool:
        """Tells whether the same client has come to another relay since."""
        return (self.session.claimed_us, self.core.id) < (claim.time_us, claim.session_id)

    # Packets

    def take(self, packet: object) -> None:
        """Handles a packet.

        Raises:
            DecodeError: the packet is not allowed now.
        """
        self._renew_life()
        take = _TAKERS.get(type(packet))
        if take is None:
            raise DecodeError("a second MQTT CONNECT")
        take(self, packet)

    def _publish(self, packet: PublishPacket) -> None:
        self._publishing.take(packet)

    def _acknowledge(self, packet: Acknowledge) -> None:
        if packet.type is PacketType.PUBREL:
            self._publishing.released(packet)
        else:
            self.session.acknowledged(packet)

    def _subscribe(self, packet: SubscribePacket) -> None:
        """Subscribes, once reads include the client's earlier writes and all changes of rights."""
        broker = self._broker
        awaits_own = self._link.oldest_awaited() is not None
        if broker.publisher.follows and (awaits_own or broker.relay.are_reads_held):
            self._waiting.begin(partial(self._go_on, partial(self._subscribe, packet)))
        else:
            check_filters(packet)
            pieces = broker.subscribing.subscribe(self.core, self.session, packet, self._link)
            self._do(pieces, len(packet.filters))

    def _decided(self, _revision: int | None, refusal: RequestError | None) -> None:
        """Handles the outcome of the oldest PUBLISH that another core decides."""
        self._publishing.decided(refusal)
        self._waiting.look_now()

    def _unsubscribe(self, packet: UnsubscribePacket) -> None:
        if self._keeps_the_pace():
            pieces = self._broker.subscribing.unsubscribe(self.core, self.session, packet, self._link)
            self._do(pieces, len(packet.filters))

    def _do(self, pieces: Pieces, filters: int) -> None:
        """Handles the filters of a packet; many of them in pieces, during which later packets wait."""
        if filters <= FEW_FILTERS:
            for _ in pieces:
                """A few are no work."""
            return
        self._waiting.begin()
        self._broker.relay.work.add(self.core, self._in_pieces(pieces))

    def _in_pieces(self, pieces: Pieces) -> Pieces:
        try:
            yield from pieces
        except Exception:
            self._link.close(CloseCode.INTERNAL, "internal error")
            raise
        self._go_on(_nothing)

    def _ping(self, _packet: PingRequest) -> None:
        if self._keeps_the_pace():
            self._link.write(PINGRESP)

    def _keeps_the_pace(self) -> bool:
        """Counts a packet that the message rate does not count, and ends a client that sends too many."""
        if self._controls.count(True) is None:
            return True
        text = "too many PINGREQs and UNSUBSCRIBEs in a second"
        self._link.end(Reason.RATE_TOO_HIGH, CloseCode.POLICY_VIOLATION, text)
        return False

    def _leave(self, packet: DisconnectPacket) -> None:
        if packet.reason != Reason.DISCONNECT_WITH_WILL:
            self._will = None
        expiry = packet.properties.get(Prop.SESSION_EXPIRY)
        if isinstance(expiry, int) and self._expiry_s:
            self._expiry_s = min(expiry, MAX_KEPT_S)
        self._link.hang_up()

    # Time

    def _renew_life(self) -> None:
        """Restarts the keep-alive interval."""
        if not self._keep_alive_s or self._link.is_closing:
            return
        if self._timer is None:
            self._timer = self._broker.reactor.callLater(self._keep_alive_s, self._is_silent)
        else:
            self._timer.reset(self._keep_alive_s)

    def _is_silent(self) -> None:
        self._timer = None
        if self._waiting.is_on:
            # The connection is not read now, so the client may have sent something.
            self._renew_life()
            return
        text = "nothing came within the keep-alive interval"
        self._link.end(Reason.KEEP_ALIVE_TIMEOUT, CloseCode.POLICY_VIOLATION, text)

    def end(self, cause: str) -> None:
        """Publishes the client's will, and keeps or ends its session, since the connection is gone.

        Args:
            cause: the cause, as text for people.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        broker, relay, core, session = self._broker, self._broker.relay, self.core, self.session
        if session.link is self._link:
            session.link = None
        will, identity = self._will, core.identity
        keeps = bool(self._expiry_s) and session.ended is None and relay.permissions.is_current(identity)
        if will is not None and core.is_live and not (keeps and will.delay_s):
            broker.wills.lose(core, will)
            will = None
        core.account.add(MemoryKind.MESSAGES, -self._will_bytes)
        if core.when_decided is not None:
            core.when_decided = _not_told
        broker.end_core(core, cause)
        if keeps:
            broker.keep(session, core, self._expiry_s, will)
        else:
            broker.forget(session)


_TAKERS: dict[type[object], Callable[[LiveClient, Any], None]] = {
    PublishPacket: LiveClient._publish,
    Acknowledge: LiveClient._acknowledge,
    SubscribePacket: LiveClient._subscribe,
    UnsubscribePacket: LiveClient._unsubscribe,
    PingRequest: LiveClient._ping,
    DisconnectPacket: LiveClient._leave,
}


def _not_told(_revision: int | None, _refusal: RequestError | None) -> None:
    """Does nothing: the answer is not needed any more."""


def _nothing() -> None:
    """Does nothing before the packets that have waited."""


def _no_pong(_payload: bytes) -> None:
    """Does nothing: MQTT has no pongs that could be coalesced."""
