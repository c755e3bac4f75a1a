"""Users, guests and tokens: what the calls of the auth API do."""

from dataclasses import replace
from pathlib import Path
from time import thread_time
from typing import Any, cast
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access import accounts as accounts_module
from clasp_relay.access.accounts import Admission, SessionInfo, TokenInfo, load_tokens
from clasp_relay.access.devices import device_record, make_device
from clasp_relay.access.issuer import Issued
from clasp_relay.access.limits import RateLimits
from clasp_relay.access.names import name_keys
from clasp_relay.access.refusals import BadInput, Busy, Forbidden, Limited, Missing, Refusal, Taken, Unauthenticated
from clasp_relay.access.secret_files import admin_record
from clasp_relay.access.tokens import (
    MAX_TOKENS_PER_SUBJECT,
    EndOfToken,
    TokenExpired,
    TokenRecord,
    TokenUnknown,
    digest_of,
)
from clasp_relay.storage.users import GUEST_PROOF_S, User
from clasp_relay.storage.users_sqlite import SqliteUsers
from tests.access.stack import HOME, START_S, TTL_S, CountingHasher, Stack, SteppedWorkers

PASSWORD = "password"
GENEROUS = RateLimits(1000, 900, 1000, 900)
IDENTITY = "This identity belongs to a registered user or to another guest who is signed in."
NAME = "This name belongs to a registered user. Choose another one."
WRONG = "The username or the password is wrong."


class AccountsTestCase(SynchronousTestCase):
    """Calls, and their results."""

    def setUp(self) -> None:
        """Makes accounts without limits that matter."""
        self.stack = Stack(limits=GENEROUS)

    def register(
        self, username: str, password: str = PASSWORD, user_id: str | None = None, bearer: str | None = None
    ) -> Issued:
        """Registers a user."""
        return self.successResultOf(self.stack.accounts.register(username, password, user_id, bearer, HOME))

    def login(self, username: str, password: str = PASSWORD, address: str = HOME) -> Issued:
        """Signs in."""
        return self.successResultOf(self.stack.accounts.login(username, password, address))

    def guest(self, name: str | None = None, user_id: str | None = None, bearer: str | None = None) -> Issued:
        """Comes in as a guest."""
        return self.successResultOf(self.stack.accounts.guest(name, user_id, bearer, HOME))

    def refresh(self, issued: Issued) -> Issued:
        """Gets a token for a token."""
        return self.successResultOf(self.stack.accounts.refresh(issued.token, HOME))

    def assert_refused(self, call: Deferred[Any], kind: type[Refusal], words: str = "") -> Refusal:
        """Asserts that a call was refused."""
        refusal = self.failureResultOf(call, kind).value
        assert isinstance(refusal, Refusal)
        self.assertIn(words, refusal.sentence)
        return refusal


class WithoutTokenTests(AccountsTestCase):
    """Signed in with a name and a password, without a token."""

    def sign_in(self, password: str = PASSWORD, name: str = "Alice") -> Deferred[TokenRecord]:
        """Signs somebody in."""
        return self.stack.accounts.sign_in(name, password, HOME)

    def test_user_is_signed_in_and_no_token_is_made(self) -> None:
        """All sign-ins of a user are known by the same digest, which no token has; nothing is stored."""
        alice = self.register("Alice")
        stored = self.stack.store.valid_tokens(START_S)
        record = self.successResultOf(self.sign_in())
        self.assertEqual((record.subject, record.guest, record.expires_s), (alice.user_id, False, None))
        self.assertEqual(self.successResultOf(self.sign_in(name="ALICE")), record)
        self.assertTrue(self.stack.tokens.is_valid(record.digest))
        self.assertEqual(self.stack.store.valid_tokens(START_S), stored)
        self.stack.restart()
        self.assertFalse(self.stack.tokens.is_valid(record.digest))

    def test_wrong_name_or_password_is_refused_alike(self) -> None:
        """And counted, as with a login."""
        self.stack = Stack(limits=RateLimits(2, 900, 1000, 900))
        self.register("Alice")
        for password, name in (("wrong", "Alice"), ("password", "Nobody")):
            self.assert_refused(self.sign_in(password, name), Unauthenticated, "username or the password is wrong")
        self.assert_refused(self.sign_in("wrong"), Unauthenticated)
        self.assert_refused(self.sign_in(), Limited)

    def test_password_change_ends_it(self) -> None:
        """Also when it comes while the old password is looked at."""
        alice = self.register("Alice")
        record = self.successResultOf(self.sign_in())
        self.successResultOf(self.stack.accounts.change_password("password", "new password", alice.token, HOME))
        self.assertFalse(self.stack.tokens.is_valid(record.digest))
        self.assertIn((alice.user_id, EndOfToken.REVOKED), self.stack.ends)
        user = self.stack.store.user(alice.user_id)
        assert user is not None
        self.patch(self.stack.store, "user", lambda _: replace(user, password_changes=user.password_changes + 1))
        self.assert_refused(self.sign_in("new password"), Unauthenticated)

    def test_few_are_remembered(self) -> None:
        """Those whose sessions have ended make room; where all are in use, another one has to wait."""
        self.patch(accounts_module, "MAX_WITHOUT_TOKEN", 1)
        for name in ("Alice", "Bob", "Carol"):
            self.register(name)
        first = self.successResultOf(self.sign_in())
        second = self.successResultOf(self.sign_in(name="Bob"))
        self.assertEqual([self.stack.tokens.is_valid(each.digest) for each in (first, second)], [False, True])
        self.stack.in_use.add(second.digest)
        self.assert_refused(self.sign_in(name="Carol"), Busy)
        self.assertTrue(self.stack.tokens.is_valid(second.digest))


