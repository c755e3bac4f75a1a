"""The table of valid tokens."""

import re
import secrets

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access import tokens as module
from clasp_relay.access.tokens import (
    EARLIEST_CLOCK_S,
    POLICY_SCOPES,
    EndOfToken,
    TokenExpired,
    TokenRecord,
    TokenTable,
    TokenUnknown,
    digest_of,
    make_token,
)

START_S = 1000.25


def record(token: str, expires_s: int | None = 1060) -> TokenRecord:
    """Returns what a token stands for; its subject is the token, to tell it by."""
    return TokenRecord(digest_of(token), token, "Alice", False, POLICY_SCOPES, 1000, expires_s)


def successor(token: str, old: str) -> TokenRecord:
    """Returns what a token stands for that replaces another one of the same subject."""
    return record(token, 9000)._replace(subject=old, sign_in=digest_of(old), replaces=digest_of(old))


class MakeTokenTests(SynchronousTestCase):
    """New tokens."""

    def test_token_is_cpsk_and_32_hexadecimal_digits(self) -> None:
        """As the relay's clients know it."""
        self.assertTrue(re.fullmatch("cpsk_[0-9a-f]{32}", make_token(secrets.token_hex)))
        self.assertNotEqual(make_token(secrets.token_hex), make_token(secrets.token_hex))


class _Case(SynchronousTestCase):
    """A table on a clock, and a wall clock that can be set."""

    def setUp(self) -> None:
        """Makes an empty table that is watched."""
        self.clock = Clock()
        self.shift_s = START_S
        self.ends: list[tuple[str, EndOfToken, float]] = []
        self.table = TokenTable(self.clock, self.now_s, max_tokens=5)
        self.table.on_end(lambda record, why: self.ends.append((record.subject, why, self.clock.seconds())))
        self.table.start()

    def now_s(self) -> float:
        """Returns the wall clock's time."""
        return self.clock.seconds() + self.shift_s


