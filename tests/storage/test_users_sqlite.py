"""Users and tokens in a SQLite file: what :class:`UserStore` promises, and what only a file can do."""

import sqlite3
import time
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import StartError
from clasp_relay.storage import users_file
from clasp_relay.storage.users import (
    ADDRESS_KEPT_S,
    GUEST_PROOF_S,
    MAX_ADDRESSES_PER_USER,
    USER_TOKEN_KEPT_S,
    Claim,
    IdentityTaken,
    KeptToken,
    KnownAddress,
    NameConfusable,
    NameKeys,
    NameTaken,
    SignIn,
    StoreBusy,
    TokenGone,
    TokenRecord,
    User,
    UserChanged,
)
from clasp_relay.storage.users_sqlite import SqliteUsers

NOW_S = 1_700_000_000
DAY_S = 86_400
NO_PROOF = Claim(None, False, NOW_S)


def keys_of(name: str) -> NameKeys:
    """Returns what a name is compared by: here 1 and l look the same, and so do 0 and O."""
    shown = name.replace("1", "l").replace("0", "O")
    return NameKeys(name.casefold(), shown, shown.casefold())


ALICE, BOB, GINA, GUEST = map(keys_of, ("alice", "bob", "gina", "guest"))


def token(name: str, subject: str = "u1", guest: bool = False, created_s: int = NOW_S) -> TokenRecord:
    """Returns a token of a day."""
    return TokenRecord(
        sha256(name.encode()).digest(), subject, f"name of {subject}", guest, "policy", created_s, created_s + DAY_S
    )


def user(user_id: str = "u1", username: str = "Alice", created_s: int = NOW_S) -> User:
    """Returns a user."""
    return User(user_id, username, f"hash of {username}", created_s)


