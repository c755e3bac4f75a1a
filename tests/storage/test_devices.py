"""Device tokens in a users' database."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.storage.devices import DeviceToken
from clasp_relay.storage.users import Claim, IdentityTaken, TokenGone
from clasp_relay.storage.users_sqlite import SqliteUsers
from tests.storage.test_users_sqlite import ALICE, BOB, GINA, NOW_S, keys_of, token, user

DESK = DeviceToken("d1", b"digest", "clasp.device.d1", "desk", ("read:/a/**", "write:/a, b/*"), NOW_S, None)


class DeviceStoreTests(SynchronousTestCase):
    """Made, listed, revoked; by one process and seen by another."""

    def setUp(self) -> None:
        """Opens one file twice, as the relay and the operator do."""
        path = Path(self.mktemp())
        self.relay, self.operator = SqliteUsers(path, keys_of), SqliteUsers(path, keys_of)
        self.addCleanup(self.operator.close)
        self.addCleanup(self.relay.close)

    def add(self, token_id: str, subject: str) -> None:
        """Adds a token for a subject that the operator names."""
        digest = token_id.encode()
        self.operator.devices.add(DESK._replace(id=token_id, digest=digest, subject=subject), is_own_subject=False)

    def test_token_is_listed_as_it_was_made_until_it_is_revoked(self) -> None:
        """Also one that expires; a digest does not show in a traceback."""
        other = DESK._replace(id="d2", digest=b"other", subject="clasp.device.d2", expires_s=NOW_S - 1, name="")
        for each in (DESK, other):
            self.operator.devices.add(each, is_own_subject=True)
        self.assertEqual(self.relay.devices.all(), [DESK, other])
        self.assertEqual(repr(DESK), "DeviceToken('d1')")
        self.operator.devices.revoke("d1", NOW_S)
        self.assertEqual(self.relay.devices.all(), [other])
        for token_id in ("d1", "d3"):
            with self.assertRaises(TokenGone):
                self.operator.devices.revoke(token_id, NOW_S)

    def test_change_by_another_process_is_noticed_once(self) -> None:
        """Nothing is read while nothing has changed."""
        self.assertEqual(self.relay.devices.changed(), [])
        self.assertIsNone(self.relay.devices.changed())
        self.operator.devices.add(DESK, is_own_subject=True)
        self.assertEqual(self.relay.devices.changed(), [DESK])
        self.assertIsNone(self.relay.devices.changed())
        self.operator.devices.revoke("d1", NOW_S)
        self.assertEqual(self.relay.devices.changed(), [])

    def test_subject_is_an_account_s_or_a_device_s_or_free(self) -> None:
        """A guest's is refused; nothing is stored then."""
        claim = Claim(None, False, NOW_S)
        self.relay.add_user(user("alice"), ALICE, token("t1", "alice"), claim)
        self.relay.add_guest_token(token("t2", "gina", guest=True), GINA, claim)
        for token_id, subject in (("d1", "alice"), ("d2", "desk"), ("d3", "desk")):
            self.add(token_id, subject)
        with self.assertRaises(IdentityTaken):
            self.add("d4", "gina")
        self.assertEqual([each.id for each in self.relay.devices.all()], ["d1", "d2", "d3"])

    def test_device_s_subject_is_nobody_else_s_even_when_it_is_revoked(self) -> None:
        """Neither a guest's nor a new user's, whatever the policy says about guests' ids."""
        self.add("d1", "desk")
        self.operator.devices.revoke("d1", NOW_S)
        for any_guest in (False, True):
            claim = Claim(None, any_guest, NOW_S)
            with self.assertRaises(IdentityTaken):
                self.relay.add_guest_token(token("t", "desk", guest=True), GINA, claim)
            with self.assertRaises(IdentityTaken):
                self.relay.add_user(user("desk", "Bob"), BOB, token("t", "desk"), claim)
