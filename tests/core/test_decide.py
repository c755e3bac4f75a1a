"""Tests of clasp_relay.core.decide: the decisions about SETs and PUBLISHes."""

import msgpack
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.decide import check_param_fits, check_publish_fits, check_signal_fits
from clasp_relay.core.records import Change, ChangeKind, Param
from clasp_relay.core.rights.port import Grant
from clasp_relay.core.session.sessions import SessionState
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.clasp import ROOM_BYTES
from clasp_relay.wire.codec import encode_to_frame, snapshot_entry
from clasp_relay.wire.constants import Phase, Signal
from clasp_relay.wire.frame import encode_frame
from clasp_relay.wire.messages import (
    NULL,
    Bundle,
    Error,
    Ping,
    Pong,
    Publish,
    Set,
    SignalDefinition,
    Snapshot,
    SnapshotParam,
    Subscribe,
)
from tests.core.guard import Guard
from tests.core.world import CODEC, START_US, World, codes, heard, memory_session, value

ONE, TWO = value(1), value(2)


class DecideTests(SynchronousTestCase):
    def setUp(self) -> None:
        """/set is at revision 4, /gone was deleted at 7, /locked is held by the session «other»; 99 µs have passed."""
        self.world = World()
        relay = self.world.relay
        self.params, self.decider = relay.params, relay.decider
        for one in (
            Change(Param("/set", ONE, 4, "w", 10, 60, "alice")),
            Change(Param("/gone", ONE, 6, "w", 10)),
            Change(Param("/gone", NULL, 7, "w", 20)),
            Change(Param("/locked", ONE, 1, "other", 10), lock=True, takes_lock=True),
        ):
            self.params.apply(one)
        relay.sessions.add(memory_session("other"))
        self.image = self.params.image()
        self.world.clock.clock.advance(0.000_099)
        self.now_us = START_US + 99

    def tearDown(self) -> None:
        """Checks that deciding has changed nothing."""
        self.assertEqual(self.params.image(), self.image)

    def test_sent_bytes_go_with_the_value_that_they_were_sent_for(self) -> None:
        """Not with the value that a policy put in its place."""
        guard = Guard()
        world = World(permissions=guard)
        session = memory_session("me", "bob")
        session.state, session.sent_as = SessionState.LIVE, b" 1"
        kept = world.relay.decider.set(session, Set("/a", ONE), world.relay.params)
        self.assertEqual((kept.param.value, kept.param.sent_as), (ONE, b" 1"))
        guard.grant = lambda *_: Grant(NULL, None)
        changed = world.relay.decider.set(session, Set("/a", ONE), world.relay.params)
        self.assertEqual((changed.param.value, changed.param.sent_as), (NULL, b""))

    def change(self, message: Set, session_id: str = "me", *, is_live: bool = True) -> Change:
        """Decides a SET of a session of Bob."""
        session = memory_session(session_id, "bob")
        session.state = SessionState.LIVE if is_live else SessionState.CLOSED
        return self.decider.set(session, message, self.params)

    def decide(self, message: Set) -> Param:
        """Decides a SET of the session «me»."""
        return self.change(message).param

    def refusal(self, message: Set) -> RequestError:
        """Returns the reason of a refusal."""
        return self.assertRaises(RequestError, self.decide, message)  # type: ignore[no-any-return]

    def test_revision_rises_by_one(self) -> None:
        """From 1; at a deleted address from its last revision."""
        for address, revision in (("/new", 1), ("/set", 5), ("/gone", 8)):
            with self.subTest(address=address):
                self.assertEqual(self.decide(Set(address, TWO)).revision, revision)

    def test_change_says_who_wrote_what_when(self) -> None:
        """The record has all that is stored."""
        self.assertEqual(self.decide(Set("/new", TWO, ttl=5)), Param("/new", TWO, 1, "me", self.now_us, 5, "bob"))

    def test_life_time_is_inherited(self) -> None:
        """From the current param; a new param, and one after a deletion, has none."""
        cases = (("/set", None, 60), ("/set", 0, 0), ("/set", 5, 5), ("/new", None, None), ("/gone", None, None))
        for address, ttl, expected in cases:
            with self.subTest(address=address, ttl=ttl):
                self.assertEqual(self.decide(Set(address, TWO, ttl=ttl)).ttl, expected)

    def test_right_revision_is_accepted(self) -> None:
        """0 means that there is no value now."""
        for address, revision in (("/set", 4), ("/new", 0), ("/gone", 0)):
            with self.subTest(address=address):
                self.decide(Set(address, TWO, revision=revision))

    def test_wrong_revision_is_refused(self) -> None:
        """The ERROR names the expected revision and the current one."""
        for address, revision, current in (("/set", 3, 4), ("/set", 0, 4), ("/new", 1, 0), ("/gone", 7, 0)):
            with self.subTest(address=address, revision=revision):
                error = self.refusal(Set(address, TWO, revision=revision))
                self.assertEqual((error.code, error.address), (ErrorCode.CONFLICT, address))
                self.assertIn(f"revision {revision}, the current one is {current}", error.message)

    def test_lock_of_a_session_that_has_ended_refuses_nobody(self) -> None:
        """Its locks are released in pieces, which may take a few turns."""
        self.params.apply(Change(Param("/locked", ONE, 1, "gone", 10), lock=True, takes_lock=True))
        self.image = self.params.image()
        self.assertEqual(self.decide(Set("/locked", TWO)).revision, 2)

    def test_locked_address_is_refused(self) -> None:
        """Whatever the SET does with the lock, and also for a null; the ERROR names the holder."""
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
        """With or without a lock flag."""
        for message in (Set("/locked", TWO), Set("/locked", TWO, lock=True), Set("/locked", TWO, unlock=True)):
            with self.subTest(message=message):
                self.assertEqual(self.change(message, "other").param.revision, 2)

    def test_change_says_what_the_set_said(self) -> None:
        """With its flags and its TTL as sent, and what follows from them."""
        for message, takes_lock, ttl, due_us in (
            (Set("/new", ONE), False, None, None),
            (Set("/new", ONE, lock=True, ttl=5), True, 5, self.now_us + 5_000_000),
            (Set("/new", ONE, lock=True, unlock=True), False, None, None),
            (Set("/set", ONE, unlock=True), False, 60, self.now_us + 60_000_000),
            (Set("/set", ONE, ttl=0), False, 0, None),
            (Set("/set", NULL, lock=True), False, 60, None),
        ):
            with self.subTest(message=message):
                change = self.change(message)
                self.assertEqual((change.kind, change.stamp), (ChangeKind.WRITE, None))
                self.assertEqual((change.lock, change.unlock, change.ttl), (message.lock, message.unlock, message.ttl))
                self.assertEqual((change.takes_lock, change.param.ttl, change.due_us), (takes_lock, ttl, due_us))

    def test_session_that_has_ended_takes_no_lock(self) -> None:
        """Nothing would release it."""
        self.assertFalse(self.change(Set("/new", ONE, lock=True), is_live=False).takes_lock)

    def test_invalid_address_is_refused(self) -> None:
        """At an address with a value the check was made before."""
        for address in ("", "new", "/new/", "/*"):
            self.assertEqual(self.refusal(Set(address, ONE)).code, ErrorCode.ADDRESS)

    def test_null_of_the_relay_has_the_next_revision_and_no_writer(self) -> None:
        """Ending a param that is not set is a defect."""
        null = self.decider.null("/set")
        self.assertEqual(null, Change(Param("/set", NULL, 5, "", self.now_us, 60, "")))
        self.assertRaises(AssertionError, self.decider.null, "/new")


class PublishingTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A sender and a listener."""
        self.world = World()
        self.sender = self.world.join()
        self.listener = self.world.join()
        self.listener.send(Subscribe(1, "/**"))

    def test_nothing_is_stored(self) -> None:
        """A later subscriber does not get it."""
        self.sender.send(Publish("/a", Signal.EVENT, value=value(1)))
        self.assertEqual(len(self.world.relay.params), 0)
        self.assertEqual(self.sender.ask(Subscribe(1, "/a")), [])

    def test_sender_gets_no_answer(self) -> None:
        """With any QoS."""
        for qos in (0, 1, 2):
            self.assertEqual(self.sender.ask(Publish("/a", Signal.EVENT), qos), [])

    def test_invalid_address_is_refused(self) -> None:
        """And is sent to nobody."""
        for address in ("", "a", "/", "/a/", "/a//b", "/a/*", "/**"):
            with self.subTest(address=address):
                self.assertEqual(codes(self.sender.ask(Publish(address, Signal.EVENT))), [ErrorCode.ADDRESS])
        self.assertEqual(self.listener.hear(), [])

    def test_peer_gets_what_is_sent_to_it_alone(self) -> None:
        """Without a subscription; no other session gets it, whatever it subscribed to."""
        peer = self.world.join()
        address = f"/clasp/p2p/signal/{peer.session.id}"
        for signal in (Signal.EVENT, Signal.GESTURE):
            message = Publish(address, signal, value=value({"sdp": 1}))
            self.sender.send(message)
            self.assertEqual(peer.hear(), [message])
        self.assertEqual(self.listener.hear(), [])

    def test_peer_that_has_gone_is_not_found(self) -> None:
        """With ERROR 404, and nobody gets the signal."""
        peer = self.world.join()
        address = f"/clasp/p2p/signal/{peer.session.id}"
        peer.leave()
        for target in (address, "/clasp/p2p/signal/x", f"/clasp/p2p/signal/{self.listener.session.id}/more"):
            (error,) = self.sender.ask(Publish(target, Signal.EVENT))
            assert isinstance(error, Error)
            self.assertEqual((error.error, error.address), (ErrorCode.NO_TARGET, target))
        self.assertEqual(self.listener.hear(), [])

    def test_peer_that_leaves_before_a_coalesced_move_misses_it(self) -> None:
        """It was accepted, and sending it later does not fail."""
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
        """One byte in MessagePack can be nine in binary; this is not reported as a fault of the relay."""
        document = {"type": "PUBLISH", "address": "/a", "signal": "event", "value": [1] * 7_900}
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
        """Two users of a relay with permissions."""
        self.world = World(permissions=Guard())
        self.sender = self.world.join("alice")
        self.listener = self.world.join("admin")
        self.listener.send(Subscribe(1, "/**"))

    def test_refused_signal_reaches_nobody(self) -> None:
        """Because of its scope, or by the policy."""
        for address, code in (("/secret", ErrorCode.SCOPE), ("/needs/x", ErrorCode.POLICY)):
            self.assertEqual(codes(self.sender.ask(Publish(address, Signal.EVENT))), [code])
        self.assertEqual(self.listener.hear(), [])

    def test_policy_sees_the_state_as_it_is(self) -> None:
        """Or as the earlier members of a bundle would leave it."""
        publish = Publish("/needs/x", Signal.EVENT)
        self.assertEqual(codes(self.sender.ask(Bundle((publish, Set("/x", value(1)))))), [ErrorCode.POLICY])
        self.assertEqual(self.sender.ask(Bundle((Set("/x", value(1)), publish))), [])
        self.assertEqual(self.sender.ask(publish), [])
        self.assertEqual(codes(self.sender.ask(Bundle((Set("/x", value(None)), publish)))), [ErrorCode.POLICY])
        self.assertEqual([address for address, _ in heard(self.listener.hear())], ["/x", "/needs/x", "/needs/x"])


def blob(size: int) -> bytes:
    """Returns a value with this many bytes of data."""
    return b"\x09" + size.to_bytes(2, "big") + bytes(size)


def param(address: str, size: int) -> Param:
    """Returns a param whose value has this many bytes of data."""
    return Param(address, blob(size), 1, "w" * 36, 1)


def entry(one: Param) -> SnapshotParam:
    """Returns a param as a SNAPSHOT carries it."""
    return SnapshotParam(*one[:5])


class FitTests(SynchronousTestCase):
    """What does not fit into a message is refused with an ERROR to its sender."""

    def test_param_fits_exactly_when_its_snapshot_does(self) -> None:
        """No byte is left unused, and none too many is accepted; its SET fits, too."""
        for address in ("/a", "/é" * 100, "/" + "x" * 20_000):
            with self.subTest(address=address[:5]):
                largest = ROOM_BYTES - len(snapshot_entry(entry(param(address, 0))))
                check_param_fits(param(address, largest))
                (frame,) = CODEC.snapshot([entry(param(address, largest))])
                self.assertEqual(CODEC.decode(frame)[0], Snapshot((entry(param(address, largest)),)))
                CODEC.set(address, blob(largest), 2**64 - 1, True, False, 2**32 - 1)
                error = self.assertRaises(RequestError, check_param_fits, param(address, largest + 1))
                self.assertEqual((error.code, error.address), (ErrorCode.VALUE, address))

    def test_publish_fits_exactly_when_its_frame_does(self) -> None:
        """One that came in MessagePack may take more in binary."""
        for data, samples in ((blob(65_000), None), (None, bytes(64_992))):
            with self.subTest(samples=samples is not None):
                low, high = 1, 65_000
                while low < high:
                    middle = (low + high + 1) // 2
                    message = Publish("/" + "a" * middle, value=data, samples=samples, timestamp_us=1, id=1, rate=1)
                    try:
                        check_publish_fits(message)
                        low = middle
                    except RequestError as error:
                        self.assertEqual((error.code, error.address), (ErrorCode.VALUE, message.address))
                        high = middle - 1
                fits = Publish("/" + "a" * low, value=data, samples=samples, timestamp_us=1, id=1, rate=1)
                encode_to_frame(fits)
                self.assertRaises(ValueError, encode_to_frame, fits._replace(address=fits.address + "a"))

    def test_small_publish_is_not_encoded_to_find_out(self) -> None:
        """Its length is enough to decide."""
        check_publish_fits(Publish("/a"))

    def test_signal_that_no_result_carries_is_refused(self) -> None:
        """The ERROR names it."""
        check_signal_fits(SignalDefinition("/a", Signal.EVENT, "x" * 60_000, "y" * 5_000))
        too_big = SignalDefinition("/a", Signal.EVENT, "x" * 60_000, "y" * 6_000)
        error = self.assertRaises(RequestError, check_signal_fits, too_big)
        self.assertEqual((error.code, error.address), (ErrorCode.VALUE, "/a"))
