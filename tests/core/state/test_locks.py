"""Tests of clasp_relay.core.state.locks: which session holds which address."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.state.locks import LOCK_US, Locks


class LocksTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Two sessions hold locks."""
        self.locks = Locks()
        self.locks.take("/a", "one", 0)
        self.locks.take("/b", "one", 0)
        self.locks.take("/c", "two", 0)

    def holders(self) -> list[str | None]:
        """Returns the holders of some addresses."""
        return [self.locks.holder(address) for address in ("/a", "/b", "/c", "/d")]

    def test_lock_has_a_holder(self) -> None:
        """An address without a lock has no holder."""
        self.assertEqual(self.holders(), ["one", "one", "two", None])

    def test_release_frees_one(self) -> None:
        """Releasing a free lock does nothing."""
        self.locks.release("/a")
        self.locks.release("/d")
        self.assertEqual(self.holders(), [None, "one", "two", None])

    def test_locks_are_known_by_session(self) -> None:
        """Without locks that another session took, and released ones."""
        self.locks.release("/a")
        self.locks.take("/a", "two", 0)
        self.locks.take("/b", "one", 0)
        self.assertEqual(self.locks.of("one"), ["/b"])
        self.assertEqual(sorted(self.locks.of("two")), ["/a", "/c"])
        self.assertEqual(self.locks.of("nobody"), [])

    def test_lock_passes_to_who_takes_it(self) -> None:
        """An address has one holder."""
        self.locks.take("/a", "two", 0)
        self.assertEqual(self.holders(), ["two", "one", "two", None])
        self.assertEqual((self.locks.of("one"), len(self.locks)), (["/b"], 3))

    def test_nothing_is_kept_of_what_was_freed(self) -> None:
        """A session that locks and releases many addresses takes no memory."""
        for address in ("/a", "/b", "/c"):
            self.locks.take(address, "two" if address == "/c" else "one", 0)
            self.locks.release(address)
        self.assertEqual(len(self.locks), 0)
        self.assertEqual((self.locks._holders, self.locks._addresses), ({}, {}))
        self.assertEqual(len(self.locks._taken_us), 0)

    def test_lock_is_held_for_an_hour_after_it_was_taken_last(self) -> None:
        """The oldest expires first; a lock that is taken again has another hour."""
        self.locks.take("/a", "one", 5)
        self.assertEqual(self.locks.expired(LOCK_US - 1, 9), [])
        self.assertEqual(self.locks.expired(LOCK_US, 9), ["/b", "/c"])
        self.assertEqual(self.locks.expired(LOCK_US, 1), ["/b"])
        self.assertEqual(self.locks.expired(LOCK_US + 5, 9), ["/b", "/c", "/a"])