class RegisterTests(AccountsTestCase):
    """New users."""

    def test_user_is_registered_and_signed_in(self) -> None:
        """Under the name as it is kept, with an id that the relay makes or the client brings."""
        issued = self.register(" Ａlice ")
        self.assertEqual((issued.user_id, issued.username), (f"u-{START_S}000-00000001", "Alice"))
        self.assertRegex(issued.token, "^cpsk_[0-9a-f]{32}$")
        record = self.stack.tokens.lookup(issued.token)
        self.assertEqual((record.subject, record.guest, record.expires_s), (issued.user_id, False, START_S + TTL_S))
        self.assertEqual(self.register("Bob", user_id="bob-1").user_id, "bob-1")
        self.assertEqual(self.login("Bob").user_id, "bob-1")

    def test_bad_input_is_refused_before_anything_is_done(self) -> None:
        """It does not count as a try, and nothing is hashed."""
        self.stack = Stack(limits=RateLimits(5, 900, 1, 900))
        cases = [
            (("x", "password", None), "A username has 2 to 32 characters."),
            (("Alice", "short", None), "A password has at least 6 characters."),
            (("Alice", "password", "a/b"), "A user_id has 1 to 64 characters"),
        ]
        hashes = self.stack.hasher.hashes
        for arguments, words in cases:
            with self.subTest(words=words):
                self.assert_refused(self.stack.accounts.register(*arguments, None, HOME), BadInput, words)
        self.assertEqual(self.stack.hasher.hashes, hashes)
        self.register("Alice")

    def test_taken_name_is_refused_irrespective_of_case(self) -> None:
        """In words without «identity», and without hashing."""
        self.register("Straße")
        hashes = self.stack.hasher.hashes
        refused = self.stack.accounts.register("STRASSE", "password", "new-id", None, HOME)
        self.assert_refused(refused, Taken, NAME)
        self.assertEqual(self.stack.hasher.hashes, hashes)

    def test_users_id_is_given_to_nobody_else(self) -> None:
        """Not even to the user."""
        alice = self.register("Alice")
        for bearer in (None, alice.token):
            refused = self.stack.accounts.register("Bob", "password", alice.user_id, bearer, HOME)
            self.assert_refused(refused, Taken, IDENTITY)

    def test_guest_becomes_a_user_with_the_guests_id(self) -> None:
        """With a token of that guest; the guest's token stays valid, and no other is given out."""
        guest = self.guest("Gina")
        other = self.guest("Otto")
        for bearer in (None, other.token, "cpsk_" + "f" * 32):
            with self.subTest(bearer=bearer):
                refused = self.stack.accounts.register("Gina", "password", guest.user_id, bearer, HOME)
                self.assert_refused(refused, Taken, IDENTITY)
        user = self.register("Gina", user_id=guest.user_id, bearer=guest.token)
        self.assertEqual(user.user_id, guest.user_id)
        self.stack.tokens.lookup(guest.token)
        self.assert_refused(self.stack.accounts.guest("G", guest.user_id, guest.token, HOME), Taken, IDENTITY)
        self.assert_refused(self.stack.accounts.refresh(guest.token, HOME), Unauthenticated)

    def test_name_that_is_taken_meanwhile_is_refused(self) -> None:
        """Two at the same time: the first one gets it."""
        sql = SteppedWorkers()
        self.stack = Stack(sql=sql)
        first = self.stack.accounts.register("Alice", "password", None, None, HOME)
        second = self.stack.accounts.register("ALICE", "password", None, None, HOME)
        sql.finish()
        self.assertEqual(self.successResultOf(first).username, "Alice")
        self.assert_refused(second, Taken, NAME)
        self.assertEqual(len(self.stack.tokens), 1)

    def test_open_ids_let_anybody_become_a_guest_but_no_user(self) -> None:
        """For clients that present no token."""
        self.stack = Stack(limits=GENEROUS, open_guest_ids=True)
        self.guest("Gina", "g1")
        self.guest("Gina", "g1")
        self.assertEqual(self.register("Gina", user_id="g1").user_id, "g1")
        self.assert_refused(self.stack.accounts.guest("G", "g1", None, HOME), Taken, IDENTITY)


class GuestTests(AccountsTestCase):
    """Guests."""

    def test_guest_gets_a_token_under_a_name(self) -> None:
        """Its own, or one made from the id."""
        issued = self.guest(" Gina ", "g1")
        self.assertEqual((issued.user_id, issued.username), ("g1", "Gina"))
        self.assertTrue(self.stack.tokens.lookup(issued.token).guest)
        made = self.guest()
        self.assertEqual(made.username, f"guest-{made.user_id[-6:]}")

    def test_bad_input_is_refused(self) -> None:
        """A name that is none, an id that is none."""
        self.assert_refused(self.stack.accounts.guest("", None, None, HOME), BadInput, "A name has 1 to 32 characters")
        self.assert_refused(self.stack.accounts.guest("x\x00y", None, None, HOME), BadInput, "invisible")
        self.assert_refused(self.stack.accounts.guest(None, "", None, HOME), BadInput, "user_id")

    def test_guest_cannot_pass_for_a_user(self) -> None:
        """Neither by name, in any case, nor by id."""
        alice = self.register("Alice")
        self.assert_refused(self.stack.accounts.guest("ALICE", None, None, HOME), Taken, NAME)
        self.assert_refused(self.stack.accounts.guest("Al", alice.user_id, None, HOME), Taken, IDENTITY)
        self.assert_refused(self.stack.accounts.guest("Al", alice.user_id, alice.token, HOME), Taken, IDENTITY)

    def test_guest_who_comes_back_proves_it(self) -> None:
        """With any of its tokens, for 90 days after it has expired; then the id is anybody's."""
        first = self.guest("Gina", "g1")
        self.assert_refused(self.stack.accounts.guest("Eve", "g1", None, HOME), Taken, IDENTITY)
        self.stack.clock.advance(TTL_S + GUEST_PROOF_S - 1)
        self.assert_refused(self.stack.accounts.guest("Eve", "g1", None, HOME), Taken, IDENTITY)
        again = self.guest("Gina", "g1", first.token)
        self.assertEqual(again.user_id, "g1")
        self.stack.clock.advance(TTL_S + GUEST_PROOF_S)
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.stack.accounts.purge())), 2)
        self.guest("Eve", "g1")

    def test_guest_who_signed_out_proves_nothing_with_that_token(self) -> None:
        """Somebody else may have it."""
        guest = self.guest("Gina", "g1")
        self.successResultOf(self.stack.accounts.logout(guest.token, HOME))
        self.assert_refused(self.stack.accounts.guest("Gina", "g1", guest.token, HOME), Taken, IDENTITY)


