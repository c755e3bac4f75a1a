"""Tests of clasp_relay.core.state.signals: the registry of announced signals."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.state import signals, tree
from clasp_relay.core.state.signals import SIGNAL_BYTES, SIGNAL_TTL_US, Signals
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.address import Pattern, intersects
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import SignalDefinition
from tests.core.strategies import ADDRESSES, PATTERNS


def definition(address: str, datatype: str | None = None) -> SignalDefinition:
    """Returns the definition of a param."""
    return SignalDefinition(address, Signal.PARAM, datatype)


class SignalsTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Nothing is announced."""
        self.signals = Signals()

    def found(self, pattern: str, now_us: int = 0) -> list[SignalDefinition]:
        """Returns the definitions that match."""
        matches = self.signals.match(Pattern.parse(pattern), now_us)
        return sorted((one for one in matches if one is not None), key=lambda one: one.address)

    def test_announced_signal_is_found(self) -> None:
        """By literal patterns and others."""
        self.signals.announce((definition("/a/x"), definition("/b")), 0)
        for pattern, expected in (("/a/x", ["/a/x"]), ("/**", ["/a/x", "/b"]), ("/a/*", ["/a/x"]), ("/c", [])):
            with self.subTest(pattern=pattern):
                self.assertEqual([one.address for one in self.found(pattern)], expected)

    def test_last_definition_of_an_address_counts(self) -> None:
        """In one ANNOUNCE, and in later ones."""
        self.signals.announce((definition("/a", "f32"), definition("/a", "f64")), 0)
        self.assertEqual(self.found("/a"), [definition("/a", "f64")])
        self.signals.announce((definition("/a", "i32"),), 0)
        self.assertEqual(self.found("/*"), [definition("/a", "i32")])
        self.assertEqual(len(self.signals), 1)

    def test_definition_is_forgotten_after_an_hour(self) -> None:
        """Unless it is announced again meanwhile."""
        self.signals.announce((definition("/a"), definition("/b")), 0)
        self.signals.announce((definition("/a"),), 1000)
        self.assertEqual(len(self.found("/*", SIGNAL_TTL_US - 1)), 2)
        self.assertEqual([one.address for one in self.found("/*", SIGNAL_TTL_US)], ["/a"])
        self.assertEqual(self.found("/*", SIGNAL_TTL_US + 1000), [])
        self.signals.sweep(SIGNAL_TTL_US + 1000)
        self.assertEqual((len(self.signals), self.signals.bytes, self.signals._tree._root), (0, 0, {}))

    def test_definition_without_an_end_stays(self) -> None:
        """If the operator configures it so; any other time can be set, too."""
        for ttl_us, found in ((0, 1), (10, 0)):
            signals = Signals(ttl_us=ttl_us)
            signals.announce((SignalDefinition("/a", Signal.PARAM),), 0)
            signals.sweep(10 * SIGNAL_TTL_US)
            self.assertEqual(len(signals), found)
            self.assertEqual(len(list(signals.match(Pattern.parse("/*"), 10 * SIGNAL_TTL_US))), found)

    def test_too_many_signals_are_refused_all(self) -> None:
        """Known definitions stay, and can be announced again."""
        self.patch(signals, "MAX_SIGNALS", 3)
        self.signals.announce((definition("/a"), definition("/b")), 0)
        new = (definition("/c"), definition("/d"))
        error = self.assertRaises(RequestError, self.signals.announce, new, 0)
        self.assertEqual((error.code, error.address), (ErrorCode.OVERLOADED, "/c"))
        self.assertEqual(len(self.signals), 2)
        self.signals.announce((definition("/a"), definition("/b"), definition("/c")), 0)
        self.signals.announce(new, SIGNAL_TTL_US)
        self.assertEqual([one.address for one in self.found("/*", SIGNAL_TTL_US)], ["/c", "/d"])

    def test_texts_are_bounded_in_bytes(self) -> None:
        """All texts, in UTF-8; bytes of a replaced definition are subtracted."""
        self.patch(signals, "MAX_SIGNAL_BYTES", 20 + 2 * SIGNAL_BYTES)
        full = SignalDefinition("/é", Signal.PARAM, "é" * 2, "rw", "m", (0.0, 1.0), b"\x01\x01", "12345")
        for _ in range(3):
            self.signals.announce((full,), 0)
        self.assertEqual(self.signals.bytes, SIGNAL_BYTES + 3 + 4 + 2 + 1 + 2 + 5)
        self.signals.announce((definition("/a"),), 0)
        error = self.assertRaises(RequestError, self.signals.announce, (definition("/b"),), 0)
        self.assertEqual(error.code, ErrorCode.OVERLOADED)

    def test_one_user_may_have_a_quarter(self) -> None:
        """Of the bytes, and of the definitions with wildcards; the operator and open mode have no share."""
        self.signals = Signals("admin")
        self.patch(signals, "MAX_SIGNAL_BYTES", 8 * (SIGNAL_BYTES + 2))
        self.patch(signals, "MAX_WILDCARDS", 4)
        self.signals.announce((definition("/a"), definition("/b")), 0, "alice")
        self.signals.announce((definition("/b"), definition("/a")), 0, "alice")
        error = self.assertRaises(RequestError, self.signals.announce, (definition("/c"),), 0, "alice")
        self.assertEqual(error.code, ErrorCode.LIMIT)
        self.assertIn("too much is kept for you: one user may have announced 404 bytes of signals", error.message)
        self.patch(signals, "MAX_SIGNAL_BYTES", 10_000)
        self.signals.announce((definition("/*"),), 0, "bob")
        error = self.assertRaises(RequestError, self.signals.announce, (definition("/**"),), 0, "bob")
        self.assertIn("1 signals with wildcards", error.message)
        for subject in ("admin", ""):
            self.signals.announce((definition("/x"), definition("/y"), definition("/z")), 0, subject)

    def test_one_client_address_may_have_half(self) -> None:
        """However many users it has; the operator's own definitions count for no address."""
        self.signals = Signals("admin")
        self.patch(signals, "MAX_SIGNAL_BYTES", 4 * (SIGNAL_BYTES + 2))
        self.signals.announce((definition("/a"),), 0, "alice", "here")
        self.signals.announce((definition("/b"),), 0, "bob", "here")
        error = self.assertRaises(RequestError, self.signals.announce, (definition("/c"),), 0, "carol", "here")
        self.assertIn("one client address may have announced 404 bytes of signals", error.message)
        self.signals.announce((definition("/c"),), 0, "admin", "here")
        self.signals.announce((definition("/d"),), 0, "carol", "there")
        self.signals.sweep(SIGNAL_TTL_US)
        self.assertEqual(self.signals._shares, {})

    def test_definition_counts_for_who_announced_it_last(self) -> None:
        """And for nobody once it is forgotten."""
        self.patch(signals, "MAX_SIGNAL_BYTES", 4 * (SIGNAL_BYTES + 2))
        self.signals.announce((definition("/a"),), 0, "alice")
        self.assertRaises(RequestError, self.signals.announce, (definition("/b"),), 0, "alice")
        self.signals.announce((definition("/a"),), 0, "bob")
        self.signals.announce((definition("/b"),), 0, "alice")
        self.signals.sweep(SIGNAL_TTL_US)
        self.assertEqual((self.signals.bytes, self.signals._shares), (0, {}))


