"""Webhooks in ``users.db``."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.names import name_keys
from clasp_relay.storage.hooks import Hook, HookGone
from clasp_relay.storage.users_sqlite import SqliteUsers


class HookStoreTests(SynchronousTestCase):
    """In memory."""

    def test_hook_is_found_by_its_digest_until_it_is_revoked(self) -> None:
        """And known to the operator by the first digits of it."""
        users = SqliteUsers(None, name_keys)
        self.addCleanup(users.close)
        first = Hook(b"\xab\xcd" * 16, "/a", "chat", "Build", 1)
        second = Hook(b"\x01" * 32, "/b", "chat", "Other", 2)
        for hook in (second, first):
            users.hooks.add(hook)
        self.assertEqual((first.id, repr(first)), ("abcdabcd", "Hook('abcdabcd')"))
        self.assertEqual(users.hooks.all(), [first, second])
        self.assertEqual([users.hooks.find(each) for each in (first.digest, b"")], [first, None])
        users.hooks.revoke("abcdabcd")
        self.assertIsNone(users.hooks.find(first.digest))
        self.assertRaises(HookGone, users.hooks.revoke, "abcdabcd")