class LoginTests(AccountsTestCase):
    """Signing in."""

    def test_user_signs_in_irrespective_of_case(self) -> None:
        """Each time with a new token; the older ones stay valid."""
        alice = self.register("Alice")
        for spelling in ("Alice", "ALICE", " alice ", "Ａlice"):
            with self.subTest(spelling=spelling):
                issued = self.login(spelling)
                self.assertEqual((issued.user_id, issued.username), (alice.user_id, "Alice"))
                self.assertNotEqual(issued.token, alice.token)
        self.stack.tokens.lookup(alice.token)

    def test_wrong_user_and_wrong_password_get_the_same_answer_for_the_same_work(self) -> None:
        """One hash is verified, and the store is asked as often."""
        self.register("Alice")
        sql = SteppedWorkers()
        self.stack.sql = sql
        self.stack.restart()
        for username in ("Alice", "nobody", "x", "\u200b"):
            with self.subTest(username=username):
                before = self.stack.hasher.verifications
                call = self.stack.accounts.login(username, "wrong", HOME)
                self.assertEqual(len(sql.steps), 1)
                sql.finish()
                self.assert_refused(call, Unauthenticated, WRONG)
                self.assertEqual(self.stack.hasher.verifications - before, 1)

    def test_exact_spelling_comes_first_where_two_differ_in_case(self) -> None:
        """As in files of the Rust relay's; names that nobody may take today sign in, too."""
        hasher = CountingHasher()
        folder = Path(self.mktemp())
        folder.mkdir()
        store = SqliteUsers(folder / "users.db", name_keys)
        self.addCleanup(store.close)
        names = ("Alice", "alice", "x", "a\u200bb", " padded ", "y" * 100)
        for number, name in enumerate(names):
            store._db.execute(
                "INSERT INTO users VALUES (?, ?, ?, ?)", (f"u{number}", name, hasher.hash(f"password {number}"), number)
            )
        store.close()
        store = SqliteUsers(folder / "users.db", name_keys)
        self.addCleanup(store.close)
        self.stack = Stack(store, limits=GENEROUS)
        for number, name in enumerate(names):
            with self.subTest(name=name):
                self.assertEqual(self.login(name, f"password {number}").user_id, f"u{number}")
        self.assertEqual(self.login("ALICE", "password 0").user_id, "u0")
        self.assert_refused(self.stack.accounts.login("ALICE", "password 1", HOME), Unauthenticated)

    def test_weaker_hash_is_replaced_when_its_user_signs_in(self) -> None:
        """A strong one is left alone, and a failed try replaces nothing."""
        self.register("Alice")
        user = self.stack.store.find_user(["Alice"], "alice")
        assert user is not None
        self.login("Alice")
        self.assertEqual(self.stack.store.user(user.user_id), user)
        self.stack.hasher = CountingHasher(time_cost=2)
        self.stack.restart()
        self.assert_refused(self.stack.accounts.login("Alice", "wrong", HOME), Unauthenticated)
        self.assertEqual(self.stack.store.user(user.user_id), user)
        self.login("Alice")
        stronger = self.stack.store.user(user.user_id)
        assert stronger is not None
        self.assertIn("t=2", stronger.password_hash)
        self.login("Alice")
        self.assertEqual(self.stack.store.user(user.user_id), stronger)

    def test_weaker_hash_waits_when_the_relay_is_busy(self) -> None:
        """The user is signed in all the same."""
        self.register("Alice")
        self.stack.hasher = CountingHasher(time_cost=2)
        hashing = SteppedWorkers()
        self.stack.hashing = hashing
        self.stack.restart()
        call = self.stack.accounts.login("Alice", "password", HOME)
        hashing.step()
        self.assertNoResult(call)
        hashing.fail(Busy("Not now.", 1))
        self.assertEqual(self.successResultOf(call).username, "Alice")

    def test_sign_in_verified_before_a_change_of_password_is_void(self) -> None:
        """Who knew the old password only does not stay inside."""
        alice = self.register("Alice")
        hashing = SteppedWorkers()
        self.stack.hashing = hashing
        sql = SteppedWorkers()
        self.stack.sql = sql
        self.stack.restart()
        load_tokens(self.stack.store, self.stack.tokens, self.stack.known, START_S)
        change = self.stack.accounts.change_password("password", "new password", alice.token, HOME)
        login = self.stack.accounts.login("Alice", "password", "203.0.113.9")
        sql.step()
        sql.step()
        hashing.step()
        hashing.step()
        # The change hashes and commits before the sign-in does.
        hashing.step()
        sql.step(1)
        sql.step()
        self.assertIsNone(self.successResultOf(change))
        self.assert_refused(login, Unauthenticated, "The password was changed a moment ago.")
        self.assertEqual(len(self.stack.tokens), 1)


