"""Tests of clasp_relay.core.publishing: signals pass through."""

import msgpack
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import ErrorCode
from clasp_relay.wire.constants import Phase, Signal
from clasp_relay.wire.frame import encode_frame
from clasp_relay.wire.messages import Bundle, Error, Ping, Pong, Publish, Set, Subscribe
from tests.core.guard import Guard
from tests.core.world import World, codes, heard, value


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
