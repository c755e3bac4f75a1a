"""The live sessions."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.rights.port import Identity
from clasp_relay.core.session.sessions import Session
from clasp_relay.core.session.table import SessionTable
from tests.core.world import MemoryOutbox


def session(session_id: str, token: bytes = b"") -> Session:
    """Makes a session."""
    made = Session(session_id, MemoryOutbox(), "192.0.2.1")
    made.identity = Identity("somebody" if token else "", token)
    return made


class SessionTableTests(SynchronousTestCase):
    def test_sessions_are_found_by_id_and_by_token(self) -> None:
        """Those without a token by id alone."""
        table = SessionTable()
        one, two, open_one = session("1", b"t"), session("2", b"t"), session("3")
        for each in (one, two, open_one):
            table.add(each)
        self.assertEqual((len(table), "2" in table, "4" in table), (3, True, False))
        self.assertIs(table.get("3"), open_one)
        self.assertIsNone(table.get("4"))
        self.assertEqual(table.of_token("somebody", b"t"), [one, two])
        self.assertEqual((table.of_token("", b""), table.of_token("somebody", b"u")), ([], []))
        self.assertEqual(table.of_subject("somebody"), [one, two])
        self.assertEqual((table.of_subject(""), table.of_subject("nobody")), ([], []))

    def test_nothing_is_left_of_a_session_that_ended(self) -> None:
        """Once is enough; one that never was live may end too."""
        table = SessionTable()
        one, two = session("1", b"t"), session("2", b"t")
        table.add(one)
        table.add(two)
        table.discard(session("never", b"t"))
        for _ in range(2):
            table.discard(one)
        self.assertEqual((len(table), table.of_token("somebody", b"t")), (1, [two]))
        table.discard(two)
        self.assertEqual((len(table), table._by_subject), (0, {}))
