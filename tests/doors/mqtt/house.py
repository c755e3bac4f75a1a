"""A relay with an MQTT door in memory, and its clients."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.rights.port import Permissions
from clasp_relay.core.session.identity import Identity
from clasp_relay.core.session.sessions import Session
from clasp_relay.doors.mqtt.broker import Broker
from clasp_relay.doors.mqtt.door import MqttConnection
from clasp_relay.doors.mqtt.publishing import MqttOptions
from clasp_relay.doors.stream import StreamFactory
from clasp_relay.net.admission import NetLimits
from clasp_relay.wire.mqtt.packets import V4
from tests.cluster.world import Member
from tests.core.guard import Guard
from tests.doors import mqtt_packets as p
from tests.doors.site import DoorClient, MemberSite, Site, door_cluster


class Strict(Guard):
    """Lets in who has ann's token."""

    def admit(self, token: str, session: Session) -> Identity:
        """See ``Guard``."""
        return super().admit(token if token in ("ann", "") else "old", session)


class House:
    """A relay with an MQTT door in memory."""

    def __init__(
        self,
        permissions: Permissions | None = None,
        message_rate: tuple[float, float] | None = None,
        limits: NetLimits | None = None,
        member: Member | None = None,
        **options: Any,
    ) -> None:
        self.site = Site(limits, message_rate, permissions) if member is None else MemberSite(member)
        self.refusals: list[tuple[str, str]] = []
        self.broker = Broker(
            self.site.relay,
            self.site.gate,
            MqttOptions(**options),
            lambda host, why: self.refusals.append((host, why)),
            claims=None if member is None else member.following,
        )
        self.factory = StreamFactory(self.site.gate, self.broker.counts, lambda: MqttConnection(self.broker))

    def connect(self, host: str = "192.0.2.1") -> Thing:
        """Returns a client that has said nothing yet."""
        return Thing(self, self.site.connect(self.factory, host))

    def join(self, client_id: str = "", version: int = V4, host: str = "192.0.2.1", **options: Any) -> Thing:
        """Returns a client whose CONNECT was accepted."""
        thing = self.connect(host)
        thing.version = version
        (connack,) = thing.say(p.connect(client_id, version, **options))
        assert connack.endswith(" 0x0"), connack
        return thing


class Thing:
    """An MQTT client."""

    def __init__(self, house: House, client: DoorClient) -> None:
        self.house = house
        self.client = client
        self.version = V4

    def say(self, *packets: bytes) -> list[str]:
        """Sends packets and returns what came, in words."""
        self.client.send(*packets)
        return self.heard()

    def heard(self) -> list[str]:
        """Returns what came since the last call, in words."""
        return [p.said(each, self.version) for each in p.split(self.client.heard())[0]]

    def lose(self) -> None:
        """The connection is lost."""
        self.client.pipe.lose()
        self.house.site.turn()


class ClusterCase(SynchronousTestCase):
    """Two relays with an MQTT door each: clients see one broker."""

    def setUp(self) -> None:
        """A relay that decides (``far``) and one that follows (``near``)."""
        self.cluster = door_cluster()
        self.houses = {member: House(member=member) for member in map(self.cluster.add, ("one", "two"))}
        self.cluster.advance(4)
        assert self.cluster.decider is not None
        self.decider, (self.follower,) = self.cluster.decider, self.cluster.followers
        self.far, self.near = self.houses[self.decider], self.houses[self.follower]

    def tearDown(self) -> None:
        """No relay had a fault."""
        for member in self.cluster.members:
            self.assertEqual(member.faults, [])
