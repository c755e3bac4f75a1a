"""The session ids in users.db."""

import sqlite3

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.names import name_keys
from clasp_relay.storage.session_ids import GivenId
from clasp_relay.storage.users_sqlite import SqliteUsers


class SessionIdStoreTests(SynchronousTestCase):
    """What is stored, and what is deleted."""

    def setUp(self) -> None:
        """Opens a store in memory."""
        users = SqliteUsers(None, name_keys)
        self.addCleanup(users.close)
        self.store = users.session_ids

    def test_ids_are_stored_once_with_their_last_time(self) -> None:
        """An id never changes its subject; the newest are loaded, the oldest of them first."""
        self.store.note([GivenId("s1", "ann", 10), GivenId("s2", "bob", 20)], [], 0)
        self.store.note([GivenId("s1", "eve", 30), GivenId("s3", "bob", 5)], [], 0)
        self.assertEqual(
            self.store.all(0, 10), [GivenId("s3", "bob", 5), GivenId("s2", "bob", 20), GivenId("s1", "ann", 30)]
        )
        self.assertEqual(self.store.all(10, 1), [GivenId("s1", "ann", 30)])

    def test_old_ones_are_deleted(self) -> None:
        """With each batch."""
        self.store.note([GivenId("s1", "ann", 10)], [], 0)
        self.store.note([], [], 11)
        self.assertEqual(self.store.all(0, 10), [])

    def test_batch_is_stored_as_a_whole(self) -> None:
        """Or not at all; the store goes on."""
        bad = GivenId("s2", None, 10)  # type: ignore[arg-type]
        self.assertRaises(sqlite3.IntegrityError, self.store.note, [GivenId("s1", "ann", 10), bad], [], 0)
        self.assertEqual(self.store.all(0, 10), [])
        self.store.note([GivenId("s1", "ann", 10)], [], 0)
        self.assertEqual(len(self.store.all(0, 10)), 1)
