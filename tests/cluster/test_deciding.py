"""The core that decides for a cluster, and what it gathers for the log."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.batches import (
    Answered,
    Began,
    Ended,
    Group,
    Item,
    LinkBegan,
    LinkEnded,
    decode_ack,
    encode_ack,
)
from clasp_relay.cluster.deciding import (
    MAX_WAITING_BYTES,
    BatchLog,
    DecidersClock,
    Deciding,
    RulesFanOut,
    deciders_handlers,
)
from clasp_relay.cluster.ledger import Ledger
from clasp_relay.cluster.packets import Asked, Entry, Packet
from clasp_relay.core.handlers import HANDLERS
from clasp_relay.core.relay import Relay, RelayOptions
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.codec import decode, encode
from clasp_relay.wire.constants import Phase, Signal
from clasp_relay.wire.messages import Ack, Announce, Bundle, Error, Message, Publish, Set, SignalDefinition
from tests.core.world import START_US, World, value

LINK = "one.1"


class DecidingTests(SynchronousTestCase):
    """Packets in, batches out."""

    def setUp(self) -> None:
        """Makes a decider of a cluster that has nothing yet."""
        self.clock = Clock()
        self.faults: list[object] = []
        self.log = BatchLog(lambda change: change)
        clock = DecidersClock(START_US, self.clock.seconds, self.clock.callLater)
        relay = Relay(
            RelayOptions(),
            deciders_handlers(HANDLERS, self.log),
            clock,
            lambda: "id",
            RulesFanOut(),
            lambda what, fault: self.faults.append((what, fault)),
            log=self.log,
        )
        self.deciding = Deciding(relay, self.log, 1, self.clock.callLater, clock.stop)
        self.deciding.begin(World().relay, Ledger(), lambda *_: None)
        self._packets = 0

    def tearDown(self) -> None:
        """Nothing was a fault of ours."""
        self.assertEqual(self.faults, [])

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
        acks = [decode_ack(data) for data in found]
        return [decode(data) if ack is None else Ack(*ack) for ack, data in zip(acks, found, strict=True)]

    def test_a_relay_and_its_session_are_recorded(self) -> None:
        """Before anything that they ask."""
        self.ask(Entry(1, "s", int(Asked.BEGIN)), said(2, Set("/a", value(1)), 1))
        items = self.sealed()
        self.assertEqual([type(item) for item in items], [LinkBegan, Began, Group, Answered])
        self.assertEqual(items[-1], Answered("s", 2, ((2, encode_ack("/a", 1, None, None)),)))

    def test_nothing_is_done_twice(self) -> None:
        """What comes again is left out."""
        self.begin()
        self.ask(said(2, Set("/a", value(1)), 1))
        self.assertTrue(self.ask(said(2, Set("/a", value(1)), 1), said(3, Set("/a", value(2)), 1), is_first=True))
        self.assertEqual(self.answers(self.sealed()), [Ack("/a", 1), Ack("/a", 2)])

    def test_a_packet_that_is_missing_is_noticed(self) -> None:
        """Then all has to come again; an old one that comes late does nothing."""
        self.begin()
        self.assertFalse(self.ask(said(3, Set("/a", value(3)), 1), skip=1))
        self.assertEqual(self.sealed(), [])
        self.assertTrue(self.ask(said(2, Set("/a", value(1)), 1), said(3, Set("/a", value(3)), 1), is_first=True))
        late = Packet(LINK, "one", 1, 2, False, True, (said(2, Set("/a", value(1)), 1),))
        self.assertTrue(self.deciding.receive(late))
        self.assertTrue(self.deciding.receive(late._replace(is_first=True)))
        self.assertEqual(len(self.answers(self.sealed())), 2)

    def test_a_relay_that_was_given_up_is_not_known(self) -> None:
        """It has to begin anew."""
        self.begin()
        self.deciding.end_link(LINK)
        self.deciding.end_link(LINK)
        self.assertEqual([type(item) for item in self.sealed()], [LinkEnded])
        self.assertFalse(self.ask(said(2, Set("/a", value(1)), 1), is_new=False))
        self.assertFalse(self.deciding.knows(LINK))

    def test_what_sessions_ask_that_are_not_known_is_left_out(self) -> None:
        """The decider has ended them; their relay reads so in the log."""
        self.ask(said(1, Set("/a", value(1)), 1))
        self.assertEqual([type(item) for item in self.sealed()], [LinkBegan])

    def test_refusals_are_answers(self) -> None:
        """They change nothing, and count as done."""
        self.begin()
        self.ask(said(2, Set("/a", value(1), revision=9), 1))
        (item,) = self.sealed()
        assert isinstance(item, Answered)
        self.assertEqual(item.number, 2)
        (error,) = self.answers([item])
        assert isinstance(error, Error)
        self.assertEqual(error.error, ErrorCode.CONFLICT)

    def test_a_long_bundle_and_its_answer_are_in_one_batch(self) -> None:
        """Whatever others ask meanwhile."""
        self.begin()
        self.ask(said(2, Bundle(tuple(Set(f"/b/{n}", value(n)) for n in range(2_000))), 1))
        batches = []
        for _ in range(3_000):
            batches += [sealed.items for sealed in self.deciding.seal()]
            self.clock.advance(0)
            if batches:
                break
        (items,) = batches
        self.assertEqual([type(item) for item in items], [Group, Answered])
        self.assertEqual(self.answers(list(items)), [Ack(None, 1)])

    def test_many_announcements_are_recorded_when_they_are_done(self) -> None:
        """Once, with their answer."""
        self.begin()
        self.ask(said(2, Announce("/d", tuple(SignalDefinition(f"/d/{n}", Signal.PARAM) for n in range(500))), 1))
        items = self.sealed()
        self.assertEqual(self.answers(items), [Ack("/d")])
        self.assertEqual(len(items), 2)

    def test_gestures_pass_as_signals(self) -> None:
        """Their moves are coalesced before they are in the log."""
        self.begin()
        self.ask(said(2, Publish("/g", Signal.GESTURE, value=value(1), phase=Phase.START, id=1)))
        self.assertEqual([type(item) for item in self.sealed()], [Group, Answered])

    def test_the_end_of_a_session_is_recorded(self) -> None:
        """With the locks that it held."""
        self.begin()
        self.ask(said(2, Set("/l", value(1), lock=True), 1))
        self.sealed()
        self.ask(Entry(3, "s", int(Asked.END), text="gone"), said(4, Set("/a", value(1))))
        items = self.sealed()
        self.assertIn(Ended("s"), items)
        self.assertEqual(sum(isinstance(item, Group) for item in items), 1)
        self.assertIsNone(self.deciding.relay.params.holder("/l"))

    def test_a_session_that_the_decider_ends_ends_everywhere(self) -> None:
        """Its relay is told with what to close it."""
        self.begin()
        (session,) = self.deciding.relay.sessions.all()
        session.outbox.discard()
        session.outbox.send_snapshot("key", iter(()))
        self.deciding.relay._end_as_too_slow(session)
        items = self.sealed()
        self.assertEqual([type(item) for item in items], [Answered, Ended])
        ended = items[1]
        assert isinstance(ended, Ended)
        self.assertEqual((ended.close_code, ended.reason), (1013, "too slow"))

    def test_writes_are_refused_while_too_much_waits_for_the_log(self) -> None:
        """An engine that hangs does not fill the memory."""
        self.begin()
        self.log.waiting_bytes = MAX_WAITING_BYTES + 1
        self.assertRaises(RequestError, self.log.check)
        self.ask(said(2, Set("/a", value(1)), 1))
        (error,) = self.answers(self.sealed())
        assert isinstance(error, Error)
        self.assertEqual(error.error, ErrorCode.OVERLOADED)

    def test_a_batch_is_closed_when_it_is_full(self) -> None:
        """Between two messages."""
        self.begin()
        calls: list[int] = []
        self.log.when_full = lambda: calls.append(len(self.deciding.seal()))
        self.ask(*(said(2 + n, Set(f"/big/{n}", value("x" * 60_000)), 1) for n in range(12)))
        self.assertEqual(calls, [1] * 6)

    def test_nothing_is_called_after_its_end(self) -> None:
        """Life times and bundles are the next decider's."""
        self.begin()
        self.ask(said(2, Bundle((Set("/later", value(1)),), START_US + 5_000_000), 1))
        self.sealed()
        self.deciding.stop()
        self.clock.advance(10)
        self.assertEqual(self.sealed(), [])


def said(number: int, message: Message, qos: int = 0) -> Entry:
    """Returns what a session asks with a message."""
    return Entry(number, "s", int(Asked.MESSAGE), qos, data=encode(message))
