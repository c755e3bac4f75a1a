"""Tests of clasp_relay.core.locks."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.state.locks import Locks


class LocksTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Two sessions hold locks."""
        self.locks = Locks()
        self.locks.take("/a", "one")
        self.locks.take("/b", "one")
        self.locks.take("/c", "two")

    def holders(self) -> list[str | None]:
        """Returns who holds which."""
        return [self.locks.holder(address) for address in ("/a", "/b", "/c", "/d")]

    def test_lock_has_a_holder(self) -> None:
        """One that nobody took has none."""
        self.assertEqual(self.holders(), ["one", "one", "two", None])

    def test_release_frees_one(self) -> None:
        """A lock that is free stays free."""
        self.locks.release("/a")
        self.locks.release("/d")
        self.assertEqual(self.holders(), [None, "one", "two", None])

    def test_release_all_frees_those_of_one_session(self) -> None:
        """What another session holds, and what was freed before, is not touched."""
        self.locks.release("/a")
        self.locks.take("/a", "two")
        self.locks.release_all("one")
        self.locks.release_all("nobody")
        self.assertEqual(self.holders(), ["two", None, "two", None])

    def test_nothing_is_kept_of_what_was_freed(self) -> None:
        """A session that locks and frees address after address takes no room."""
        for address in ("/a", "/b", "/c"):
            self.locks.take(address, "two" if address == "/c" else "one")
            self.locks.release(address)
        self.assertEqual(len(self.locks), 0)
        self.assertEqual((self.locks._holders, self.locks._addresses), ({}, {}))
