"""Of which reads the decider is told."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.exchange.batches import Answered, Group
from clasp_relay.cluster.exchange.packets import Asked
from clasp_relay.cluster.following.read_notices import MAX_READ, ReadNotices
from clasp_relay.core.records import Change, Param
from clasp_relay.wire.messages import Get
from tests.cluster.following_world import OneFollower
from tests.core.world import START_US, value


class ReadNoticesTests(OneFollower):
    """GETs of a relay's clients."""

    def test_reads_renew_life_times_once_a_second(self) -> None:
        """Of params that have one; the decider is told of the address alone."""
        self.apply(Answered(self.session.id, 1, ()), Group.of((written("/timed", 60), written("/ever", None))))
        for address in ("/timed", "/ever", "/nothing", "/timed"):
            self.send(Get(address))
        self.turn()
        (packet,) = self.packets
        self.assertEqual([(each.kind, each.text) for each in packet.entries], [(int(Asked.READ), "/timed")])
        self.packets.clear()
        self.clock.advance(1.1)
        self.send(Get("/timed"))
        self.assertEqual(self.asked(), [(0, int(Asked.READ))])


class MemoryTests(SynchronousTestCase):
    """What is remembered of the last notices."""

    def test_it_is_bounded(self) -> None:
        """Where too many addresses were read, all are forgotten: then a notice is sent sooner than necessary."""
        sent: list[str] = []
        notices = ReadNotices(lambda _address: 1, lambda: 0.0, sent.append)
        for number in range(MAX_READ + 1):
            notices.note(f"/{number}")
        sent.clear()
        notices.note(f"/{MAX_READ}")
        notices.note("/0")
        self.assertEqual(sent, ["/0"])


def written(address: str, ttl: int | None) -> Change:
    """Returns a write."""
    due_us = None if ttl is None else START_US + ttl * 1_000_000
    return Change(Param(address, value(1), 1, "", START_US, ttl), due_us=due_us)