class UserStoreTests(SynchronousTestCase):
    """The promises of ``UserStore``."""

    def make_store(self) -> SqliteUsers:
        """Returns an empty store."""
        return SqliteUsers(None, keys_of)

    def setUp(self) -> None:
        """Makes a store with one user, u1 Alice, who has one token."""
        self.store = self.make_store()
        self.addCleanup(self.store.close)
        self.alice = user()
        self.store.add_user(self.alice, ALICE, token("a"), NO_PROOF)

    def assert_refused(self, error: type[Exception], method: Any, *args: object) -> None:
        """Asserts that a call is refused and that no token was added by it."""
        before = self.store.valid_tokens(0)
        self.assertRaises(error, method, *args)
        self.assertEqual(self.store.valid_tokens(0), before)

    def test_store_finds_a_user_by_exact_name_before_any_other(self) -> None:
        """Spellings come first, in their order; then the name irrespective of case; of several, the oldest."""
        self.assertEqual(self.store.find_user(["Alice"], "-"), self.alice)
        self.assertEqual(self.store.find_user(["no", "Alice"], "-"), self.alice)
        self.assertEqual(self.store.find_user(["ALICE"], "alice"), self.alice)
        self.assertIsNone(self.store.find_user(["ALICE"], "bob"))

    def test_store_finds_a_user_by_id(self) -> None:
        """An id is one user's, or nobody's."""
        self.assertEqual(self.store.user("u1"), self.alice)
        self.assertIsNone(self.store.user("U1"))

    def test_store_refuses_a_name_that_a_user_has(self) -> None:
        """Neither a user nor a guest gets it, whatever the id."""
        self.assert_refused(NameTaken, self.store.check_new_user, "u2", ALICE, NO_PROOF)
        self.assert_refused(NameTaken, self.store.add_user, user("u2", "ALICE"), ALICE, token("b", "u2"), NO_PROOF)
        self.assert_refused(NameTaken, self.store.add_guest_token, token("b", "g1", guest=True), ALICE, NO_PROOF)
        self.assertIsNone(self.store.user("u2"))

    def test_store_refuses_an_id_that_a_user_has(self) -> None:
        """Not even with that user's token, or when everybody may have a guest's id."""
        for claim in (NO_PROOF, Claim(token("a").digest, False, NOW_S), Claim(None, True, NOW_S)):
            with self.subTest(claim=claim):
                self.assert_refused(IdentityTaken, self.store.check_new_user, "u1", BOB, claim)
                self.assert_refused(IdentityTaken, self.store.add_user, user("u1", "Bob"), BOB, token("b", "u1"), claim)
                self.assert_refused(IdentityTaken, self.store.add_guest_token, token("b", "u1", guest=True), BOB, claim)
        self.assertEqual(self.store.user("u1"), self.alice)

    def test_store_gives_a_guests_id_to_who_proves_it(self) -> None:
        """Any token of that guest will do, expired for less than 90 days too; another's, or none, will not."""
        first, last_s = token("g", "g1", guest=True), NOW_S + DAY_S + GUEST_PROOF_S - 1
        self.store.add_guest_token(first, GUEST, NO_PROOF)
        self.store.add_guest_token(token("other", "g2", guest=True), GUEST, NO_PROOF)
        refused = [Claim(None, False, NOW_S), Claim(token("other").digest, False, NOW_S), Claim(None, False, last_s)]
        for claim in refused:
            with self.subTest(claim=claim):
                self.assert_refused(IdentityTaken, self.store.check_new_user, "g1", BOB, claim)
        again = token("g again", "g1", guest=True)
        self.store.add_guest_token(again, GUEST, Claim(first.digest, False, NOW_S))
        self.store.check_new_user("g1", BOB, Claim(again.digest, False, NOW_S))
        self.store.check_new_user("g1", BOB, Claim(first.digest, False, last_s))
        self.store.check_new_user("g1", BOB, Claim(None, True, NOW_S))

    def test_store_frees_a_guests_id_90_days_after_its_last_token_expired(self) -> None:
        """Nobody can prove it then, so nobody has to."""
        self.store.add_guest_token(token("g", "g1", guest=True), GUEST, NO_PROOF)
        self.store.check_new_user("g1", BOB, Claim(None, False, NOW_S + DAY_S + GUEST_PROOF_S))

    def test_store_takes_no_revoked_token_as_proof(self) -> None:
        """Who signed out may have done so because the token was seen; the id stays reserved."""
        record = token("g", "g1", guest=True)
        self.store.add_guest_token(record, GUEST, NO_PROOF)
        self.store.revoke(record.digest, NOW_S)
        self.assert_refused(IdentityTaken, self.store.check_new_user, "g1", BOB, Claim(record.digest, False, NOW_S))

    def test_store_makes_a_user_of_a_guest(self) -> None:
        """The guest keeps its id; from then on no guest gets it, and the guest's tokens are not renewed."""
        guest = token("g", "g1", guest=True)
        self.store.add_guest_token(guest, GUEST, NO_PROOF)
        claim = Claim(guest.digest, False, NOW_S)
        self.store.add_user(user("g1", "Gina"), GINA, token("r", "g1"), claim)
        self.assertEqual(self.store.find_user(["Gina"], "gina"), user("g1", "Gina"))
        self.assert_refused(IdentityTaken, self.store.add_guest_token, token("h", "g1", guest=True), GUEST, claim)
        self.assert_refused(TokenGone, self.store.add_refreshed_token, token("h", "g1", guest=True), guest.digest)

    def test_store_adds_a_users_token_unless_the_password_was_changed(self) -> None:
        """A sign-in that was verified with the old password ends with it."""
        self.store.add_user_token(token("b"), 0)
        self.store.change_password(self.alice, "new hash", token("a").digest, NOW_S)
        self.assert_refused(UserChanged, self.store.add_user_token, token("c"), 0)
        self.store.add_user_token(token("c"), 1)
        self.assert_refused(UserChanged, self.store.add_user_token, token("d", "nobody"), 0)

    def test_store_exchanges_a_users_token_while_it_is_valid(self) -> None:
        """The old one stays; an expired, revoked or unknown one is worth nothing."""
        old = token("a")
        self.store.add_refreshed_token(token("b", created_s=NOW_S + DAY_S - 1), old.digest)
        self.assertEqual(self.store.find_token(old.digest), KeptToken(old, None, NOW_S + DAY_S))
        late = token("c", created_s=NOW_S + DAY_S)
        self.assert_refused(TokenGone, self.store.add_refreshed_token, late, old.digest)
        self.assert_refused(TokenGone, self.store.add_refreshed_token, token("c"), b"unknown")
        self.store.revoke(old.digest, NOW_S)
        self.assert_refused(TokenGone, self.store.add_refreshed_token, token("c"), old.digest)

    def test_store_exchanges_a_guests_token_for_90_days_after_it_expired(self) -> None:
        """So that a guest who comes back is the same one."""
        old = token("g", "g1", guest=True)
        self.store.add_guest_token(old, GUEST, NO_PROOF)
        end_s = NOW_S + DAY_S + GUEST_PROOF_S
        self.store.add_refreshed_token(token("h", "g1", True, end_s - 1), old.digest)
        self.assert_refused(TokenGone, self.store.add_refreshed_token, token("i", "g1", True, end_s), old.digest)

    def test_store_ends_tokens_to_make_room(self) -> None:
        """They let nobody in, and still do for a refresh and as proof of a guest's id."""
        guest = token("g", "g1", guest=True)
        self.store.add_guest_token(guest, GUEST, NO_PROOF)
        self.store.end([guest.digest, token("a").digest, b"unknown"], NOW_S + 10)
        self.assertEqual(self.store.valid_tokens(NOW_S + 10), [])
        ended = guest._replace(expires_s=NOW_S + 10)
        self.assertEqual(self.store.find_token(guest.digest), KeptToken(ended, None, NOW_S + DAY_S))
        last_s = NOW_S + DAY_S + GUEST_PROOF_S - 1
        self.store.check_new_user("g1", BOB, Claim(guest.digest, False, last_s))
        self.store.add_refreshed_token(token("h", "g1", True, last_s), guest.digest)
        self.store.add_refreshed_token(token("b", created_s=NOW_S + DAY_S - 1), token("a").digest)

    def test_store_ends_a_token_when_its_successor_is_used(self) -> None:
        """Not before, never later than it would have ended, and once."""
        old = token("a")
        new = token("b", created_s=NOW_S + 5)._replace(sign_in=old.digest, replaces=old.digest)
        self.store.add_refreshed_token(new, old.digest)
        self.assertEqual(self.store.valid_tokens(NOW_S + 5), [old, new])
        self.store.end_replaced(new.digest, NOW_S + 2 * DAY_S)
        self.assertEqual(self.store.valid_tokens(NOW_S + 5), [old, new._replace(replaces=None)])
        third = token("c", created_s=NOW_S + 6)._replace(sign_in=old.digest, replaces=new.digest)
        self.store.add_refreshed_token(third, new.digest)
        self.store.end_replaced(third.digest, NOW_S + 70)
        self.store.end_replaced(third.digest, NOW_S + 60)
        self.store.end_replaced(b"unknown", NOW_S)
        kept = self.store.find_token(new.digest)
        assert kept is not None
        self.assertEqual((kept.record.expires_s, kept.first_expires_s), (NOW_S + 70, NOW_S + 5 + DAY_S))

    def test_store_moves_tokens_when_the_clock_was_set(self) -> None:
        """All of their times, and no other tokens."""
        self.store.add_user_token(token("b"), 0)
        self.store.redate([token("b").digest, b"unknown"], 1000)
        moved = token("b", created_s=NOW_S + 1000)
        self.assertEqual([each.created_s for each in self.store.sign_ins("u1", NOW_S)], [NOW_S + 1000, NOW_S])
        self.assertEqual(self.store.find_token(moved.digest), KeptToken(moved, None, NOW_S + DAY_S + 1000))
        self.assertEqual(self.store.find_token(token("a").digest), KeptToken(token("a"), None, NOW_S + DAY_S))

    def test_store_revokes_all_tokens_of_a_sign_in(self) -> None:
        """Whichever of them is presented; another sign-in of the same subject goes on."""
        first, other = token("a"), token("other")
        self.store.add_user_token(other, 0)
        second = token("b")._replace(sign_in=first.digest, replaces=first.digest)
        third = token("c")._replace(sign_in=first.digest, replaces=second.digest)
        self.store.add_refreshed_token(second, first.digest)
        self.store.add_refreshed_token(third, second.digest)
        self.store.end([first.digest], NOW_S)
        self.assertEqual(set(self.store.revoke(second.digest, NOW_S)), {second.digest, third.digest})
        self.assertEqual(self.store.valid_tokens(NOW_S), [other])
        self.assert_refused(TokenGone, self.store.add_refreshed_token, token("d"), first.digest)

    def test_store_lists_the_sign_ins_that_are_not_over(self) -> None:
        """With the device's latest name and both times; the latest first, and nobody else's."""
        first = token("a")
        second = token("b", created_s=NOW_S + 10)._replace(sign_in=first.digest, replaces=first.digest, device="Desk")
        other = token("other", created_s=NOW_S + 5)._replace(device="Phone")
        self.store.add_refreshed_token(second, first.digest)
        self.store.add_user_token(other, 0)
        self.store.add_guest_token(token("g", "g1", guest=True), GUEST, NO_PROOF)
        desk, phone = self.store.sign_ins("u1", NOW_S + 20)
        self.assertEqual(desk[:4], (first.digest, "Desk", NOW_S, NOW_S + 10))
        self.assertEqual(set(desk.digests), {first.digest, second.digest})
        self.assertEqual(phone, SignIn(other.digest, "Phone", NOW_S + 5, NOW_S + 5, (other.digest,)))
        self.store.revoke(second.digest, NOW_S + 20)
        self.assertEqual(self.store.sign_ins("u1", NOW_S + 20), [phone])
        self.assertEqual(self.store.sign_ins("u1", NOW_S + 5 + DAY_S), [])

    def test_store_lists_a_sign_in_for_as_long_as_it_can_be_refreshed(self) -> None:
        """A guest's, and one that ended to make room; not a guest's whose id is a user's now."""
        self.store.add_guest_token(token("g", "g1", guest=True), GUEST, NO_PROOF)
        self.store.end([token("a").digest], NOW_S)
        self.assertEqual([each.sign_in for each in self.store.sign_ins("u1", NOW_S)], [token("a").digest])
        last_s = NOW_S + DAY_S + GUEST_PROOF_S - 1
        self.assertEqual([each.sign_in for each in self.store.sign_ins("g1", last_s)], [token("g").digest])
        self.assertEqual(self.store.sign_ins("g1", last_s + 1), [])
        claim = Claim(token("g").digest, False, NOW_S)
        self.store.add_user(user("g1", "Gina"), GINA, token("h", "g1"), claim)
        self.assertEqual(len(self.store.sign_ins("g1", NOW_S)), 2)
        self.store.end([token("g").digest], NOW_S)
        self.assertEqual([each.sign_in for each in self.store.sign_ins("g1", NOW_S)], [token("h").digest])

    def test_store_refuses_a_name_that_looks_like_a_users(self) -> None:
        """To users and guests; a name of which only the folded form looks alike, too."""
        for name in ("A1ice", "a1ICE"):
            with self.subTest(name=name):
                keys = keys_of(name)._replace(folded=name)
                self.assert_refused(NameConfusable, self.store.check_new_user, "u2", keys, NO_PROOF)
                self.assert_refused(
                    NameConfusable, self.store.add_guest_token, token("b", "g1", guest=True), keys, NO_PROOF
                )

    def test_store_remembers_where_users_signed_in(self) -> None:
        """The latest so many of each, for 30 days; guests' addresses are not."""

        def at(number: int) -> bytes:
            return number.to_bytes(2, "big")

        self.store.add_guest_token(token("g", "g1", guest=True), GUEST, NO_PROOF)
        last = MAX_ADDRESSES_PER_USER + 5
        for number in range(last + 1):
            self.store.add_user_token(token(str(number), created_s=NOW_S + number)._replace(made_for=at(number)), 0)
        known = self.store.known_addresses(NOW_S + last, 1000)
        expected = [KnownAddress(at(number), "alice", NOW_S + number) for number in range(6, last + 1)]
        self.assertEqual(known, expected)
        self.assertEqual(self.store.known_addresses(NOW_S + last, 2), expected[-2:])
        self.assertEqual(self.store.known_addresses(NOW_S + last + ADDRESS_KEPT_S - 1, 1000), expected[-1:])
        self.store.purge(NOW_S + last + ADDRESS_KEPT_S - 1, 1000)
        self.assertEqual(self.store.known_addresses(NOW_S + last, 1000), expected[-1:])

    def test_store_revokes_a_token_once(self) -> None:
        """It is kept, with the time; twice, or an unknown one, is refused."""
        record = token("a")
        self.store.revoke(record.digest, NOW_S + 5)
        self.assertEqual(self.store.find_token(record.digest), KeptToken(record, NOW_S + 5, NOW_S + DAY_S))
        self.assert_refused(TokenGone, self.store.revoke, record.digest, NOW_S + 6)
        self.assert_refused(TokenGone, self.store.revoke, b"unknown", NOW_S)
        self.assertIsNone(self.store.find_token(b"unknown"))

    def test_store_changes_a_password_and_revokes_the_other_tokens(self) -> None:
        """The caller's own stays; those of others too; expired ones are revoked, but were not valid."""
        self.store.add_user_token(token("old", created_s=NOW_S - DAY_S), 0)
        self.store.add_user_token(token("b"), 0)
        self.store.add_user(user("u2", "Bob"), BOB, token("bob", "u2"), NO_PROOF)
        ended = self.store.change_password(self.alice, "new hash", token("a").digest, NOW_S)
        self.assertEqual(ended, [token("b").digest])
        self.assertEqual(
            {record.digest for record in self.store.valid_tokens(0)}, {token("a").digest, token("bob").digest}
        )
        self.assertEqual(self.store.user("u1"), User("u1", "Alice", "new hash", NOW_S, 1))

    def test_store_refuses_to_change_what_has_changed_meanwhile(self) -> None:
        """The user is gone or has another password, or the token that was presented was revoked."""
        own = token("a").digest
        self.store.change_password(self.alice, "new hash", own, NOW_S)
        self.assert_refused(UserChanged, self.store.change_password, self.alice, "newer hash", own, NOW_S)
        self.assert_refused(UserChanged, self.store.change_password, user("u9"), "newer hash", own, NOW_S)
        self.store.revoke(own, NOW_S)
        current = self.store.user("u1")
        self.assert_refused(TokenGone, self.store.change_password, current, "newer hash", own, NOW_S)
        self.assertEqual(self.store.user("u1"), current)

    def test_store_replaces_the_hash_that_it_was_told_of_only(self) -> None:
        """It does not count as a change of password, and does not undo one."""
        self.store.replace_hash(self.alice, "stronger hash")
        self.assertEqual(self.store.user("u1"), User("u1", "Alice", "stronger hash", NOW_S, 0))
        self.store.replace_hash(self.alice, "another hash")
        self.store.replace_hash(user("u9"), "another hash")
        self.assertEqual(self.store.user("u1"), User("u1", "Alice", "stronger hash", NOW_S, 0))

    def test_store_lists_valid_and_expired_tokens(self) -> None:
        """Valid: the first to expire first. Expired: the last first, so many. Revoked ones are neither."""
        for name, age_s in (("b", 10), ("c", DAY_S + 10), ("d", DAY_S), ("e", 20)):
            self.store.add_user_token(token(name, created_s=NOW_S - age_s), 0)
        self.store.revoke(token("e").digest, NOW_S)
        self.assertEqual(self.store.valid_tokens(NOW_S), [token("b", created_s=NOW_S - 10), token("a")])
        self.assertEqual(self.store.expired_tokens(NOW_S, 9), [token("d").digest, token("c").digest])
        self.assertEqual(self.store.expired_tokens(NOW_S, 1), [token("d").digest])

    def test_guests_tokens_of_one_address_are_bounded(self) -> None:
        """Ended ones go, the first to end first; valid ones stay, and so do other addresses' and users'."""
        store = SqliteUsers(None, keys_of, 3)
        self.addCleanup(store.close)
        ended = [f"e{number}" for number in range(4)]
        for number, name in enumerate((*ended, "v1", "v2")):
            made = token(name, name, guest=True, created_s=NOW_S + number)._replace(made_for=b"here")
            store.add_guest_token(made, GUEST, NO_PROOF)
        store.add_guest_token(token("x", "x", guest=True)._replace(made_for=b"elsewhere"), GUEST, NO_PROOF)
        store.end([token(name).digest for name in ended], NOW_S + 10)
        self.assertEqual(store.purge(NOW_S + 10, 2), 2)
        self.assertEqual(store.purge(NOW_S + 10, 10), 1)
        self.assertEqual(store.purge(NOW_S + 10, 10), 0)
        kept = [name for name in (*ended, "v1", "v2", "x") if store.find_token(token(name).digest) is not None]
        self.assertEqual(kept, ["e3", "v1", "v2", "x"])

    def test_store_tells_when_guests_were_given_their_last_token(self) -> None:
        """Revoked or over; users are told apart, for unknown ids it is the oldest token."""
        for number, name in enumerate(("g1", "g2", "g3")):
            made = token(name, "gina", guest=True, created_s=NOW_S + number * DAY_S)
            self.store.add_guest_token(made, GINA, Claim(None, True, NOW_S))
        self.store.revoke(token("g3").digest, NOW_S + 3 * DAY_S)
        self.store.add_guest_token(token("h", "hal", guest=True), GUEST, NO_PROOF)
        issued_s = self.store.last_issued(["hal", "gina", "u1", "nobody"], is_first=True)
        self.assertEqual(issued_s, {"gina": NOW_S + 2 * DAY_S, "hal": NOW_S, "u1": None, "nobody": NOW_S})
        empty = SqliteUsers(None, keys_of)
        self.addCleanup(empty.close)
        self.assertEqual(empty.last_issued(["nobody"], is_first=True), {})
        self.assertEqual(self.store.last_issued([], is_first=False), {})

    def test_last_token_of_a_guest_is_spared_until_the_next_round(self) -> None:
        """That one only, and of those who were asked about."""
        for name, subject, age_s in (("g1", "gina", 10), ("g2", "gina", 0), ("h", "hal", 0)):
            made = token(name, subject, guest=True, created_s=NOW_S - age_s)
            self.store.add_guest_token(made, keys_of(subject), Claim(None, True, NOW_S))
        late_s = NOW_S + DAY_S + GUEST_PROOF_S
        self.store.last_issued(["gina"], is_first=True)
        self.store.last_issued(["hal"], is_first=False)
        self.store.purge(late_s, 10)
        kept = [name for name in ("g1", "g2", "h") if self.store.find_token(token(name).digest) is not None]
        self.assertEqual(kept, ["g2", "h"])
        self.store.last_issued(["gina"], is_first=True)
        self.store.purge(late_s, 10)
        kept = [name for name in kept if self.store.find_token(token(name).digest) is not None]
        self.assertEqual(kept, ["g2"])

    def test_store_purges_what_need_not_be_kept(self) -> None:
        """A user's token a week after its expiry, a guest's after 90 days, revoked or not; so many at once."""
        self.store.add_user_token(token("b"), 0)
        self.store.revoke(token("b").digest, NOW_S)
        self.store.add_guest_token(token("g", "g1", guest=True), GUEST, NO_PROOF)
        expiry_s = NOW_S + DAY_S
        self.assertEqual(self.store.purge(expiry_s + USER_TOKEN_KEPT_S - 1, 10), 0)
        self.assertEqual(self.store.purge(expiry_s + USER_TOKEN_KEPT_S, 1), 1)
        self.assertEqual(self.store.purge(expiry_s + USER_TOKEN_KEPT_S, 10), 1)
        self.assertEqual(self.store.purge(expiry_s + GUEST_PROOF_S - 1, 10), 0)
        self.assertIsNotNone(self.store.find_token(token("g").digest))
        self.assertEqual(self.store.purge(expiry_s + GUEST_PROOF_S, 10), 1)
        self.assertIsNone(self.store.find_token(token("g").digest))
        self.assertEqual(self.store.user("u1"), self.alice)


