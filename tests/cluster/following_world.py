"""A relay that follows for the tests of its parts: it has one client, and the test is its decider."""

from __future__ import annotations

from itertools import count

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.exchange.batches import Batch, Claimed, Item, LinkBegan
from clasp_relay.cluster.exchange.ledger import Ledger
from clasp_relay.cluster.exchange.packets import Packet
from clasp_relay.cluster.following.following import Following
from clasp_relay.core.handlers import HANDLERS
from clasp_relay.core.relay import Relay, RelayOptions
from clasp_relay.wire.codec import encode
from clasp_relay.wire.frame import encode_frame
from clasp_relay.wire.messages import Hello, Message
from tests.cluster.world import MemoryJournal
from tests.core.world import CODEC, MemoryFanOut, MemoryOutbox, WorldClock

__all__ = ["OneFollower"]


class OneFollower(SynchronousTestCase):
    """Tests of a relay whose decider is the test."""

    def setUp(self) -> None:
        """Makes a relay whose decider is this test."""
        world, numbers = WorldClock(), count(1)
        self.clock: Clock = world.clock
        self.packets: list[Packet] = []
        self.following = Following(
            "one.1", "one", Ledger(), self.clock.seconds, self.packets.append, self.clock.callLater
        )
        self.relay = Relay(
            RelayOptions(),
            self.following.handlers(HANDLERS),
            world,
            lambda: f"session-{next(numbers)}",
            MemoryFanOut(),
            lambda _what, fault: self.fail(str(fault)),
            log=MemoryJournal(self.clock),
        )
        self.following.attach(self.relay)
        self.following.refuses = None
        self._seq = 0
        self.apply(Claimed("two.1", "two", True, b""), LinkBegan("one.1", "one"))
        self.outbox = MemoryOutbox()
        self.session = self.relay.connect(self.outbox, "192.0.2.1", CODEC)
        self.send(Hello(1, 0, "test", ""))
        self.turn()
        self.hear()
        self.packets.clear()

    def apply(self, *items: Item) -> None:
        """The log goes on."""
        self._seq += 1
        batch = Batch(1, b"", 0, 0, items)
        self.following.take_batch(self._seq, b"", batch, is_recorded=False)
        self.turn()

    def send(self, message: Message, qos: int = 0) -> None:
        """The client sends something."""
        self.relay.receive(self.session, encode_frame(encode(message), qos))

    def turn(self) -> None:
        """Lets turns pass."""
        for _ in range(20):
            self.clock.advance(0)

    def hear(self) -> list[Message]:
        """Returns what the client has got."""
        messages = [CODEC.decode(frame.wire)[0] for frame in self.outbox.frames]
        self.outbox.frames.clear()
        return messages

    def asked(self) -> list[tuple[int, int]]:
        """Returns numbers and kinds of what was sent to the decider."""
        self.turn()
        entries = [(entry.number, entry.kind) for packet in self.packets for entry in packet.entries]
        self.packets.clear()
        return entries
