"""Tests of clasp_relay.core.fanout.recipients."""

from __future__ import annotations

import gc
from functools import partial

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.ports import Audience, Kind
from clasp_relay.core.rights.port import FULL, HIDDEN, Verdict
from clasp_relay.wire.clasp import ClaspCodec
from clasp_relay.wire.codec import encode
from clasp_relay.wire.constants import ALL_TYPES, Phase, Signal
from clasp_relay.wire.frame import encode_frame
from clasp_relay.wire.messages import Bundle, Hello, Message, Publish, Set, Subscribe, Unsubscribe
from tests.core.counting import count_calls
from tests.core.guard import Guard, Rule, members_of, reads_of
from tests.core.world import CODEC, Client, MemoryFanOut, World, heard, revisions, value


class FanOutTests(SynchronousTestCase):
    """Each session with a matching subscription gets a message once."""

    def setUp(self) -> None:
        """A writer and a reader."""
        self.world = World()
        self.writer = self.world.join()
        self.reader = self.world.join()

    def test_session_gets_a_message_once(self) -> None:
        """However many of its subscriptions match."""
        for number, pattern in enumerate(("/**", "/a/*", "/a/x", "/a/x", "/*/x", "/a/x*")):
            self.reader.send(Subscribe(number, pattern))
        self.reader.send(Subscribe(90, "/a/**", ALL_TYPES, 1, 5.0))
        self.writer.send(Set("/a/x", value(1)))
        self.writer.send(Publish("/a/x", Signal.EVENT, value=value(2)))
        self.assertEqual(heard(self.reader.hear()), [("/a/x", 1), ("/a/x", 2)])

    def test_same_people_are_one_audience_at_all_addresses(self) -> None:
        """So that all messages to them in one turn can be one write."""
        audiences: list[Audience] = []
        fan_out = MemoryFanOut()
        self.patch(fan_out, "fan_out", lambda audience, *_: audiences.append(audience))
        self.patch(self.world.relay.recipients, "_fan_out", fan_out)
        for client, patterns in ((self.writer, ("/a", "/b/*")), (self.reader, ("/b/*", "/**"))):
            for number, pattern in enumerate(patterns):
                client.send(Subscribe(number, pattern))
        for address in ("/a", "/b/x", "/c"):
            self.writer.send(Set(address, value(1)))
        self.assertIs(audiences[0], audiences[1])
        self.assertEqual(audiences[2].outboxes, (self.reader.outbox,))

    def test_set_comes_back_to_its_sender_and_publish_does_not(self) -> None:
        """If it subscribed."""
        self.writer.send(Subscribe(1, "/a"))
        self.assertEqual(heard(self.writer.ask(Set("/a", value(1)))), [("/a", 1)])
        for signal in (Signal.EVENT, Signal.STREAM, Signal.GESTURE, Signal.TIMELINE):
            self.assertEqual(self.writer.ask(Publish("/a", signal, value=value(1))), [])

    def test_set_arrives_with_its_new_revision_and_as_it_was_said(self) -> None:
        """Value byte by byte, lock flags and life time."""
        self.reader.send(Subscribe(1, "/**"))
        messages = [
            Set("/a", b"\x02\x05", lock=True, ttl=60),
            Set("/a", b"\x04\x00\x00\x00\x05", 1, unlock=True),
            Set("/b", b"\x0b\x00\x02\x00\x01b\x00\x00\x01a\x07\x7f\xf8\x00\x00\x00\x00\x00\x01"),
        ]
        for message in messages:
            self.writer.send(message)
        found = self.reader.hear()
        expected = [one._replace(revision=rev) for one, rev in zip(messages, (1, 2, 1), strict=True)]
        self.assertEqual(found, expected)

    def test_publish_arrives_as_it_was_sent(self) -> None:
        """Value, samples, phase, id, rate and timestamp."""
        self.reader.send(Subscribe(1, "/**"))
        messages = [
            Publish("/a", Signal.EVENT, value=b"\x03\x00\x05", timestamp_us=5),
            Publish("/a", Signal.EVENT),
            Publish("/a", Signal.STREAM, samples=bytes(range(16)), timestamp_us=6, rate=60),
            Publish("/a", Signal.GESTURE, Phase.START, value(1), id=7),
            Publish("/a", Signal.TIMELINE, value=value([{"t": 0}])),
        ]
        for message in messages:
            self.writer.send(message)
        self.assertEqual(self.reader.hear(), messages)

    def test_type_filter_lets_through_what_it_names(self) -> None:
        """Each kind of signal has one bit."""
        for signal in Signal:
            self.reader.send(Subscribe(1, "/**", 1 << signal))
            self.writer.send(Set("/a", value("param")))
            for other in (Signal.EVENT, Signal.STREAM, Signal.GESTURE, Signal.TIMELINE):
                self.writer.send(Publish("/a", other, value=value(other.name.lower())))
            with self.subTest(signal=signal):
                self.assertEqual([found for _, found in heard(self.reader.hear())][-1:], [signal.name.lower()])

    def test_frames_say_what_may_be_dropped(self) -> None:
        """Params may be replaced by newer ones, streams and moves dropped; all others are kept."""
        self.reader.send(Subscribe(1, "/**"))
        for message in (
            Set("/a", value(1)),
            Publish("/a", Signal.EVENT),
            Publish("/a", Signal.STREAM),
            Publish("/a", Signal.TIMELINE),
            Publish("/a", Signal.GESTURE, Phase.START, id=1),
            Publish("/a", Signal.GESTURE, Phase.MOVE, id=1),
            Publish("/a", Signal.GESTURE, Phase.END, id=1),
        ):
            self.writer.send(message)
        kinds = [frame.kind for frame in self.reader.outbox.frames]
        keep = Kind.KEEP
        self.assertEqual(kinds, [Kind.PARAM, keep, Kind.DROP, keep, keep, Kind.DROP, keep])
        self.assertEqual({frame.address for frame in self.reader.outbox.frames}, {"/a"})

    def test_audience_stays_the_same_object_until_it_changes(self) -> None:
        """So that two messages in a row can share one write."""
        route = self.world.relay.subscriptions.route
        self.reader.send(Subscribe(1, "/a/**"))
        audiences: list[Audience] = []
        for address in ("/a/1", "/a/2", "/a/1"):
            self.writer.send(Set(address, value(1)))
            delivery = route(address).deliveries[Signal.PARAM]
            assert delivery is not None
            audiences += delivery.audiences
        self.assertEqual(len(set(map(id, audiences))), 1)
        self.writer.send(Subscribe(1, "/a/2"))
        self.writer.send(Set("/a/2", value(2)))
        delivery = route("/a/2").deliveries[Signal.PARAM]
        assert delivery is not None
        (audience,) = delivery.audiences
        self.assertEqual(audience.members, {self.reader.outbox, self.writer.outbox})

    def test_nobody_hears_what_nobody_asked_for(self) -> None:
        """Not after its subscription has ended either."""
        self.reader.send(Subscribe(1, "/a"))
        self.reader.send(Unsubscribe(1))
        self.writer.send(Set("/a", value(1)))
        self.assertEqual(self.reader.hear(), [])


