"""A deciding core in memory for the tests of its parts: packets in, batches out."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.clocks import DecidersClock
from clasp_relay.cluster.deciding.batch_log import BatchLog
from clasp_relay.cluster.deciding.deciders_core import DecidersRelay, RulesFanOut, deciders_handlers
from clasp_relay.cluster.deciding.deciding import Deciding
from clasp_relay.cluster.exchange.batches import Answered, Item
from clasp_relay.cluster.exchange.ledger import Ledger
from clasp_relay.cluster.exchange.packets import Asked, Entry, Packet
from clasp_relay.core.handlers import HANDLERS
from clasp_relay.core.relay import RelayOptions
from clasp_relay.wire.codec import decode, encode
from clasp_relay.wire.messages import Ack, Message
from tests.core.world import START_US, World

__all__ = ["LINK", "DecidingCase", "said"]

LINK = "one.1"


class DecidingCase(SynchronousTestCase):
    """Has a decider of a cluster that has nothing yet, and one relay that asks it."""

    def setUp(self) -> None:
        """Makes the decider."""
        self.clock = Clock()
        self.call_later: Callable[[float, Callable[[], None]], object] = self.clock.callLater
        """What the decider makes its later calls with."""
        self.faults: list[object] = []
        self.log = BatchLog(lambda change: change)
        clock = DecidersClock(START_US, self.clock.seconds, self.clock.callLater)
        relay = DecidersRelay(
            RelayOptions(),
            deciders_handlers(HANDLERS, self.log),
            clock,
            lambda: "id",
            RulesFanOut(),
            lambda what, fault: self.faults.append((what, fault)),
            log=self.log,
        )
        self.deciding = Deciding(relay, self.log, 1, self._call_later, clock.stop)
        self.deciding.begin(World().relay, Ledger(), lambda *_: None)
        self._packets = 0

    def tearDown(self) -> None:
        """Nothing was a fault of ours."""
        self.assertEqual(self.faults, [])

    def _call_later(self, delay_s: float, call: Callable[[], None]) -> object:
        return self.call_later(delay_s, call)

    def ask(self, *entries: Entry, is_first: bool = False, is_new: bool = True, skip: int = 0) -> bool:
        """Sends a packet."""
        self._packets += 1 + skip
        is_first = is_first or self._packets == 1
        return self.deciding.receive(Packet(LINK, "one", 1, self._packets, is_first, is_new, entries))

    def sealed(self) -> list[Item]:
        """Lets a turn pass, and returns the items of the next batch."""
        for _ in range(50):
            self.clock.advance(0)
        return [item for sealed in self.deciding.seal() for item in sealed.items]

    def begin(self) -> None:
        """Has a session begin."""
        self.ask(Entry(1, "s", int(Asked.BEGIN)))
        self.sealed()

    def answers(self, items: list[Item]) -> list[Message]:
        """Returns the answers among items."""
        found = [data for item in items if isinstance(item, Answered) for _, data in item.answers]
        return [decode(data) if isinstance(data, bytes) else Ack(*data) for data in found]


def said(number: int, message: Message, qos: int = 0) -> Entry:
    """Returns what a session asks with a message."""
    return Entry(number, "s", int(Asked.MESSAGE), qos, data=encode(message))
