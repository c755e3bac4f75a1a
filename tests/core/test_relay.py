"""Tests of clasp_relay.core.relay: the gate, and what belongs to a session."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.relay import BAD_FRAMES_US, MAX_BAD_FRAMES, RelayOptions
from clasp_relay.core.session.sessions import SessionState
from clasp_relay.errors import CloseCode, Disconnect, ErrorCode
from clasp_relay.wire.codec import encode
from clasp_relay.wire.constants import ALL_TYPES, Phase, Signal
from clasp_relay.wire.frame import encode_frame
from clasp_relay.wire.messages import (
    NULL,
    Ack,
    Bundle,
    Error,
    Get,
    Hello,
    Message,
    Ping,
    Pong,
    Publish,
    Set,
    Subscribe,
    Unsubscribe,
)
from tests.core.guard import Guard
from tests.core.world import Client, World, codes, heard, value

GARBAGE = b"\x53\x01\x00\x02\x99\x99"
"""A frame around no message."""


SHARED_NAMES = 30
"""While an object has no more attributes, Python keeps their names in a table that it shares with all objects of its
class, and reads each without a search (CPython's ``SHARED_KEYS_MAX_SIZE``)."""


class AttributeTests(SynchronousTestCase):
    """The objects that every message passes."""

    def test_objects_of_the_usual_way_have_few_attributes(self) -> None:
        """With 32, one relay took 10 % longer for a SET to a hundred subscribers."""
        relay = World().relay
        for passed in (relay, relay.committer, relay.params, relay.recipients, relay.decider, relay.visibility):
            with self.subTest(type=type(passed).__name__):
                self.assertLessEqual(len(vars(passed)), SHARED_NAMES)


class GateTests(SynchronousTestCase):
    """Every message passes one gate, and nothing gets out of it but ERRORs."""

    def setUp(self) -> None:
        """A client that sends valid messages, and one that does not."""
        self.world = World()
        self.neighbour = self.world.join()
        self.client = self.world.join()

    def assert_neighbour_is_well(self) -> None:
        """Checks that the other session is not affected."""
        self.assertEqual(self.neighbour.ask(Ping()), [Pong()])

    def test_undecodable_bytes_are_answered(self) -> None:
        """With ERROR 100 for the frame, 101 for the message; the session goes on."""
        cases = (
            (b"", ErrorCode.FRAME),
            (b"S", ErrorCode.FRAME),
            (b"\x52\x01\x00\x01\x41", ErrorCode.FRAME),
            (b"\x53\x01\x00\x02\x41", ErrorCode.FRAME),
            (b"\x53\xc1\x00\x01\x41", ErrorCode.FRAME),
            (GARBAGE, ErrorCode.MESSAGE),
            (b"\x53\x01\x00\x02\x81\xff", ErrorCode.MESSAGE),
            (encode_frame(b"\x21" + b"\x0a\x00\x02/a\x00\x01" + b"\x0a\x00\x01" * 6_000), ErrorCode.MESSAGE),
        )
        for data, code in cases:
            with self.subTest(data=data[:20]):
                self.client.send_bytes(data)
                self.assertEqual(codes(self.client.hear()), [code])
                self.assertEqual(self.client.ask(Ping()), [Pong()])
        self.assertEqual(self.world.faults, [])
        self.assert_neighbour_is_well()

    def test_babble_ends_the_session(self) -> None:
        """A hundred undecodable frames within ten seconds: its client does not send CLASP."""
        for _ in range(MAX_BAD_FRAMES - 1):
            self.client.send_bytes(GARBAGE)
        self.assertIsNone(self.client.outbox.closed)
        self.client.send_bytes(GARBAGE)
        self.assertEqual(len(codes(self.client.hear())), MAX_BAD_FRAMES)
        assert self.client.outbox.closed is not None
        self.assertEqual(self.client.outbox.closed[0], CloseCode.POLICY_VIOLATION)
        self.assertIn("not CLASP", self.client.outbox.closed[1])
        self.assertNotIn(self.client.session.id, self.world.relay.sessions)
        self.assert_neighbour_is_well()

    def test_babble_is_counted_over_any_ten_seconds(self) -> None:
        """Not from a fixed start; fewer in ten seconds do not end it."""
        pause = BAD_FRAMES_US / 1e6 / (MAX_BAD_FRAMES - 1) + 0.001
        for _ in range(3 * MAX_BAD_FRAMES):
            self.client.send_bytes(GARBAGE)
            self.world.clock.clock.advance(pause)
        self.assertIsNone(self.client.outbox.closed)
        self.world.clock.clock.advance(9)
        self.client.send_bytes(GARBAGE)
        self.world.clock.clock.advance(9)
        for _ in range(MAX_BAD_FRAMES):
            self.client.send_bytes(GARBAGE)
            self.world.clock.clock.advance(0.02)
        self.assertIsNotNone(self.client.outbox.closed)

    def test_undecodable_first_frame_ends_the_connection(self) -> None:
        """With the reason in the close."""
        stranger = self.world.connect()
        stranger.send_bytes(b"GET / HTTP/1.1")
        self.assertEqual(codes(stranger.hear()), [ErrorCode.FRAME])
        assert stranger.outbox.closed is not None
        self.assertEqual(stranger.outbox.closed[0], CloseCode.POLICY_VIOLATION)
        self.assertIn("0x47", stranger.outbox.closed[1])

    def test_fault_of_ours_is_reported_and_tells_nothing(self) -> None:
        """The sender gets «internal error» and its session goes on; other sessions are not affected."""

        def fail(*_: object) -> None:
            raise ZeroDivisionError("a secret")

        self.world.relay.params.get = fail
        (error,) = self.client.ask(Set("/a", value(1)))
        assert isinstance(error, Error)
        self.assertEqual((error.error, error.message, error.address), (ErrorCode.INTERNAL, "internal error", None))
        ((what, fault),) = self.world.faults
        self.assertIn(self.client.session.id, what)
        self.assertIsInstance(fault, ZeroDivisionError)
        self.assertEqual(self.client.ask(Ping()), [Pong()])
        self.assert_neighbour_is_well()

    def test_fault_before_hello_closes_as_a_fault(self) -> None:
        """The client cannot go on without a session."""

        def fail(*_: object) -> None:
            raise ZeroDivisionError("a secret")

        self.client.ask(Set("/a", value(1)))
        self.world.relay.params.all = fail  # type: ignore[method-assign, assignment]
        stranger = self.world.connect()
        self.assertEqual(codes(stranger.ask(Hello(1, 0, "x"))), [ErrorCode.INTERNAL])
        self.assertEqual(stranger.outbox.closed, (CloseCode.INTERNAL, "internal error"))
        self.assertNotIn(stranger.session.id, self.world.relay.sessions)

    def test_error_about_a_very_long_address_arrives(self) -> None:
        """It does not name the address, which would not fit beside the text."""
        shorter, longer = "/" + "é" * 2_000 + "/", "/" + "é" * 30_000 + "/"
        for address, expected in ((shorter, shorter), (longer, None)):
            for message in (
                Get(address),
                Set(address, value(1)),
                Publish(address, Signal.EVENT),
                Subscribe(1, address),
            ):
                with self.subTest(message=type(message).__name__, size=len(address)):
                    (error,) = self.client.ask(message)
                    assert isinstance(error, Error)
                    self.assertEqual(error.address, expected)
        self.assertEqual(self.world.faults, [])

    def test_random_messages_never_raise(self) -> None:
        """Nor do they end any other session."""
        rng = random.Random(5)
        frames = [
            encode_frame(encode(message), 1)
            for message in (Set("/a", value([1, {"k": "v"}]), 0, True, False, 5), Get("/a"), Bundle((Ping(),)))
        ]
        for _ in range(3000):
            data = bytearray(rng.choice(frames))
            for _ in range(rng.randrange(1, 4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            client = self.world.join() if self.client.outbox.closed else self.client
            client.send_bytes(bytes(data))
            self.client = client
        self.assertEqual(self.world.faults, [])
        self.assert_neighbour_is_well()


class SessionTests(SynchronousTestCase):
    """A session's life."""

    def setUp(self) -> None:
        """A relay."""
        self.world = World()

    def test_closed_session_is_deaf(self) -> None:
        """Messages that still arrive change nothing."""
        client = self.world.join()
        client.leave()
        client.send(Set("/a", value(1)))
        client.send_bytes(b"garbage")
        self.assertEqual((client.hear(), len(self.world.relay.params)), ([], 0))

    def test_disconnect_may_be_repeated(self) -> None:
        """Whatever has ended the session first."""
        for client in (self.world.connect(), self.world.join()):
            for _ in range(3):
                client.leave()
            self.assertIs(client.session.state, SessionState.CLOSED)
        self.assertEqual(len(self.world.relay.sessions), 0)

    def test_params_stay_when_their_writer_leaves(self) -> None:
        """Only its locks end."""
        client = self.world.join()
        client.send(Set("/a", value(1), lock=True))
        client.leave()
        self.assertEqual(heard(self.world.join().ask(Get("/a"))), [("/a", 1)])

    def test_end_says_why(self) -> None:
        """An ERROR if the reason has a code, and always the close."""
        for code in (None, ErrorCode.OVERLOADED):
            client = self.world.join()
            self.world.relay.end(client.session, Disconnect(CloseCode.TRY_AGAIN_LATER, "too slow", code))
            self.assertEqual(codes(client.hear()), [] if code is None else [code])
            self.assertEqual(client.outbox.closed, (CloseCode.TRY_AGAIN_LATER, "too slow"))
            self.assertFalse(client.session.is_live)

    def test_session_that_a_handler_ended_gets_no_error(self) -> None:
        """It would reach nobody."""
        client = self.world.join()

        def end_and_fail(*_: object) -> None:
            client.leave()
            raise ZeroDivisionError

        self.world.relay.params.get = end_and_fail
        self.assertEqual(client.ask(Set("/a", value(1))), [])
        self.assertEqual(len(self.world.faults), 1)


class TokenTests(SynchronousTestCase):
    """Sessions and their tokens."""

    def setUp(self) -> None:
        """A relay that checks tokens."""
        self.world = World(RelayOptions(), Guard())

    def test_bad_token_ends_the_connection(self) -> None:
        """With an ERROR, then a close with the reason."""
        for token, code in (("", ErrorCode.UNAUTHENTICATED), ("old", ErrorCode.TOKEN_EXPIRED)):
            client = self.world.connect()
            self.assertEqual(codes(client.ask(Hello(1, 0, "x", token))), [code])
            assert client.outbox.closed is not None
            self.assertEqual(client.outbox.closed[0], CloseCode.POLICY_VIOLATION)
            self.assertIn("token", client.outbox.closed[1])
        self.assertEqual(len(self.world.relay.sessions), 0)

    def test_what_a_token_planned_ends_with_it(self) -> None:
        """A scheduled bundle is checked again when it is due, and so is its token."""
        for token in ("alice#1", "alice#2"):
            client = self.world.join(token)
            due_us = self.world.clock.now_us() + 1_000_000
            client.send(Bundle((Set(f"/{token[-1]}", value(1)),), due_us))
        guard = self.world.relay.permissions
        assert isinstance(guard, Guard)
        guard.ended_tokens.add(b"alice#1")
        self.world.advance(2)
        params = self.world.relay.params
        self.assertEqual((params.get("/1") is None, params.get("/2") is None), (True, False))

    def test_sessions_end_with_their_token(self) -> None:
        """All sessions of the token, and no others; one that left before is not told."""
        first, second, left, other = (self.world.join(token) for token in ("alice#1", "alice#1", "alice#1", "alice#2"))
        left.leave()
        reason = Disconnect(CloseCode.POLICY_VIOLATION, "the token was revoked", ErrorCode.TOKEN_EXPIRED)
        self.world.relay.end_token("alice", b"alice#1", reason)
        self.world.relay.end_token("alice", b"alice#1", reason)
        for client in (first, second):
            self.assertEqual(codes(client.hear()), [ErrorCode.TOKEN_EXPIRED])
            self.assertEqual(client.outbox.closed, (CloseCode.POLICY_VIOLATION, "the token was revoked"))
        self.assertEqual((left.hear(), left.outbox.closed, other.outbox.closed), ([], None, None))
        self.assertEqual(self.world.relay.sessions.of_token("alice", b"alice#2"), [other.session])

    def test_session_whose_token_ended_hears_nothing_that_still_waited(self) -> None:
        """What waits is discarded first; it gets only the reason."""
        client = self.world.join("alice#1")
        client.send(Subscribe(1, "/**"))
        client.send(Set("/a", value(1)), 1)
        self.assertEqual(len(client.outbox.frames), 2)
        reason = Disconnect(CloseCode.POLICY_VIOLATION, "the token was revoked", ErrorCode.TOKEN_EXPIRED)
        self.world.relay.end_token("alice", b"alice#1", reason)
        (error,) = client.hear()
        self.assertEqual(codes([error]), [ErrorCode.TOKEN_EXPIRED])
        self.assertEqual(client.outbox.closed, (CloseCode.POLICY_VIOLATION, "the token was revoked"))


class LeakTests(SynchronousTestCase):
    """Nothing is left of sessions that have gone."""

    def test_nothing_is_left_when_everybody_has_gone(self) -> None:
        """Whatever they did, in any order, and in whatever order they left."""
        rng = random.Random(7)
        guard = Guard()
        world = World(RelayOptions(message_rate=(1000, 4000)), guard)
        clients: list[Client] = []
        for _ in range(3000):
            if len(clients) < 5 or rng.random() < 0.02:
                clients.append(world.join(rng.choice("abc")))
            client = rng.choice(clients)
            if rng.random() < 0.02:
                clients.remove(client)
                client.leave()
                continue
            client.send(self.message(rng, world))
            if rng.random() < 0.3:
                world.clock.clock.advance(rng.random() / 50)
            client.hear()
        for client in clients:
            client.leave()
        self.assert_empty(world)

    def message(self, rng: random.Random, world: World) -> Message:
        """Returns one of the messages that leave something in the relay."""
        address = rng.choice(("/here/a", "/here/b", "/a/x", "/a/y"))
        pattern = rng.choice(("/**", "/a/*", "/here/a", "/*/x", "/a/x*"))
        messages: list[Message] = [
            Set(address, value(rng.randrange(100)), lock=rng.random() < 0.3, ttl=rng.choice((None, 1))),
            Set(address, NULL),
            Subscribe(rng.randrange(5), pattern, ALL_TYPES, rng.choice((None, 1, 50)), rng.choice((None, 5.0)) or None),
            Unsubscribe(rng.randrange(5)),
            Publish(address, Signal.STREAM, value=value(rng.randrange(100))),
            Publish(address, Signal.GESTURE, rng.choice(tuple(Phase)), value(1), id=rng.randrange(3)),
            Bundle((Set(address, value(1)),), world.clock.now_us() + rng.randrange(1_000_000)),
        ]
        return rng.choice(messages)

    def assert_empty(self, world: World) -> None:
        """Checks that only params and accepted bundles are left; the latter until they are due."""
        relay = world.relay
        self.assertEqual(world.faults, [])
        self.assertEqual((len(relay.sessions), relay.sessions._by_subject, len(relay.subscriptions)), (0, {}, 0))
        self.assertTrue(relay.subscriptions._root.is_empty)
        self.assertEqual(relay.subscriptions._literals, {})
        self.assertFalse(relay.throttles._sessions)
        self.assertEqual(len(relay.gestures), 0)
        self.assertFalse(relay.gestures._sessions)
        self.assertEqual(len(relay.params.locks), 0)
        world.clock.clock.advance(1)
        self.assertEqual(
            (world.clock.clock.getDelayedCalls(), len(relay.schedule), relay.schedule.pending_bytes), ([], 0, 0)
        )


class AcceptTests(SynchronousTestCase):
    """Messages that a door has decoded pass the same gate."""

    def setUp(self) -> None:
        """A session."""
        self.world = World()
        self.client = self.world.join()

    def accept(self, message: Message, qos: int = 0) -> list[Message]:
        """Hands a message in and returns what came back."""
        self.world.relay.accept(self.client.session, message, qos)
        return self.client.hear()

    def test_message_is_handled_like_a_decoded_one(self) -> None:
        """It is answered, refused, or causes a fault."""
        self.assertEqual(self.accept(Set("/a", value(1)), 1), [Ack("/a", 1)])
        self.assertEqual(codes(self.accept(Set("bad", value(1)))), [ErrorCode.ADDRESS])
        self.assertEqual(self.world.relay.counts.received[Set], 2)

        def fail(*_: object) -> None:
            raise ZeroDivisionError("a secret")

        self.world.relay.params.get = fail
        self.assertEqual(codes(self.accept(Get("/a"))), [ErrorCode.INTERNAL])
        self.assertEqual(len(self.world.faults), 1)

    def test_closed_session_is_deaf(self) -> None:
        """Messages that still arrive change nothing."""
        self.client.leave()
        self.assertEqual((self.accept(Set("/a", value(1)), 1), len(self.world.relay.params)), ([], 0))


class GoneTests(SynchronousTestCase):
    def test_end_of_a_subjects_last_session_is_told(self) -> None:
        """Not for an earlier session, nor for one without a subject; without a hook nothing happens."""
        gone: list[str] = []
        world = World(permissions=Guard())
        world.join("ann").leave()
        world.relay.hooks.when_gone = gone.append
        clients = [world.join("ann"), world.join("ann"), world.connect()]
        told = []
        for client in clients:
            client.leave()
            told.append(list(gone))
        self.assertEqual(told, [[], ["ann"], ["ann"]])


class SweepTests(SynchronousTestCase):
    def test_sweep_ends_what_has_lived_long_enough(self) -> None:
        """Params, gestures and signals."""
        world = World()
        client = world.join()
        client.send(Set("/a", value(1), ttl=1))
        client.send(Publish("/g", Signal.GESTURE, Phase.MOVE, id=1))
        world.advance(301)
        self.assertEqual((len(world.relay.params), len(world.relay.gestures)), (0, 0))
