"""Tests of clasp_relay.core.fanout.subscriptions: the table of subscriptions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.fanout import subscriptions
from clasp_relay.core.fanout.subscriptions import SubscriptionTable
from clasp_relay.core.session.sessions import Subscription
from clasp_relay.wire.address import Pattern, match_pieces
from clasp_relay.wire.constants import ALL_TYPES, Signal
from tests.core.strategies import ADDRESSES, PATTERNS
from tests.core.world import memory_session


def subscription(pattern: str, types: int = ALL_TYPES, max_rate: int | None = None) -> Subscription:
    """Returns a subscription of a session of its own."""
    return Subscription(memory_session(), 1, Pattern.parse(pattern), types, max_rate, None)


def reached(table: SubscriptionTable, address: str) -> list[Subscription]:
    """Returns the subscriptions on an address's route, duplicates included."""
    return [one for node in table.route(address).nodes for one in node.subscriptions]


class SubscriptionTests(SynchronousTestCase):
    def test_type_filter_lets_through_what_it_names(self) -> None:
        """Each kind of signal has one bit."""
        one = subscription("/a", 1 << Signal.PARAM | 1 << Signal.STREAM)
        self.assertEqual([one.wants(signal) for signal in Signal], [True, False, True, False, False])

    def test_rate_or_epsilon_throttle(self) -> None:
        """A subscription without both is not throttled."""
        session = memory_session()
        for max_rate, epsilon, expected in ((None, None, False), (1, None, True), (None, 0.5, True)):
            with self.subTest(max_rate=max_rate, epsilon=epsilon):
                one = Subscription(session, 1, Pattern.parse("/a"), ALL_TYPES, max_rate, epsilon)
                self.assertEqual(one.is_throttled, expected)


class SubscriptionTableTests(SynchronousTestCase):
    def setUp(self) -> None:
        """An empty table."""
        self.table = SubscriptionTable()

    def add(self, pattern: str) -> Subscription:
        """Adds a subscription."""
        one = subscription(pattern)
        self.table.add(one)
        return one

    def assert_empty(self) -> None:
        """Asserts that only the root is left, and routes to nobody."""
        self.assertEqual(len(self.table), 0)
        self.assertTrue(self.table._root.is_empty)
        self.assertEqual(self.table._literals, {})
        self.assertLessEqual({route.nodes for route in self.table._by_address.values()}, {()})
        self.assertLessEqual(set(self.table._by_nodes), {()})

    def test_address_reaches_each_subscription_once(self) -> None:
        """However many paths through a pattern there are."""
        one = self.add("/**/a/**")
        self.assertEqual(reached(self.table, "/a/a/a/a"), [one])

    def test_addresses_that_reach_the_same_share_a_route(self) -> None:
        """A room with a thousand addresses has one list of members."""
        self.add("/room/**")
        self.assertIs(self.table.route("/room/1"), self.table.route("/room/2"))
        self.assertIsNot(self.table.route("/room/1"), self.table.route("/elsewhere"))

    def test_new_subscription_is_reached_by_addresses_asked_for_before(self) -> None:
        """With a new pattern, with an existing one, and with a part of an existing one."""
        for patterns in (("/a/b",), ("/a/*", "/a/*"), ("/*/b/**", "/*/b"), ("/**",)):
            with self.subTest(patterns=patterns):
                self.setUp()
                expected = []
                for pattern in patterns:
                    reached(self.table, "/a/b")
                    expected.append(self.add(pattern))
                    self.assertEqual(set(reached(self.table, "/a/b")), set(expected))

    def test_partial_segments_that_cannot_match_are_not_compared(self) -> None:
        """A thousand patterns, at each of a hundred segments of an address."""
        compared: list[str] = []

        def count(pieces: tuple[str, ...], segment: str) -> bool:
            compared.append(segment)
            return match_pieces(pieces, segment)

        self.patch(subscriptions, "match_pieces", count)
        several = [self.add(f"/**/*{number}a*/**/x") for number in range(1_000)]
        self.add("/**/7a*/x")
        self.assertEqual(reached(self.table, "/s7b" * 118 + "/s7a/x"), [several[7]])
        self.assertLessEqual(len(compared), 10)
        self.table.remove(several[7])
        self.assertEqual(reached(self.table, "/s7b" * 118 + "/s7a/x"), [])

    def test_long_address_is_not_remembered(self) -> None:
        """So a sender of addresses of 64 KiB cannot fill the memory."""
        one = self.add("/**")
        address = "/" + "x" * subscriptions.MAX_REMEMBERED_ADDRESS
        self.assertEqual(reached(self.table, address), [one])
        self.assertNotIn(address, self.table._by_address)

    def test_remembered_routes_are_bounded(self) -> None:
        """Forgotten ones are found again, with the same result."""
        self.patch(subscriptions, "MAX_ROUTES", 3)
        everything = self.add("/**")
        rooms = [self.add(f"/room/{number}/*") for number in range(10)]
        for _ in range(2):
            for number, room in enumerate(rooms):
                for name in ("x", "y", "z"):
                    self.assertEqual(set(reached(self.table, f"/room/{number}/{name}")), {everything, room})
                    self.assertLessEqual(len(self.table._by_address), 3)
                    self.assertLessEqual(len(self.table._by_nodes), 3)
        for one in (everything, *rooms):
            self.table.remove(one)
        self.assert_empty()

    def test_removal_of_what_was_not_added_is_a_fault(self) -> None:
        """Nothing is removed twice."""
        one = self.add("/a")
        self.table.remove(one)
        self.assertRaises(AssertionError, self.table.remove, one)

    @given(
        st.lists(
            st.one_of(
                st.tuples(st.just("add"), PATTERNS, st.just(0)),
                st.tuples(st.just("remove"), st.just(""), st.integers(0, 20)),
                st.tuples(st.just("ask"), ADDRESSES, st.just(0)),
            ),
            max_size=40,
        ),
        st.lists(ADDRESSES, min_size=1, max_size=10),
    )
    def test_table_agrees_with_the_matcher(self, steps: list[tuple[str, str, int]], addresses: list[str]) -> None:
        """After any additions, removals and look-ups; and nothing is left when all are removed."""
        self.table = SubscriptionTable()
        model: list[Subscription] = []
        for kind, text, number in steps:
            if kind == "add":
                model.append(self.add(text))
            elif kind == "remove" and model:
                self.table.remove(model.pop(number % len(model)))
            elif kind == "ask":
                addresses = [*addresses, text]
                reached(self.table, text)
        self.assertEqual(len(self.table), len(model))
        for address in addresses:
            found = reached(self.table, address)
            self.assertEqual(len(found), len(set(found)))
            self.assertEqual(set(found), {one for one in model if one.pattern.matches(address)})
        for one in model:
            self.table.remove(one)
        self.assert_empty()