class LimitTests(AccountsTestCase):
    """How often one may try."""

    def setUp(self) -> None:
        """Makes accounts with the default limits, and Alice."""
        self.stack = Stack()
        self.alice = self.register("Alice")

    def fail_login(self, times: int = 1, username: str = "Alice", address: str = HOME) -> None:
        """Fails to sign in."""
        for _ in range(times):
            self.assert_refused(self.stack.accounts.login(username, "wrong", address), Unauthenticated)

    def test_login_is_limited_after_five_failures(self) -> None:
        """The right password is not looked at then; elsewhere it is; after 15 minutes here, too."""
        self.fail_login(3)
        self.fail_login(2, "ALICE ")
        before = self.stack.hasher.verifications
        refusal = self.assert_refused(self.stack.accounts.login("Alice", "password", HOME), Limited)
        self.assertEqual(getattr(refusal, "retry_after_s", None), 900)
        self.assertEqual(self.stack.hasher.verifications, before)
        self.login("Alice", address="203.0.113.9")
        self.stack.clock.advance(900)
        self.login("Alice")

    def test_successful_logins_are_not_limited(self) -> None:
        """Only failures count."""
        for _ in range(30):
            self.login("Alice")

    def test_burst_of_logins_is_limited_as_if_one_came_after_the_other(self) -> None:
        """Those that waited for a thread are looked at again when their turn comes."""
        hashing = SteppedWorkers()
        self.stack.hashing = hashing
        self.stack.restart()
        calls = [self.stack.accounts.login("Alice", "wrong", HOME) for _ in range(8)]
        self.assertEqual(len(hashing.steps), 8)
        before = self.stack.hasher.verifications
        hashing.finish()
        self.assertEqual(self.stack.hasher.verifications - before, 5)
        for call in calls[:5]:
            self.assert_refused(call, Unauthenticated)
        for call in calls[5:]:
            self.assert_refused(call, Limited)

    def test_fault_does_not_count_as_a_failure(self) -> None:
        """Nothing was found out about the password."""

        class Broken(CountingHasher):
            def verify(self, hash: str | bytes, password: str | bytes) -> Any:
                raise OSError("no memory")

        good, self.stack.hasher = self.stack.hasher, Broken()
        self.stack.restart()
        for _ in range(6):
            self.failureResultOf(self.stack.accounts.login("Alice", "wrong", HOME), OSError)
        self.stack.hasher = good
        limiter = self.stack.limiter
        self.assertEqual(
            [len(window) for window in (limiter.by_pair, limiter.by_address, limiter.by_username)], [0] * 3
        )

    def test_change_of_password_is_limited_like_a_login(self) -> None:
        """A stolen token is no way to find out the password."""
        for _ in range(5):
            call = self.stack.accounts.change_password("wrong", "new password", self.alice.token, HOME)
            self.assert_refused(call, Unauthenticated, "The old password is wrong.")
        call = self.stack.accounts.change_password("password", "new password", self.alice.token, HOME)
        self.assert_refused(call, Limited)

    def test_registrations_and_guests_are_limited_per_address(self) -> None:
        """Ten each, taken names included."""
        for _ in range(9):
            self.assert_refused(self.stack.accounts.register("Alice", "password", None, None, HOME), Taken)
        self.assert_refused(self.stack.accounts.register("Bob", "password", None, None, HOME), Limited)
        for _ in range(10):
            self.guest()
        self.assert_refused(self.stack.accounts.guest(None, None, None, HOME), Limited)
        self.successResultOf(self.stack.accounts.guest(None, None, None, "203.0.113.9"))

    def test_limited_address_is_told_so_before_its_input_is_looked_at(self) -> None:
        """Nothing is normalised, looked up or hashed for it."""
        self.stack = Stack(limits=RateLimits(1, 900, 1, 900))
        self.register("Alice")
        self.guest()
        for username in ("Alice", "Bob", "Carol", "Dave"):
            self.assert_refused(self.stack.accounts.login(username, "wrong", "203.0.113.9"), Unauthenticated)
        long = "a" + "\u0301\u0316" * 4000
        accounts = self.stack.accounts
        before_s = thread_time()
        for _ in range(3):
            self.assert_refused(accounts.register(long, "short", "a/b", None, HOME), Limited)
            self.assert_refused(accounts.guest(long, "a/b", None, HOME), Limited)
            self.assert_refused(accounts.login(long, "wrong", "203.0.113.9"), Limited)
        self.assertLess(thread_time() - before_s, 0.05)

    def test_strangers_failures_do_not_lock_a_user_out_where_the_user_is_at_home(self) -> None:
        """Fifty from eleven addresses, and twenty from the user's own network; also after a restart."""
        for number in range(11):
            self.fail_login(5 if number < 10 else 0, address=f"203.0.113.{number}")
        for number in range(4):
            self.fail_login(5, f"nobody {number}")
        self.assert_refused(self.stack.accounts.login("Alice", "password", "198.51.100.1"), Limited)
        self.assert_refused(self.stack.accounts.login("nobody", "password", HOME), Limited)
        self.login("Alice")
        self.fail_login(5)
        self.assert_refused(self.stack.accounts.login("Alice", "password", HOME), Limited)
        self.stack.restart()
        load_tokens(self.stack.store, self.stack.tokens, self.stack.known, self.stack.clock.seconds())
        for number in range(11):
            self.fail_login(5 if number < 10 else 0, address=f"203.0.113.{number}")
        self.login("Alice")

    def test_oldest_sign_in_makes_room_for_the_251st(self) -> None:
        """The one that nobody uses any more, rather than one with a session."""
        self.stack.in_use = {digest_of(self.alice.token)}
        tokens = [self.login("Alice").token for _ in range(MAX_TOKENS_PER_SUBJECT)]
        self.stack.tokens.lookup(self.alice.token)
        self.assertRaises(TokenExpired, self.stack.tokens.lookup, tokens[0])
        self.assertEqual(self.stack.ends, [(self.alice.user_id, EndOfToken.EXPIRED)])
        self.stack.restart()
        load_tokens(self.stack.store, self.stack.tokens, self.stack.known, START_S)
        self.assertEqual(len(self.stack.tokens), MAX_TOKENS_PER_SUBJECT)
        self.assertRaises(TokenExpired, self.stack.tokens.lookup, tokens[0])

    def test_sign_in_stands_where_there_was_no_time_to_make_room(self) -> None:
        """The next one makes it."""
        for _ in range(MAX_TOKENS_PER_SUBJECT - 1):
            self.login("Alice")

        def busy(*_: object) -> None:
            raise Busy("Not now.", 1)

        with patch.object(self.stack.store, "end", busy):
            self.login("Alice")
        self.assertEqual(len(self.stack.tokens), MAX_TOKENS_PER_SUBJECT + 1)
        self.login("Alice")
        self.assertEqual(len(self.stack.tokens), MAX_TOKENS_PER_SUBJECT)

    def test_nobody_ends_a_guests_tokens_by_coming_in_under_its_id(self) -> None:
        """Where everybody may have any guest's id: each address has its own room, and a token is a proof."""
        self.stack = Stack(limits=GENEROUS, open_guest_ids=True)
        guest = self.guest("Gina", "g1")
        for _ in range(MAX_TOKENS_PER_SUBJECT + 5):
            self.successResultOf(self.stack.accounts.guest("Eve", "g1", None, "203.0.113.9"))
        self.stack.tokens.lookup(guest.token)
        self.assertEqual(len(self.stack.tokens), MAX_TOKENS_PER_SUBJECT + 1)
        self.guest("Gina", "g1")
        self.guest("Gina", "g1", guest.token)
        self.assertEqual(len(self.stack.tokens), MAX_TOKENS_PER_SUBJECT)

    def test_guests_of_an_address_make_room_for_one_another(self) -> None:
        """And are still themselves when they come back."""
        self.stack = Stack(limits=GENEROUS, max_per_guest_address=3)
        guests = [self.guest(None, f"g{number}") for number in range(5)]
        self.successResultOf(self.stack.accounts.guest(None, "far", None, "203.0.113.9"))
        self.assertEqual(len(self.stack.tokens), 4)
        self.assertRaises(TokenExpired, self.stack.tokens.lookup, guests[0].token)
        self.assertEqual(self.refresh(guests[0]).user_id, "g0")

    def test_full_relay_is_busy(self) -> None:
        """Nothing more is given out until tokens expire; guests reach the end before users do."""
        self.stack = Stack(limits=GENEROUS, max_tokens=5)
        self.register("Alice")
        for _ in range(3):
            self.guest()
        self.assert_refused(self.stack.accounts.guest(None, None, None, HOME), Busy)
        alice = self.login("Alice")
        for call in (
            self.stack.accounts.login("Alice", "password", HOME),
            self.stack.accounts.register("Bob", "password", None, None, HOME),
            self.stack.accounts.refresh(alice.token, HOME),
        ):
            self.assert_refused(call, Busy, "Too many people are signed in.")