class TokenTableTests(_Case):
    """What is valid, and until when."""

    def test_valid_token_is_found_and_others_are_told_apart(self) -> None:
        """Expired is not unknown."""
        self.table.load([record("a"), record("forever", None)], [digest_of("old")])
        self.assertEqual(self.table.lookup("a"), record("a"))
        self.assertEqual(self.table.lookup("forever"), record("forever", None))
        self.assertRaises(TokenExpired, self.table.lookup, "old")
        for token in ("", "b", "\ud800", "x" * 257, "x" * 256):
            with self.subTest(token=token):
                self.assertRaises(TokenUnknown, self.table.lookup, token)

    def test_token_ends_at_its_expiry(self) -> None:
        """To the second it is valid; then listeners are told, once, within a second."""
        self.table.add(record("a", 1003))
        self.table.add(record("b", 1002))
        self.table.add(record("forever", None))
        for _ in range(int(2.5 / 0.25)):
            self.clock.advance(0.25)
        self.assertEqual(self.ends, [("b", EndOfToken.EXPIRED, 1.75)])
        self.assertRaises(TokenExpired, self.table.lookup, "b")
        self.table.lookup("a")
        self.clock.pump([0.25] * 8)
        self.assertEqual(self.ends[1:], [("a", EndOfToken.EXPIRED, 2.75)])
        self.assertEqual(len(self.table), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_expired_token_lets_nobody_in_before_the_timer_says_so(self) -> None:
        """A clock that was set forward counts at once, and listeners hear of it within a second."""
        self.shift_s += EARLIEST_CLOCK_S
        self.table.add(record("a", EARLIEST_CLOCK_S + 1060))
        self.shift_s += 3600
        self.assertRaises(TokenExpired, self.table.lookup, "a")
        self.assertEqual(self.ends, [])
        self.clock.advance(1)
        self.assertEqual(self.ends, [("a", EndOfToken.EXPIRED, 1)])

    def test_clock_that_is_set_back_ends_nothing(self) -> None:
        """A token that has ended does not come back, either."""
        self.shift_s += EARLIEST_CLOCK_S
        self.table.add(record("a", EARLIEST_CLOCK_S + 1001))
        self.table.add(record("b", EARLIEST_CLOCK_S + 1060))
        self.clock.advance(1)
        self.shift_s -= 3600
        self.clock.advance(60)
        self.assertRaises(TokenExpired, self.table.lookup, "a")
        self.table.lookup("b")

    def test_revoked_token_ends_at_once(self) -> None:
        """It is unknown from then on; one that has ended, or never was, is passed over."""
        self.table.load([record("a"), record("b"), record("c")])
        self.table.revoke([digest_of("a"), digest_of("c"), digest_of("x"), digest_of("a")])
        self.assertEqual(self.ends, [("a", EndOfToken.REVOKED, 0), ("c", EndOfToken.REVOKED, 0)])
        self.assertRaises(TokenUnknown, self.table.lookup, "a")
        self.table.lookup("b")
        self.clock.pump([1.0] * 61)
        self.assertEqual(self.ends[2:], [("b", EndOfToken.EXPIRED, 60)])

    def test_listener_that_fails_keeps_no_token_alive(self) -> None:
        """The other listeners hear of it, the later tokens end too, and the fault is logged."""
        table = TokenTable(self.clock, self.now_s)
        ended: list[str] = []

        def fail(record: TokenRecord, why: EndOfToken) -> None:
            raise ValueError(record, why)

        table.on_end(fail)
        table.on_end(lambda record, _: ended.append(record.subject))
        table.load([record("a", 1001), record("b", 1002)])
        table.start()
        self.clock.pump([1.0] * 3)
        self.assertEqual(ended, ["a", "b"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)

    def test_many_expiries_are_spread_over_turns_of_the_loop(self) -> None:
        """A turn ends so many, and the next one is at once."""
        self.patch(module, "_EXPIRIES_AT_ONCE", 2)
        self.table.load([record(str(count), 1001) for count in range(5)])
        self.clock.rightNow += 0.75
        turns = []
        while self.clock.calls:
            call = self.clock.calls.pop(0)
            call.called = 1
            turns.append(call.getTime())
            call.func(*call.args, **call.kw)
            turns.append(len(self.ends))
        self.assertEqual(turns, [0.75, 2, 0.75, 4, 0.75, 5])

    def test_watch_ends_with_stop(self) -> None:
        """No timer is left; a table that is not watched sets none."""
        self.table.add(record("a"))
        self.table.stop()
        self.table.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.table.add(record("b"))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.table.start()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_table_tells_whether_a_token_is_valid_by_its_digest(self) -> None:
        """Neither a revoked nor an expired one is, also before the expiry was noticed."""
        self.table.add(record("a"))
        self.table.add(record("b"))
        self.assertTrue(self.table.is_valid(digest_of("a")))
        self.table.revoke([digest_of("a")])
        self.assertEqual([self.table.is_valid(digest_of(token)) for token in ("a", "b", "c")], [False, True, False])

    def test_table_has_room_for_users_when_guests_have_filled_their_share(self) -> None:
        """Who makes up guests cannot keep users out."""
        self.table.load([record(str(count)) for count in range(4)])
        self.assertEqual([self.table.has_room(guest) for guest in (True, False)], [False, True])
        self.table.add(record("5"))
        self.assertFalse(self.table.has_room(guest=False))

    def test_first_use_of_a_successor_ends_the_token_before_it(self) -> None:
        """A minute later, and not as long as the successor may have been lost; it is told once."""
        used: list[tuple[bytes, int]] = []
        self.table.on_first_use(lambda digest, end_s: used.append((digest, end_s)))
        self.table.add(record("old", 5000))
        self.table.add(successor("new", "old"))
        self.clock.advance(100)
        self.table.lookup("old")
        self.assertEqual(used, [])
        self.table.lookup("new")
        self.table.lookup("new")
        self.assertEqual(used, [(digest_of("new"), 1160)])
        self.assertEqual(self.table.lookup("old").expires_s, 1160)
        self.clock.pump([1.0] * 60)
        self.assertRaises(TokenExpired, self.table.lookup, "old")
        self.table.lookup("new")

    def test_token_that_ends_sooner_is_not_prolonged(self) -> None:
        """By the first use of its successor."""
        self.table.add(record("old", 1010))
        self.table.add(successor("new", "old"))
        self.table.lookup("new")
        self.assertEqual(self.table.lookup("old").expires_s, 1010)

    def test_sessions_pass_to_the_successor(self) -> None:
        """At the refresh; from one that was lost on its way, too; and what has begun since, at the old one's end."""
        passed: list[tuple[str, bytes, bytes]] = []
        self.table.on_replace(lambda *each: passed.append(each))
        self.table.add(record("old", 5000))
        self.table.add(successor("lost", "old"))
        old, lost, new = map(digest_of, ("old", "lost", "new"))
        self.assertEqual(passed, [("old", old, lost)])
        self.table.add(successor("new", "old"))
        self.assertEqual(passed[1:], [("old", old, new), ("old", lost, new)])
        self.table.lookup("new")
        self.clock.pump([1.0] * 61)
        self.assertEqual(passed[3:], [("old", old, new)])
        self.assertEqual([subject for subject, _, _ in self.ends], ["old"])

    def test_sessions_of_a_revoked_token_do_not_pass(self) -> None:
        """They end; and so they do where the successor has ended."""
        passed: list[tuple[str, bytes, bytes]] = []
        self.table.add(record("old", 5000))
        self.table.add(successor("new", "old"))
        self.table.on_replace(lambda *each: passed.append(each))
        self.table.revoke([digest_of("old")])
        self.table.add(record("other", 1002))
        self.table.add(successor("gone", "other"))
        passed.clear()
        self.table.revoke([digest_of("gone")])
        self.clock.pump([1.0] * 3)
        self.assertEqual(passed, [])
        self.assertEqual([subject for subject, _, _ in self.ends], ["old", "other", "other"])

    def test_subject_has_room_for_so_many_tokens(self) -> None:
        """Beyond it the oldest without a live session ends; where all have one, the oldest; never the new one."""
        self.patch(module, "MAX_TOKENS_PER_SUBJECT", 3)
        in_use: set[bytes] = set()
        self.table.tokens_in_use = lambda subject: in_use if subject == "u1" else set()
        records = [record(str(number))._replace(subject="u1") for number in range(6)]
        for each in records[:3]:
            self.table.add(each)
            self.assertEqual(self.table.surplus(each, own_address_only=False), [])
        in_use |= {records[0].digest, records[1].digest}
        self.table.add(records[3])
        surplus = self.table.surplus(records[3], own_address_only=False)
        self.assertEqual(surplus, [records[2].digest])
        self.table.end(surplus)
        self.assertRaises(TokenExpired, self.table.lookup, "2")
        in_use |= {each.digest for each in records}
        self.table.add(records[4])
        self.assertEqual(self.table.surplus(records[4], own_address_only=False), [records[0].digest])
        self.assertEqual(self.table.surplus(records[4], own_address_only=True), [records[0].digest])

    def test_who_proved_nothing_ends_tokens_of_the_same_address_only(self) -> None:
        """Nobody fills another's places."""
        self.patch(module, "MAX_TOKENS_PER_SUBJECT", 2)
        table = TokenTable(self.clock, self.now_s)
        for number in range(6):
            made_for = b"home" if number == 0 else b"evil"
            new = record(str(number))._replace(subject="u1", guest=True, made_for=made_for)
            table.add(new)
            surplus = table.surplus(new, own_address_only=True)
            self.assertEqual(surplus, [digest_of(str(number - 2))] if number > 2 else [])
            table.end(surplus)
        table.lookup("0")
        new = record("mine")._replace(subject="u1", guest=True, made_for=b"home")
        table.add(new)
        self.assertEqual(table.surplus(new, own_address_only=True), [])
        self.assertEqual(table.surplus(new, own_address_only=False), [digest_of("0"), digest_of("4")])

    def test_guests_of_one_address_have_room_for_so_many_tokens(self) -> None:
        """Users' do not count, nor do those of other addresses; zero is no limit."""
        for limit, expected in ((2, [digest_of("g0")]), (0, [])):
            with self.subTest(limit=limit):
                table = TokenTable(self.clock, self.now_s, max_per_guest_address=limit)
                new = record("g2")._replace(guest=True, made_for=b"home")
                for each in (
                    record("user")._replace(made_for=b"home"),
                    record("g0")._replace(guest=True, made_for=b"home"),
                    record("elsewhere")._replace(guest=True, made_for=b"work"),
                    record("g1")._replace(guest=True, made_for=b"home"),
                    new,
                ):
                    table.add(each)
                surplus = table.surplus(new, own_address_only=False)
                self.assertEqual(surplus, expected)
                table.end(surplus)
                self.assertEqual(table.surplus(new, own_address_only=False), [])

    def test_token_of_a_subject_is_told_from_others(self) -> None:
        """Also where none was presented."""
        self.table.add(record("a"))
        digests = (digest_of("a"), digest_of("b"), None)
        self.assertEqual([self.table.is_of(digest, "a") for digest in digests], [True, False, False])
        self.assertFalse(self.table.is_of(digest_of("a"), "b"))
        self.assertEqual([self.table.has_any(subject) for subject in ("a", "b")], [True, False])

    def test_tokens_move_with_a_clock_that_is_set(self) -> None:
        """Those that were given out before, by the time that was missing; their lives stay as long as they were."""
        moved: list[tuple[list[bytes], int]] = []
        self.table.on_redate(lambda digests, by_s: moved.append((digests, by_s)))
        self.table.add(record("a", 1060))
        self.clock.advance(20)
        self.shift_s += 3
        self.table.lookup("a")
        self.assertEqual(moved, [])
        self.shift_s += 1_000_000
        self.assertTrue(self.table.is_valid(digest_of("a")))
        self.assertEqual(moved, [([digest_of("a")], 1_000_003)])
        self.assertEqual(self.table.lookup("a").expires_s, 1_001_063)
        self.shift_s += EARLIEST_CLOCK_S
        self.table.add(record("b", EARLIEST_CLOCK_S + 1_001_500))
        self.assertEqual(self.table.lookup("a").expires_s, EARLIEST_CLOCK_S + 1_001_063)
        self.clock.pump([1.0] * 39)
        self.table.lookup("a")
        self.clock.pump([1.0] * 5)
        self.assertEqual([subject for subject, _, _ in self.ends], ["a"])

    def test_tokens_do_not_move_with_a_clock_that_was_set_before(self) -> None:
        """It goes forward and they end; it has been set, too, where it is later than the newest token's date."""
        self.shift_s += EARLIEST_CLOCK_S
        self.table.add(record("a", EARLIEST_CLOCK_S + 5000))
        self.shift_s += 10_000
        self.assertRaises(TokenExpired, self.table.lookup, "a")
        table = TokenTable(self.clock, self.now_s)
        newest = record("b", EARLIEST_CLOCK_S + 60_000)._replace(created_s=EARLIEST_CLOCK_S + 50_000)
        table.load([newest])
        table.add(record("c", EARLIEST_CLOCK_S + 15_000))
        self.shift_s += 45_000
        table.lookup("c")
        self.assertEqual(table.lookup("b"), newest)
        self.shift_s += 45_000
        for token in ("b", "c"):
            self.assertRaises(TokenExpired, table.lookup, token)

    def test_undated_token_that_has_ended_does_not_come_back(self) -> None:
        """It was revoked before the clock was set."""
        self.table.add(record("a"))
        self.table.revoke([digest_of("a")])
        self.shift_s += 2 * EARLIEST_CLOCK_S
        self.assertRaises(TokenUnknown, self.table.lookup, "a")
        self.clock.pump([1.0] * 3)
        self.assertEqual(len(self.ends), 1)

    def test_memory_of_expired_tokens_is_bounded(self) -> None:
        """The oldest are unknown again."""
        self.patch(module, "MAX_EXPIRED", 2)
        self.table.load([], [digest_of(token) for token in ("last", "middle", "first")])
        self.assertRaises(TokenUnknown, self.table.lookup, "first")
        for token in ("middle", "last"):
            self.assertRaises(TokenExpired, self.table.lookup, token)

    def test_revoked_tokens_leave_nothing_behind(self) -> None:
        """Who signs in and out all day does not fill the memory until the tokens would have expired."""
        for count in range(3000):
            self.table.add(record(str(count)))
            self.table.revoke([digest_of(str(count))])
        self.assertEqual((self.table._by_subject, self.table._by_guest_address), ({}, {}))
        self.assertLessEqual(len(self.table._expiries), 1001)


class FollowingTests(_Case):
    """A table that takes tokens as the database has them, whichever relay has issued them."""

    def test_token_of_another_relay_is_valid_until_it_is_revoked(self) -> None:
        """It is no more than once in the table, also where this relay has issued it."""
        self.table.is_following = True
        self.table.follow(record("a"), is_revoked=False)
        self.table.add(record("a"), is_stored=True)
        self.assertEqual(self.table.of_subject("a"), [digest_of("a")])
        self.table.follow(record("a"), is_revoked=True)
        self.assertEqual(self.ends, [("a", EndOfToken.REVOKED, 0)])
        self.table.add(record("a"), is_stored=True)
        self.assertRaises(TokenUnknown, self.table.lookup, "a")

    def test_token_that_is_in_no_database_is_this_relay_s_own(self) -> None:
        """Until it ends."""
        self.table.add(record("alone"))
        self.table.is_following = True
        self.table.add(record("a"))
        self.table.add(record("b"), is_stored=True)
        self.table.follow(record("b"), is_revoked=False)
        self.assertEqual([self.table.is_local(digest_of(token)) for token in ("alone", "a", "b")], [False, True, False])
        self.table.revoke([digest_of("a")])
        self.assertFalse(self.table.is_local(digest_of("a")))

    def test_token_ends_as_the_database_says(self) -> None:
        """Earlier than before, now, or never."""
        self.table.follow(record("a"), is_revoked=False)
        self.table.follow(record("a", 1010), is_revoked=False)
        self.clock.pump([1.0] * 12)
        self.assertEqual([end[:2] for end in self.ends], [("a", EndOfToken.EXPIRED)])
        self.table.follow(record("b"), is_revoked=False)
        self.table.follow(record("b", 1001), is_revoked=False)
        self.assertRaises(TokenExpired, self.table.lookup, "b")
        self.table.follow(record("old", 5), is_revoked=False)
        self.assertRaises(TokenExpired, self.table.lookup, "old")

    def test_refreshed_token_and_its_first_use_are_followed(self) -> None:
        """The sessions pass to it; who has used it elsewhere does not use it for the first time here."""
        passed: list[tuple[str, bytes, bytes]] = []
        used: list[bytes] = []
        self.table.on_replace(lambda *what: passed.append(what))
        self.table.on_first_use(lambda digest, _end_s: used.append(digest))
        self.table.follow(record("a"), is_revoked=False)
        self.table.follow(successor("b", "a"), is_revoked=False)
        self.assertEqual(passed, [("a", digest_of("a"), digest_of("b"))])
        self.table.follow(successor("b", "a")._replace(replaces=None, username="Ann"), is_revoked=False)
        self.assertEqual(self.table.lookup("b").username, "Ann")
        self.assertEqual(used, [])

    def test_all_tokens_of_another_database_take_the_place_of_others(self) -> None:
        """But for those that are in none, and device tokens."""
        self.table.is_following = True
        self.table.add(record("own"))
        for token in ("a", "b"):
            self.table.follow(record(token), is_revoked=False)
        self.table.follow_device(record("d", None)._replace(scopes_name=module.OWN_SCOPES), is_revoked=False)
        self.table.follow_all([record("b"), record("c")], [digest_of("old")])
        self.assertEqual([end[:2] for end in self.ends], [("a", EndOfToken.REVOKED)])
        for token in ("own", "b", "c", "d"):
            self.assertEqual(self.table.lookup(token).subject, token)
        self.assertEqual(self.table.of_subject("b"), [digest_of("b")])
        self.assertRaises(TokenExpired, self.table.lookup, "old")

    def test_device_token_is_followed(self) -> None:
        """It is one for all purposes."""
        device = record("d", None)._replace(scopes_name=module.OWN_SCOPES)
        for _ in range(2):
            self.table.follow_device(device, is_revoked=False)
        self.assertTrue(self.table.is_device(digest_of("d")))
        self.table.follow_device(record("e", 5), is_revoked=False)
        self.assertRaises(TokenExpired, self.table.lookup, "e")
        self.table.follow_device(device, is_revoked=True)
        self.assertFalse(self.table.is_device(digest_of("d")))
        self.assertRaises(TokenUnknown, self.table.lookup, "d")
