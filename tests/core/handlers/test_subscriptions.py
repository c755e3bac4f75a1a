"""Tests of clasp_relay.core.handlers.subscriptions: SUBSCRIBE and UNSUBSCRIBE."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.handlers.subscriptions import MAX_SUBSCRIPTIONS
from clasp_relay.errors import ErrorCode
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import Error, Set, Subscribe, Unsubscribe
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
