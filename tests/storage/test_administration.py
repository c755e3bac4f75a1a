"""Tests of clasp_relay.storage.administration: people as administrators see them, and what they decide."""

from functools import partial

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.storage.administration import Person, PersonFacts
from clasp_relay.storage.audit import AuditEntry
from clasp_relay.storage.devices import DeviceToken
from clasp_relay.storage.users import (
    GUEST_PROOF_S,
    Disabled,
    IdentityTaken,
    NameConfusable,
    NameTaken,
    PersonGone,
    ResetGone,
    UserChanged,
)
from clasp_relay.storage.users_sqlite import SqliteUsers
from tests.storage.test_users_sqlite import ALICE, BOB, DAY_S, GUEST, NO_PROOF, NOW_S, keys_of, token, user

CHANGE = AuditEntry(NOW_S, "admin.test", actor="root")


class AdminStoreTests(SynchronousTestCase):
    """Two users, u1 Alice and u2 Bob, and the guests g1 and g2."""

    def setUp(self) -> None:
        """Makes the store."""
        self.store = SqliteUsers(None, keys_of)
        self.addCleanup(self.store.close)
        self.admin = self.store.administration
        self.store.add_user(user(), ALICE, token("a"), NO_PROOF)
        self.store.add_user(user("u2", "Bob"), BOB, token("b", "u2"), NO_PROOF)
        for guest_id in ("g1", "g2"):
            self.store.add_guest_token(token(guest_id, guest_id, guest=True), GUEST, NO_PROOF)

    def entries(self) -> list[str]:
        """Returns the actions in the audit log."""
        return [row.entry.action for row in self.store.audit.after(0, 100)]

    def assert_refused(self, error: type[Exception], *call: object) -> None:
        """Asserts that a change is refused, and not in the audit log."""
        method, *args = call
        assert callable(method)
        before = self.entries()
        self.assertRaises(error, method, *args)
        self.assertEqual(self.entries(), before)

    def test_people_are_listed_in_pages(self) -> None:
        """Users by name, guests by id; expired guests are not, and who has become a user is no guest."""
        alice = Person("u1", "Alice", False, NOW_S, False, False, "alice")
        self.assertEqual(self.admin.users(("", ""), 1), [alice])
        self.assertEqual([each.user_id for each in self.admin.users(("alice", "u1"), 5)], ["u2"])
        g1 = Person("g1", "name of g1", True, NOW_S, False, False, "g1")
        self.assertEqual(self.admin.guests("", 1, NOW_S), [g1])
        self.assertEqual([each.user_id for each in self.admin.guests("g1", 5, NOW_S)], ["g2"])
        self.assertEqual(self.admin.guests("", 5, NOW_S + DAY_S + GUEST_PROOF_S), [])
        self.assertEqual(self.admin.person("g1", NOW_S), g1)
        self.assertEqual(self.admin.person("u1", NOW_S), alice)
        self.assertRaises(PersonGone, self.admin.person, "u9", NOW_S)
        self.assertEqual(self.admin.counts(), (2, 0))

    def test_facts_are_what_tokens_tell(self) -> None:
        """Of those that are not over; a guest's token counts while it is proof."""
        later = NOW_S + DAY_S
        found = self.admin.facts(["u1", "g1", "u9"], later)
        self.assertEqual(found, {"u1": PersonFacts(0, NOW_S), "g1": PersonFacts(1, NOW_S)})

    def test_user_is_found_by_name_or_id(self) -> None:
        """As the operator types it."""
        for name in ("Alice", "ALICE", "u1"):
            self.assertEqual(self.admin.find(name, name.casefold()).user_id, "u1")
        self.assertRaises(PersonGone, self.admin.find, "Carol", "carol")

    def test_administrators_are_granted_and_withdrawn(self) -> None:
        """Granting twice is harmless."""
        self.admin.grant("u1", CHANGE)
        self.admin.grant("u1", CHANGE)
        self.assertEqual([(each.user_id, each.is_admin) for each in self.admin.administrators()], [("u1", True)])
        self.assertEqual(self.admin.decided().administrators, {"u1"})
        self.admin.withdraw("u1", CHANGE)
        self.assertEqual(self.admin.decided().administrators, frozenset())
        self.assert_refused(PersonGone, self.admin.withdraw, "u1", CHANGE)
        self.assertEqual(self.entries(), ["admin.test"] * 3)

    def test_disabled_person_gets_no_token_until_enabled(self) -> None:
        """Neither by signing in, nor by a refresh, nor as a guest whose id everybody may have; devices neither."""
        self.store.devices.add(DeviceToken("d1", b"d" * 32, "u1", "", ("read:/**",), NOW_S, None), is_own_subject=False)
        for subject in ("u1", "g1"):
            self.admin.disable(subject, CHANGE)
        self.assertEqual([each.subject for each in self.store.valid_tokens(NOW_S)].count("u1"), 0)
        self.assertEqual(self.store.devices.all(), [])
        self.assertRaises(Disabled, self.store.add_user_token, token("a2"), 0)
        self.assertRaises(Disabled, self.store.add_refreshed_token, token("a2"), token("a").digest)
        anybody = NO_PROOF._replace(any_guest=True)
        self.assertRaises(Disabled, self.store.add_guest_token, token("g", "g1", guest=True), GUEST, anybody)
        self.assertEqual(self.admin.decided().disabled, {"u1", "g1"})
        self.assertTrue(self.admin.person("g1", NOW_S).is_disabled)
        found = self.store.find_user(["Alice"], "alice")
        self.assertTrue(found is not None and found.is_disabled)
        self.admin.enable("u1", CHANGE)
        self.store.add_user_token(token("a2"), 0)
        self.assertEqual(len(self.store.devices.all()), 1)
        self.assert_refused(PersonGone, self.admin.enable, "u1", CHANGE)
        self.assert_refused(PersonGone, self.admin.disable, "u9", CHANGE)

    def test_user_is_renamed(self) -> None:
        """Unless another one has the name, or one that looks the same; the own one may change its case."""
        self.assert_refused(NameTaken, self.admin.rename, "u1", "BOB", keys_of("BOB"), CHANGE)
        self.assert_refused(NameConfusable, self.admin.rename, "u1", "B0B", keys_of("B0B"), CHANGE)
        self.assert_refused(PersonGone, self.admin.rename, "g1", "Gina", keys_of("Gina"), CHANGE)
        self.admin.rename("u1", "ALICE", keys_of("ALICE"), CHANGE)
        self.admin.rename("u1", "Carol", keys_of("Carol"), CHANGE)
        self.assertIsNone(self.store.find_user(["Alice"], "alice"))
        self.assertEqual(self.admin.person("u1", NOW_S).username, "Carol")
        self.assertEqual({each.username for each in self.store.valid_tokens(NOW_S) if each.subject == "u1"}, {"Carol"})

    def test_deleted_person_is_gone_and_nobody_gets_the_id(self) -> None:
        """The name is free again."""
        self.admin.grant("u1", CHANGE)
        for subject in ("u1", "g1"):
            self.admin.delete(subject, CHANGE, erases_messages=subject == "u1")
            self.assertRaises(IdentityTaken, self.store.check_new_user, subject, ALICE, NO_PROOF)
            self.assert_refused(PersonGone, partial(self.admin.delete, erases_messages=True), subject, CHANGE)
        self.assertEqual(self.admin.deletions(), [("g1", False), ("u1", True)])
        self.admin.deleted("g1", CHANGE)
        self.assertEqual(self.admin.deletions(), [("u1", True)])
        self.assertEqual({each.subject for each in self.store.valid_tokens(NOW_S)}, {"u2", "g2"})
        self.assertEqual(self.admin.decided().administrators, frozenset())
        self.assertRaises(UserChanged, self.store.add_user_token, token("a2"), 0)
        self.store.check_new_user("u3", ALICE, NO_PROOF)

    def test_link_sets_a_password_once(self) -> None:
        """The one before it is void; all tokens are revoked, and who verified the old password comes too late."""
        self.admin.add_reset("u1", b"1", NOW_S + 10, CHANGE)
        self.admin.add_reset("u1", b"2", NOW_S + 10, CHANGE)
        self.assertRaises(ResetGone, self.admin.reset_of, b"1", NOW_S)
        self.assertRaises(ResetGone, self.admin.use_reset, b"2", "new", NOW_S + 10)
        self.assertEqual(self.admin.reset_of(b"2", NOW_S).username, "Alice")
        self.assertEqual(self.admin.use_reset(b"2", "new hash", NOW_S), "u1")
        changed = self.store.user("u1")
        assert changed is not None
        self.assertEqual((changed.password_hash, changed.password_changes), ("new hash", 1))
        self.assertRaises(UserChanged, self.store.add_user_token, token("a2"), 0)
        self.assertNotIn("u1", {each.subject for each in self.store.valid_tokens(NOW_S)})
        self.assertRaises(ResetGone, self.admin.use_reset, b"2", "newer", NOW_S)
        self.assert_refused(PersonGone, self.admin.add_reset, "g1", b"3", NOW_S + 10, CHANGE)

    def test_choices_are_kept_until_they_are_taken_back(self) -> None:
        """One by one."""
        self.admin.choose({"registration": "closed", "guests": "off"}, CHANGE)
        self.admin.choose({"registration": "open"}, CHANGE)
        self.assertEqual(self.admin.decided().choices, {"registration": "open", "guests": "off"})
        self.admin.choose({"registration": None, "guests": None}, CHANGE)
        self.assertEqual(self.admin.decided().choices, {})
