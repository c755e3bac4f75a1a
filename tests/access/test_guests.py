"""The end of what guests wrote for themselves: real tokens in a real file, a real relay, and a clock that is moved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.guests import ASKED_AT_ONCE, DAY_S, SEARCHED_AT_ONCE, GuestParams
from clasp_relay.access.names import name_keys
from clasp_relay.access.policy import Policy
from clasp_relay.access.refusals import Busy
from clasp_relay.access.secret_files import ADMIN_SUBJECT
from clasp_relay.access.tokens import ADMIN_SCOPES, POLICY_SCOPES, TokenRecord, digest_of
from clasp_relay.core.commit import ENDED_AT_ONCE
from clasp_relay.core.records import Param, StateImage
from clasp_relay.core.work import TURN_US
from clasp_relay.storage.users import Claim, User
from clasp_relay.storage.users_sqlite import SqliteUsers
from clasp_relay.wire.messages import NULL, Set, Subscribe
from clasp_relay.wire.values import encode_value
from tests.access.test_permissions import AuthWorld
from tests.core.world import Client, value

TOKEN_S = DAY_S
POLICY = {
    "scopes": ["read:/**", "write:/**"],
    "guest_ttl_days": {"/user/{id}/keys/*": 200, "/user/{id}/**": 90},
}


class GuestParamsTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Makes a relay, and a file of users."""
        self.world = AuthWorld(POLICY)
        self.store = SqliteUsers(Path(self.mktemp()), name_keys, max_guest_tokens_per_address=2)
        self.addCleanup(self.store.close)
        relay = self.world.relay
        self.guests = GuestParams(
            Policy.from_document(POLICY).document,
            relay.params,
            relay.committer,
            relay.work,
            self.world.tokens,
            self.now_s,
        )
        self.world.tokens.start()
        self.addCleanup(self.world.tokens.stop)
        self.asked: list[tuple[int, bool]] = []

    def now_s(self) -> float:
        """Returns the time, in Unix seconds."""
        return self.world.clock.now_us() / 1e6

    def token(self, name: str, subject: str, guest: bool = True) -> TokenRecord:
        """Returns a token of a day that is issued now."""
        now_s = int(self.now_s())
        return TokenRecord(
            digest_of(name), subject, subject, guest, POLICY_SCOPES, now_s, now_s + TOKEN_S, b"address", b"", None
        )

    def guest(self, subject: str, token: str = "") -> Client:
        """Signs a guest in."""
        record = self.token(token or subject, subject)
        self.store.add_guest_token(record, name_keys(subject), Claim(None, True, record.created_s))
        self.world.tokens.add(record)
        return self.world.join(token or subject)

    def pass_days(self, days: float) -> None:
        """Moves the clock; tokens that are over end."""
        self.world.clock.clock.advance(days * DAY_S)
        self.world.advance(2)

    async def last_issued(self, subjects: Sequence[str], *, is_first: bool) -> dict[str, int | None]:
        """Asks the store."""
        self.asked.append((len(subjects), is_first))
        return self.store.last_issued(subjects, is_first=is_first)

    def sweep(self) -> int:
        """Ends what is over, in as many turns as it takes."""
        done = Deferred.fromCoroutine(self.guests.end_old(self.last_issued))
        while not done.called:
            self.world.clock.clock.advance(0)
        return self.successResultOf(done)

    def is_set(self, address: str) -> bool:
        """Tells whether something is set at an address."""
        return self.world.relay.params.get(address) is not None

    def test_what_a_guest_wrote_ends_after_its_days(self) -> None:
        """From when its last token was issued, not from the write; readers are told, and revisions go on."""
        ann = self.guest("ann")
        for address in ("/user/ann/profile", "/user/ann/keys/1", "/room/ann"):
            ann.send(Set(address, value("hello")))
        self.pass_days(60)
        self.guest("ann", "ann2")
        self.pass_days(89.99)
        self.assertEqual(self.sweep(), 0)
        reader = self.world.join("reader")
        reader.ask(Subscribe(1, "/user/**"))
        self.pass_days(0.01)
        with capturedLogs() as logs:
            self.assertEqual(self.sweep(), 1)
        self.assertEqual([(each["event"], each["count"]) for each in logs], [("guests.params_ended", 1)])
        self.assertEqual(reader.hear(), [Set("/user/ann/profile", NULL, 2)])
        self.assertTrue(self.is_set("/user/ann/keys/1"), "this path has 200 days")
        self.pass_days(110)
        self.assertEqual(self.sweep(), 1)
        self.assertFalse(self.is_set("/user/ann/keys/1"))
        self.assertTrue(self.is_set("/room/ann"), "the policy does not name this address")
        self.assertEqual(self.sweep(), 0)

    def test_accounts_keep_what_they_wrote(self) -> None:
        """Also what they wrote as guests."""
        ann = self.guest("ann")
        ann.send(Set("/user/ann/profile", value("hello")))
        record = self.token("of the user", "ann", guest=False)
        claim = Claim(digest_of("ann"), False, record.created_s)
        self.store.add_user(User("ann", "Ann", "hash", record.created_s), name_keys("Ann"), record, claim)
        self.pass_days(1000)
        self.assertEqual(self.sweep(), 0)
        self.assertTrue(self.is_set("/user/ann/profile"))
        self.store.purge(int(self.now_s()), 1000)
        self.assertIsNone(self.store.find_token(digest_of("ann")), "that a guest's token was issued counts no more")

    def test_what_others_wrote_stays(self) -> None:
        """Under a guest's id, by another guest or by an administrator."""
        self.guest("ann")
        self.guest("bob").send(Set("/user/ann/mail", value("hello")))
        self.world.tokens.add(TokenRecord(digest_of("root"), ADMIN_SUBJECT, "root", False, ADMIN_SCOPES, 0, None))
        self.world.join("root").send(Set("/user/ann/role", value("guest")))
        self.pass_days(91)
        self.assertEqual(self.sweep(), 0)

    def test_nothing_ends_while_a_token_is_valid(self) -> None:
        """The guest may be here; it may also have come back while the store was asked."""
        self.guest("ann").send(Set("/user/ann/profile", value("hello")))
        self.pass_days(91)

        async def meanwhile(subjects: Sequence[str], *, is_first: bool) -> dict[str, int | None]:
            issued_s = await self.last_issued(subjects, is_first=is_first)
            self.guest("ann", "ann2")
            return issued_s

        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.guests.end_old(meanwhile))), 0)
        self.assertTrue(self.is_set("/user/ann/profile"))

    def test_param_that_is_gone_or_anothers_meanwhile_is_passed_over(self) -> None:
        """What was found is looked at again."""
        ann = self.guest("ann")
        for name in ("gone", "taken", "left"):
            ann.send(Set(f"/user/ann/{name}", value(1)))
        self.pass_days(91)
        owner = self.world.join("owner")

        async def meanwhile(subjects: Sequence[str], *, is_first: bool) -> dict[str, int | None]:
            owner.send(Set("/user/ann/gone", NULL))
            owner.send(Set("/user/ann/taken", value(2)))
            return await self.last_issued(subjects, is_first=is_first)

        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.guests.end_old(meanwhile))), 1)
        self.assertTrue(self.is_set("/user/ann/taken"))
        self.assertFalse(self.is_set("/user/ann/left"))

    def test_param_that_a_bundle_rests_on_ends_after_it(self) -> None:
        """Only once the bundle is decided: it has read the value."""
        self.guest("ann").send(Set("/user/ann/profile", value("hello")))
        self.pass_days(91)
        was_set = self.world.read_in_a_bundle("/user/ann/profile")
        self.assertEqual((self.sweep(), was_set), (1, [True]))

    def test_newest_token_of_a_guest_is_remembered_as_long_as_it_counts(self) -> None:
        """However many guests of one address come after it; then its record goes, too."""
        self.guest("ann").send(Set("/user/ann/keys/1", value("hello")))
        self.pass_days(100)
        self.guest("ann", "ann2")
        self.pass_days(2)
        for number in range(5):
            self.guest(f"crowd{number}")
        self.pass_days(2)
        self.assertEqual(self.sweep(), 0)
        self.store.purge(int(self.now_s()), 1000)
        self.assertIsNotNone(self.store.find_token(digest_of("ann2")))
        self.assertIsNone(self.store.find_token(digest_of("crowd0")))
        self.pass_days(195)
        self.assertEqual(self.sweep(), 0)
        self.store.purge(int(self.now_s()), 1000)
        self.assertIsNotNone(self.store.find_token(digest_of("ann2")), "no longer a proof, and still the newest")
        self.pass_days(2)
        self.assertEqual(self.sweep(), 1)
        self.assertEqual(self.sweep(), 0)
        self.store.purge(int(self.now_s()), 1000)
        self.assertIsNone(self.store.find_token(digest_of("ann2")))

    def test_guest_of_whom_no_token_is_known_counts_from_its_last_write(self) -> None:
        """But not from before the oldest token that is known: a new file of users ends nothing at once."""
        written_us = self.world.clock.now_us()
        day_us = DAY_S * 1_000_000
        params = [
            Param("/user/ann/x", encode_value(1), 1, "s", written_us + 150 * day_us, 0, "ann"),
            Param("/user/ann/y", encode_value(1), 1, "s", written_us, 0, "ann"),
            Param("/user/bob/x", encode_value(1), 1, "s", written_us, 0, "bob"),
            Param("/user/eve/x", encode_value(1), 1, "s", written_us, 0),
        ]
        self.world.relay.params.load(StateImage(params, [], {}))
        self.pass_days(100)
        self.assertEqual(self.sweep(), 0, "no token is known at all")
        self.guest("oldest")
        self.pass_days(89)
        self.assertEqual(self.sweep(), 0)
        self.pass_days(1)
        self.assertEqual(self.sweep(), 1)
        self.assertFalse(self.is_set("/user/bob/x"))
        self.pass_days(50)
        self.assertEqual(self.sweep(), 2)
        self.assertTrue(self.is_set("/user/eve/x"), "it is not known who wrote it")

    def test_many_end_in_pieces(self) -> None:
        """No turn does more than its share; the store is asked some at a time, and told which is the first."""
        count = ASKED_AT_ONCE + 20
        params = [
            Param(f"/user/g{number}/{each}", encode_value(1), 1, "s", self.world.clock.now_us(), 0, f"g{number}")
            for number in range(count)
            for each in range(2)
        ]
        params += [
            Param(f"/user/one/{each}", encode_value(1), 1, "s", self.world.clock.now_us(), 0, "one")
            for each in range(2 * ENDED_AT_ONCE)
        ]
        self.world.relay.params.load(StateImage(params, [], {}))
        self.guest("oldest")
        self.assertGreater(len(params), 2 * SEARCHED_AT_ONCE)
        self.pass_days(90)
        before = self.world.relay.work.turns
        self.assertEqual(self.sweep(), len(params))
        self.assertEqual(len(self.world.relay.params), 0)
        self.assertEqual(self.asked, [(ASKED_AT_ONCE, True), (21, False)])
        self.assertGreater(self.world.relay.work.turns - before, len(params) * 40 // TURN_US - 1)

    def test_store_that_is_busy_is_told_and_nothing_ends(self) -> None:
        """The next hour tries again."""
        self.guest("ann").send(Set("/user/ann/profile", value("hello")))
        self.pass_days(91)

        async def busy(subjects: Sequence[str], *, is_first: bool) -> dict[str, int | None]:
            raise Busy(f"busy when asked about {len(subjects)}, first: {is_first}", 5)

        self.failureResultOf(Deferred.fromCoroutine(self.guests.end_old(busy)), Busy)
        self.assertTrue(self.is_set("/user/ann/profile"))
        self.assertEqual(self.sweep(), 1)

    def test_core_that_decides_no_longer_leaves_nobody_waiting(self) -> None:
        """What was under way is given up, and may be tried again in another core."""
        self.guest("ann").send(Set("/user/ann/profile", value("hello")))
        self.pass_days(91)
        self.patch(self.world.relay.work, "add", lambda _owner, pieces: left.append(pieces))
        left: list[object] = []
        ending = Deferred.fromCoroutine(self.guests.end_old(self.last_issued))
        self.assertNoResult(ending)
        self.guests.stop()
        self.failureResultOf(ending, Busy)
        self.assertEqual(len(left), 1)
        list(left.pop())  # type: ignore[call-overload]
        self.assertTrue(self.is_set("/user/ann/profile"))

    def test_core_that_stops_while_the_store_is_asked_does_no_more(self) -> None:
        """Its work would never end, and whoever purges would wait for it."""
        self.guest("ann").send(Set("/user/ann/profile", value("hello")))
        self.pass_days(91)
        asked: Deferred[None] = Deferred()

        async def later(subjects: Sequence[str], *, is_first: bool) -> dict[str, int | None]:
            await asked
            return self.store.last_issued(subjects, is_first=is_first)

        ending = Deferred.fromCoroutine(self.guests.end_old(later))
        self.world.clock.clock.advance(0)
        self.guests.stop()
        asked.callback(None)
        self.failureResultOf(ending, Busy)
        self.assertTrue(self.is_set("/user/ann/profile"))

    def test_policy_without_days_asks_nothing(self) -> None:
        """There is nothing to search for."""
        relay = self.world.relay
        document = Policy.from_document({"scopes": []}).document
        guests = GuestParams(document, relay.params, relay.committer, relay.work, self.world.tokens, self.now_s)
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(guests.end_old(self.last_issued))), 0)
        self.assertEqual(self.asked, [])

    def test_packaged_policies_have_the_rule(self) -> None:
        """What a guest of the chat wrote for itself ends after 90 days."""
        for name in ("chat", "chat-compat"):
            with self.subTest(name):
                days = Policy.packaged(name).document.guest_ttl_days
                self.assertEqual([(path.text, count) for path, count in days], [("/chat/user/{userId}/**", 90)])
