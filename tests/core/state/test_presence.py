"""Tests of clasp_relay.core.state.presence: who is there."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.state.presence import Presence


class PresenceTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Alice is there in two tabs, Bob in one."""
        self.presence = Presence()
        for session_id, subject in (("tab", "alice"), ("other tab", "alice"), ("bob's", "bob")):
            self.presence.enter("/here", session_id, subject)
        self.presence.enter("/there", "tab", "alice")

    def who(self, address: str = "/here") -> list[str]:
        """Returns who is present at an address."""
        return [subject for subject in ("alice", "bob", "carol") if self.presence.is_present(address, subject)]

    def leave(self, session_id: str) -> list[str]:
        """Ends all presence of a session and returns where it was."""
        addresses = self.presence.of(session_id)
        for address in addresses:
            self.presence.leave(address, session_id)
        return sorted(addresses)

    def test_presence_is_of_a_subject(self) -> None:
        """At one address."""
        self.assertEqual((self.who(), self.who("/there"), self.who("/nowhere")), (["alice", "bob"], ["alice"], []))
        self.assertEqual(len(self.presence), 4)

    def test_closed_tab_does_not_end_the_other(self) -> None:
        """Only the last one of a user does."""
        self.assertEqual(self.leave("tab"), ["/here", "/there"])
        self.assertEqual((self.who(), self.who("/there")), (["alice", "bob"], []))
        self.assertEqual(self.leave("other tab"), ["/here"])
        self.assertEqual(self.who(), ["bob"])
        self.assertEqual(self.leave("carol's"), [])

    def test_null_ends_the_presence_of_every_session(self) -> None:
        """At that address alone; where nobody is nothing ends."""
        self.presence.end("/here")
        self.presence.end("/nowhere")
        self.assertEqual((self.who(), self.who("/there")), ([], ["alice"]))
        self.assertEqual((self.presence.of("tab"), self.presence.of("other tab")), (["/there"], []))

    def test_session_is_present_once_however_often_it_writes(self) -> None:
        """Its end ends all of it."""
        self.presence.enter("/here", "bob's", "bob")
        self.assertEqual(len(self.presence), 4)
        self.leave("bob's")
        self.assertEqual(self.who(), ["alice"])

    def test_nothing_is_kept_when_all_have_gone(self) -> None:
        """Neither addresses nor sessions."""
        self.presence.end("/there")
        for session_id in ("tab", "other tab", "bob's"):
            self.leave(session_id)
        self.assertEqual((self.presence._subjects, self.presence._addresses, len(self.presence)), ({}, {}, 0))
