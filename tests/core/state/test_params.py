"""Tests of clasp_relay.core.state.params: the table of params."""

from __future__ import annotations

import unittest

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.records import Change, ChangeKind, Ended, Param, StateImage, no_param, param_bytes, text_bytes
from clasp_relay.core.state import params as params_module
from clasp_relay.core.state import tree
from clasp_relay.core.state.params import ParamLimits, Params
from clasp_relay.core.state.shares import ShareLimits, Shares
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import TTL_ABSOLUTE
from clasp_relay.wire.messages import NULL
from tests.core.world import value, written

SECOND_US = 1_000_000


def param(
    address: str, number: object = 1, revision: int = 1, ttl: int | None = None, subject: str = "", origin: str = ""
) -> Param:
    """Returns a change."""
    return Param(address, value(number), revision, "w", 0, ttl, subject, origin)


def null(address: str, revision: int = 2, subject: str = "") -> Param:
    """Returns a deletion."""
    return Param(address, NULL, revision, "w", 0, None, subject)


def put(params: Params, one: Param, *, lock: bool = False, unlock: bool = False, stamp: str | None = None) -> None:
    """Applies a write as it would be decided."""
    params.apply(written(params, one, lock=lock, unlock=unlock, stamp=stamp))


def renew(params: Params, address: str, now_us: int) -> None:
    """Renews a life time, as a GET does."""
    change = params.renewal(address, now_us)
    if change is not None:
        params.apply(change)


def release_all(params: Params, writer: str) -> None:
    """Releases all locks of a session."""
    for address in params.locks.of(writer):
        params.apply(Change(no_param(address, writer, "", 0), ChangeKind.LOCK_RELEASE))


def counted_bytes(params: Params) -> int:
    """Returns the bytes that should be counted: addresses and values, and the addresses of stamped tombstones."""
    image = params.image()
    stamped = sum(text_bytes(address) for address, ended in image.ended if ended.stamp is not None)
    return stamped + sum(map(param_bytes, image.params))


class ReplaceTests(SynchronousTestCase):
    """The fast path of the usual write; ``TableMachine`` compares it with ``apply``."""

    def setUp(self) -> None:
        """A table with a param without a life time, and one with a life time."""
        self.params = Params(ParamLimits())
        put(self.params, param("/a", 1.5, subject="u1", origin="here"))
        put(self.params, param("/b", 1.5, subject="u1", origin="here", ttl=60))

    def test_value_of_the_same_size_takes_it(self) -> None:
        """It counts as a change, and its bytes as replaced."""
        after = param("/a", 2.5, 2, subject="u1", origin="here")
        changes = self.params.changes
        self.assertTrue(self.params.replace(written(self.params, after)))
        self.assertEqual(self.params.get("/a"), after)
        self.assertEqual((self.params.changes - changes, self.params.replaced_bytes), (1, len(after.value)))

    def test_everything_else_is_left_to_the_long_way(self) -> None:
        """Then nothing has changed."""
        usual = param("/a", 2.5, 2, subject="u1", origin="here")
        image = self.params.image()
        for name, change in {
            "new": written(self.params, usual._replace(address="/c")),
            "longer": written(self.params, usual._replace(value=value("a text that is longer"))),
            "null": written(self.params, usual._replace(value=NULL)),
            "of another subject": written(self.params, usual._replace(subject="u2")),
            "from another address": written(self.params, usual._replace(origin="there")),
            "with a life time": written(self.params, usual._replace(ttl=60)),
            "without the life time there was": Change(usual._replace(address="/b")),
            "sent as other bytes": written(self.params, usual._replace(sent_as=b"2.5")),
            "with a lock": written(self.params, usual, lock=True),
            "without the lock": written(self.params, usual, unlock=True),
        }.items():
            with self.subTest(name):
                self.assertFalse(self.params.replace(change))
                self.assertEqual(self.params.image(), image)
        put(self.params, param("/a", 2.5, 2, subject="u1", origin="here")._replace(sent_as=b"2.5"))
        self.assertFalse(self.params.replace(written(self.params, param("/a", 1.5, 3, subject="u1", origin="here"))))


