"""Which browsers are known, and that what they say is checked and bounded."""

from __future__ import annotations

from collections.abc import Coroutine
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.names import name_keys
from clasp_relay.access.refusals import BadInput, Busy, Unauthenticated
from clasp_relay.access.tokens import POLICY_SCOPES, TokenRecord
from clasp_relay.push import subscriptions
from clasp_relay.push.destinations import Places
from clasp_relay.push.subscriptions import MAX_PER_SUBJECT, Subscriptions
from clasp_relay.storage.users import Claim
from clasp_relay.storage.users_sqlite import SqliteUsers
from tests.access.stack import InlineWorkers, SteppedWorkers
from tests.push.push_service import AUTH, Browser, base64url

T = TypeVar("T")
NOW_S = 1_700_000_000


def result_of(work: Coroutine[Deferred[Any], Any, T] | Deferred[T]) -> T:
    """Returns what something comes to that waits for nothing, or raises it."""
    results: list[Any] = []
    (work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)).addBoth(results.append)
    if isinstance(results[0], Failure):
        results[0].raiseException()
    found: T = results[0]
    return found


def signed_in(subject: str, sign_in: bytes = b"", digest: bytes = b"d") -> TokenRecord:
    """Returns a token."""
    return TokenRecord(digest, subject, subject, True, POLICY_SCOPES, NOW_S, NOW_S + 60, sign_in=sign_in)


def _first(found: Deferred[list[str]], *_: object) -> Deferred[list[str]]:
    """Returns what a host is found to be, later."""
    return found