class FileTests(SynchronousTestCase):
    """What only a file can do."""

    def setUp(self) -> None:
        """Makes a file with one user, u1 Alice, who has one token."""
        self.store = self.make_store()
        self.addCleanup(self.store.close)
        self.alice = user()
        self.store.add_user(self.alice, ALICE, token("a"), NO_PROOF)

    def make_store(self) -> SqliteUsers:
        """Returns an empty store."""
        folder = Path(self.mktemp())
        folder.mkdir()
        self.path = folder / "users.db"
        return SqliteUsers(self.path, keys_of)

    def test_store_keeps_everything_over_a_restart(self) -> None:
        """Users, tokens and revocations are there again."""
        self.store.add_user_token(token("b"), 0)
        self.store.revoke(token("b").digest, NOW_S)
        self.store.close()
        self.store = SqliteUsers(self.path, keys_of)
        self.addCleanup(self.store.close)
        self.assertEqual(self.store.user("u1"), self.alice)
        self.assertEqual(self.store.valid_tokens(NOW_S), [token("a")])
        self.assertEqual(self.store.find_token(token("b").digest), KeptToken(token("b"), NOW_S, NOW_S + DAY_S))

    def test_store_does_not_wait_for_another_process_again_and_again(self) -> None:
        """The first call waits; those after it are refused at once, until one gets through."""
        self.patch(users_file, "BUSY_TIMEOUT_S", 0.3)
        self.store.close()
        self.store = SqliteUsers(self.path, keys_of)
        self.addCleanup(self.store.close)
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            times_s = []
            for _ in range(3):
                before_s = time.monotonic()
                error = self.assertRaises(StoreBusy, self.store.add_user_token, token("b"), 0)
                times_s.append(time.monotonic() - before_s)
            self.assertEqual(str(error), str(self.path))
            self.assertEqual(self.store.find_user(["Alice"], "-"), self.alice)
        self.assertGreater(times_s[0], 0.25)
        self.assertLess(max(times_s[1:]), 0.2)
        self.store.add_user_token(token("b"), 0)
        self.assertEqual(self.store._db.execute("PRAGMA busy_timeout").fetchone(), (300,))

    def test_damaged_tokens_are_told_in_one_line(self) -> None:
        """A value of another kind, in whichever column."""
        columns = {
            "digest": "text",
            "subject": b"u1",
            "username": b"Alice",
            "scopes_name": b"policy",
            "created_at": "soon",
            "expires_at": "soon",
            "made_for": "text",
            "device": b"Desk",
        }
        for column, value in columns.items():
            with self.subTest(column=column):
                (before,) = self.store._db.execute(f"SELECT {column} FROM tokens").fetchone()  # noqa: S608 - a constant
                change = f"UPDATE tokens SET {column} = ?"  # noqa: S608 - a constant
                self.store._db.execute(change, (value,))
                error = self.assertRaises(StartError, self.store.valid_tokens, NOW_S)
                self.assertIn(f"{self.path}: the users' database cannot be used (", str(error))
                self.assertNotIn("\n", str(error))
                self.store._db.execute(change, (before,))
                self.assertEqual(self.store.valid_tokens(NOW_S), [token("a")])

    def test_overwritten_pages_are_told_in_one_line(self) -> None:
        """Whichever of them it was, of what a start reads."""
        for number in range(200):
            self.store.add_user_token(token(str(number)), 0)
        query = "SELECT name, rootpage FROM sqlite_schema"
        pages = dict(self.store._db.execute(query).fetchall())
        self.store.close()
        whole = self.path.read_bytes()
        later_s = NOW_S + 2 * DAY_S
        for name, read in (
            ("tokens", lambda: self.store.valid_tokens(NOW_S)),
            ("tokens", lambda: self.store.expired_tokens(later_s, 9)),
            ("sign_in_addresses_by_time", lambda: self.store.known_addresses(NOW_S, 9)),
        ):
            with self.subTest(name=name):
                start = (pages[name] - 1) * 4096
                self.path.write_bytes(whole[:start] + b"\xff" * 4096 + whole[start + 4096 :])
                if name == "tokens":
                    error = self.assertRaises(StartError, SqliteUsers, self.path, keys_of)
                    self.assertIn("cannot be used (database disk image is malformed); if it is damaged,", str(error))
                # Or only once the file is open.
                with mock.patch.object(users_file, "_check_values"):
                    self.store = SqliteUsers(self.path, keys_of)
                error = self.assertRaises(StartError, read)
                self.assertIn("cannot be used (database disk image is malformed); if it is damaged,", str(error))
                self.store.close()

    def test_store_undoes_what_it_could_not_finish(self) -> None:
        """A fault in the middle of a call leaves nothing of it behind, and the store goes on."""
        other = sqlite3.connect(self.path)
        other.execute(
            "CREATE TRIGGER broken BEFORE INSERT ON tokens WHEN NEW.subject = 'u2'"
            " BEGIN SELECT RAISE(ROLLBACK, 'disk full'); END"
        )
        other.close()
        bob = user("u2", "Bob")
        self.assertRaises(sqlite3.Error, self.store.add_user, bob, BOB, token("b", "u2"), NO_PROOF)
        self.assertIsNone(self.store.user("u2"))
        self.store.add_user(user("u3", "Bob"), BOB, token("b", "u3"), NO_PROOF)

    def test_file_holds_no_token_in_clear(self) -> None:
        """What is stored is a digest."""
        self.store.close()
        content = b"".join(path.read_bytes() for path in self.path.parent.iterdir())
        self.assertNotIn(b"cpsk_", content)
        self.assertIn(token("a").digest, content)