class TableTests(SynchronousTestCase):
    """Params, searches and tombstones."""

    def setUp(self) -> None:
        """An empty table."""
        self.params = Params(ParamLimits())

    def test_end_and_owner_of_a_param_are_told(self) -> None:
        """None if it does not end by itself."""
        put(self.params, param("/a", ttl=TTL_ABSOLUTE | 60, subject="u1"))
        put(self.params, param("/b"))
        self.assertEqual([self.params.ends_us(each) for each in ("/a", "/b", "/c")], [60 * SECOND_US, None, None])
        self.assertEqual((self.params.shares.params_of("u1"), self.params.shares.params_of("u2")), (1, 0))

    def test_change_is_found_at_its_address(self) -> None:
        """With its address, a literal pattern and a pattern with wildcards."""
        one, other = param("/a/x"), param("/b")
        put(self.params, one)
        put(self.params, other)
        self.assertEqual((self.params.get("/a/x"), self.params.get("/a")), (one, None))
        for pattern, expected in (("/a/x", [one]), ("/a/*", [one]), ("/**", [one, other]), ("/c", []), ("/c/*", [])):
            with self.subTest(pattern=pattern):
                self.assertEqual(sorted(self.params.match(Pattern.parse(pattern))), expected)
        self.assertEqual((len(self.params), sorted(self.params.all())), (2, [one, other]))

    def test_all_is_what_was_set_when_it_was_asked(self) -> None:
        """Also after a later load."""
        put(self.params, param("/a"))
        first = self.params.all()
        put(self.params, param("/b"))
        self.assertEqual((len(first), len(self.params.all())), (1, 2))
        loaded = Params(ParamLimits())
        empty = loaded.all()
        loaded.load(self.params.image())
        self.assertEqual((empty, len(loaded.all())), ([], 2))

    def test_search_that_takes_too_long_finds_nothing(self) -> None:
        """Not even the part that it found; a search without wildcards always succeeds."""
        put(self.params, param("/a"))
        put(self.params, param("/b"))
        self.assertEqual([one.address for one in self.params.find(Pattern.parse("/*")) or ()], ["/a", "/b"])
        self.assertEqual(self.params.find(Pattern.parse("/c/*")), [])
        self.patch(tree, "FIND_COST", 3)
        self.assertIsNone(self.params.find(Pattern.parse("/*")))
        self.assertEqual(self.params.find(Pattern.parse("/a")), [param("/a")])

    def test_deleted_address_keeps_its_revision(self) -> None:
        """And how it ended; both are forgotten once it is set again."""
        put(self.params, param("/a"))
        put(self.params, Param("/a", NULL, 2, "w", 77, None, "alice"))
        self.assertEqual((self.params.get("/a"), self.params.last_revision("/a")), (None, 2))
        self.assertEqual(self.params.ended("/a"), Ended(2, 77, "alice"))
        put(self.params, param("/a", revision=3))
        self.assertEqual((self.params.ended("/a"), self.params.last_revision("/a")), (None, 3))
        self.assertEqual(self.params.last_revision("/unknown"), 0)

    def test_state_bytes_are_addresses_and_values(self) -> None:
        """In UTF-8; bytes of replaced and deleted values are subtracted."""
        for change in (param("/é", "x" * 10), param("/b"), param("/é", "日", 2), null("/b"), null("/b", 3)):
            put(self.params, change)
            self.assertEqual(self.params.state_bytes, counted_bytes(self.params))
        self.assertEqual(self.params.state_bytes, 3 + 6)

    def test_stamped_end_is_counted_once(self) -> None:
        """However often the address ends again; a new param replaces it."""
        for revision in range(1, 4):
            put(self.params, null("/s", revision), stamp="alice")
            self.assertEqual(self.params.state_bytes, 2)
        put(self.params, param("/s", revision=4))
        self.assertEqual(self.params.state_bytes, counted_bytes(self.params))
        put(self.params, null("/s", 5))
        self.assertEqual(self.params.state_bytes, 0)

    def test_changes_rise_with_whatever_the_image_shows(self) -> None:
        """Also by a renewed life time; not by a GET that renews nothing."""
        put(self.params, param("/a", ttl=5))
        put(self.params, param("/b"))
        put(self.params, param("/c", ttl=5 | TTL_ABSOLUTE))
        before = self.params.changes
        for address in ("/b", "/c", "/unknown"):
            renew(self.params, address, 1)
        self.assertEqual(self.params.changes, before)
        renew(self.params, "/a", 1)
        self.assertEqual(self.params.changes, before + 1)

    def test_lock_is_held_until_it_is_given_up(self) -> None:
        """By unlock, with the session, or with the param."""
        for end in (
            lambda: put(self.params, param("/a", revision=2), unlock=True),
            lambda: put(self.params, null("/a")),
            lambda: release_all(self.params, "w"),
        ):
            self.setUp()
            put(self.params, param("/a"), lock=True)
            put(self.params, param("/a", revision=2))
            self.assertEqual(self.params.holder("/a"), "w")
            end()
            self.assertIsNone(self.params.holder("/a"))

    def test_what_is_not_about_a_param_is_not_applied(self) -> None:
        """Scheduled bundles and signals are kept elsewhere, so this is a defect, which raises."""
        for kind in (ChangeKind.SCHEDULED, ChangeKind.DUE, ChangeKind.EVENT):
            with self.subTest(kind=kind):
                change = Change(no_param("/a", "w", "", 0), kind)
                self.assertRaises(AssertionError, self.params.apply, change)


