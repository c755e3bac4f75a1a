"""Tests of clasp_relay.core.handlers.reads: GET, SUBSCRIBE, REPLAY, ANNOUNCE and QUERY."""

from collections.abc import Iterator

import msgpack
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.handlers import reads
from clasp_relay.core.handlers.reads import MAX_SUBSCRIPTIONS
from clasp_relay.core.ports import NOT_YET
from clasp_relay.core.state import signals, tree
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.frame import encode_frame
from clasp_relay.wire.messages import (
    NULL,
    Ack,
    Announce,
    Error,
    Get,
    Query,
    Replay,
    Result,
    Set,
    SignalDefinition,
    Snapshot,
    SnapshotParam,
    Subscribe,
    Unsubscribe,
)
from tests.core.guard import Guard, Rule, members_of
from tests.core.world import START_US, World, codes, heard, value


class GetTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A session."""
        self.world = World()
        self.client = self.world.join()

    def test_get_answers_with_the_param(self) -> None:
        """Value, revision, writer and time."""
        self.client.send(Set("/a", b"\x02\x05"))
        self.client.send(Set("/a/b", value(1)))
        expected = SnapshotParam("/a", b"\x02\x05", 1, self.client.session.id, START_US)
        self.assertEqual(self.client.ask(Get("/a")), [Snapshot((expected,))])

    def test_get_of_nothing_answers_with_null(self) -> None:
        """At once, with revision 0: for an address that was never set, or was deleted."""
        self.client.send(Set("/gone", value(1)))
        self.client.send(Set("/gone", NULL))
        for address in ("/never", "/gone"):
            with self.subTest(address=address):
                expected = SnapshotParam(address, NULL, 0, None, START_US)
                self.assertEqual(self.client.ask(Get(address)), [Snapshot((expected,))])

    def test_get_that_cannot_be_answered_is_refused(self) -> None:
        """If the address is invalid, out of scope, or too long for a param."""
        guarded = World(permissions=Guard()).join("alice")
        for client, address, code in (
            (self.client, "a", ErrorCode.ADDRESS),
            (self.client, "/*", ErrorCode.ADDRESS),
            (guarded, "/secret", ErrorCode.SCOPE),
            (self.client, "/" + "x" * 4_096, ErrorCode.ADDRESS),
        ):
            with self.subTest(address=address[:9]):
                (error,) = client.ask(Get(address))
                assert isinstance(error, Error)
                self.assertEqual(error.error, code)
        self.assertEqual(self.world.faults, [])

    def test_get_renews_a_life_time_only_for_who_sees_the_param(self) -> None:
        """Otherwise any session could keep params alive that it may not see."""
        guard = Guard()
        guard.rules["/a"] = Rule(members_of("/members"))
        world = World(permissions=guard)
        admin, alice, bob = (world.join(name) for name in ("admin", "alice", "bob"))
        admin.send(Set("/members", value(["alice"])))
        admin.send(Set("/a", value(1), ttl=5))
        world.advance(4)
        self.assertEqual(heard(bob.ask(Get("/a"))), [("/a", None)])
        changes = world.relay.params.changes
        self.assertEqual(heard(alice.ask(Get("/a"))), [("/a", 1)])
        self.assertEqual(world.relay.params.changes, changes + 1)
        world.advance(4)
        self.assertEqual(heard(bob.ask(Get("/a"))), [("/a", None)])
        world.advance(2)
        self.assertEqual(heard(alice.ask(Get("/a"))), [("/a", None)])


class SubscribeTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A few params."""
        self.world = World()
        self.client = self.world.join()
        for number, address in enumerate(("/a", "/a/b", "/a/b/c", "/x/c", "/zone1", "/zone")):
            self.client.send(Set(address, value(number)))

    def matched(self, pattern: str) -> tuple[list[str], list[str]]:
        """Returns the addresses that a pattern matches in its SNAPSHOT and live."""
        snapshot = sorted(address for address, _ in heard(self.client.ask(Subscribe(1, pattern))))
        live = []
        for param in self.world.relay.params.all():
            live += [address for address, _ in heard(self.client.ask(Set(param.address, param.value)))]
        return snapshot, sorted(live)

    def test_snapshot_and_live_values_agree(self) -> None:
        """Both use the same matcher."""
        cases: tuple[tuple[str, list[str]], ...] = (
            ("/a", ["/a"]),
            ("/a/**", ["/a", "/a/b", "/a/b/c"]),
            ("/a/*", ["/a/b"]),
            ("/**/c", ["/a/b/c", "/x/c"]),
            ("/a/**/c", ["/a/b/c"]),
            ("/zone*", ["/zone", "/zone1"]),
            ("/none/**", []),
        )
        for pattern, expected in cases:
            with self.subTest(pattern=pattern):
                self.assertEqual(self.matched(pattern), (expected, expected))

    def test_nothing_that_matches_is_no_snapshot(self) -> None:
        """There is no answer, as clients expect."""
        self.assertEqual(self.client.ask(Subscribe(1, "/none")), [])

    def test_types_without_params_get_no_snapshot(self) -> None:
        """A SNAPSHOT has only params."""
        self.assertEqual(self.client.ask(Subscribe(1, "/**", 1 << Signal.EVENT)), [])
        self.assertEqual(len(heard(self.client.ask(Subscribe(1, "/**", 1 << Signal.PARAM)))), 6)

    def test_same_id_replaces(self) -> None:
        """A client that reconnects sends its subscriptions again."""
        self.client.send(Subscribe(1, "/a"))
        self.assertEqual(heard(self.client.ask(Subscribe(1, "/zone"))), [("/zone", 5)])
        self.assertEqual(heard(self.client.ask(Set("/a", value(9)))), [])
        self.assertEqual(heard(self.client.ask(Set("/zone", value(9)))), [("/zone", 9)])
        self.assertEqual(len(self.world.relay.subscriptions), 1)

    def test_refused_subscription_leaves_the_one_before(self) -> None:
        """If the pattern is invalid or out of scope; the ERROR names it."""
        client = World(permissions=Guard()).join("alice")
        client.send(Subscribe(1, "/a"))
        for pattern, code in (("a/*", ErrorCode.PATTERN), ("", ErrorCode.PATTERN), ("/secret/**", ErrorCode.SCOPE)):
            (error,) = client.ask(Subscribe(1, pattern))
            assert isinstance(error, Error)
            self.assertEqual((error.error, error.address), (code, pattern))
        self.assertEqual(heard(client.ask(Set("/a", value(9)))), [("/a", 9)])

    def test_session_has_a_limit_of_subscriptions(self) -> None:
        """One that replaces another is accepted at the limit, and an ended one makes room."""
        for number in range(MAX_SUBSCRIPTIONS):
            self.client.send(Subscribe(number, f"/many/{number}"))
        self.assertEqual(self.client.hear(), [])
        (error,) = self.client.ask(Subscribe(MAX_SUBSCRIPTIONS, "/more"))
        assert isinstance(error, Error)
        self.assertEqual((error.error, error.address), (ErrorCode.LIMIT, "/more"))
        self.assertEqual(codes(self.client.ask(Subscribe(5, "/other"))), [])
        self.client.send(Unsubscribe(7))
        self.assertEqual(codes(self.client.ask(Subscribe(MAX_SUBSCRIPTIONS, "/more"))), [])
        self.assertEqual(len(self.world.relay.subscriptions), MAX_SUBSCRIPTIONS)

    def test_who_listens_again_is_sent_no_snapshot(self) -> None:
        """It gets later changes; and it is refused like any SUBSCRIBE."""
        world = World()
        client = world.join()
        client.send(Set("/a", value(1)))
        (session,) = world.relay.sessions.all()
        reads.listen(world.relay, session, Subscribe(1, "/*"), Pattern.parse("/*"))
        self.assertEqual(client.hear(), [])
        client.send(Set("/a", value(2)))
        self.assertEqual(heard(client.hear()), [("/a", 2)])
        self.patch(reads, "MAX_SUBSCRIPTIONS", 1)
        refused = Subscribe(2, "/b")
        self.assertRaises(RequestError, reads.listen, world.relay, session, refused, Pattern.parse("/b"))

    def test_unsubscribe_forgets(self) -> None:
        """An unknown id is ignored."""
        self.client.send(Subscribe(1, "/a"))
        for number in (1, 1, 99):
            self.client.send(Unsubscribe(number))
        self.client.hear()
        self.assertEqual(self.client.ask(Set("/a", value(9))), [])
        self.assertEqual(len(self.world.relay.subscriptions), 0)


