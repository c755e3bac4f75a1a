"""Users and tokens in memory."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.storage.users import TokenRecord, User, UserStore
from clasp_relay.storage.users_memory import MemoryUsers
from tests.storage.users_contract import NO_PROOF, UserStoreContract


class MemoryUsersTests(UserStoreContract, SynchronousTestCase):
    """The contract."""

    def make_store(self) -> UserStore:
        """Returns an empty store."""
        return MemoryUsers(str.casefold)

    def test_store_says_that_a_token_without_expiry_has_no_place_in_it(self) -> None:
        """The administrator's is kept in a file of its own."""
        record = TokenRecord(b"x", "u2", "Bob", False, "admin", 1, None)
        self.store.add_user(User("u2", "Bob", "hash", 1), "bob", record, NO_PROOF)
        self.assertRaises(AssertionError, self.store.valid_tokens, 1)