class TokenTests(AccountsTestCase):
    """What the bearer of a token can do with it."""

    def test_logout_ends_the_token_and_no_other(self) -> None:
        """At once, and once."""
        alice = self.register("Alice")
        other = self.login("Alice")
        self.assertIsNone(self.successResultOf(self.stack.accounts.logout(alice.token, HOME)))
        self.assertEqual(self.stack.ends, [(alice.user_id, EndOfToken.REVOKED)])
        self.assertRaises(TokenUnknown, self.stack.tokens.lookup, alice.token)
        self.stack.tokens.lookup(other.token)
        self.assert_refused(self.stack.accounts.logout(alice.token, HOME), Unauthenticated, "not valid")

    def test_sessions_are_the_bearers_sign_ins(self) -> None:
        """With what each device calls itself; a refresh belongs to its sign-in and may name it anew."""
        accounts = self.stack.accounts
        alice = self.successResultOf(accounts.register("Alice", "password", None, None, HOME, None, " Desk "))
        self.stack.clock.advance(100)
        phone = self.successResultOf(accounts.login("Alice", "password", HOME, "Phone"))
        self.guest("Gina")
        self.stack.clock.advance(100)
        renamed = self.successResultOf(accounts.refresh(alice.token, HOME, "Office"))
        self.refresh(renamed)
        office, other = self.successResultOf(accounts.sessions(renamed.token))
        self.assertRegex(office.id, "^[0-9a-f]{16}$")
        self.assertEqual(office, SessionInfo(office.id, "Office", START_S, START_S + 200, True))
        self.assertEqual(other, SessionInfo(other.id, "Phone", START_S + 100, START_S + 100, False))
        self.stack.clock.advance(50)
        self.stack.in_use.add(digest_of(phone.token))
        seen = [each.last_seen for each in self.successResultOf(accounts.sessions(phone.token))]
        self.assertEqual(seen, [START_S + 200, START_S + 250])

    def test_session_is_ended_by_its_user_only(self) -> None:
        """With all of its tokens, once; the one that asks may end its own."""
        alice, phone, bob = self.register("Alice"), self.login("Alice"), self.register("Bob")
        renewed = self.refresh(phone)
        accounts = self.stack.accounts
        mine, other = (
            next(each.id for each in self.successResultOf(accounts.sessions(bearer)) if each.current)
            for bearer in (alice.token, phone.token)
        )
        for bearer, wanted in ((bob, mine), (alice, "0" * 16), (alice, "")):
            self.assert_refused(accounts.end_session(wanted, bearer.token, HOME), Missing, "no such session")
        self.assertIsNone(self.successResultOf(accounts.end_session(other, alice.token, HOME)))
        for ended in (phone, renewed):
            self.assertRaises(TokenUnknown, self.stack.tokens.lookup, ended.token)
        self.assert_refused(accounts.end_session(other, alice.token, HOME), Missing)
        self.assertIsNone(self.successResultOf(accounts.end_session(mine, alice.token, HOME)))
        self.assertRaises(TokenUnknown, self.stack.tokens.lookup, alice.token)

    def test_who_takes_a_guests_id_does_not_end_that_guests_sessions(self) -> None:
        """Where guest ids are open anybody may, without a token: that proves nothing, and shows nothing."""
        self.stack = Stack(limits=GENEROUS, open_guest_ids=True)
        accounts, gina = self.stack.accounts, self.guest("Gina", "g1")
        self.stack.clock.advance(1)
        stranger = self.guest("Gina", "g1")
        (mine,) = self.successResultOf(accounts.sessions(gina.token))
        (other,) = self.successResultOf(accounts.sessions(stranger.token))
        self.assertNotEqual(mine.id, other.id)
        self.assert_refused(accounts.end_session(mine.id, stranger.token, HOME), Missing)
        self.assertEqual(self.stack.tokens.lookup(gina.token).subject, "g1")
        self.assertIsNone(self.successResultOf(accounts.end_session(other.id, stranger.token, HOME)))

    def test_long_or_invisible_device_names_are_refused(self) -> None:
        """Whichever call brings them."""
        accounts, alice = self.stack.accounts, self.register("Alice")
        for name, words in (("x" * 65, "at most 64"), ("a\u202eb", "control or invisible")):
            for call in (
                accounts.register("Bob", "password", None, None, HOME, None, name),
                accounts.login("Alice", "password", HOME, name),
                accounts.guest(None, None, None, HOME, name),
                accounts.refresh(alice.token, HOME, name),
            ):
                self.assert_refused(call, BadInput, words)

    def test_token_ends_only_when_that_is_committed(self) -> None:
        """And an answer says so only then, too. Who hangs up meanwhile does not stop it."""
        alice = self.register("Alice")
        sql = SteppedWorkers()
        self.stack.sql = sql
        self.stack.restart()
        load_tokens(self.stack.store, self.stack.tokens, self.stack.known, START_S)
        call = self.stack.accounts.logout(alice.token, HOME)
        call.addErrback(lambda _: None)
        self.stack.tokens.lookup(alice.token)
        call.cancel()
        sql.step()
        self.assertRaises(TokenUnknown, self.stack.tokens.lookup, alice.token)

    def test_calls_of_a_bearer_need_a_valid_token(self) -> None:
        """None, an unknown and an expired one are each refused in their own words."""
        expired = self.register("Alice").token
        self.stack.clock.advance(TTL_S)
        accounts = self.stack.accounts
        for bearer, words in ((None, "Sign in first"), ("cpsk_x", "not valid"), (expired, "has expired")):
            with self.subTest(words=words):
                self.assert_refused(accounts.logout(bearer, HOME), Unauthenticated, words)
                self.assert_refused(accounts.refresh(bearer, HOME), Unauthenticated, words)
                self.assert_refused(accounts.sessions(bearer), Unauthenticated, words)
                self.assert_refused(accounts.end_session("x", bearer, HOME), Unauthenticated, words)
                self.assert_refused(
                    accounts.change_password("password", "new password", bearer, HOME), Unauthenticated, words
                )
                self.assertIn(words, self.assertRaises(Unauthenticated, accounts.me, bearer).sentence)

    def test_refresh_replaces_the_token(self) -> None:
        """The old one ends a minute after the new one is first used, over a restart too; a lost one ends nothing."""
        alice = self.register("Alice")
        self.stack.clock.advance(100)
        lost = self.refresh(alice)
        new = self.refresh(alice)
        self.assertEqual((new.user_id, new.username), (alice.user_id, "Alice"))
        self.assertEqual(self.stack.tokens.lookup(alice.token).expires_s, START_S + TTL_S)
        self.assertEqual(self.stack.accounts.me(new.token).expires_at, START_S + TTL_S + 100)
        self.assertEqual(self.stack.tokens.lookup(alice.token).expires_s, START_S + 160)
        self.stack.restart()
        load_tokens(self.stack.store, self.stack.tokens, self.stack.known, self.stack.clock.seconds())
        self.assertEqual(self.stack.tokens.lookup(alice.token).expires_s, START_S + 160)
        self.stack.clock.pump([1.0] * 61)
        self.assertEqual(self.stack.ends, [(alice.user_id, EndOfToken.EXPIRED)])
        for token in (new.token, lost.token):
            self.stack.tokens.lookup(token)
        self.assertEqual(self.refresh(alice).user_id, alice.user_id, "another tab learns of it late")

    def test_refreshing_a_refreshed_token_is_its_first_use(self) -> None:
        """Who presents it has got it."""
        alice = self.register("Alice")
        second = self.refresh(alice)
        self.refresh(second)
        self.assertEqual(self.stack.tokens.lookup(alice.token).expires_s, START_S + 60)
        self.assertEqual(self.stack.tokens.lookup(second.token).expires_s, START_S + TTL_S)

    def test_fault_while_a_first_use_is_written_is_logged(self) -> None:
        """Nobody waits for it; a busy relay is no fault."""
        alice = self.register("Alice")
        for error, faults in ((Busy("Not now.", 1), 0), (OSError("disk full"), 1)):
            new = self.refresh(alice)

            def broken(*_: object, error: Exception = error) -> None:
                raise error

            self.patch(self.stack.store, "end_replaced", broken)
            self.stack.tokens.lookup(new.token)
            self.assertEqual(len(self.flushLoggedErrors(OSError)), faults)

    def test_refreshing_for_ever_takes_no_more_than_one_subjects_places(self) -> None:
        """Whether the new tokens are used or not; everybody else signs in."""
        self.stack = Stack(limits=GENEROUS, max_tokens=400)
        guest = self.guest("Gina", "g1")
        for _ in range(500):
            guest = self.refresh(guest)
        for _ in range(500):
            self.refresh(guest)
        self.assertLessEqual(len(self.stack.tokens), MAX_TOKENS_PER_SUBJECT)
        self.guest("Otto")

    def test_logout_ends_the_tokens_that_it_was_refreshed_from_and_to(self) -> None:
        """They are one sign-in; another sign-in of the user goes on."""
        alice = self.register("Alice")
        other = self.login("Alice")
        new = self.refresh(self.refresh(alice))
        self.successResultOf(self.stack.accounts.logout(alice.token, HOME))
        self.assertEqual(self.stack.ends, [(alice.user_id, EndOfToken.REVOKED)] * 3)
        self.assert_refused(self.stack.accounts.refresh(new.token, HOME), Unauthenticated, "not valid")
        self.stack.tokens.lookup(other.token)

    def test_refresh_takes_a_guests_expired_token(self) -> None:
        """For 90 days."""
        guest = self.guest("Gina", "g1")
        self.stack.clock.advance(TTL_S + GUEST_PROOF_S - 1)
        new = self.successResultOf(self.stack.accounts.refresh(guest.token, HOME))
        self.assertEqual((new.user_id, new.username), ("g1", "Gina"))
        self.assertTrue(self.stack.tokens.lookup(new.token).guest)
        self.stack.clock.advance(1)
        self.assert_refused(self.stack.accounts.refresh(guest.token, HOME), Unauthenticated, "expired")

    def test_refresh_takes_no_revoked_token(self) -> None:
        """A guest's neither."""
        guest = self.guest("Gina", "g1")
        self.successResultOf(self.stack.accounts.logout(guest.token, HOME))
        self.assert_refused(self.stack.accounts.refresh(guest.token, HOME), Unauthenticated, "not valid")

    def test_change_of_password_revokes_every_other_token(self) -> None:
        """The new password signs in, the old one does not; other users are not touched."""
        alice, other, bob = self.register("Alice"), self.login("Alice"), self.register("Bob")
        self.successResultOf(self.stack.accounts.change_password("password", "new password", alice.token, HOME))
        self.assertEqual(self.stack.ends, [(alice.user_id, EndOfToken.REVOKED)])
        self.assertRaises(TokenUnknown, self.stack.tokens.lookup, other.token)
        for token in (alice.token, bob.token):
            self.stack.tokens.lookup(token)
        self.login("Alice", "new password")
        self.assert_refused(self.stack.accounts.login("Alice", "password", HOME), Unauthenticated)

    def test_change_of_password_is_for_users(self) -> None:
        """A guest has none; the new one must be good; the old one must be right."""
        guest, alice = self.guest(), self.register("Alice")
        change = self.stack.accounts.change_password
        self.assert_refused(change("password", "new password", guest.token, HOME), BadInput, "Only registered users")
        self.assert_refused(change("password", "short", alice.token, HOME), BadInput, "at least 6")
        self.assert_refused(change("wrong", "new password", alice.token, HOME), Unauthenticated, "old password")

    def test_me_tells_what_the_token_stands_for(self) -> None:
        """Scopes and expiry included."""
        alice = self.register("Alice", user_id="a1")
        info = TokenInfo("a1", "Alice", False, ("read:/a1/**", "write:/**"), START_S + TTL_S)
        self.assertEqual(self.stack.accounts.me(alice.token), info)

    def test_admin_token_is_good_for_me_only(self) -> None:
        """It is not the API's to end, to renew or to change."""
        token = "cpsk_" + "a" * 32
        self.stack.tokens.add(admin_record(token, START_S))
        info = TokenInfo("clasp.admin", "admin", False, ("admin:/**",), None)
        self.assertEqual(self.stack.accounts.me(token), info)
        self.stack.clock.advance(10 * 365 * 86_400)
        self.assertEqual(self.stack.accounts.me(token), info)
        self.assert_refused(self.stack.accounts.logout(token, HOME), Unauthenticated)
        self.assert_refused(self.stack.accounts.refresh(token, HOME), Unauthenticated)
        self.assert_refused(self.stack.accounts.change_password("x", "new password", token, HOME), BadInput)

    def test_users_row_that_is_gone_ends_the_change_of_a_password(self) -> None:
        """An operator may remove users from the file."""
        token = self.register("Alice", user_id="a1").token
        self.stack.store._db.execute("DELETE FROM users WHERE id = 'a1'")
        self.assert_refused(
            self.stack.accounts.change_password("password", "new password", token, HOME), Unauthenticated
        )


