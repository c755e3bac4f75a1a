"""What the decider's core does other than a relay that is alone."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.deciding.deciders_core import RulesFanOut
from clasp_relay.cluster.exchange.batches import Announced, Answered
from clasp_relay.core.ports import Audience, Frame
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import Ack, Announce, Set, SignalDefinition
from tests.cluster.deciding_world import DecidingCase, said
from tests.core.world import CODEC, MemoryOutbox, value


class AnnounceTests(DecidingCase):
    """Announced signals go into the log."""

    def test_an_announcement_is_recorded_with_its_answer(self) -> None:
        """In the same batch."""
        self.begin()
        self.ask(said(2, Announce("/d", (SignalDefinition("/d/1", Signal.PARAM),)), 1))
        items = self.sealed()
        self.assertEqual([type(item) for item in items], [Announced, Answered])
        self.assertEqual(self.answers(items), [Ack("/d")])

    def test_an_announcement_of_nothing_is_not_recorded(self) -> None:
        """It is answered all the same."""
        self.begin()
        self.ask(said(2, Announce("/d", ()), 1))
        items = self.sealed()
        self.assertEqual([type(item) for item in items], [Answered])
        self.assertEqual(self.answers(items), [Ack("/d")])

    def test_many_announcements_are_recorded_when_they_are_done(self) -> None:
        """Once, with their answer."""
        self.begin()
        self.ask(said(2, Announce("/d", tuple(SignalDefinition(f"/d/{n}", Signal.PARAM) for n in range(500))), 1))
        items = self.sealed()
        self.assertEqual(self.answers(items), [Ack("/d")])
        self.assertEqual(len(items), 2)


class AckTests(DecidingCase):
    """ACKs, which go into the batch as fields."""

    def test_an_ack_is_an_item_of_the_batch(self) -> None:
        """Also one that names the holder of a lock."""
        self.begin()
        self.ask(said(2, Set("/a", value(1), lock=True), 1))
        (answered,) = [item for item in self.sealed() if isinstance(item, Answered)]
        self.assertEqual(answered.answers, ((2, ("/a", 1, True, "s")),))

    def test_a_session_that_is_at_no_relay_gets_a_frame(self) -> None:
        """Such as that of a rule."""
        outbox = MemoryOutbox()
        relay = self.deciding.relay
        relay.ack(relay.connect(outbox, "", CODEC), "/a", 1)
        self.assertEqual([frame.wire for frame in outbox.frames], [CODEC.ack("/a", 1)])


class FanOutTests(SynchronousTestCase):
    """Rules hear what is decided."""

    def test_all_receivers_but_the_sender_get_a_frame(self) -> None:
        """Each at once."""
        sender, rule = MemoryOutbox(), MemoryOutbox()
        audience = Audience(CODEC, (sender, rule))
        RulesFanOut().fan_out(audience, Frame(b"one"))
        RulesFanOut().fan_out(audience, Frame(b"two"), sender)
        self.assertEqual([frame.wire for frame in sender.frames], [b"one"])
        self.assertEqual([frame.wire for frame in rule.frames], [b"one", b"two"])
