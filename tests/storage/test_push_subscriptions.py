"""The push subscriptions in users.db."""

from itertools import count
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.names import name_keys
from clasp_relay.storage.push_subscriptions import Subscription
from clasp_relay.storage.users_sqlite import SqliteUsers


def subscription(name: str, subject: str = "ann", created_s: int = 1) -> Subscription:
    """Returns a browser's."""
    return Subscription(f"https://push.example/{name}", subject, b"key", b"secret", b"s", created_s)


class PushStoreTests(SynchronousTestCase):
    """What is stored."""

    def setUp(self) -> None:
        """Makes a file."""
        self.path = Path(self.mktemp())
        self.users = SqliteUsers(self.path, name_keys)

    def tearDown(self) -> None:
        """Closes it."""
        self.users.close()

    def test_key_is_made_once(self) -> None:
        """And is in the file, which nobody else may read, and of which backups are made."""
        numbers = count()
        keys = {self.users.push.key(lambda: b"key %d" % next(numbers)) for _ in range(2)}
        self.users.close()
        self.users = SqliteUsers(self.path, name_keys)
        keys.add(self.users.push.key(lambda: b"key %d" % next(numbers)))
        self.assertEqual((keys, next(numbers)), ({b"key 0"}, 1))
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)

    def test_endpoint_is_one_subjects(self) -> None:
        """The last one's; the oldest come first."""
        store = self.users.push
        for each in (subscription("b", created_s=2), subscription("a"), subscription("a", "bob", 3)):
            store.add(each)
        self.assertEqual(store.all(), [subscription("b", created_s=2), subscription("a", "bob", 3)])
        store.remove(["https://push.example/b", "https://push.example/none"])
        self.assertEqual(store.all(), [subscription("a", "bob", 3)])
        self.assertEqual(store.forgotten(), ["https://push.example/a"])
