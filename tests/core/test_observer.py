"""Tests of clasp_relay.core.observer: reports and counters."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.handlers import HANDLERS
from clasp_relay.core.observer import Counts, Unwatched
from clasp_relay.core.relay import Relay, RelayOptions
from clasp_relay.core.session.sessions import Session
from clasp_relay.errors import CloseCode, Disconnect, ErrorCode, RequestError
from clasp_relay.wire import messages as m
from clasp_relay.wire.codec import encode
from clasp_relay.wire.constants import MessageCode, Phase, Signal
from clasp_relay.wire.frame import encode_frame
from tests.core.world import CODEC, MemoryFanOut, MemoryOutbox, World, WorldClock, memory_session, value

ALL = 0xFF


class Witness:
    """Notes the reports as text."""

    def __init__(self, *, watches: bool = False, traces: bool = False) -> None:
        self.watches = watches
        self.traces = traces
        self.told: list[tuple[object, ...]] = []

    def began(self, session: Session) -> None:
        """Notes the report."""
        self.told.append(("began", session.name))

    def ended(self, session: Session, cause: str) -> None:
        """Notes the report."""
        self.told.append(("ended", session.name, cause))

    def refused(self, session: Session, refusal: RequestError) -> None:
        """Notes the report."""
        self.told.append(("refused", session.name, refusal.code))

    def limited(self, session: Session) -> None:
        """Notes the report."""
        self.told.append(("limited", session.name))

    def operation(self, session: Session, message: m.Message) -> None:
        """Notes the report."""
        self.told.append(("operation", type(message)))

    def frame(self, session: Session, data: bytes) -> None:
        """Notes the report."""
        self.told.append(("frame", data))


def watched(witness: Witness, rate: tuple[float, float] | None = None) -> Relay:
    """Returns a relay with such an observer."""
    ids = iter(f"session {number}" for number in range(100))
    return Relay(
        RelayOptions(message_rate=rate),
        HANDLERS,
        WorldClock(),
        lambda: next(ids),
        MemoryFanOut(),
        lambda _what, _fault: None,
        observer=witness,
    )


def say(relay: Relay, session: Session, *messages: m.Message) -> None:
    """Sends messages."""
    for message in messages:
        relay.receive(session, encode_frame(encode(message)))


def joined(relay: Relay) -> Session:
    """Returns a live session."""
    session = relay.connect(MemoryOutbox(), "192.0.2.1", CODEC)
    say(relay, session, m.Hello(1, 0, "test"))
    return session


class ToldTests(SynchronousTestCase):
    """Reports to an observer."""

    def test_observer_is_told_of_a_sessions_beginning_and_end_once(self) -> None:
        """The cause of the first call is reported."""
        witness = Witness()
        relay = watched(witness)
        session = joined(relay)
        relay.disconnect(session, "first")
        relay.disconnect(session, "second")
        self.assertEqual(witness.told, [("began", "test"), ("ended", "test", "first")])

    def test_observer_is_told_why_the_relay_ends_a_session(self) -> None:
        """With the text that the client gets."""
        witness = Witness()
        relay = watched(witness)
        relay.end(joined(relay), Disconnect(CloseCode.POLICY_VIOLATION, "the token expired"))
        self.assertEqual(witness.told[-1], ("ended", "test", "the token expired"))

    def test_observer_is_told_of_sessions_that_never_began(self) -> None:
        """Because their HELLO was refused, or never came."""
        witness = Witness()
        relay = watched(witness)
        session = relay.connect(MemoryOutbox(), "", CODEC)
        say(relay, session, m.Ping())
        ((what, _, cause),) = witness.told
        self.assertEqual((what, cause), ("ended", "the first message must be HELLO, not PING"))
        self.assertEqual(session.hello_us, 0)

    def test_observer_is_told_of_refusals(self) -> None:
        """Each refused message, with its code."""
        witness = Witness()
        relay = watched(witness)
        say(relay, joined(relay), m.Set("no address", value(1)))
        self.assertEqual(witness.told[1:], [("refused", "test", ErrorCode.ADDRESS)])

    def test_observer_is_told_of_each_message_over_the_limit(self) -> None:
        """Also of those that are not answered with an ERROR."""
        witness = Witness()
        relay = watched(witness, (1.0, 1.0))
        session = joined(relay)
        say(relay, session, m.Ping(), m.Ping(), m.Ping())
        self.assertEqual(witness.told[1:], [("limited", "test")] * 2)
        self.assertEqual(relay.counts.limited, 2)

    def test_observer_that_watches_is_told_of_operations(self) -> None:
        """Before they are handled, including refused ones."""
        witness = Witness(watches=True)
        relay = watched(witness)
        say(relay, joined(relay), m.Get("no address"))
        self.assertEqual(
            witness.told,
            [("operation", m.Hello), ("began", "test"), ("operation", m.Get), ("refused", "test", ErrorCode.ADDRESS)],
        )

    def test_observer_that_traces_is_told_of_frames(self) -> None:
        """As received, also if they cannot be decoded; not after the end of the session."""
        witness = Witness(traces=True)
        relay = watched(witness)
        session = relay.connect(MemoryOutbox(), "", CODEC)
        relay.receive(session, b"\x00")
        relay.receive(session, b"\x01")
        self.assertEqual([told for told in witness.told if told[0] == "frame"], [("frame", b"\x00")])

    def test_nobody_needs_to_watch(self) -> None:
        """A relay without an observer works, and the observer that is built in wants no reports."""
        nobody = Unwatched()
        self.assertFalse(nobody.watches or nobody.traces)
        session = memory_session()
        nobody.operation(session, m.Ping())
        nobody.frame(session, b"")
        world = World(RelayOptions(message_rate=(1.0, 1.0)))
        client = world.join()
        client.send(m.Get("no address"))
        client.send(m.Ping())
        client.leave()
        self.assertEqual(world.faults, [])


class CountedTests(SynchronousTestCase):
    """Counters of the relay."""

    def setUp(self) -> None:
        """Makes a world with two listeners."""
        self.world = World()
        self.relay = self.world.relay
        self.sender = self.world.join()
        self.listener = self.world.join()
        self.other = self.world.join()

    def test_counts_begin_at_zero(self) -> None:
        """For every type and code that there is."""
        counts = Counts()
        self.assertEqual({*counts.received.values(), *counts.errors.values(), *counts.sent}, {0})
        self.assertEqual(set(counts.errors), set(ErrorCode))

    def test_messages_are_counted_by_type_as_they_come(self) -> None:
        """Including refused ones; undecodable ones are counted separately."""
        self.sender.send(m.Set("/a", value(1)))
        self.sender.send(m.Set("no address", value(1)))
        self.sender.send_bytes(b"\x00")
        self.sender.send_bytes(encode_frame(b"\x20"))
        counts = self.relay.counts
        self.assertEqual((counts.began, counts.received[m.Hello], counts.received[m.Set]), (3, 3, 2))
        self.assertEqual(counts.undecodable, {ErrorCode.FRAME: 1, ErrorCode.MESSAGE: 1})
        self.assertEqual(
            [counts.errors[code] for code in (ErrorCode.ADDRESS, ErrorCode.FRAME, ErrorCode.MESSAGE)], [1, 1, 1]
        )
        self.assertEqual((self.sender.session.received, self.sender.session.errors), (3, 3))

    def test_answers_are_counted_by_code(self) -> None:
        """Including those to HELLO."""
        self.sender.send(m.Ping())
        self.sender.send(m.Set("/a", value(1)), 1)
        self.sender.send(m.Get("/a"))
        sent = self.relay.counts.sent
        expected = {MessageCode.WELCOME: 3, MessageCode.SNAPSHOT: 4, MessageCode.PONG: 1, MessageCode.ACK: 1}
        self.assertEqual({code: sent[code] for code in MessageCode if sent[code]}, expected)

    def test_fan_out_is_counted_once_and_by_all_who_get_it(self) -> None:
        """A sender that subscribed gets its SET, but not its PUBLISH."""
        for client in (self.sender, self.listener, self.other):
            client.send(m.Subscribe(1, "/a/**"))
        self.sender.send(m.Set("/a/b", value(1)))
        self.sender.send(m.Publish("/a/b", Signal.EVENT, value=value(1)))
        self.sender.send(m.Publish("/elsewhere", Signal.STREAM, value=value(1)))
        recipients = self.relay.recipients
        self.assertEqual([recipients.sent[signal] for signal in Signal], [1, 1, 1, 0, 0])
        self.assertEqual(recipients.delivered, 3 + 2)

    def test_signal_to_one_session_is_counted(self) -> None:
        """As one delivery."""
        self.sender.send(m.Publish(f"/clasp/p2p/signal/{self.other.session.id}", Signal.EVENT, value=value(1)))
        self.assertEqual((self.relay.recipients.sent[Signal.EVENT], self.relay.recipients.delivered), (1, 1))

    def test_what_filters_leave_out_is_counted(self) -> None:
        """By maxRate and by epsilon; a held message is counted when it is sent."""
        self.listener.send(m.Subscribe(1, "/a", ALL, 1))
        self.other.send(m.Subscribe(1, "/b", ALL, None, 10.0))
        for number in (1.0, 2.0, 3.0):
            self.sender.send(m.Set("/a", value(number)))
            self.sender.send(m.Set("/b", value(number)))
        throttles = self.relay.throttles
        self.assertEqual((throttles.sent, throttles.replaced, throttles.skipped), (2, 1, 2))
        self.world.advance(1.0)
        self.assertEqual((throttles.sent, throttles.replaced, throttles.skipped), (3, 1, 2))

    def test_moves_that_are_coalesced_are_counted(self) -> None:
        """Only those that are sent to nobody."""
        for phase in (Phase.START, Phase.MOVE, Phase.MOVE, Phase.MOVE, Phase.MOVE):
            self.sender.send(m.Publish("/g", Signal.GESTURE, phase, value(1), id=1))
        self.assertEqual(self.relay.gestures.replaced, 2)
