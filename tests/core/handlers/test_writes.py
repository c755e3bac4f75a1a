"""Tests of clasp_relay.core.handlers.writes."""

from __future__ import annotations

import msgpack
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.relay import RelayOptions
from clasp_relay.core.state.params import ParamLimits
from clasp_relay.errors import ErrorCode
from clasp_relay.wire.constants import Phase, Signal
from clasp_relay.wire.frame import encode_frame
from clasp_relay.wire.messages import (
    NULL,
    Ack,
    Bundle,
    Error,
    Get,
    Message,
    Ping,
    Publish,
    Set,
    Subscribe,
)
from tests.core.world import World, codes, heard, revisions, value


class AckTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A session."""
        self.world = World()
        self.client = self.world.join()

    def test_ack_comes_only_where_qos_asks_for_it(self) -> None:
        """A binary ACK ends the Python client's loop, and it sends QoS 0; an ERROR is always sent."""
        for revision, qos in enumerate((0, 1, 2), 1):
            with self.subTest(qos=qos):
                expected = [Ack("/a", revision)] if qos else []
                self.assertEqual(self.client.ask(Set("/a", value(1)), qos), expected)
                self.assertEqual(codes(self.client.ask(Set("a", value(1)), qos)), [ErrorCode.ADDRESS])

    def test_ack_of_a_lock_names_the_holder(self) -> None:
        """Only if the SET asked for the lock."""
        me = self.client.session.id
        self.assertEqual(self.client.ask(Set("/a", value(1), lock=True), 1), [Ack("/a", 1, True, me)])
        self.assertEqual(self.client.ask(Set("/a", value(1)), 1), [Ack("/a", 2)])

    def test_set_in_messagepack_is_answered_in_binary(self) -> None:
        """Any message of a client may be in MessagePack."""
        document = {"type": "SET", "address": "/a", "value": 1, "ttl": {"Sliding": 5}}
        self.client.send_bytes(encode_frame(msgpack.packb(document), 1))
        self.assertEqual(self.client.hear(), [Ack("/a", 1)])


class PublishTests(SynchronousTestCase):
    def test_signal_is_checked_and_passed_on(self) -> None:
        """The only possible answer is an ERROR."""
        world = World()
        sender, listener = world.join(), world.join()
        listener.send(Subscribe(1, "/a"))
        self.assertEqual(sender.ask(Publish("/a", Signal.EVENT, value=value(1)), 2), [])
        self.assertEqual(codes(sender.ask(Publish("/a/", Signal.EVENT))), [ErrorCode.ADDRESS])
        self.assertEqual(heard(listener.hear()), [("/a", 1)])


_GOOD: st.SearchStrategy[Message] = st.tuples(
    st.sampled_from(("/a", "/b", "/c", "/locked by me")),
    st.sampled_from((value(1), value("x"), NULL)),
    st.booleans(),
    st.booleans(),
    st.sampled_from((None, 0, 60)),
).map(lambda fields: Set(fields[0], fields[1], None, fields[2], fields[3], fields[4])) | st.sampled_from(
    (Publish("/e", Signal.EVENT), Publish("/e", Signal.STREAM), Publish("/e", Signal.GESTURE, Phase.MOVE, id=1))
)


_BAD: st.SearchStrategy[Message] = st.sampled_from(
    (
        Set("/locked", value(1)),
        Set("/locked", value(1), unlock=True),
        Set("/set", value(1), 7),
        Set("/absent", value(1), 1),
        Set("/no/*", value(1)),
        Publish("no", Signal.EVENT),
        Publish("/clasp/p2p/signal/nobody", Signal.EVENT),
        Get("/a"),
    )
)


class BundleTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A relay with a few params and locks."""
        self.begin(RelayOptions())

    def begin(self, options: RelayOptions) -> None:
        """Begins with a new relay."""
        self.world = World(options)
        self.sender, self.other, self.listener = (self.world.join() for _ in range(3))
        self.listener.send(Subscribe(1, "/**"))

    def fill(self) -> None:
        """Sets the params that the bundles need."""
        self.other.send(Set("/locked", value(1), lock=True))
        self.sender.send(Set("/locked by me", value(1), lock=True))
        self.sender.send(Set("/set", value(1)))
        self.listener.hear()

    def send(self, *members: Message, qos: int = 1) -> list[Message]:
        """Sends a bundle and returns what comes back."""
        return self.sender.ask(Bundle(members), qos)

    def test_member_that_is_neither_set_nor_publish_is_refused_from_every_door(self) -> None:
        """A codec may refuse it first; one that a door has decoded is refused here, and nothing is applied."""
        world = World()
        client = world.join()
        world.relay.accept(client.session, Bundle((Set("/a", value(1)), Ping())), 1)
        (error,) = client.hear()
        assert isinstance(error, Error), error
        self.assertEqual(error.error, ErrorCode.MESSAGE)
        self.assertIn("not PING", error.message)
        self.assertIsNone(world.relay.params.get("/a"))

    def test_members_are_applied_in_order_and_told_apart(self) -> None:
        """As SETs and PUBLISHes, never as a bundle."""
        answers = self.send(
            Set("/a", value(1)), Publish("/e", Signal.EVENT, value=value(2)), Set("/a", value(3)), Set("/b", value(4))
        )
        self.assertEqual(answers, [Ack(None, 1)])
        messages = self.listener.hear()
        self.assertEqual(heard(messages), [("/a", 1), ("/e", 2), ("/a", 3), ("/b", 4)])
        self.assertEqual(revisions(messages), [1, 2, 1])

    def test_ack_has_the_last_revision_where_there_is_one(self) -> None:
        """And is sent only if QoS asks for it."""
        cases: tuple[tuple[tuple[Message, ...], int | None], ...] = (
            ((), None),
            ((Publish("/e", Signal.EVENT),), None),
            ((Set("/a", value(1)), Set("/a", value(2)), Publish("/e", Signal.EVENT)), 2),
        )
        for members, revision in cases:
            for qos in (0, 1, 2):
                with self.subTest(members=members, qos=qos):
                    self.begin(RelayOptions())
                    self.assertEqual(self.send(*members, qos=qos), [Ack(None, revision)] if qos else [])

    def test_one_refusal_refuses_all(self) -> None:
        """With one ERROR, which names the address."""
        self.fill()
        before = self.world.relay.params.image()
        answers = self.send(Set("/a", value(1)), Publish("/e", Signal.EVENT), Set("/locked", value(2)))
        (error,) = answers
        assert isinstance(error, Error)
        self.assertEqual((error.error, error.address), (ErrorCode.LOCKED, "/locked"))
        self.assertEqual((self.world.relay.params.image(), self.listener.hear()), (before, []))

    @given(st.lists(_GOOD, max_size=6), _BAD, st.lists(_GOOD | _BAD, max_size=3), st.booleans())
    def test_bundle_with_a_bad_member_leaves_everything_as_it_was(
        self, before: list[Message], bad: Message, after: list[Message], is_full: bool
    ) -> None:
        """Params, revisions, life times, locks, presence and waiting messages; and nobody is told anything."""
        limits = ParamLimits(max_params=3) if is_full else ParamLimits()
        self.begin(RelayOptions(params=limits))
        self.fill()
        relay = self.world.relay
        image, changes = relay.params.image(), relay.params.changes
        self.assertEqual(len(codes(self.send(*before, bad, *after))), 1)
        self.assertEqual((relay.params.image(), relay.params.changes), (image, changes))
        self.assertEqual(relay.params.holder("/locked"), self.other.session.id)
        self.assertEqual(relay.params.holder("/locked by me"), self.sender.session.id)
        self.assertEqual((len(relay.params.locks), len(relay.gestures)), (2, 0))
        self.assertEqual((self.listener.hear(), self.world.faults), ([], []))

    @given(st.lists(_GOOD, max_size=8))
    def test_bundle_of_good_members_does_what_they_do_one_by_one(self, members: list[Message]) -> None:
        """The same state and the same deliveries."""
        found = []
        for is_bundle in (True, False):
            self.begin(RelayOptions())
            self.fill()
            if is_bundle:
                self.assertEqual(codes(self.send(*members)), [])
            else:
                for member in members:
                    self.sender.send(member)
            params = self.world.relay.params
            holders = [params.holder(address) for address in ("/a", "/b", "/c", "/locked", "/locked by me")]
            found.append((params.image(), holders, self.listener.hear()))
        self.assertEqual(*found)

    def test_each_member_is_checked_against_those_before_it(self) -> None:
        """With their revisions, locks and deletions."""
        self.assertEqual(
            revisions(
                self.send(Set("/a", value(1), 0), Set("/a", value(2), 1), Set("/a", NULL), Set("/a", value(3), 0))
            ),
            [4],
        )
        self.assertEqual(codes(self.send(Set("/a", value(4)), Set("/a", value(5), 4))), [ErrorCode.CONFLICT])
        self.fill()
        self.assertEqual(codes(self.send(Set("/locked by me", value(2), unlock=True), Set("/set", value(1)))), [])
        self.assertEqual(codes(self.other.ask(Set("/locked by me", value(3)))), [])

    def test_full_relay_takes_a_bundle_that_frees_what_it_needs(self) -> None:
        """It evicts for all members together, or refuses the bundle."""
        self.begin(RelayOptions(params=ParamLimits(max_params=2)))
        self.send(Set("/old", value(1), ttl=60), Set("/good", value(1)))
        self.listener.hear()
        self.assertEqual(codes(self.send(Set("/new", value(1)), Set("/good", NULL))), [])
        self.assertEqual(heard(self.listener.hear()), [("/new", 1), ("/good", None)])
        self.assertEqual(codes(self.send(Set("/x", value(1)), Set("/y", value(1)))), [ErrorCode.OVERLOADED])
        self.assertEqual(self.listener.hear(), [])
        self.assertEqual(codes(self.send(Set("/x", value(1)), Publish("/e", Signal.EVENT))), [])
        self.assertEqual(heard(self.listener.hear()), [("/old", None), ("/x", 1), ("/e", None)])

    def test_other_members_are_refused(self) -> None:
        """A bundle has only SETs and PUBLISHes."""
        answers = self.send(Set("/a", value(1)), Get("/a"))
        (error,) = answers
        assert isinstance(error, Error)
        self.assertEqual(error.error, ErrorCode.MESSAGE)
        self.assertIn("GET", error.message)
        self.assertEqual(len(self.world.relay.params), 0)

    def test_bundle_in_messagepack_is_answered_in_binary(self) -> None:
        """As the Python client sends it, without QoS and so without an ACK."""
        document = {
            "type": "BUNDLE",
            "timestamp": None,
            "messages": [
                {"type": "SET", "address": "/a", "value": 0.5},
                {"type": "PUBLISH", "address": "/e", "signal": "event", "value": {"cue": 1}},
            ],
        }
        for qos, expected in ((0, []), (1, [Ack(None, 2)])):
            self.sender.send_bytes(encode_frame(msgpack.packb(document), qos))
            self.assertEqual(self.sender.hear(), expected)
            self.assertEqual(heard(self.listener.hear()), [("/a", 0.5), ("/e", {"cue": 1})])