class ExpiryTests(SynchronousTestCase):
    """Life times."""

    def ends(self, ttl: int | None, default_ttl_s: int = 0, renewed_s: int | None = None) -> int | None:
        """Returns the second at which a param ends that was written at 0."""
        params = Params(ParamLimits(default_ttl_s=default_ttl_s))
        put(params, param("/a", ttl=ttl))
        if renewed_s is not None:
            renew(params, "/a", renewed_s * SECOND_US)
        for second in range(100):
            if params.expired(second * SECOND_US, 100):
                return second
        return None

    def test_life_time_is_as_the_writer_said(self) -> None:
        """Or as the server's default; a GET renews a sliding one."""
        cases = (
            ("none", None, 0, None, None),
            ("the server's", None, 10, None, 10),
            ("the server's, renewed", None, 10, 4, 14),
            ("sliding", 5, 10, None, 5),
            ("sliding, renewed", 5, 0, 4, 9),
            ("absolute", 5 | TTL_ABSOLUTE, 10, None, 5),
            ("absolute, read", 5 | TTL_ABSOLUTE, 10, 4, 5),
            ("never", 0, 10, None, None),
            ("never, read", 0, 10, 4, None),
            ("absolute never", TTL_ABSOLUTE, 10, None, None),
        )
        for name, ttl, default_ttl_s, renewed_s, expected in cases:
            with self.subTest(name):
                self.assertEqual(self.ends(ttl, default_ttl_s, renewed_s), expected)

    def test_expired_param_ends_as_a_null_with_the_next_revision(self) -> None:
        """Without a session id as writer; the param is set until the null is applied."""
        params = Params(ParamLimits())
        put(params, param("/a", ttl=5, subject="alice"))
        (address,) = params.expired(6 * SECOND_US, 100)
        end = params.null_of(address, 6 * SECOND_US)
        self.assertEqual(end, Param("/a", NULL, 2, "", 6 * SECOND_US, 5, ""))
        self.assertIsNotNone(params.get("/a"))
        put(params, end)
        self.assertEqual((params.get("/a"), params.expired(6 * SECOND_US, 100)), (None, []))

    def test_write_of_another_life_time_replaces_it(self) -> None:
        """«Never» removes it."""
        params = Params(ParamLimits())
        put(params, param("/a", ttl=5))
        put(params, param("/a", revision=2, ttl=0))
        self.assertEqual(params.expired(100 * SECOND_US, 100), [])


