"""The records of users and tokens; what stores do is in ``test_users_sqlite``."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.storage.users import GUEST_PROOF_S, KeptToken, TokenRecord, User


class RecordTests(SynchronousTestCase):
    """Records in a log line or a traceback."""

    def test_records_do_not_show_what_is_secret(self) -> None:
        """Neither a password hash nor a token's digest is in their text."""
        self.assertEqual(repr(User("u1", "Alice", "$argon2id$", 1)), "User('u1')")
        self.assertEqual(repr(TokenRecord(b"digest", "u1", "Alice", False, "policy", 1, 2)), "TokenRecord('u1')")

    def test_guests_token_is_refreshed_longer(self) -> None:
        """It is the only proof of who the guest was."""
        for guest, until_s in ((True, 1000 + GUEST_PROOF_S), (False, 1000)):
            record = TokenRecord(b"digest", "u1", "Alice", guest, "policy", 1, 2)
            self.assertEqual(KeptToken(record, None, 1000).refreshable_until_s, until_s)
