"""What relays of a cluster tell each other of tickets and console tokens."""

from __future__ import annotations

import uuid

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.console import GivenToken
from clasp_relay.access.tickets import Given, Tickets
from clasp_relay.cluster.exchange.packets import encode_fields
from clasp_relay.cluster.passes import share_passes
from tests.access.console_world import ConsoleWorld
from tests.cluster.world import Bus, MemoryEngine


class TicketTests(SynchronousTestCase):
    """Tickets of several relays on one bus."""

    def test_a_ticket_of_one_relay_is_good_at_another_once(self) -> None:
        """Also where the one that gave it out hears of itself; what is none is left out."""
        clock = Clock()
        bus = Bus(clock)
        relays = [Tickets(clock.seconds, lambda size: uuid.uuid4().hex[: 2 * size]) for _ in range(3)]
        for tickets in relays:
            engine = MemoryEngine(bus)
            share_passes(tickets, Given, engine, "test.ticket")
            engine.start(lambda _: None, self.fail)
        clock.advance(0)
        ticket = relays[0].issue("cpsk_1", "home")
        used = relays[0].issue("cpsk_2", "home")
        self.assertEqual(relays[0].take(used), "cpsk_2")
        for nothing in (
            b"nothing",
            encode_fields(b"run", b"digest", ("too", "few")),
            encode_fields("run", b"digest", ()),
        ):
            bus.deliver("test.ticket", nothing)
        clock.advance(0)
        self.assertEqual([tickets.knows(used) for tickets in relays], [False] * 3)
        self.assertEqual(relays[1].take(ticket), "cpsk_1")
        clock.advance(0)
        self.assertEqual([tickets.take(ticket) for tickets in relays], [None] * 3)


class ConsoleTests(SynchronousTestCase):
    """The consoles of two relays on one bus."""

    def test_a_token_of_one_relay_lets_in_at_another_until_it_ends(self) -> None:
        """Nothing else that comes does; whoever hears of itself learns nothing."""
        clock = Clock()
        bus = Bus(clock)
        worlds = [ConsoleWorld(), ConsoleWorld()]
        for world in worlds:
            self.addCleanup(world.close)
            engine = MemoryEngine(bus)
            share_passes(world.console, GivenToken, engine, "test.console")
            engine.start(lambda _: None, self.fail)
        clock.advance(0)
        token = worlds[0].sign_in()
        bus.deliver("test.console", b"nothing")
        clock.advance(0)
        self.assertEqual(worlds[1].console.admit(token).user_id, "root")
        worlds[1].console.end(token)
        clock.advance(0)
        self.assertEqual([world.console.knows(token) for world in worlds], [False, False])
