"""The records of users and tokens; what stores do is in ``test_users_sqlite``."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.storage.users import (
    GUEST_PROOF_S,
    USER_TOKEN_KEPT_S,
    TokenRecord,
    TooManyTokens,
    User,
    kept_for_s,
)


class RecordTests(SynchronousTestCase):
    """Records in a log line or a traceback."""

    def test_records_do_not_show_what_is_secret(self) -> None:
        """Neither a password hash nor a token's digest is in their text."""
        self.assertEqual(repr(User("u1", "Alice", "$argon2id$", 1)), "User('u1')")
        self.assertEqual(repr(TokenRecord(b"digest", "u1", "Alice", False, "policy", 1, 2)), "TokenRecord('u1')")

    def test_refusal_says_how_long_to_wait(self) -> None:
        """The seconds until a token expires."""
        self.assertEqual(TooManyTokens(17).retry_after_s, 17)
        self.assertEqual(str(TooManyTokens(17)), "250 tokens are valid")


class KeptTests(SynchronousTestCase):
    """How long tokens are kept."""

    def test_guests_tokens_are_kept_longer(self) -> None:
        """They are the only proof of who the guest was."""
        self.assertEqual(kept_for_s(guest=True), GUEST_PROOF_S)
        self.assertEqual(kept_for_s(guest=False), USER_TOKEN_KEPT_S)