class RestartTests(AccountsTestCase):
    """What a new process finds."""

    def restart(self) -> None:
        """Restarts the relay."""
        self.stack.restart()
        load_tokens(self.stack.store, self.stack.tokens, self.stack.known, self.stack.clock.seconds())

    def test_restart_signs_nobody_out(self) -> None:
        """Valid tokens are valid, revoked ones are not, expired ones are known as such."""
        self.stack.clock.advance(-10)
        expired = self.register("Early")
        self.stack.clock.advance(10)
        alice, revoked = self.register("Alice"), self.login("Early")
        self.successResultOf(self.stack.accounts.logout(revoked.token, HOME))
        self.stack.clock.advance(TTL_S - 5)
        self.restart()
        self.assertEqual(self.stack.tokens.lookup(alice.token).subject, alice.user_id)
        for token, words in ((expired.token, "has expired"), (revoked.token, "not valid")):
            refused = self.stack.accounts.logout(token, HOME)
            self.assert_refused(refused, Unauthenticated, words)

    def test_restart_keeps_the_lives_of_tokens(self) -> None:
        """They end when they would have ended."""
        alice = self.register("Alice")
        self.stack.clock.advance(TTL_S - 1)
        self.restart()
        self.stack.tokens.lookup(alice.token)
        self.stack.clock.advance(1)
        self.assertEqual(self.stack.ends, [(alice.user_id, EndOfToken.EXPIRED)])

    def test_purge_removes_everything_old_in_pieces(self) -> None:
        """However much there is."""
        self.stack = Stack(limits=RateLimits(5, 900, 2000, 900), max_tokens=2000)
        for _ in range(1500):
            self.guest()
        self.stack.clock.advance(TTL_S + GUEST_PROOF_S)
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.stack.accounts.purge())), 1500)


