"""Tests of clasp_relay.core.state.presence: who is there."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.session.sessions import Identity, Session
from clasp_relay.core.state.presence import Holds
from tests.core.world import MemoryOutbox


def session(subject: str) -> Session:
    """Returns a session of a user."""
    one = Session(f"session of {subject}", MemoryOutbox(), "")
    one.identity = Identity(subject)
    return one


class HoldsTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Alice is there in two tabs, Bob in one."""
        self.holds = Holds()
        self.tab, self.other_tab, self.bob = session("alice"), session("alice"), session("bob")
        for one in (self.tab, self.other_tab, self.bob):
            self.holds.take("/here", one)
        self.holds.take("/there", self.tab)

    def who(self, address: str = "/here") -> list[str]:
        """Returns who holds an address."""
        return [subject for subject in ("alice", "bob", "carol") if self.holds.is_held(address, subject)]

    def test_hold_is_of_a_subject(self) -> None:
        """At one address."""
        self.assertEqual((self.who(), self.who("/there"), self.who("/nowhere")), (["alice", "bob"], ["alice"], []))

    def test_closed_tab_does_not_end_the_other(self) -> None:
        """Only the last one of a user does."""
        self.assertEqual(sorted(self.holds.forget(self.tab)), ["/here", "/there"])
        self.assertEqual((self.who(), self.who("/there")), (["alice", "bob"], []))
        self.assertEqual(self.holds.forget(self.other_tab), ["/here"])
        self.assertEqual(self.who(), ["bob"])
        self.assertEqual(self.holds.forget(session("carol")), [])

    def test_own_null_ends_own_hold(self) -> None:
        """And those of other users, not of one's other tab."""
        self.holds.end("/here", self.tab)
        self.assertEqual(self.who(), ["alice"])
        self.holds.end("/here", self.other_tab)
        self.assertEqual(self.who(), [])

    def test_null_of_another_user_ends_the_hold(self) -> None:
        """Whoever was removed is not there."""
        self.holds.end("/here", session("carol"))
        self.assertEqual(self.who(), [])
        self.assertEqual(self.who("/there"), ["alice"])

    def test_expiry_ends_all(self) -> None:
        """No session wrote it."""
        self.holds.end("/here", None)
        self.holds.end("/nowhere", None)
        self.assertEqual(self.who(), [])

    def test_nothing_is_kept_when_all_have_gone(self) -> None:
        """Neither addresses nor sessions."""
        self.holds.end("/there", None)
        for one in (self.tab, self.other_tab, self.bob):
            self.holds.forget(one)
        self.assertEqual((dict(self.holds._sessions), dict(self.holds._addresses)), ({}, {}))
