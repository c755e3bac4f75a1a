"""Publishes the wills of lost MQTT clients, as their own writes."""

from __future__ import annotations

from typing import NamedTuple

from clasp_relay.core.records import text_bytes
from clasp_relay.core.session.sessions import HELD_BYTES, Session
from clasp_relay.doors.mqtt.claims import Claims
from clasp_relay.doors.mqtt.messages import Sending
from clasp_relay.doors.mqtt.publishing import Publisher
from clasp_relay.doors.mqtt.session import MqttSession, properties_bytes
from clasp_relay.wire.messages import Message
from clasp_relay.wire.mqtt.packets import Connect, Prop


class LeftMessage(NamedTuple):
    """A will: a message for the core, and its delay."""

    sending: Sending
    message: Message
    delay_s: int
    """Its delay in seconds, for a client that comes back; no longer than its session is kept."""

    @property
    def kept_bytes(self) -> int:
        """Estimated memory of it, mostly its payload and its value."""
        sending = self.sending
        size = HELD_BYTES + text_bytes(sending.address) + len(sending.payload) + len(sending.value or b"")
        return size + properties_bytes(sending.properties)


class Wills:
    """Publishes wills; one object for all clients.

    Args:
        publisher: passes them to the core.
        claims: registers them with the decider of a cluster, which publishes those of a lost relay; None without a
            cluster.
    """

    def __init__(self, publisher: Publisher, claims: Claims | None) -> None:
        self._publisher = publisher
        self._claims = claims

    def read(self, connect: Connect, session: MqttSession) -> LeftMessage | None:
        """Returns the will of a CONNECT; None for none.

        Raises:
            RequestError: its topic has no address, or its payload no value.
        """
        will = connect.will
        if will is None:
            return None
        delay_s = will.properties.get(Prop.WILL_DELAY, 0)
        sending, message = self._publisher.message(will, will.topic, session)
        return LeftMessage(sending, message, delay_s if isinstance(delay_s, int) else 0)

    def leave(self, core: Session, will: LeftMessage | None) -> None:
        """Registers, in a cluster, the will of a session that may be lost, also with its relay; None for none."""
        if self._claims is not None:
            if will is None:
                self._claims.leave(core, None)
            else:
                self._claims.leave(core, will.message, will.sending.own, will.sending.mark)

    def lose(self, core: Session, will: LeftMessage) -> None:
        """Publishes the will of a lost client; in a cluster the decider does."""
        if self._claims is None:
            self.publish(core, will)
        else:
            self._claims.lose(core)

    def publish(self, core: Session, will: LeftMessage) -> None:
        """Publishes a will, checked as a write of the client's now."""
        self._publisher.publish(core, will.sending, will.message)