class CapacityTests(SynchronousTestCase):
    """Limits and evictions."""

    def fill(self, limits: ParamLimits, *changes: Param) -> None:
        """Fills a table."""
        self.params = Params(limits)
        for change in changes:
            put(self.params, change)

    def victims(self, *changes: Param, stamp: str | None = None) -> list[str]:
        """Returns the params that would be evicted for some changes."""
        return self.params.victims([written(self.params, change, stamp=stamp) for change in changes])

    def refusal(self, *changes: Param) -> str:
        """Returns the reason of a refusal."""
        error = self.assertRaises(RequestError, self.victims, *changes)
        self.assertEqual((error.code, error.address), (ErrorCode.OVERLOADED, changes[0].address))
        return str(error)

    def test_least_recently_used_param_with_a_life_time_goes(self) -> None:
        """A GET is a use, with any kind of life time; params without a life time stay."""
        self.fill(
            ParamLimits(max_params=4),
            param("/good"),
            param("/a", ttl=5),
            param("/b", ttl=5 | TTL_ABSOLUTE),
            param("/c", ttl=5),
        )
        self.assertEqual(self.victims(param("/new")), ["/a"])
        renew(self.params, "/a", SECOND_US)
        self.assertEqual(self.victims(param("/new")), ["/b"])
        renew(self.params, "/b", SECOND_US)
        self.assertEqual(self.victims(param("/new")), ["/c"])
        self.assertEqual(self.victims(param("/new"), param("/new2")), ["/c", "/a"])

    def test_what_was_stored_for_good_is_never_evicted(self) -> None:
        """The new param is refused, and the ERROR names the limit."""
        self.fill(ParamLimits(max_params=2), param("/a"), param("/b"))
        self.assertIn("max-params", self.refusal(param("/new")))
        self.fill(ParamLimits(max_state_bytes=30), param("/a"), param("/b"))
        self.assertIn("max-state-bytes", self.refusal(param("/new")))

    def test_what_takes_no_more_than_before_always_fits(self) -> None:
        """Also if the table is over its limits, as after a start with smaller ones."""
        self.fill(ParamLimits(), param("/a", "long enough"), param("/b"))
        image = self.params.image()
        self.params = Params(ParamLimits(max_params=1, max_state_bytes=5))
        self.params.load(image)
        self.assertEqual(self.victims(param("/a", 1, 2)), [])
        self.assertEqual(self.victims(null("/a")), [])
        self.refusal(param("/a", "longer than what stood there"))

    def test_presence_that_was_written_in_the_future_ends_soon_after_a_load(self) -> None:
        """Its life time begins again; one of more than an hour, or one that has begun, ends at its time."""
        now_us, hour_us = 1_000_000_000_000, 3_600_000_000
        expected_us: dict[str, int] = {}
        params: list[Param] = []
        for address, ttl, written_us, due_us in (
            ("/soon", 60, now_us + 24 * hour_us, now_us + 60_000_000),
            ("/absolute", 60 | TTL_ABSOLUTE, now_us + 24 * hour_us, now_us + 60_000_000),
            ("/hour", 3600, now_us + 1, now_us + hour_us),
            ("/long", 3601, now_us + 24 * hour_us, now_us + 24 * hour_us + 3_601_000_000),
            ("/begun", 60, now_us, now_us + 60_000_000),
        ):
            params.append(Param(address, value(1), 1, "s", written_us, ttl))
            expected_us[address] = due_us
        params.append(Param("/by-default", value(1), 1, "s", now_us + 24 * hour_us))
        expected_us["/by-default"] = now_us + 30_000_000
        told_us = {param.address: param.timestamp_us + (param.ttl or 30) % TTL_ABSOLUTE * 1_000_000 for param in params}
        for expires_us in ({}, told_us):
            with self.subTest(expires_us=expires_us):
                table = Params(ParamLimits(default_ttl_s=30))
                table.load(
                    StateImage([*params, Param("/ever", value(1), 1, "s", 2 * now_us, 0)], [], expires_us), now_us
                )
                self.assertEqual(table.image().expires_us, expected_us)
                self.assertEqual([table.get(param.address) for param in params], params, "the record stays")
        table = Params(ParamLimits(default_ttl_s=30))
        table.load(StateImage(params, [], told_us))
        self.assertEqual(table.image().expires_us, told_us, "nobody said what time it is")

    def test_changes_that_are_made_together_count_together(self) -> None:
        """One change may use the room that another frees; none of their addresses is evicted."""
        self.fill(ParamLimits(max_params=2), param("/a", ttl=5), param("/b"))
        self.assertEqual(self.victims(null("/b"), param("/new")), [])
        self.assertEqual(self.victims(param("/new")), ["/a"])
        self.refusal(param("/new"), param("/a", 1, 2))

    def test_growing_value_makes_room_for_itself(self) -> None:
        """As many params are evicted as necessary."""
        changes = [param(f"/{number}", ttl=5) for number in range(4)]
        self.fill(ParamLimits(max_state_bytes=4 * 11), *changes)
        self.assertEqual(self.victims(param("/0", "x" * 15, 2)), ["/1"])
        self.assertEqual(self.victims(param("/0", "x" * 26, 2)), ["/1", "/2"])

    def test_stamped_end_counts_as_a_param(self) -> None:
        """It counts instead of its param, and a new param counts instead of it."""
        self.fill(ParamLimits(max_params=2), param("/a"), param("/s"))
        put(self.params, null("/s"), stamp="alice")
        self.refusal(param("/new"))
        self.assertEqual(self.victims(param("/s", revision=3)), [])
        together = [Change(null("/a"), stamp="alice"), Change(param("/new"))]
        error = self.assertRaises(RequestError, self.params.victims, together)
        self.assertEqual(error.code, ErrorCode.OVERLOADED)

    def test_share_counts_what_a_subject_wrote_last(self) -> None:
        """And its stamped tombstones, so that nobody can fill the table with deleted params."""
        limits = ParamLimits(subject=ShareLimits(2))
        self.fill(limits, param("/a", subject="alice"), param("/b", subject="alice"), param("/c", subject="bob"))
        self.assertIn("max-params-per-subject", self.refusal(param("/new", subject="alice")))
        self.assertIn("max-params-per-subject", self.refusal(param("/c", subject="alice")))
        self.assertEqual(self.victims(param("/new", subject="bob")), [])
        self.assertEqual(self.victims(param("/a", revision=2, subject="alice")), [])
        put(self.params, null("/a", subject="alice"), stamp="alice")
        self.refusal(param("/new", subject="alice"))
        put(self.params, param("/a", revision=3, subject="bob"))
        self.assertEqual(self.victims(param("/new", subject="alice")), [])

    def test_subject_at_its_limit_loses_its_own_first(self) -> None:
        """Its least recently used param with a life time; never another subject's, and none that is being written."""
        self.fill(
            ParamLimits(max_params=5, subject=ShareLimits(3)),
            param("/theirs", ttl=5, subject="bob"),
            param("/good", subject="alice"),
            param("/a", ttl=5, subject="alice"),
            param("/b", ttl=5, subject="alice"),
        )
        self.assertEqual(self.victims(param("/new", subject="alice")), ["/a"])
        renew(self.params, "/a", SECOND_US)
        self.assertEqual(self.victims(param("/new", subject="alice")), ["/b"])
        self.assertEqual(self.victims(param("/new", subject="alice"), param("/b", 1, 2, 5, "alice")), ["/a"])
        three = [param(f"/new{number}", subject="alice") for number in range(3)]
        error = self.assertRaises(RequestError, self.victims, *three)
        self.assertIn("max-params-per-subject", error.message)

    def test_share_counts_bytes(self) -> None:
        """Of addresses and values; for a value that grows, params of its owner are evicted."""
        self.fill(
            ParamLimits(subject=ShareLimits(max_bytes=30)),
            param("/a", "x" * 5, subject="alice"),
            param("/b", "x" * 5, ttl=5, subject="alice"),
            param("/theirs", "x" * 10, ttl=5, subject="bob"),
        )
        self.assertEqual(self.victims(param("/a", "x" * 16, 2, subject="alice")), ["/b"])
        self.assertIn("max-bytes-per-subject", self.refusal(param("/c", "x" * 30, subject="alice")))
        self.assertEqual(self.victims(param("/theirs", "x" * 10, 2, subject="bob")), [])

    def test_full_origin_evicts_what_its_writer_has_there(self) -> None:
        """Not those of others at the same client address, nor the writer's elsewhere, which would free nothing."""
        self.fill(
            ParamLimits(origin=ShareLimits(3)),
            param("/bob", ttl=5, subject="bob", origin="here"),
            param("/far", ttl=5, subject="alice", origin="there"),
            param("/a", ttl=5, subject="alice", origin="here"),
            param("/b", ttl=5, subject="alice", origin="here"),
        )
        new = param("/new", subject="alice", origin="here")
        self.assertEqual(self.victims(new), ["/a"])
        self.assertEqual(self.victims(new._replace(origin="there")), [])
        self.assertEqual(self.victims(new, new._replace(address="/new2")), ["/a", "/b"])
        text = self.refusal(new._replace(subject="eve"))
        self.assertIn("one client address", text)

    def test_victim_counts_for_every_bound_that_it_serves(self) -> None:
        """One eviction makes room in the user's share, in that of the client address, and in the table."""
        self.fill(
            ParamLimits(max_params=4, subject=ShareLimits(2), origin=ShareLimits(3)),
            param("/far", ttl=5, subject="alice", origin="there"),
            param("/a", ttl=5, subject="alice", origin="here"),
            param("/bob", ttl=5, subject="bob", origin="here"),
            param("/bob2", ttl=5, subject="bob", origin="here"),
        )
        self.assertEqual(self.victims(param("/new", subject="alice", origin="there")), ["/far"])
        self.assertEqual(self.victims(param("/new", subject="alice", origin="here")), ["/far", "/a"])

    def test_what_the_exempt_subject_has_counts_for_nobody(self) -> None:
        """Neither for it nor for its client address; a param that it overwrites is subtracted."""
        limits = ParamLimits(subject=ShareLimits(1), origin=ShareLimits(2), exempt_subject="admin")
        self.fill(limits, *(param(f"/{number}", subject="admin", origin="here") for number in range(5)))
        self.assertEqual(self.victims(param("/5", subject="admin", origin="here")), [])
        self.assertTrue(self.params.has_room(param("/5", subject="admin", origin="here")))
        put(self.params, param("/a", subject="alice", origin="here"))
        self.refusal(param("/b", subject="alice", origin="here"))
        put(self.params, param("/a", revision=2, subject="admin", origin="here"))
        self.assertEqual(self.victims(param("/b", subject="alice", origin="here")), [])

    def test_tenth_is_kept_for_those_who_have_little(self) -> None:
        """In params and in bytes; for a subject that has much, only its own params are evicted there."""
        self.patch(params_module, "SMALL_BYTES", 12)
        self.fill(
            ParamLimits(max_params=20, subject=ShareLimits(100)),
            *(param(f"/a{number}", ttl=5 if number else 0, subject="alice") for number in range(17)),
            param("/bob", ttl=5, subject="bob"),
        )
        self.assertFalse(self.params.has_room(param("/new", subject="alice")))
        self.assertEqual(self.victims(param("/new", subject="alice")), ["/a1"])
        for number in range(2):
            one = param(f"/new{number}", subject=f"new{number}")
            self.assertTrue(self.params.has_room(one))
            put(self.params, one)
        self.assertEqual(self.victims(param("/last", subject="last")), ["/a1"])
        self.fill(
            ParamLimits(max_state_bytes=100, subject=ShareLimits(100)),
            param("/a", "x" * 60, subject="alice"),
            param("/bob", "x" * 10, ttl=5, subject="bob"),
        )
        self.assertIn("max-state-bytes", self.refusal(param("/b", "x" * 12, subject="alice")))
        self.assertEqual(self.victims(param("/c", "x" * 12, subject="carol")), [])

    def test_reserve_is_not_for_one_client_address_with_many_subjects(self) -> None:
        """A sixteenth of it is, in params and in bytes; others may still write."""
        for limits, size in (
            (ParamLimits(max_params=1_600, subject=ShareLimits(5_000), origin=ShareLimits(20_000)), 1),
            (ParamLimits(max_state_bytes=320_000, subject=ShareLimits(5_000), origin=ShareLimits(20_000)), 180),
        ):
            with self.subTest(limits):
                self.fill(limits)
                number = 0
                while self.params.has_room(param(f"/{number}", "x" * size, subject=f"s{number % 8}", origin="here")):
                    put(self.params, param(f"/{number}", "x" * size, subject=f"s{number % 8}", origin="here"))
                    number += 1
                self.refusal(param("/more", "x" * size, subject="newcomer", origin="here"))
                for guest in range(10):
                    one = param(f"/guest/{guest}", "x" * size, subject=f"g{guest}", origin="there")
                    self.assertTrue(self.params.has_room(one))
                    put(self.params, one)

    def test_end_that_stays_stamped_frees_no_place(self) -> None:
        """It is evicted only for its bytes, so a stamped tombstone lets nobody exceed a limit."""

        def victims(*changes: Param) -> list[str]:
            writes = [written(self.params, change) for change in changes]
            return self.params.victims(writes, lambda address, _value: "alice" if address == "/s" else None)

        first = param("/s", "x" * 20, ttl=5, subject="alice", origin="here")
        second = param("/t", ttl=5, subject="alice", origin="here")
        new = param("/new", subject="alice", origin="here")
        self.fill(ParamLimits(subject=ShareLimits(2)), first, second)
        self.assertEqual(victims(new), ["/t"])
        self.assertRaises(RequestError, victims, new, new._replace(address="/more"))
        self.fill(ParamLimits(max_params=2), first, second)
        self.assertEqual(victims(new), ["/t"])
        self.fill(ParamLimits(max_state_bytes=40), first, second)
        self.assertEqual(victims(param("/new", "x" * 10, subject="alice")), ["/s"])
        self.fill(ParamLimits(origin=ShareLimits(2)), first, second)
        self.assertEqual(victims(new), ["/s"])
        self.fill(ParamLimits(max_params=2, origin=ShareLimits(2)), first, second)
        self.assertEqual(victims(new), ["/s", "/t"])

    def test_search_for_what_can_go_is_bounded(self) -> None:
        """The params that one write examines and evicts are bounded."""
        self.patch(params_module, "LOOKED_AT", 3)
        self.fill(ParamLimits(max_state_bytes=88), *(param(f"/{number}", ttl=5) for number in range(8)))
        self.assertEqual(len(self.victims(param("/new", "x" * 26))), 3)
        self.refusal(param("/new", "x" * 27))

    def test_search_without_wildcards_is_a_look_up(self) -> None:
        """It has the result, whatever the bound is."""
        self.fill(ParamLimits(), param("/a"))
        self.assertEqual(self.params.search(Pattern.parse("/a"), 0), (["/a"], True))
        self.assertEqual(self.params.search(Pattern.parse("/b"), 0), ([], True))

    def test_one_write_evicts_a_few_hundred_at_most(self) -> None:
        """The subscribers of each are told in the same step."""
        self.fill(ParamLimits(max_params=400), *(param(f"/{number + 100}", ttl=5) for number in range(400)))
        full_bytes = self.params.state_bytes
        limits = ParamLimits(max_state_bytes=full_bytes)
        self.fill(limits, *(param(f"/{number + 100}", ttl=5) for number in range(400)))
        each_bytes = full_bytes // 400
        self.assertLessEqual(len(self.victims(param("/new", "x" * (each_bytes * 200)))), 256)
        self.refusal(param("/new", "x" * (each_bytes * 300)))

    def test_one_change_surely_fits_only_where_nobody_needs_to_ask(self) -> None:
        """If it returns True, the change fits."""
        cases = (
            (ParamLimits(), True),
            (ParamLimits(max_params=1), False),
            (ParamLimits(max_state_bytes=20), False),
            (ParamLimits(subject=ShareLimits(2)), True),
            (ParamLimits(subject=ShareLimits(1)), False),
            (ParamLimits(subject=ShareLimits(0, 28)), True),
            (ParamLimits(subject=ShareLimits(0, 27)), False),
            (ParamLimits(origin=ShareLimits(1)), False),
            (ParamLimits(origin=ShareLimits(0, 28)), True),
        )
        for limits, expected in cases:
            with self.subTest(limits=limits):
                self.fill(limits, param("/a", subject="alice", origin="here"))
                self.assertEqual(self.params.has_room(param("/b", subject="alice", origin="here")), expected)

    def test_what_is_set_takes_room_of_whoever_sets_it_next(self) -> None:
        """The table gets no fuller, but the new owner's share does."""
        for limits, expected in ((ParamLimits(max_params=1), True), (ParamLimits(subject=ShareLimits(1)), False)):
            with self.subTest(limits=limits):
                self.fill(limits, param("/a", subject="alice"), param("/b", subject="bob"))
                self.assertTrue(self.params.has_room(param("/a", subject="alice")))
                self.assertEqual(self.params.has_room(param("/a", subject="bob")), expected)


