"""Tests of clasp_relay.core.state.tree: the addresses that a pattern matches."""

from functools import partial

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.state import tree as address_tree
from clasp_relay.core.state.tree import AddressTree, TooMuchError
from clasp_relay.wire.address import Pattern
from tests.core.counting import count_calls
from tests.core.strategies import ADDRESSES, PATTERNS


def tree_of(*addresses: str) -> AddressTree:
    """Returns a tree of some addresses."""
    tree = AddressTree()
    for address in addresses:
        tree.add(address)
    return tree


def found(tree: AddressTree, pattern: str) -> list[str]:
    """Returns the matching addresses, sorted."""
    return sorted(tree.match(Pattern.parse(pattern)))


def cost(tree: AddressTree, pattern: str) -> int:
    """Returns the number of calls of a search."""
    parsed = Pattern.parse(pattern)
    return count_calls(lambda: list(tree.match(parsed)))


class AddressTreeTests(SynchronousTestCase):
    def test_pattern_finds_what_it_matches(self) -> None:
        """With wildcards as a whole segment, in a segment, and for many segments."""
        tree = tree_of("/a", "/a/b", "/a/b/c", "/a/zone1", "/d")
        cases: tuple[tuple[str, list[str]], ...] = (
            ("/**", ["/a", "/a/b", "/a/b/c", "/a/zone1", "/d"]),
            ("/*", ["/a", "/d"]),
            ("/a/**", ["/a", "/a/b", "/a/b/c", "/a/zone1"]),
            ("/a/*", ["/a/b", "/a/zone1"]),
            ("/a/zone*", ["/a/zone1"]),
            ("/**/c", ["/a/b/c"]),
            ("/x/**", []),
            ("/a/b/c/*", []),
        )
        for pattern, expected in cases:
            with self.subTest(pattern=pattern):
                self.assertEqual(found(tree, pattern), expected)

    def test_many_addresses_of_a_node_cost_two_calls_each(self) -> None:
        """If a wildcard matches any segment, as for a dashboard that subscribes to everything."""
        tree = tree_of(*(f"/room/{number}" for number in range(1000)))
        for pattern in ("/**", "/room/*", "/room/**", "/*/**"):
            with self.subTest(pattern=pattern):
                self.assertEqual(len(found(tree, pattern)), 1000)
                self.assertLess(cost(tree, pattern), 2_100)

    def test_address_and_what_lies_below_are_apart(self) -> None:
        """Either can be added and removed before the other."""
        for first, second in (("/a", "/a/b"), ("/a/b", "/a")):
            for gone, left in ((first, second), (second, first)):
                with self.subTest(first=first, gone=gone):
                    tree = tree_of(first, second)
                    tree.discard(gone)
                    self.assertEqual(found(tree, "/**"), [left])

    def test_deep_addresses_are_matched_as_they_are(self) -> None:
        """Below the deepest node the rest of the address is one key."""
        start = "/s" * (address_tree.MAX_DEPTH - 1)
        addresses = [start, start + "/x", start + "/x/y", start + "/x/y/z", start + "/x/w/z"]
        tree = tree_of(*addresses)
        for pattern in ("/**", start + "/x/**", "/**/z", start + "/**/w/*", "/s/**/x"):
            with self.subTest(pattern=pattern):
                parsed = Pattern.parse(pattern)
                self.assertEqual(found(tree, pattern), sorted(filter(parsed.matches, addresses)))

    def test_long_address_takes_few_nodes(self) -> None:
        """Even one of 32,767 segments, which no client may send."""
        tree = tree_of("/s" * 30_000)
        depth = 0
        node: object = tree._root
        while isinstance(node, dict):
            depth, (node,) = depth + 1, node.values()
        self.assertEqual(depth, address_tree.MAX_DEPTH + 1)

    @given(st.lists(st.tuples(st.booleans(), ADDRESSES)), st.lists(PATTERNS, min_size=1), st.sampled_from((2, 3, 32)))
    def test_tree_agrees_with_the_matcher(self, steps: list[tuple[bool, str]], patterns: list[str], depth: int) -> None:
        """After any additions and removals, at any depth of the tree; each address is found once."""
        before, address_tree.MAX_DEPTH = address_tree.MAX_DEPTH, depth
        try:
            tree, model = AddressTree(), set[str]()
            for is_added, address in steps:
                if is_added and address not in model:
                    tree.add(address)
                    model.add(address)
                elif not is_added and address in model:
                    tree.discard(address)
                    model.discard(address)
            for pattern in patterns:
                parsed = Pattern.parse(pattern)
                if not parsed.is_literal:
                    self.assertEqual(sorted(tree.match(parsed)), sorted(filter(parsed.matches, model)))
                    self.assertEqual(tree.find(parsed), list(tree.match(parsed)))
                    self.assertIn(tree.find(parsed, 20), (None, list(tree.match(parsed))))
                    some = tree.first(parsed, 20)
                    self.assertEqual((set(some) - set(tree.match(parsed)), not some), (set(), not tree.find(parsed)))
            for address in model:
                tree.discard(address)
            self.assertEqual(tree._root, {})
        finally:
            address_tree.MAX_DEPTH = before

    def test_cost_follows_what_matches(self) -> None:
        """Ten thousand other addresses cost nothing."""
        few, many = AddressTree(), AddressTree()
        for tree, size in ((few, 100), (many, 10_000)):
            for number in range(size):
                tree.add(f"/other/{number}/x")
            for number in range(10):
                tree.add(f"/room/{number}/name")
        for pattern in ("/room/**", "/room/*/name", "/room/1*/name", "/nothing/**"):
            with self.subTest(pattern=pattern):
                self.assertEqual(cost(few, pattern), cost(many, pattern))

    def test_search_gives_up_before_it_costs_much(self) -> None:
        """For any number of addresses, and any pattern."""
        wide = tree_of(*(f"/d/{number}/x/{number % 100}" for number in range(10_000)))
        deep = tree_of(*("/s" * 60 + f"/{number}" for number in range(2_000)))
        many = "/**/a*" * 15 + "/**/z"
        for tree, pattern in ((wide, "/**/zzz"), (wide, "/d/*/x/*/z"), (wide, many), (deep, "/**/zzz"), (deep, many)):
            with self.subTest(pattern=pattern, is_deep=tree is deep):
                parsed = Pattern.parse(pattern)
                parsed.matches("/a")
                self.assertIsNone(tree.find(parsed))
                self.assertLess(count_calls(partial(tree.find, parsed)), 60_000)

    def test_first_matches_are_found_at_a_bounded_cost(self) -> None:
        """The oldest ones, at least one, and all if there are few."""
        wide = tree_of(*(f"/room/{number}" for number in range(10_000)))
        few = tree_of("/room/1", "/room/2/x")
        deep = tree_of(*("/s" * 60 + f"/{number}" for number in range(2_000)))
        late = tree_of(*(f"/a/{number}/x" for number in range(400)), "/a/z/y")
        for tree, pattern, first, least in (
            (wide, "/room/*", "/room/0", 200),
            (wide, "/room/*9", "/room/9", 5),
            (wide, "/**", "/room/0", 20),
            (few, "/room/**", "/room/1", 2),
            (deep, "/**", "/s" * 60 + "/0", 1),
            (late, "/a/*/y", "/a/z/y", 1),
        ):
            with self.subTest(pattern=pattern):
                parsed = Pattern.parse(pattern)
                matches = tree.first(parsed, 256)
                self.assertEqual(matches[0], first)
                self.assertGreaterEqual(len(matches), least)
                self.assertLessEqual(len(matches), 256)
        self.assertLess(count_calls(lambda: wide.first(Pattern.parse("/room/*"), 256)), 1_000)
        self.assertEqual(wide.first(Pattern.parse("/other/*"), 256), [])

    def test_first_match_that_takes_long_to_find_is_not_looked_for(self) -> None:
        """Then the search raises, and does not report that nothing matches."""
        late = tree_of(*(f"/a/{number}/x" for number in range(10_000)), "/a/z/y")
        for pattern in ("/a/*/y", "/**/y", "/a/*/none"):
            parsed = Pattern.parse(pattern)
            self.assertLess(count_calls(lambda: self.assertRaises(TooMuchError, late.first, parsed, 256)), 20_000)  # noqa: B023

    def test_search_of_the_usual_size_finds_all(self) -> None:
        """A lobby of many rooms, and one room among many."""
        parts = ("meta", "messages", "presence/a", "presence/b", "admin/a", "crypto/pubkey/a")
        tree = tree_of(*(f"/chat/room/{number}/{part}" for number in range(350) for part in parts))
        for pattern, size in (("/chat/room/*/meta", 350), ("/chat/room/7/**", 6), ("/chat/room/7/presence/*", 2)):
            with self.subTest(pattern=pattern):
                self.assertEqual(len(tree.find(Pattern.parse(pattern)) or ()), size)