class SubscriptionTests(SynchronousTestCase):
    """Browsers of ann and bob."""

    def setUp(self) -> None:
        """A store in memory."""
        self.addresses = ["8.8.8.8"]
        self.store = SqliteUsers(None, name_keys)
        self.addCleanup(self.store.close)
        self.browser = Browser()
        self.known = self.opened()

    def opened(self) -> Subscriptions:
        """Returns what is known after a start."""
        known = Subscriptions(Places(lambda *_: succeed(self.addresses)), lambda: NOW_S)
        known.open(self.store.push, InlineWorkers())
        return known

    def add(
        self, subject: str, name: str, key: str | None = None, auth: str | None = None, sign_in: bytes = b"s"
    ) -> None:
        """Adds a browser."""
        public = base64url(self.browser.public) if key is None else key
        secret = base64url(AUTH) if auth is None else auth
        result_of(self.known.add(signed_in(subject, sign_in), f"https://push.example/{name}", public, secret, subject))

    def of(self, subject: str, known: Subscriptions | None = None) -> list[str]:
        """Returns the names of somebody's browsers."""
        found = (self.known if known is None else known).of(subject)
        return [each.endpoint.rpartition("/")[2] for each in found]

    def test_browsers_are_known_after_a_restart(self) -> None:
        """With their keys; one that signs in as somebody else passes to them."""
        self.add("ann", "a1")
        self.add("ann", "a2")
        self.add("bob", "b1")
        self.add("bob", "a1")
        for known in (self.known, self.opened()):
            self.assertEqual(
                (self.of("ann", known), sorted(self.of("bob", known)), len(known)), (["a2"], ["a1", "b1"], 3)
            )
            self.assertEqual((known.has_any("ann"), known.has_any("eve")), (True, False))
        (found,) = self.known.of("ann")
        self.assertEqual((found.p256dh, found.auth, found.created_s), (self.browser.public, AUTH, NOW_S))
        self.assertNotIn("push.example", repr(found))

    def test_oldest_browser_of_a_subject_makes_room(self) -> None:
        """Not somebody else's; in the store, too."""
        self.add("bob", "b1")
        for number in range(MAX_PER_SUBJECT + 2):
            self.add("ann", f"a{number:02}")
        self.assertEqual(self.of("ann"), [f"a{number:02}" for number in range(2, MAX_PER_SUBJECT + 2)])
        self.assertEqual((len(self.opened()), self.of("bob")), (MAX_PER_SUBJECT + 1, ["b1"]))

    def test_browsers_are_bounded_in_all(self) -> None:
        """One that is known may subscribe anew."""
        self.patch(subscriptions, "MAX_SUBSCRIPTIONS", 2)
        self.patch(subscriptions, "GUESTS_SHARE", 1)
        self.add("ann", "a1")
        self.add("bob", "b1")
        self.assertRaises(Busy, self.add, "eve", "e1")
        self.add("bob", "b1")
        self.assertEqual(len(self.known), 2)

    def test_guests_keep_nobody_out(self) -> None:
        """Those of one client address have a few browsers, and all together half; after a restart, too."""
        self.patch(subscriptions, "MAX_SUBSCRIPTIONS", 6)
        self.patch(subscriptions, "MAX_PER_GUEST_ADDRESS", 2)
        key, secret = base64url(self.browser.public), base64url(AUTH)

        def add(subject: str, made_for: bytes, guest: bool = True) -> None:
            record = signed_in(subject, digest=subject.encode())._replace(made_for=made_for, guest=guest)
            if guest:
                self.store.add_guest_token(record, name_keys(subject), Claim(None, False, NOW_S))
            result_of(self.known.add(record, f"https://push.example/{subject}", key, secret, ""))

        for subject in ("g1", "g2"):
            add(subject, b"here")
        for known in (self.known, self.opened()):
            self.known = known
            self.assertRaises(Busy, add, f"g{id(known)}", b"here")
        add("g3", b"there")
        self.assertRaises(Busy, add, "g4", b"elsewhere")
        for subject in ("ann", "bob", "cat"):
            add(subject, b"here", guest=False)
        self.assertRaises(Busy, add, "dan", b"here", guest=False)
        result_of(self.known.remove("g1", None))
        add("g5", b"here")
        self.assertEqual(len(self.known), 6)

    def test_what_is_not_valid_is_refused(self) -> None:
        """Keys, URLs, and push services that are not on the public internet."""
        public = base64url(self.browser.public)
        for name, key, auth in (
            ("a", "", None),
            ("a", "AAAA", None),
            ("a", public[:-4], None),
            ("a", "?" * 87, None),
            ("a", public * 9, None),
            ("a", None, base64url(b"short")),
            ("a", None, "A" * 300),
            ("a", None, "ä"),
            (" b", None, None),
        ):
            with self.subTest(name=name, key=key, auth=auth):
                self.assertRaises(BadInput, self.add, "ann", name, key, auth)
        self.addresses = ["8.8.8.8", "127.0.0.1"]
        error = self.assertRaises(BadInput, self.add, "ann", "a")
        self.assertIn("public internet", error.sentence)
        self.assertEqual(len(self.known), 0)

    def test_name_that_is_not_found_is_refused(self) -> None:
        """With a sentence, whatever the resolver says."""
        known = Subscriptions(Places(lambda *_: fail(OSError("no such host"))), lambda: NOW_S)
        work = known.add(signed_in("ann"), "https://push.example/", base64url(self.browser.public), base64url(AUTH), "")
        self.assertIn("cannot be found", self.assertRaises(BadInput, result_of, work).sentence)

    def test_browsers_end(self) -> None:
        """By their user alone, with their sign-in, and when their push service says so."""
        for name, sign_in in (("a1", b"s1"), ("a2", b"s2"), ("a3", b"s3"), ("a4", b"s1")):
            self.add("ann", name, sign_in=sign_in)
        self.add("bob", "b1", sign_in=b"s1")
        result_of(self.known.remove("bob", "https://push.example/a1"))
        self.assertEqual(len(self.known), 5)
        result_of(self.known.remove("ann", "https://push.example/a1"))
        self.assertEqual(self.of("ann"), ["a2", "a3", "a4"])
        result_of(self.known.signed_out(signed_in("ann", b"s2")))
        result_of(self.known.signed_out(signed_in("ann", b"", digest=b"s1")))
        self.assertEqual(self.of("ann"), ["a3"])
        (old,) = self.known.of("ann")
        self.browser = Browser()
        self.add("ann", "a3")
        result_of(self.known.gone(old))
        self.assertEqual(self.of("ann"), ["a3"])
        result_of(self.known.gone(self.known.of("ann")[0]))
        result_of(self.known.remove("bob", None))
        self.assertEqual((len(self.known), len(self.opened())), (0, 0))

    def test_client_that_hangs_up_leaves_no_new_browser(self) -> None:
        """Neither in memory nor in the store, at whatever moment; one that was known before stays."""
        key, secret = base64url(self.browser.public), base64url(AUTH)
        for was_known in (False, True):
            for moment in range(2):
                with self.subTest(was_known=was_known, moment=moment):
                    if was_known:
                        self.add("ann", "a")
                    names, sql = Deferred[list[str]](), SteppedWorkers()
                    known = Subscriptions(Places(partial(_first, names)), lambda: NOW_S)
                    known.open(self.store.push, sql)
                    work = known.add(signed_in("ann"), "https://push.example/a", key, secret, "")
                    if moment == 0:
                        work.cancel()
                    names.callback(["8.8.8.8"])
                    work.cancel()
                    sql.finish()
                    self.failureResultOf(work, CancelledError)
                    self.assertEqual(self.of("ann", known), ["a"] * was_known)
                    self.assertEqual(self.of("ann", self.opened()), ["a"] * was_known)

    def test_removal_goes_on_when_its_client_hangs_up(self) -> None:
        """In the store, too."""
        self.add("ann", "a")
        sql = SteppedWorkers()
        known = Subscriptions(Places(lambda *_: succeed(self.addresses)), lambda: NOW_S)
        known.open(self.store.push, sql)
        work = known.remove("ann", None)
        work.cancel()
        sql.finish()
        self.failureResultOf(work, CancelledError)
        self.assertEqual((len(known), len(self.opened())), (0, 0))

    def test_sign_in_that_ended_meanwhile_has_no_browser(self) -> None:
        """Neither in memory nor in the store, whenever it ended."""
        for passes in (0, 1):
            with self.subTest(passes=passes):
                answers = [None] * passes

                def still_holds(answers: list[None] = answers) -> None:
                    if not answers:
                        raise Unauthenticated("signed out")
                    answers.pop()

                key, secret = base64url(self.browser.public), base64url(AUTH)
                work = self.known.add(signed_in("ann"), "https://push.example/a", key, secret, "", still_holds)
                self.assertRaises(Unauthenticated, result_of, work)
                self.assertEqual((len(self.known), len(self.opened())), (0, 0))

    def test_guest_who_registers_gives_the_guests_room_back(self) -> None:
        """Others at the same address have it, without a restart."""
        self.patch(subscriptions, "MAX_PER_GUEST_ADDRESS", 1)
        key, secret = base64url(self.browser.public), base64url(AUTH)

        def add(subject: str) -> None:
            record = signed_in(subject, digest=subject.encode())._replace(made_for=b"here")
            result_of(self.known.add(record, f"https://push.example/{subject}", key, secret, ""))

        add("g1")
        self.assertRaises(Busy, add, "g2")
        self.known.registered("g1")
        self.known.registered("nobody")
        add("g2")
        self.assertRaises(Busy, add, "g3")
        result_of(self.known.remove("g1", None))
        self.assertRaises(Busy, add, "g3")

    def test_guests_of_one_client_address_share_a_lane(self) -> None:
        """Until they register; an account has its own."""
        key, secret = base64url(self.browser.public), base64url(AUTH)
        for subject, made_for, guest in (("g1", b"here", True), ("g2", b"here", True), ("ann", b"here", False)):
            record = signed_in(subject, digest=subject.encode())._replace(made_for=made_for, guest=guest)
            result_of(self.known.add(record, f"https://push.example/{subject}", key, secret, ""))

        def lanes() -> list[object]:
            return [self.known.lane_of(self.known.of(subject)[0]) for subject in ("g1", "g2", "ann")]

        self.assertEqual(lanes(), [b"here", b"here", "ann"])
        self.known.registered("g1")
        self.assertEqual(lanes(), ["g1", b"here", "ann"])

    def test_browsers_of_forgotten_guests_end(self) -> None:
        """Of whom no token is known any more; once an hour."""
        self.store.add_guest_token(signed_in("ann"), name_keys("Ann"), Claim(None, False, NOW_S))
        self.add("ann", "a1")
        self.add("gone", "g1")
        result_of(self.known.purge())
        self.assertEqual((self.of("ann"), self.of("gone"), len(self.opened())), (["a1"], [], 1))

    def test_browsers_of_other_relays_are_followed(self) -> None:
        """One by one, or all of the store; a guest's count for the client address."""
        self.add("ann", "a1")
        (first,) = self.known.of("ann")
        other = self.opened()
        other.follow_end(first.endpoint)
        self.assertEqual(self.of("ann", other), [])
        changes: list[int] = []
        other.changed = lambda: changes.append(len(other))
        for _ in range(2):
            other.follow(first, b"home")
        self.assertEqual((self.of("ann", other), other._by_address[b"home"]), (["a1"], 1))
        other.follow(first._replace(subject="bob"), None)
        self.assertEqual((self.of("ann", other), self.of("bob", other)), ([], ["a1"]))
        self.assertEqual((other._by_address[b"home"], changes), (0, [1, 0, 1]))
        self.add("eve", "e1")
        result_of(other.reload())
        self.assertEqual((self.of("ann", other), self.of("bob", other), self.of("eve", other)), (["a1"], [], ["e1"]))