class ImageTests(SynchronousTestCase):
    """The captured state."""

    def test_loaded_table_is_the_one_that_was_captured(self) -> None:
        """Values, revisions, writers, times, life times, ends, stamps, shares and sizes."""
        limits = ParamLimits(subject=ShareLimits(2))
        before = Params(limits)
        for change in (
            param("/a", ttl=5, subject="alice"),
            param("/é", "x", ttl=60 | TTL_ABSOLUTE, subject="alice"),
            param("/gone"),
            param("/s", subject="bob"),
            param("/t", subject="bob"),
        ):
            put(before, change)
        put(before, null("/gone", 2))
        put(before, null("/s", 2, "bob"), stamp="bob")
        renew(before, "/a", 40 * SECOND_US)
        image = before.image()
        after = Params(limits)
        after.load(image)
        self.assertEqual(after.image(), image)
        self.assertEqual(image.expires_us, {"/a": 45 * SECOND_US, "/é": 60 * SECOND_US})
        self.assertEqual(after.state_bytes, counted_bytes(before))
        self.assertEqual((after.last_revision("/gone"), after.last_revision("/s")), (2, 2))
        self.assertEqual([one.address for one in after.match(Pattern.parse("/*"))], ["/a", "/é", "/t"])
        self.assertEqual(after.victims([Change(param("/new", subject="alice"))]), ["/a"])
        self.assertRaises(RequestError, after.victims, [Change(param("/new", subject="bob"))])

    def test_param_without_an_end_in_the_image_gets_one(self) -> None:
        """From its life time, or the server's default: the file may be from another relay."""
        image = StateImage([param("/a", ttl=5), param("/b"), param("/c", ttl=0)], [], {})
        for default_ttl_s, expected in ((0, {"/a": 5 * SECOND_US}), (9, {"/a": 5 * SECOND_US, "/b": 9 * SECOND_US})):
            with self.subTest(default_ttl_s=default_ttl_s):
                params = Params(ParamLimits(default_ttl_s=default_ttl_s))
                params.load(image)
                self.assertEqual(params.image().expires_us, expected)