class OrderTests(SynchronousTestCase):
    """Fifty subscribers, and many messages at once."""

    def setUp(self) -> None:
        """Some subscribe to all addresses, some to each one, some to both."""
        self.world = World()
        self.writer = self.world.join()
        self.readers: list[Client] = [self.world.join() for _ in range(50)]
        for number, reader in enumerate(self.readers):
            if number % 3 != 0:
                reader.send(Subscribe(1, "/a/**"))
            if number % 3 != 1:
                for address in range(7):
                    reader.send(Subscribe(10 + address, f"/a/{address}"))

    def test_burst_arrives_in_order_at_every_subscriber(self) -> None:
        """A thousand SETs at several addresses; revisions of an address never go down."""
        expected = [(f"/a/{number % 7}", number) for number in range(1000)]
        for address, number in expected:
            self.writer.send(Set(address, value(number)))
        for reader in self.readers:
            messages = reader.hear()
            self.assertEqual(heard(messages), expected)
            for address in {address for address, _ in expected}:
                found = [one for one in messages if isinstance(one, Set) and one.address == address]
                self.assertEqual(revisions(list(found)), list(range(1, len(found) + 1)))

    def test_members_of_a_bundle_stand_in_their_place(self) -> None:
        """Between their sender's earlier and later messages, including signals."""
        self.writer.send(Set("/a/1", value("before")))
        self.writer.send(
            Bundle(
                (Publish("/a/2", Signal.EVENT, value=value("event")), Set("/a/1", value("in")), Set("/a/3", value(3)))
            )
        )
        self.writer.send(Publish("/a/1", Signal.EVENT, value=value("after")))
        expected = [("/a/1", "before"), ("/a/2", "event"), ("/a/1", "in"), ("/a/3", 3), ("/a/1", "after")]
        for reader in self.readers:
            self.assertEqual(heard(reader.hear()), expected)

    def test_snapshot_stands_before_later_changes(self) -> None:
        """Changes during a SUBSCRIBE come behind the params that were set before."""
        self.writer.send(Set("/a/1", value(1)))
        newcomer = self.world.join()
        newcomer.send(Subscribe(1, "/a/1"))
        self.writer.send(Set("/a/1", value(2)))
        self.assertEqual(heard(newcomer.hear()), [("/a/1", 1), ("/a/1", 2)])


