"""Tests of clasp_relay.core.handlers.reads."""

import msgpack
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.handlers.reads import MAX_SUBSCRIPTIONS
from clasp_relay.errors import ErrorCode
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.frame import encode_frame
from clasp_relay.wire.messages import (
    Ack,
    Announce,
    Error,
    Query,
    Replay,
    Result,
    Set,
    SignalDefinition,
    Subscribe,
    Unsubscribe,
)
from tests.core.guard import Guard
from tests.core.world import World, codes, heard, value


class SubscribeTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A few params."""
        self.world = World()
        self.client = self.world.join()
        for number, address in enumerate(("/a", "/a/b", "/a/b/c", "/x/c", "/zone1", "/zone")):
            self.client.send(Set(address, value(number)))

    def matched(self, pattern: str) -> tuple[list[str], list[str]]:
        """Returns what a pattern finds in its SNAPSHOT and live."""
        snapshot = sorted(address for address, _ in heard(self.client.ask(Subscribe(1, pattern))))
        live = []
        for param in self.world.relay.params.all():
            live += [address for address, _ in heard(self.client.ask(Set(param.address, param.value)))]
        return snapshot, sorted(live)

    def test_snapshot_and_live_values_agree(self) -> None:
        """One matcher serves both."""
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
        """Silence, as clients expect."""
        self.assertEqual(self.client.ask(Subscribe(1, "/none")), [])

    def test_types_without_params_get_no_snapshot(self) -> None:
        """It holds nothing but params."""
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
        """A pattern that is none, or out of scope; the ERROR names it."""
        client = World(permissions=Guard()).join("alice")
        client.send(Subscribe(1, "/a"))
        for pattern, code in (("a/*", ErrorCode.PATTERN), ("", ErrorCode.PATTERN), ("/secret/**", ErrorCode.SCOPE)):
            (error,) = client.ask(Subscribe(1, pattern))
            assert isinstance(error, Error)
            self.assertEqual((error.error, error.address), (code, pattern))
        self.assertEqual(heard(client.ask(Set("/a", value(9)))), [("/a", 9)])

    def test_session_has_a_limit_of_subscriptions(self) -> None:
        """One that replaces another still comes in, and one that ended makes room."""
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

    def test_unsubscribe_forgets(self) -> None:
        """An id that is not known is ignored."""
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
        """With its namespace, whatever its QoS; an empty one too."""
        for qos in (0, 1, 2):
            self.assertEqual(self.client.ask(announce("/a"), qos), [Ack("/n")])
        self.assertEqual(self.client.ask(Announce("/empty")), [Ack("/empty")])
        self.assertEqual(self.found("/**"), ["/a"])

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
        """No address, or out of scope; the ERROR names it."""
        for message, code, address in (
            (announce("/a", "b"), ErrorCode.ADDRESS, "b"),
            (announce("/a", "/secret"), ErrorCode.SCOPE, "/secret"),
        ):
            (error,) = self.client.ask(message)
            assert isinstance(error, Error)
            self.assertEqual((error.error, error.address), (code, address))
        self.assertEqual(self.found("/a"), [])

    def test_query_is_always_answered(self) -> None:
        """Also with nothing; in several RESULTs where one cannot hold all."""
        self.assertEqual(self.client.ask(Query("/none/**")), [Result()])
        for number in range(20):
            self.client.send(Announce("/n", (SignalDefinition(f"/{number}", Signal.PARAM, "x" * 20_000),)))
        self.assertEqual(len(self.client.ask(Query("/*"))), 7)
        self.assertEqual(len(self.found("/*")), 20)

    def test_query_in_messagepack_is_answered_in_binary(self) -> None:
        """As the Python client asks."""
        self.client.send_bytes(encode_frame(msgpack.packb({"type": "QUERY", "pattern": "/**"})))
        self.assertEqual(self.client.hear(), [Result()])

    def test_query_that_may_not_be_is_refused(self) -> None:
        """No pattern, or out of scope."""
        for pattern, code in (("a", ErrorCode.PATTERN), ("/secret/**", ErrorCode.SCOPE)):
            self.assertEqual(codes(self.client.ask(Query(pattern))), [code])


class ReplayTests(SynchronousTestCase):
    def test_replay_without_a_journal_is_refused(self) -> None:
        """ERROR 501 names the pattern."""
        (error,) = World().join().ask(Replay("/a/**"))
        assert isinstance(error, Error)
        self.assertEqual((error.error, error.address), (ErrorCode.NOT_CONFIGURED, "/a/**"))