class WildcardTests(SynchronousTestCase):
    """Definitions whose address is a pattern."""

    def setUp(self) -> None:
        """Nothing is announced."""
        self.signals = Signals()

    def announce(self, *addresses: str, now_us: int = 0) -> None:
        """Announces definitions."""
        self.signals.announce(tuple(map(definition, addresses)), now_us)

    def found(self, pattern: str, now_us: int = 0) -> list[str]:
        """Returns the addresses of the definitions that match."""
        matches = self.signals.match(Pattern.parse(pattern), now_us)
        return sorted(one.address for one in matches if one is not None)

    @given(st.lists(PATTERNS | ADDRESSES, max_size=8), PATTERNS | ADDRESSES, st.booleans())
    def test_definition_is_found_where_the_patterns_meet(
        self, addresses: list[str], pattern: str, are_many: bool
    ) -> None:
        """Each once, for any number."""
        self.setUp()
        self.patch(tree, "FIND_COST", 1 if are_many else 1000)
        self.announce(*addresses) if addresses else None
        asked = Pattern.parse(pattern)
        expected = sorted({one for one in addresses if intersects(Pattern.parse(one), asked)})
        self.assertEqual(self.found(pattern), expected)

    def test_others_have_their_turn_while_all_are_looked_at(self) -> None:
        """Also if nothing matches; long addresses and patterns with many wildcards count for more."""
        self.patch(tree, "FIND_COST", 1)
        self.patch(signals, "LOOKED_AT_ONCE", 4)
        self.announce("/a/1", "/a/2", "/a/3", "/b/1", "/c/*", "/a/*")
        matches = list(self.signals.match(Pattern.parse("/a/*"), 0))
        self.assertEqual([one and one.address for one in matches], ["/a/1", "/a/2", "/a/3", None, "/a/*"])
        for pattern, pauses in (("/x/**", 1), ("/*/*/*/*/x", 3)):
            with self.subTest(pattern=pattern):
                self.assertEqual(list(self.signals.match(Pattern.parse(pattern), 0)).count(None), pauses)
        self.announce("/b" * 16, "/b" * 32)
        self.assertEqual(list(self.signals.match(Pattern.parse("/x/**"), 0)).count(None), 3)

    def test_many_definitions_are_forgotten_a_bounded_number_at_a_time(self) -> None:
        """An expired definition is not found before it is forgotten either."""
        self.patch(signals, "SWEPT_AT_ONCE", 2)
        self.announce("/a", "/b", "/c", "/d/*", "/e")
        self.assertEqual(self.found("/**", SIGNAL_TTL_US), [])
        self.assertEqual(self.found("/c", SIGNAL_TTL_US), [])
        for left in (3, 1, 0, 0):
            self.signals.sweep(SIGNAL_TTL_US)
            self.assertEqual(len(self.signals), left)

    def test_many_wildcards_are_compared_in_turns(self) -> None:
        """Long ones count for more."""
        self.patch(signals, "LOOKED_AT_ONCE", 3)
        self.announce(*(f"/{number}/*" for number in range(7)))
        self.assertEqual(list(self.signals.match(Pattern.parse("/x/**"), 0)), [None, None])

    def test_definition_with_wildcards_is_forgotten_like_others(self) -> None:
        """It is also replaced and counted like them."""
        self.announce("/a/*", "/a")
        self.signals.announce((definition("/a/*", "f64"),), 5)
        self.assertEqual((len(self.signals), self.found("/a/x")), (2, ["/a/*"]))
        self.assertEqual(self.found("/**", SIGNAL_TTL_US), ["/a/*"])
        self.assertEqual(self.found("/**", SIGNAL_TTL_US + 5), [])
        self.signals.sweep(SIGNAL_TTL_US + 5)
        self.assertEqual((len(self.signals), self.signals._wildcards, self.signals.bytes), (0, {}, 0))

    def test_too_many_wildcards_are_refused_all(self) -> None:
        """A QUERY compares its pattern with each of them; known ones stay, and can be announced again."""
        self.patch(signals, "MAX_WILDCARDS", 2)
        self.announce("/a/*", "/b/*")
        error = self.assertRaises(RequestError, self.announce, "/c", "/c/*")
        self.assertEqual((error.code, error.address), (ErrorCode.OVERLOADED, "/c/*"))
        self.assertEqual(self.found("/**"), ["/a/*", "/b/*"])
        self.announce("/a/*", "/c")
        self.assertEqual(self.found("/**"), ["/a/*", "/b/*", "/c"])

    def test_what_goes_while_it_is_gone_through_is_left_out(self) -> None:
        """An answer may take several turns."""
        self.patch(tree, "FIND_COST", 1)
        self.announce("/a/1", "/a/2", "/a/3", "/a/*")
        matches = self.signals.match(Pattern.parse("/a/*"), 0)
        first = next(matches)
        self.assertEqual(first and first.address, "/a/1")
        self.signals.sweep(SIGNAL_TTL_US)
        self.assertEqual([one for one in matches if one is not None], [])