def announce(*addresses: str, namespace: str = "/n") -> Announce:
    """Returns an ANNOUNCE of some params."""
    return Announce(namespace, tuple(SignalDefinition(address, Signal.PARAM, "f32") for address in addresses))


class SignalsTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A relay that checks scopes."""
        self.world = World(permissions=Guard())
        self.client = self.world.join("alice")

    def found(self, pattern: str) -> list[str]:
        """Returns the addresses that QUERY finds."""
        results = self.client.ask(Query(pattern))
        return [one.address for result in results if isinstance(result, Result) for one in result.signals]

    def test_binary_announce_is_acknowledged(self) -> None:
        """With its namespace, at any QoS; also without definitions."""
        for qos in (0, 1, 2):
            self.assertEqual(self.client.ask(announce("/a"), qos), [Ack("/n")])
        self.assertEqual(self.client.ask(Announce("/empty")), [Ack("/empty")])
        self.assertEqual(self.found("/**"), ["/a"])

    def test_many_signals_are_announced_in_pieces(self) -> None:
        """All or none; later messages wait, and nothing is registered for an ended session."""
        many = [f"/a/{number}" for number in range(300)]
        for last, expected in (("/secret/a", [ErrorCode.SCOPE]), ("/a/*", [])):
            self.client.send(announce(*many, last), 1)
            self.client.send(Query("/a/300"))
            self.assertEqual((self.client.hear(), len(self.world.relay.signals)), ([], 0))
            self.world.settle()
            answers = self.client.hear()
            self.assertEqual(codes(answers), expected)
            self.assertIsInstance(answers[-1], Result)
        self.assertEqual(answers[0], Ack("/n"))
        self.assertEqual(self.found("/**"), [*many, "/a/*"])
        other = self.world.join("bob")
        other.send(announce(*(f"/b/{number}" for number in range(300))), 1)
        other.leave()
        self.world.settle()
        self.assertEqual((self.world.faults, self.found("/b/*")), ([], []))

    def test_announce_in_messagepack_is_acknowledged_where_qos_asks_for_it(self) -> None:
        """The Python client cannot read an ACK, and asks for none."""
        document = {"type": "ANNOUNCE", "namespace": "/n", "signals": [{"address": "/a", "type": "param"}]}
        for qos, expected in ((0, []), (1, [Ack("/n")])):
            self.client.send_bytes(encode_frame(msgpack.packb(document), qos))
            self.assertEqual(self.client.hear(), expected)

    def test_longest_namespace_fits_its_ack(self) -> None:
        """In either encoding."""
        namespace = "/" + "n" * 65_450
        document = {"type": "ANNOUNCE", "namespace": namespace, "signals": []}
        self.client.send_bytes(encode_frame(msgpack.packb(document), 1))
        self.assertEqual(self.client.hear(), [Ack(namespace)])
        longest = "n" * 65_530
        self.assertEqual(self.client.ask(Announce(longest)), [Ack(longest)])
        self.assertEqual(self.world.faults, [])

    def test_one_bad_definition_refuses_all(self) -> None:
        """If an address is invalid or out of scope; the ERROR names it."""
        for message, code, address in (
            (announce("/a", "b"), ErrorCode.ADDRESS, "b"),
            (announce("/a", "/secret"), ErrorCode.SCOPE, "/secret"),
        ):
            (error,) = self.client.ask(message)
            assert isinstance(error, Error)
            self.assertEqual((error.error, error.address), (code, address))
        self.assertEqual(self.found("/a"), [])

    def test_query_is_always_answered(self) -> None:
        """Also if nothing was found; with several RESULTs if one is too small."""
        self.assertEqual(self.client.ask(Query("/none/**")), [Result()])
        for number in range(20):
            self.client.send(Announce("/n", (SignalDefinition(f"/{number}", Signal.PARAM, "x" * 20_000),)))
        self.assertEqual(len(self.client.ask(Query("/*"))), 7)
        self.assertEqual(len(self.found("/*")), 20)

    def test_address_of_a_definition_may_hold_wildcards(self) -> None:
        """A QUERY finds it once if both patterns have an address in common."""
        self.assertEqual(self.client.ask(announce("/lights/*/level", "/lights/1/level", "/x/**")), [Ack("/n")])
        for pattern, expected in (
            ("/lights/*/level", ["/lights/*/level", "/lights/1/level"]),
            ("/lights/2/level", ["/lights/*/level"]),
            ("/lights/**", ["/lights/*/level", "/lights/1/level"]),
            ("/*/2/*", ["/lights/*/level", "/x/**"]),
            ("/x", ["/x/**"]),
            ("/lights/*/colour", []),
            ("/lights/*", []),
        ):
            with self.subTest(pattern=pattern):
                self.assertEqual(sorted(self.found(pattern)), expected)

    def test_definition_with_wildcards_must_be_in_scope_and_a_pattern(self) -> None:
        """For all that it matches; otherwise nothing of the ANNOUNCE is registered."""
        for address, code in (
            ("/secret/**", ErrorCode.SCOPE),
            ("lights/*", ErrorCode.PATTERN),
            ("/a//*", ErrorCode.PATTERN),
        ):
            with self.subTest(address=address):
                (error,) = self.client.ask(announce("/a", address))
                assert isinstance(error, Error)
                self.assertEqual((error.error, error.address), (code, address))
        self.assertEqual(self.found("/**"), [])

    def test_definition_that_no_result_carries_is_refused(self) -> None:
        """With wildcards or without."""
        for address in ("/a", "/a/*"):
            too_big = SignalDefinition(address, Signal.EVENT, "x" * 60_000, "y" * 6_000)
            self.world.relay.accept(self.client.session, Announce("/n", (too_big,)), 1)
            self.assertEqual(codes(self.client.hear()), [ErrorCode.VALUE])

    def test_query_of_many_gives_others_their_turn(self) -> None:
        """Its RESULTs are made while they are sent, with a pause after a number of definitions."""
        self.patch(reads, "JUDGED_AT_ONCE", 10)
        self.patch(reads, "FIND_COST", 0)
        self.client.send(announce(*(f"/a/{number}" for number in range(35))))
        self.client.hear()
        waiting: list[tuple[object, Iterator[bytes]]] = []
        taking = self.patch(self.client.outbox, "send_snapshot", lambda key, frames: waiting.append((key, frames)))
        for _ in range(2):
            self.client.send(Query("/a/*"))
        taking.restore()
        (first_key, frames), (second_key, _) = waiting
        self.assertNotEqual(first_key, second_key)
        taken = list(frames)
        self.assertEqual([data == NOT_YET for data in taken], [True] * 3 + [False])
        self.client.outbox.send_snapshot(first_key, iter(taken))
        (result,) = self.client.hear()
        assert isinstance(result, Result)
        self.assertEqual([one.address for one in result.signals], [f"/a/{number}" for number in range(35)])

    def test_query_that_finds_little_gives_others_their_turn(self) -> None:
        """Pauses also come among definitions that do not match."""
        self.patch(tree, "FIND_COST", 10)
        self.patch(signals, "LOOKED_AT_ONCE", 10)
        self.client.ask(announce("/a/1", *(f"/b/{number}" for number in range(34))))
        taken = list(self.patched_query("/**/1"))
        self.assertEqual([data == NOT_YET for data in taken], [True] * 5 + [False])
        self.client.outbox.send_snapshot("", iter(taken))
        (result,) = self.client.hear()
        assert isinstance(result, Result)
        self.assertEqual([one.address for one in result.signals], ["/a/1", "/b/1"])

    def test_what_is_forgotten_while_a_query_is_answered_is_left_out(self) -> None:
        """A definition is forgotten an hour after it was announced."""
        self.client.ask(announce("/a/1", "/b/*"))
        frames = self.patched_query("/**")
        self.world.clock.clock.advance(3600)
        self.world.relay.sweep()
        self.client.outbox.send_snapshot("", frames)
        self.assertEqual(self.client.hear(), [Result()])

    def patched_query(self, pattern: str) -> Iterator[bytes]:
        """Sends a QUERY, and returns the frames of its answer, whose first definitions are already found."""
        waiting: list[Iterator[bytes]] = []
        self.patch(reads, "JUDGED_AT_ONCE", 1)
        taking = self.patch(self.client.outbox, "send_snapshot", lambda _key, frames: waiting.append(frames))
        self.client.send(Query(pattern))
        taking.restore()
        (frames,) = waiting
        return frames

    def test_query_in_messagepack_is_answered_in_binary(self) -> None:
        """As the Python client asks."""
        self.client.send_bytes(encode_frame(msgpack.packb({"type": "QUERY", "pattern": "/**"})))
        self.assertEqual(self.client.hear(), [Result()])

    def test_query_that_may_not_be_is_refused(self) -> None:
        """If the pattern is invalid or out of scope."""
        for pattern, code in (("a", ErrorCode.PATTERN), ("/secret/**", ErrorCode.SCOPE)):
            self.assertEqual(codes(self.client.ask(Query(pattern))), [code])


class ReplayTests(SynchronousTestCase):
    def test_replay_without_a_journal_is_refused(self) -> None:
        """ERROR 501 names the pattern."""
        (error,) = World().join().ask(Replay("/a/**"))
        assert isinstance(error, Error)
        self.assertEqual((error.error, error.address), (ErrorCode.NOT_CONFIGURED, "/a/**"))
