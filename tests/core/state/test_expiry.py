"""Tests of clasp_relay.core.state.expiry: when addresses end."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.state.expiry import LOOKED_AT_ONCE, SLOT_US, Expiry

_ADDRESS = st.sampled_from(("/a", "/b", "/c", "/d"))
_STEP = st.one_of(
    st.tuples(st.just("set"), _ADDRESS, st.integers(0, 30)),
    st.tuples(st.just("discard"), _ADDRESS, st.just(0)),
    st.tuples(st.just("due"), st.just(""), st.integers(0, 5)),
)


class ExpiryTests(SynchronousTestCase):
    def test_addresses_come_due_in_order(self) -> None:
        """Not before their times, and until they are discarded."""
        expiry = Expiry()
        for address, due_us in (("/late", 30), ("/early", 10), ("/middle", 20)):
            expiry.set(address, due_us)
        self.assertEqual(expiry.due(9, 100), [])
        self.assertEqual(expiry.due(20, 100), ["/early", "/middle"])
        self.assertEqual(expiry.due(20, 100), ["/early", "/middle"])
        expiry.discard("/early")
        self.assertEqual(expiry.due(100, 100), ["/middle", "/late"])

    def test_so_many_are_told_at_once(self) -> None:
        """The others are returned by the next call."""
        expiry = Expiry()
        for n in range(5):
            expiry.set(f"/{n}", n)
        self.assertEqual(expiry.due(10, 2), ["/0", "/1"])
        for address in ("/0", "/1"):
            expiry.discard(address)
        self.assertEqual(expiry.due(10, 2), ["/2", "/3"])

    def test_time_can_be_set_again(self) -> None:
        """Later and earlier."""
        expiry = Expiry()
        expiry.set("/a", 10)
        expiry.set("/a", 50)
        self.assertEqual(expiry.due(49, 100), [])
        expiry.set("/a", 20)
        self.assertEqual(expiry.due(20, 100), ["/a"])
        self.assertEqual(expiry.snapshot(), {"/a": 20})

    def test_least_recent_is_the_one_not_used_for_longest(self) -> None:
        """Setting a time is a use; a touch is one without a new time."""
        expiry = Expiry()
        for address in ("/a", "/b", "/c"):
            expiry.set(address, 10)
        expiry.set("/a", 5)
        expiry.touch("/b")
        self.assertEqual(list(expiry.least_recent()), ["/c", "/a", "/b"])
        self.assertEqual(expiry.due(10, 100), ["/a", "/b", "/c"])

    def test_least_recent_of_an_owner_are_its_own(self) -> None:
        """In the same order; nothing is kept of an owner without addresses."""
        expiry = Expiry()
        for address, owner in (("/a", "alice"), ("/b", "bob"), ("/c", "alice"), ("/d", "")):
            expiry.set(address, 10, owner)
        self.assertEqual(list(expiry.least_recent("alice")), ["/a", "/c"])
        expiry.touch("/a")
        self.assertEqual(list(expiry.least_recent("alice")), ["/c", "/a"])
        expiry.set("/c", 20, "bob")
        expiry.set("/a", 20)
        self.assertEqual(list(expiry.least_recent("alice")), [])
        self.assertEqual(list(expiry.least_recent("bob")), ["/b", "/c"])
        for address in ("/a", "/b", "/c", "/d"):
            expiry.discard(address)
        self.assertEqual((expiry._owners, expiry._by_owner), ({}, {}))

    def test_old_entries_are_not_kept(self) -> None:
        """After a thousand short life times the heap does not have a thousand entries."""
        expiry = Expiry()
        for number in range(1000):
            expiry.set(f"/{number}", 1_000_000)
            expiry.discard(f"/{number}")
            expiry.set("/always", 1_000_000 - number)
            expiry.set("/now and then", SLOT_US * (2_000 - number))
        self.assertLessEqual(len(expiry._slots), 70)
        self.assertLessEqual(len(expiry._slot_of), 2)
        self.assertLessEqual(len(expiry._at), 2)
        self.assertEqual(expiry.due(1_000_000, 100), ["/always"])

    def test_few_are_looked_at_in_one_call(self) -> None:
        """Thousands may have been renewed since their slots were noted; later addresses come in later calls."""
        expiry = Expiry()
        for number in range(3 * LOOKED_AT_ONCE):
            expiry.set(f"/{number}", 1)
            expiry.set(f"/{number}", 10 * SLOT_US)
        expiry.set("/due", 2)
        calls = []
        for _ in range(5):
            calls.append((expiry.due(5 * SLOT_US, 100), expiry.is_behind))
        nothing: list[str] = []
        self.assertEqual(calls, [(nothing, True)] * 3 + [(["/due"], False)] * 2)

    def test_slot_of_this_moment_is_not_looked_at_again_and_again(self) -> None:
        """An address in that slot is late by one slot at most."""
        expiry = Expiry()
        for number in range(LOOKED_AT_ONCE):
            expiry.set(f"/{number}", 20)
        expiry.set("/due", 10)
        self.assertEqual((expiry.due(10, 100), expiry.is_behind), ([], False))
        self.assertEqual(len(expiry.due(SLOT_US, 1_000)), LOOKED_AT_ONCE)
        self.assertTrue(expiry.is_behind)

    @given(st.lists(_STEP, max_size=60))
    def test_table_agrees_with_a_plain_dict(self, steps: list[tuple[str, str, int]]) -> None:
        """After any calls of set, discard and due, the result is that of a dict."""
        expiry = Expiry()
        model: dict[str, int] = {}
        now_us = 0
        for kind, address, number in steps:
            if kind == "set":
                expiry.set(address, now_us + number)
                model[address] = now_us + number
            elif kind == "discard":
                expiry.discard(address)
                model.pop(address, None)
            else:
                now_us += number
                expected = sorted((due_us, found) for found, due_us in model.items() if due_us <= now_us)
                self.assertEqual(expiry.due(now_us, 100), [found for _, found in expected])
            self.assertEqual(expiry.snapshot(), model)
            self.assertEqual([found in expiry for found in ("/a", "/z")], ["/a" in model, False])