_ADDRESSES = st.sampled_from([f"/{name}" for name in "abcdefgé"])
_SUBJECTS = st.sampled_from(("", "alice", "bob", "admin"))
_ORIGINS = st.sampled_from(("", "here", "there"))
_OBJECTS = st.none() | st.integers(0, 9) | st.text(max_size=20)
_TTLS = st.sampled_from((None, None, 0, 3, 3 | TTL_ABSOLUTE))


class TableMachine(RuleBasedStateMachine):
    """Writes, deletes, reads, advances the time, saves and loads, as the relay would."""

    limits = ParamLimits(5, 90, 0, ShareLimits(4, 60), ShareLimits(4, 70), "admin")

    def __init__(self) -> None:
        super().__init__()
        self.params = Params(self.limits)
        self.slow = Params(self.limits)
        """The same table without the short way of the usual write."""
        self.now_us = 0
        self.known: dict[str, int] = {}
        """The last revision of each address that cannot have been forgotten."""

    def apply(self, change: Param, *, lock: bool = False, stamp: str | None = None) -> None:
        """Applies a change; no revision may be used twice."""
        address = change.address
        assert change.revision == self.known.get(address, 0) + 1, change
        write = written(self.params, change, lock=lock, stamp=stamp)
        surely_fits = self.params.has_room(change)
        if self.params.replace(write):
            assert surely_fits
        else:
            self.params.apply(write)
        self.slow.apply(write)
        self.known[address] = change.revision
        for one in list(self.known):
            # The oldest ends are forgotten when there are more than the limits say.
            if self.params.last_revision(one) == 0:
                del self.known[one]

    @rule(
        address=_ADDRESSES,
        obj=_OBJECTS,
        subject=_SUBJECTS,
        origin=_ORIGINS,
        ttl=_TTLS,
        writer=st.sampled_from("xy"),
        lock=st.booleans(),
        is_stamped=st.booleans(),
        sent_as=st.sampled_from((b"", b"", b" 1", b"  [ 1 ]  ")),
    )
    def write(
        self,
        address: str,
        obj: object,
        subject: str,
        origin: str,
        ttl: int | None,
        writer: str,
        lock: bool,
        is_stamped: bool,
        sent_as: bytes,
    ) -> None:
        """Sets a param."""
        set_before = self.params.get(address)
        stamp = subject if is_stamped and subject and set_before is not None else None
        if self.params.holder(address) not in (None, writer):
            return
        if ttl is None and set_before is not None:
            ttl = set_before.ttl
        revision = self.params.last_revision(address) + 1
        change = Param(address, value(obj), revision, writer, self.now_us, ttl, subject, origin, sent_as)
        before, surely_fits = self.params.image(), self.params.has_room(change)
        try:
            chosen = self.params.victims([written(self.params, change, stamp=stamp)])
        except RequestError:
            assert self.params.image() == before
            assert not surely_fits
            return
        assert not (surely_fits and chosen)
        for victim in chosen:
            param = self.params.get(victim)
            assert param is not None
            assert param.ttl
            assert victim != address
            self.apply(self.params.null_of(victim, self.now_us))
        self.apply(change, lock=lock and change.value != NULL, stamp=stamp)
        assert self.params.get(address) == (None if change.value == NULL else change)

    @rule(address=_ADDRESSES)
    def read(self, address: str) -> None:
        """Reads a param, as a GET."""
        for params in (self.params, self.slow):
            renew(params, address, self.now_us)

    @rule(seconds=st.integers(0, 4))
    def wait(self, seconds: int) -> None:
        """Advances the time, and ends expired params."""
        self.now_us += seconds * SECOND_US
        expected = {address for address, due_us in self.params.image().expires_us.items() if due_us <= self.now_us}
        ends = self.params.expired(self.now_us, 100)
        assert set(ends) == set(self.slow.expired(self.now_us, 100)) == expected
        for address in ends:
            self.apply(self.params.null_of(address, self.now_us))

    @rule(writer=st.sampled_from("xy"))
    def leave(self, writer: str) -> None:
        """Ends a session."""
        for params in (self.params, self.slow):
            release_all(params, writer)
        assert writer not in map(self.params.holder, self.known)

    @rule()
    def restart(self) -> None:
        """Saves and loads the state."""
        image = self.params.image()
        self.params, self.slow = Params(self.limits), Params(self.limits)
        for params in (self.params, self.slow):
            params.load(image)
        assert self.params.image() == image

    @invariant()
    def keeps_to_its_limits(self) -> None:
        """Checks params with stamped tombstones, bytes, the share of each subject, and tombstones."""
        image = self.params.image()
        stamped = [ended for _, ended in image.ended if ended.stamp is not None]
        assert len(image.params) + len(stamped) <= self.limits.max_params
        assert self.params.state_bytes == counted_bytes(self.params) <= self.limits.max_state_bytes
        assert len(image.ended) - len(stamped) <= self.limits.max_params
        for subject in ("alice", "bob"):
            expiring = {one.address for one in image.params if one.subject == subject} & set(image.expires_us)
            assert set(self.params._expiry.least_recent(subject)) == expiring
            sizes = [param_bytes(one) for one in image.params if one.subject == subject]
            sizes += [text_bytes(address) for address, ended in image.ended if ended.stamp == subject]
            self.check_share(self.params._by_subject, self.limits.subject, subject, sizes)
        for origin in ("here", "there"):
            counted = [one for one in image.params if one.origin == origin and one.subject != "admin"]
            self.check_share(self.params._by_origin, self.limits.origin, origin, list(map(param_bytes, counted)))
        assert "admin" not in self.params._by_subject._params

    def check_share(self, shares: Shares, limits: ShareLimits, owner: str, sizes: list[int]) -> None:
        """Checks that the count of an owner is right, and within its limit apart from stamped tombstones."""
        assert (shares.params_of(owner), shares.bytes_of(owner)) == (len(sizes), sum(sizes))
        if shares is self.params._by_origin:
            assert len(sizes) <= limits.max_params
            assert sum(sizes) <= limits.max_bytes

    @invariant()
    def short_way_leads_to_the_same(self) -> None:
        """In all methods of the table."""
        short, long = self.params, self.slow
        assert short.image() == long.image()
        assert list(short.image().expires_us) == list(long.image().expires_us)
        assert short.locks.all() == long.locks.all()
        for name in ("changes", "replaced_bytes", "state_bytes"):
            assert getattr(short, name) == getattr(long, name), name

    @invariant()
    def agrees_with_itself(self) -> None:
        """An address has a param or a tombstone, never both; revisions are right; the tree has all addresses."""
        image = self.params.image()
        addresses = [one.address for one in image.params]
        assert not set(addresses) & {address for address, _ in image.ended}
        assert {address: self.params.last_revision(address) for address in self.known} == self.known
        assert sorted(one.address for one in self.params.match(Pattern.parse("/**"))) == sorted(addresses)
        assert set(image.expires_us) <= set(addresses)
        assert all(self.params.holder(address) is None for address, _ in image.ended)


TableMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)


class TableMachineTests(SynchronousTestCase):
    def test_table_keeps_its_promises_whatever_happens(self) -> None:
        """Revisions never go back, limits are kept, and sizes are right: after every step of random actions."""
        result = unittest.TestResult()
        TableMachine.TestCase().run(result)
        self.assertEqual([text for _, text in result.errors + result.failures], [])
        self.assertEqual(result.testsRun, 1)
