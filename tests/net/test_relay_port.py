"""Tests of ``clasp_relay.net.relay_port``: the relay of the core fits, and the two work together."""

from __future__ import annotations

from itertools import count

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.clock import ReactorClock
from clasp_relay.core.handlers import HANDLERS
from clasp_relay.core.relay import Relay, RelayOptions
from clasp_relay.core.session.sessions import Session
from clasp_relay.net.factory import ClaspFactory
from clasp_relay.net.relay_port import RelayPort
from clasp_relay.net.turn import TurnWriter
from clasp_relay.wire import messages as m
from clasp_relay.wire.codec import decode, encode_to_frame
from clasp_relay.wire.frame import decode_frame, encode_frame
from clasp_relay.wire.values import decode_value, encode_value
from tests.net.helpers import UPGRADE, Client, Site, client_frame, datas


class RelaySite(Site):
    """A site with the core's relay."""

    def __init__(self) -> None:
        self.reactor = MemoryReactorClock()
        self.writer = TurnWriter(self.reactor)
        numbers = count(1)
        relay = Relay(
            RelayOptions(),
            HANDLERS,
            ReactorClock(self.reactor),
            lambda: f"session-{next(numbers)}",
            self.writer,
            self.report,
        )
        port: RelayPort[Session] = relay
        self.factory = ClaspFactory(port, self.writer, self.reactor)
        self.faults: list[Exception] = []

    def report(self, _what: str, fault: Exception) -> None:
        """Notes a fault."""
        self.faults.append(fault)


def say(client: Client, message: m.Message, qos: int = 0) -> None:
    """Sends a message as a client does."""
    frame = decode_frame(encode_to_frame(message))
    client.send(client_frame(encode_frame(frame.payload, qos)))


def heard(client: Client) -> list[m.Message]:
    """Returns the messages that came, and forgets them."""
    messages = [decode(decode_frame(data).payload) for data in datas(client.frames)]
    client.clear()
    return messages


class RelayPortTests(SynchronousTestCase):
    def enter(self, site: RelaySite) -> Client:
        """Opens a live session."""
        client = site.connect()
        client.send(UPGRADE)
        client.clear()
        say(client, m.Hello(1, 0xF8, "test"))
        client.turn()
        self.assertEqual([type(message) for message in heard(client)], [m.Welcome, m.Snapshot])
        return client

    def test_relay_welcomes_a_client_and_stops_its_timer(self) -> None:
        """WELCOME, SNAPSHOT, and no end after 10 s."""
        site = RelaySite()
        client = self.enter(site)
        client.turn(11)
        self.assertTrue(client.pipe.connected)
        client.pipe.lose()
        self.assertEqual(site.faults, [])

    def test_relay_keeps_a_burst_in_order_for_50_subscribers(self) -> None:
        """Every subscriber, the writer included, reads every value once and in order, and the writer its ACKs."""
        site = RelaySite()
        clients = [self.enter(site) for _ in range(50)]
        for client in clients:
            say(client, m.Subscribe(1, "/burst/**"))
        for number in range(100):
            say(clients[0], m.Set(f"/burst/{number % 3}", encode_value(number)), qos=1)
        clients[0].turn()
        for client in clients:
            messages = heard(client)
            values = [decode_value(message.value) for message in messages if isinstance(message, m.Set)]
            self.assertEqual(values, list(range(100)))
            acks = sum(isinstance(message, m.Ack) for message in messages)
            self.assertEqual(acks, 100 if client is clients[0] else 0)
        self.assertEqual(site.faults, [])