class CostTests(SynchronousTestCase):
    """The cost of a message depends on its recipients, not on other params and subscriptions."""

    def costs(self, size: int) -> dict[str, int]:
        """Returns the cost of messages among this many params and subscriptions that do not match."""
        world = World()
        crowd = [world.join() for _ in range(10)]
        for number in range(size):
            crowd[number % 10].send(Subscribe(number // 10, f"/other/{number}/**"))
            crowd[number % 10].send(Set(f"/other/{number}/x", value(number)))
        writer, reader = world.join(), world.join()
        reader.send(Subscribe(1, "/room/**"))
        writer.send(Set("/room/0", value(0)))
        messages: dict[str, Message] = {
            "SET of a known address": Set("/room/0", value(1)),
            "SET of a new address": Set("/room/1", value(1)),
            "PUBLISH": Publish("/room/0", Signal.EVENT),
            "SUBSCRIBE": Subscribe(2, "/room/*"),
            "delete": Set("/room/1", value(None)),
        }
        found = {}
        for name, message in messages.items():
            data = encode_frame(encode(message))
            found[name] = count_calls(partial(world.relay.receive, writer.session, data))
        found["sweep"] = count_calls(world.relay.sweep)
        found["disconnect"] = count_calls(writer.leave)
        return found

    def test_cost_does_not_grow_with_what_does_not_match(self) -> None:
        """With a hundred times as many params and subscriptions, no call more is made."""
        self.assertEqual(self.costs(100), self.costs(10_000))


class GuardedDeliveryTests(SynchronousTestCase):
    """With rules that hide something from some sessions."""

    def test_throttled_reader_gets_what_it_may_see(self) -> None:
        """Later, and without hidden keys."""
        guard = Guard()
        guard.rules["/a"] = Rule(frozenset(("pin",)))
        guard.rules["/b"] = Rule(FULL)
        world = World(permissions=guard)
        writer, reader = world.join("admin"), world.join("alice")
        reader.send(Subscribe(1, "/**", ALL_TYPES, 1))
        for number in range(3):
            writer.send(Set("/a", value({"n": number, "pin": 1})))
            writer.send(Set("/b", value({"n": number, "pin": 1})))
        world.clock.clock.advance(1)
        found = heard(reader.hear())
        self.assertEqual(found[0::2], [("/a", {"n": 0}), ("/a", {"n": 2})])
        self.assertEqual(found[1::2], [("/b", {"n": 0, "pin": 1}), ("/b", {"n": 2, "pin": 1})])

    def held(self) -> None:
        """Makes Alice wait for the second value of /a."""
        self.guard = Guard()
        self.guard.rules["/a"] = Rule(members_of("/members"))
        self.guard.rules["/pin"] = Rule(
            lambda _subject, _pattern, state, _now_us: Verdict(
                frozenset(("pin",)) if state.get("/closed") else FULL, reads_of("/closed")
            )
        )
        self.world = World(permissions=self.guard)
        self.writer, self.reader = self.world.join("admin"), self.world.join("alice")
        self.writer.send(Set("/members", value(["alice"])))
        self.reader.ask(Subscribe(1, "/a", ALL_TYPES, 1))
        self.reader.ask(Subscribe(2, "/pin", ALL_TYPES, 1))
        for number in range(2):
            self.writer.send(Set("/a", value(number)))
            self.writer.send(Set("/pin", value({"n": number, "pin": number})))
        self.assertEqual(heard(self.reader.hear()), [("/a", 0), ("/pin", {"n": 0, "pin": 0})])

    def test_what_was_held_back_is_shown_as_its_reader_sees_it_then(self) -> None:
        """A key that was hidden meanwhile is left out."""
        self.held()
        self.writer.send(Set("/closed", value(True)))
        self.world.clock.clock.advance(1)
        self.assertEqual(heard(self.reader.hear()), [("/a", 1), ("/pin", {"n": 1})])

    def test_what_was_held_back_is_dropped_when_sight_has_ended(self) -> None:
        """Even if it was visible when it was written; later values are sent again."""
        self.held()
        self.writer.send(Set("/members", value([])))
        self.world.clock.clock.advance(1)
        self.assertEqual(heard(self.reader.hear()), [("/pin", {"n": 1, "pin": 1})])
        self.writer.send(Set("/members", value(["alice"])))
        self.writer.send(Set("/a", value(2)))
        self.assertEqual(heard(self.reader.hear()), [("/a", 2)])
        self.assertEqual(self.world.faults, [])

    def test_widest_of_the_patterns_that_wait_counts(self) -> None:
        """As for messages that are sent at once."""
        self.held()
        seen = {"/**": HIDDEN, "/*": frozenset(("pin",)), "/two": frozenset(("n",))}
        self.guard.rules["/two"] = Rule(
            lambda _subject, pattern, _state, _now_us: Verdict(seen[pattern.text] if pattern else HIDDEN),
            depends_on_pattern=True,
        )
        for number, pattern in enumerate(seen, 10):
            self.reader.send(Subscribe(number, pattern, ALL_TYPES, 1))
        self.world.clock.clock.advance(2)
        self.reader.hear()
        for number in range(2):
            self.writer.send(Set("/two", value({"n": number, "pin": number})))
        self.world.clock.clock.advance(1)
        both = [("/two", {"n": number, "pin": number}) for number in range(2)]
        self.assertEqual(heard(self.reader.hear()), both)

    def test_held_back_stream_is_seen_alike(self) -> None:
        """Its rule is that of its address."""
        self.held()
        for number in range(2):
            self.writer.send(Publish("/a", Signal.STREAM, value=value(number)))
        self.writer.send(Set("/members", value([])))
        self.assertEqual(heard(self.reader.hear()), [("/a", 0)])
        self.world.clock.clock.advance(1)
        self.assertEqual(heard(self.reader.hear()), [("/pin", {"n": 1, "pin": 1})])


class AudiencesTests(SynchronousTestCase):
    """One for each set of sessions with the same codec."""

    def setUp(self) -> None:
        """A relay with two CLASP clients, and two clients whose codec is another object."""
        self.world = World()
        self.writer = self.world.join()
        other = ClaspCodec()
        self.readers = [Client(self.world, codec) for codec in (CODEC, CODEC, other, other)]
        for reader in self.readers:
            reader.ask(Hello(1, 0, "test"))

    def audiences(self, address: str) -> tuple[Audience, ...]:
        """Returns the audiences that get a param."""
        self.writer.send(Set(address, value(1)))
        delivery = self.world.relay.subscriptions.route(address).deliveries[Signal.PARAM]
        assert delivery is not None
        return delivery.audiences

    def test_same_sessions_are_one_audience(self) -> None:
        """In whatever order they subscribed."""
        one, two, *_ = self.readers
        for client, pattern in ((one, "/a"), (two, "/a"), (two, "/b"), (one, "/b"), (one, "/c")):
            client.send(Subscribe(len(client.session.subscriptions), pattern))
        (first,), (second,), (third,) = map(self.audiences, ("/a", "/b", "/c"))
        self.assertEqual(first.outboxes, (one.outbox, two.outbox))
        self.assertIs(first, second)
        self.assertIsNot(first, third)

    def test_each_codec_has_an_audience_of_its_own(self) -> None:
        """A message is encoded once for each, and all get it."""
        for reader in self.readers:
            reader.send(Subscribe(1, "/a"))
        first, second = self.audiences("/a")
        self.assertEqual((first.codec, second.codec), (CODEC, self.readers[2].session.codec))
        self.assertEqual((len(first.outboxes), len(second.outboxes)), (2, 2))
        self.assertEqual([heard(reader.hear()) for reader in self.readers], [[("/a", 1)]] * 4)

    def test_throttled_sessions_get_what_their_codec_encodes(self) -> None:
        """At once, and if it is held."""
        for reader in self.readers:
            reader.send(Subscribe(1, "/a", ALL_TYPES, 1))
        for number in range(3):
            self.writer.send(Set("/a", value(number)))
        self.world.clock.clock.advance(1)
        self.assertEqual([heard(reader.hear()) for reader in self.readers], [[("/a", 0), ("/a", 2)]] * 4)

    def test_nobody_is_kept_by_an_audience_that_is_gone(self) -> None:
        """When its sessions have ended, the audience is no longer in memory."""
        one, *_ = self.readers
        one.send(Subscribe(1, "/a"))
        self.audiences("/a")
        one.leave()
        gc.collect()
        self.assertEqual(len(self.world.relay.recipients._audiences), 0)