class LogTests(AccountsTestCase):
    """What is written about it."""

    def record_events(self) -> list[LogEvent]:
        """Returns a list that all log events of this test will be in."""
        events: list[LogEvent] = []
        observer = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        return events

    def test_every_call_leaves_one_line_without_secrets(self) -> None:
        """Event, address, outcome, and the user's id where it is known by then; nothing that was typed."""
        events = self.record_events()
        self.stack = Stack()
        alice = self.register("Alice", "password 1", "a1")
        self.guest("Gina", "g1")
        for _ in range(6):
            self.stack.accounts.login("my secret", "password 2", HOME).addErrback(lambda _: None)
        self.stack.accounts.register("Alice", "password 3", None, None, HOME).addErrback(lambda _: None)
        new = self.successResultOf(self.stack.accounts.refresh(alice.token, HOME))
        self.successResultOf(self.stack.accounts.change_password("password 1", "password 4", new.token, HOME))
        self.successResultOf(self.stack.accounts.logout(new.token, HOME))
        ours = [event for event in events if event["log_namespace"] == "clasp_relay.auth"]
        self.assertEqual(
            [(event["call"], event["outcome"], event["user_id"]) for event in ours],
            [
                ("register", "ok", "a1"),
                ("guest", "ok", "g1"),
                *[("login", "Unauthenticated", "")] * 5,
                ("login", "Limited", ""),
                ("register", "Taken", ""),
                ("refresh", "ok", "a1"),
                ("password", "ok", ""),
                ("logout", "ok", ""),
            ],
        )
        self.assertEqual({(event["address"], event["log_level"].name) for event in ours}, {(HOME, "info")})
        typed = [f"password {number}" for number in (1, 2, 3, 4)]
        for secret in (*typed, "my secret", "cpsk_", alice.token, new.token, digest_of(new.token).hex()):
            self.assertNotIn(secret, repr(ours))

    def test_fault_is_an_error_in_the_log(self) -> None:
        """And goes on to whoever called."""
        events = self.record_events()

        def broken(*_: object) -> User:
            raise OSError("disk full")

        self.patch(self.stack.store, "find_user", broken)
        self.failureResultOf(self.stack.accounts.login("Alice", "password", HOME), OSError)
        self.assertEqual([event["outcome"] for event in events if "outcome" in event], ["error"])


