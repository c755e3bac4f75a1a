"""Users and tokens in a SQLite file."""

import sqlite3
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.storage.users import KeptToken, UserStore
from clasp_relay.storage.users_sqlite import SqliteUsers
from tests.storage.users_contract import NO_PROOF, NOW_S, UserStoreContract, token, user


class SqliteUsersTests(UserStoreContract, SynchronousTestCase):
    """The contract, and what only a file can do."""

    def make_store(self) -> UserStore:
        """Returns an empty store."""
        folder = Path(self.mktemp())
        folder.mkdir()
        self.path = folder / "users.db"
        return SqliteUsers(self.path, str.casefold)

    def test_store_keeps_everything_over_a_restart(self) -> None:
        """Users, tokens and revocations are there again."""
        self.store.add_user_token(token("b"), 0)
        self.store.revoke(token("b").digest, NOW_S)
        self.store.close()
        self.store = SqliteUsers(self.path, str.casefold)
        self.addCleanup(self.store.close)
        self.assertEqual(self.store.user("u1"), self.alice)
        self.assertEqual(self.store.valid_tokens(NOW_S), [token("a")])
        self.assertEqual(self.store.find_token(token("b").digest), KeptToken(token("b"), NOW_S))

    def test_store_undoes_what_it_could_not_finish(self) -> None:
        """A fault in the middle of a call leaves nothing of it behind, and the store goes on."""
        other = sqlite3.connect(self.path)
        other.execute(
            "CREATE TRIGGER broken BEFORE INSERT ON tokens WHEN NEW.subject = 'u2'"
            " BEGIN SELECT RAISE(ROLLBACK, 'disk full'); END"
        )
        other.close()
        bob = user("u2", "Bob")
        self.assertRaises(sqlite3.Error, self.store.add_user, bob, "bob", token("b", "u2"), NO_PROOF)
        self.assertIsNone(self.store.user("u2"))
        self.store.add_user(user("u3", "Bob"), "bob", token("b", "u3"), NO_PROOF)

    def test_file_holds_no_token_in_clear(self) -> None:
        """What is stored is a digest."""
        self.store.close()
        content = b"".join(path.read_bytes() for path in self.path.parent.iterdir())
        self.assertNotIn(b"cpsk_", content)
        self.assertIn(token("a").digest, content)
