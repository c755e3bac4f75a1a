"""Tests of clasp_relay.core.decide: what becomes of a message."""

import msgpack
from clasp_relay.core.state.conflicts import decide
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.records import Param
from clasp_relay.core.state.params import ParamLimits, Params
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.constants import Phase, Signal
from clasp_relay.wire.frame import encode_frame
from clasp_relay.wire.messages import NULL, Bundle, Error, Ping, Pong, Publish, Set, Subscribe
from tests.core.guard import Guard
from tests.core.world import World, codes, heard, value

ONE, TWO = value(1), value(2)


class DecideTests(SynchronousTestCase):
    def setUp(self) -> None:
        """/set is at revision 4, /gone was deleted at 7, /locked is held by the session «other»."""
        self.params = Params(ParamLimits())
        self.params.apply(Param("/set", ONE, 4, "w", 10, 60, "alice"))
        self.params.apply(Param("/gone", ONE, 6, "w", 10))
        self.params.apply(Param("/gone", NULL, 7, "w", 20))
        self.params.apply(Param("/locked", ONE, 1, "other", 10), lock=True)

    def decide(self, message: Set) -> Param:
        """Decides a SET of the session «me»."""
        return decide(self.params, self.params.get(message.address), message, "me", "bob", 99)

    def refusal(self, message: Set) -> RequestError:
        """Returns why a SET is refused."""
        return self.assertRaises(RequestError, self.decide, message)  # type: ignore[no-any-return]

    def test_revision_rises_by_one(self) -> None:
        """From 1, and on where a deleted address left off."""
        for address, revision in (("/new", 1), ("/set", 5), ("/gone", 8)):
            with self.subTest(address=address):
                self.assertEqual(self.decide(Set(address, TWO)).revision, revision)

    def test_change_says_who_wrote_what_when(self) -> None:
        """All that is stored is in the record."""
        self.assertEqual(self.decide(Set("/new", TWO, ttl=5)), Param("/new", TWO, 1, "me", 99, 5, "bob"))

    def test_life_time_is_inherited(self) -> None:
        """From what is set; a new one starts without, as does one that was deleted."""
        cases = (("/set", None, 60), ("/set", 0, 0), ("/set", 5, 5), ("/new", None, None), ("/gone", None, None))
        for address, ttl, expected in cases:
            with self.subTest(address=address, ttl=ttl):
                self.assertEqual(self.decide(Set(address, TWO, ttl=ttl)).ttl, expected)

    def test_right_revision_is_accepted(self) -> None:
        """0 says that there is no value now."""
        for address, revision in (("/set", 4), ("/new", 0), ("/gone", 0)):
            with self.subTest(address=address):
                self.decide(Set(address, TWO, revision=revision))

    def test_wrong_revision_is_refused(self) -> None:
        """The ERROR says what the writer believed and what is so."""
        for address, revision, current in (("/set", 3, 4), ("/set", 0, 4), ("/new", 1, 0), ("/gone", 7, 0)):
            with self.subTest(address=address, revision=revision):
                error = self.refusal(Set(address, TWO, revision=revision))
                self.assertEqual((error.code, error.address), (ErrorCode.CONFLICT, address))
                self.assertIn(f"revision {revision}, the current one is {current}", error.message)

    def test_locked_address_is_refused(self) -> None:
        """Whatever the SET wants with the lock, and a null too; the ERROR names the holder."""
        for message in (
            Set("/locked", TWO),
            Set("/locked", TWO, lock=True),
            Set("/locked", TWO, unlock=True),
            Set("/locked", NULL),
            Set("/locked", TWO, revision=99),
        ):
            with self.subTest(message=message):
                error = self.refusal(message)
                self.assertEqual((error.code, error.address), (ErrorCode.LOCKED, "/locked"))
                self.assertIn("other", error.message)

    def test_holder_may_write(self) -> None:
        """With or without a flag."""
        for message in (Set("/locked", TWO), Set("/locked", TWO, lock=True), Set("/locked", TWO, unlock=True)):
            with self.subTest(message=message):
                before = self.params.get("/locked")
                self.assertEqual(decide(self.params, before, message, "other", "", 99).revision, 2)


class PublishingTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A sender and a listener."""
        self.world = World()
        self.sender = self.world.join()
        self.listener = self.world.join()
        self.listener.send(Subscribe(1, "/**"))

    def test_nothing_is_stored(self) -> None:
        """Who comes later does not hear it."""
        self.sender.send(Publish("/a", Signal.EVENT, value=value(1)))
        self.assertEqual(len(self.world.relay.params), 0)
        self.assertEqual(self.sender.ask(Subscribe(1, "/a")), [])

    def test_sender_gets_no_answer(self) -> None:
        """Whatever its QoS."""
        for qos in (0, 1, 2):
            self.assertEqual(self.sender.ask(Publish("/a", Signal.EVENT), qos), [])

    def test_invalid_address_is_refused(self) -> None:
        """And reaches nobody."""
        for address in ("", "a", "/", "/a/", "/a//b", "/a/*", "/**"):
            with self.subTest(address=address):
                self.assertEqual(codes(self.sender.ask(Publish(address, Signal.EVENT))), [ErrorCode.ADDRESS])
        self.assertEqual(self.listener.hear(), [])

    def test_peer_gets_what_is_sent_to_it_alone(self) -> None:
        """Without a subscription; nobody else does, whatever it subscribed to."""
        peer = self.world.join()
        address = f"/clasp/p2p/signal/{peer.session.id}"
        for signal in (Signal.EVENT, Signal.GESTURE):
            message = Publish(address, signal, value=value({"sdp": 1}))
            self.sender.send(message)
            self.assertEqual(peer.hear(), [message])
        self.assertEqual(self.listener.hear(), [])

    def test_peer_that_has_gone_is_not_found(self) -> None:
        """ERROR 404, and no one gets it."""
        peer = self.world.join()
        address = f"/clasp/p2p/signal/{peer.session.id}"
        peer.leave()
        for target in (address, "/clasp/p2p/signal/x", f"/clasp/p2p/signal/{self.listener.session.id}/more"):
            (error,) = self.sender.ask(Publish(target, Signal.EVENT))
            assert isinstance(error, Error)
            self.assertEqual((error.error, error.address), (ErrorCode.NO_TARGET, target))
        self.assertEqual(self.listener.hear(), [])

    def test_peer_that_leaves_before_a_coalesced_move_misses_it(self) -> None:
        """It was accepted; nothing fails later."""
        peer = self.world.join()
        for number in range(2):
            address = f"/clasp/p2p/signal/{peer.session.id}"
            self.sender.send(Publish(address, Signal.GESTURE, Phase.MOVE, value(number), id=1))
        peer.leave()
        self.world.clock.clock.advance(1)
        self.assertEqual((self.sender.hear(), self.listener.hear(), self.world.faults), ([], [], []))

    def test_announcement_of_a_peer_goes_to_subscribers(self) -> None:
        """It is an ordinary address."""
        self.sender.send(Publish("/clasp/p2p/announce", Signal.EVENT, value=value(1)))
        self.assertEqual(heard(self.listener.hear()), [("/clasp/p2p/announce", 1)])

    def test_message_that_fits_only_in_messagepack_is_refused(self) -> None:
        """What MessagePack says in one byte can take nine in binary; it is no fault of ours."""
        document = {"type": "PUBLISH", "address": "/a", "signal": "event", "value": [1] * 20_000}
        data = encode_frame(msgpack.packb(document))
        self.sender.send_bytes(data)
        self.assertEqual(codes(self.sender.hear()), [ErrorCode.VALUE])
        document["type"] = "SET"
        self.sender.send_bytes(encode_frame(msgpack.packb(document)))
        self.assertEqual(codes(self.sender.hear()), [ErrorCode.VALUE])
        self.assertEqual((self.listener.hear(), self.world.faults), ([], []))
        self.assertEqual(self.sender.ask(Ping()), [Pong()])


class GuardedPublishingTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Two users of a relay that checks."""
        self.world = World(permissions=Guard())
        self.sender = self.world.join("alice")
        self.listener = self.world.join("admin")
        self.listener.send(Subscribe(1, "/**"))

    def test_refused_signal_reaches_nobody(self) -> None:
        """For its scope, or for the policy."""
        for address, code in (("/secret", ErrorCode.SCOPE), ("/needs/x", ErrorCode.POLICY)):
            self.assertEqual(codes(self.sender.ask(Publish(address, Signal.EVENT))), [code])
        self.assertEqual(self.listener.hear(), [])

    def test_policy_sees_the_state_as_it_is(self) -> None:
        """Or as the members before it in a bundle would leave it."""
        publish = Publish("/needs/x", Signal.EVENT)
        self.assertEqual(codes(self.sender.ask(Bundle((publish, Set("/x", value(1)))))), [ErrorCode.POLICY])
        self.assertEqual(self.sender.ask(Bundle((Set("/x", value(1)), publish))), [])
        self.assertEqual(self.sender.ask(publish), [])
        self.assertEqual(codes(self.sender.ask(Bundle((Set("/x", value(None)), publish)))), [ErrorCode.POLICY])
        self.assertEqual([address for address, _ in heard(self.listener.hear())], ["/x", "/needs/x", "/needs/x"])