class AdmissionTests(SynchronousTestCase):
    """Relays where not everybody may sign in."""

    def stack(self, registration: str = "open", store: SqliteUsers | None = None) -> Stack:
        """Returns accounts with that admission."""
        return Stack(store, admission=Admission(registration))

    def test_closed_registration_refuses_everybody(self) -> None:
        """With a sentence, before anything is counted or hashed; those who have an account sign in."""
        stack = self.stack()
        self.successResultOf(stack.accounts.register("Alice", "password", None, None, HOME))
        closed = self.stack("closed", store=stack.store)
        hashes = closed.hasher.hashes
        failure = self.failureResultOf(closed.accounts.register("Bob", "password", None, None, HOME, "x"), Forbidden)
        self.assertIn("Nobody can register here", str(failure.value))
        self.assertEqual(closed.hasher.hashes, hashes)
        self.successResultOf(closed.accounts.login("Alice", "password", HOME))

    def test_invite_is_good_for_so_many_users_until_it_expires(self) -> None:
        """A use is taken with the registration that succeeds, and with no other."""
        stack = self.stack("invite")
        register, hashes = stack.accounts.register, stack.hasher.hashes
        stack.store.add_invite(digest_of("two"), START_S, START_S + 60, 2)
        stack.store.add_invite(digest_of("late"), START_S, START_S + 60, 1)
        for invite in (None, "", "wrong"):
            with self.subTest(invite):
                self.failureResultOf(register("Alice", "password", None, None, HOME, invite), Forbidden)
        self.assertEqual(stack.hasher.hashes, hashes)
        self.successResultOf(register("Alice", "password", None, None, HOME, "two"))
        self.failureResultOf(register("Alice", "password", None, None, HOME, "two"), Taken)
        self.successResultOf(register("Bob", "password", None, None, HOME, "two"))
        self.failureResultOf(register("Carol", "password", None, None, HOME, "two"), Forbidden)
        stack.clock.advance(61)
        self.failureResultOf(register("Carol", "password", None, None, HOME, "late"), Forbidden)

    def test_without_guests_nobody_becomes_or_stays_one(self) -> None:
        """A guest's token is not refreshed; users' are."""
        stack = self.stack()
        guest = self.successResultOf(stack.accounts.guest(None, "gina", None, HOME))
        stack.admission = Admission(guests=False)
        stack.restart()
        self.failureResultOf(stack.accounts.guest(None, None, None, HOME), Forbidden)
        self.failureResultOf(stack.accounts.refresh(guest.token, HOME), Forbidden)
        user = self.successResultOf(stack.accounts.register("Alice", "password", "alice", None, HOME))
        self.successResultOf(stack.accounts.refresh(user.token, HOME))

    def test_device_token_is_not_signed_out_refreshed_or_given_a_password(self) -> None:
        """It is the operator's."""
        stack = self.stack()
        token, device = make_device(stack.store.devices, ("read:/a",), "alice", "", START_S, None, stack.random_hex)
        stack.tokens.set_devices([device_record(device)])
        for call in (
            stack.accounts.logout(token, HOME),
            stack.accounts.refresh(token, HOME),
            stack.accounts.change_password("old password", "new password", token, HOME),
        ):
            self.assertIn("device token", str(self.failureResultOf(call, Forbidden).value))
        self.assertEqual(stack.accounts.me(token).username, "alice")
