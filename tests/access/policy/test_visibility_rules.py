"""Who sees what, and what the answer rests on."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.policy import Policy
from clasp_relay.core.rights.port import FULL, HIDDEN
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.values import PyValue
from tests.access.policy.world import SECOND_US, World, by_existence, by_value

CHAT = Policy.packaged("chat")
META = "/room/{id}/meta"
CREATOR = {"type": "state_field_equals_session", "lookup": META, "field": "by"}
PUBLIC = {"type": "not", "check": {"type": "state_field_equals", "lookup": META, "field": "public", "value": False}}
PRESENT = {"type": "present", "lookup": "/room/{id}/here/{session}", "grace_secs": 30}


def world(*entries: PyValue, **keys: PyValue) -> World:
    """Makes a world with some visibility entries."""
    return World(Policy.from_document({"scopes": ["read:/**"], "snapshot_visibility": list(entries), **keys}))


class EntryTests(SynchronousTestCase):
    """Which entry decides, and how."""

    def test_without_an_entry_everything_is_shown(self) -> None:
        """To everybody, resting on nothing."""
        here = world()
        rule = here.policy.visibility_rule("/a")
        self.assertTrue(rule.is_shown_to_all)
        self.assertEqual(rule.fixed, here.verdict("alice", "/a"))
        self.assertEqual(here.view("alice", "/a"), FULL)
        self.assertFalse(rule.catch_up or rule.depends_on_pattern)

    def test_first_entry_that_matches_decides(self) -> None:
        """By path, by content, or whatever the address is."""
        here = world(
            {"path_contains": "/secret", "visible": False},
            {"path": "/a/*", "visible": True},
            {"visible": False},
        )
        cases = [("/a/secret", HIDDEN), ("/a/secrets/x", HIDDEN), ("/a/b", FULL), ("/a/b/c", HIDDEN), ("/b", HIDDEN)]
        for address, view in cases:
            with self.subTest(address=address):
                self.assertEqual(here.view("alice", address), view)
                self.assertIsNotNone(here.policy.visibility_rule(address).fixed)

    def test_owner_sees_what_is_below_it(self) -> None:
        """Others see the public part only, which is a whole segment."""
        here = world({"path": "/user/{id}/**", "visible": "owner", "owner_segment": "id", "public_sub": "card"})
        for by, address, view in (
            ("alice", "/user/alice/x", FULL),
            ("alice", "/user/alice", FULL),
            ("bob", "/user/alice", HIDDEN),
            ("bob", "/user/alice/x", HIDDEN),
            ("bob", "/user/alice/card", FULL),
            ("bob", "/user/alice/card/small", FULL),
            ("bob", "/user/alice/cards", HIDDEN),
            ("bob", "/user/alice/x/card", HIDDEN),
        ):
            with self.subTest(by=by, address=address):
                self.assertEqual(here.view(by, address), view)
        self.assertIsNone(here.policy.visibility_rule("/user/alice/x").fixed)
        reads = here.verdict("bob", "/user/alice/x").reads
        self.assertEqual((reads.lookups, reads.reads_address), ({}, True))

    def test_something_must_be_set(self) -> None:
        """The lookup is reported, missing or not."""
        here = world(
            {"path": "/room/{id}/**", "visible": "require_state_not_null", "lookup": "/room/{id}/here/{session}"}
        )
        lookups = {"/room/r/here/alice"}
        seen, reads = here.verdict("alice", "/room/r/x")
        self.assertEqual((seen, by_existence(reads)), (HIDDEN, lookups))
        here.put("/room/r/here/alice", 1)
        seen, reads = here.verdict("alice", "/room/r/x")
        self.assertEqual((seen, by_existence(reads), reads.until_us), (FULL, lookups, None))
        self.assertEqual(by_value(reads), set())

    def test_checks_decide_with_the_reader_as_the_session(self) -> None:
        """All or any of them."""
        for mode, view in (("all", HIDDEN), ("any", FULL)):
            here = world({"path": "/room/{id}/**", "visible": "checks", "mode": mode, "checks": [CREATOR, PUBLIC]})
            here.put("/room/r/meta", {"by": "alice", "public": False})
            with self.subTest(mode=mode):
                self.assertEqual(here.view("alice", "/room/r/x"), view)
                self.assertEqual(here.view("bob", "/room/r/x"), HIDDEN)

    def test_verdict_that_rests_on_a_grace_ends_with_it(self) -> None:
        """The moment is told; while set, only its end counts, and after it another's null too."""
        here = world({"path": "/room/{id}/**", "visible": "checks", "checks": [PRESENT]})
        lookups = {"/room/r/here/alice"}
        here.put("/room/r/here/alice", 1, "alice")
        reads = here.verdict("alice", "/room/r/x").reads
        self.assertEqual((by_value(reads), by_existence(reads)), (set(), lookups))
        here.put("/room/r/here/alice", None, "alice")
        seen, reads = here.verdict("alice", "/room/r/x")
        self.assertEqual((seen, reads.until_us), (FULL, here.now_us + 30 * SECOND_US))
        self.assertEqual((by_value(reads), by_existence(reads)), (lookups, set()))
        here.later(30)
        self.assertEqual(here.view("alice", "/room/r/x"), HIDDEN)

    def test_patterns_that_were_looked_up_are_reported(self) -> None:
        """As patterns."""
        check = {"type": "last_writer_is_session", "lookup": "/call/{id}/*"}
        here = world({"path": "/room/{id}", "visible": "checks", "checks": [check]})
        here.put("/call/r/s1", 1, "alice")
        seen, reads = here.verdict("alice", "/room/r")
        self.assertEqual((seen, reads.patterns), (FULL, (Pattern.parse("/call/r/*"),)))

    def test_what_takes_too_long_to_decide_is_hidden(self) -> None:
        """Until less is set there."""
        check = {"type": "last_writer_is_session", "lookup": "/call/{id}/*/sid", "allow_if_missing": True}
        here = world({"path": "/room/{id}", "visible": "checks", "checks": [check]})
        here.is_too_much = True
        seen, reads = here.verdict("alice", "/room/r")
        self.assertEqual((seen, reads.patterns), (HIDDEN, (Pattern.parse("/call/r/*/sid"),)))

    def test_value_checks_look_at_what_stands_there(self) -> None:
        """And what stands there is then a lookup."""
        here = world(
            {
                "path": "/mail/{id}",
                "visible": "checks",
                "checks": [{"type": "value_field_equals_session", "field": "to"}],
            }
        )
        here.put("/mail/1", {"to": "alice"})
        self.assertEqual([here.view(by, "/mail/1") for by in ("alice", "bob")], [FULL, HIDDEN])
        reads = here.verdict("bob", "/mail/1").reads
        self.assertEqual((by_value(reads), reads.reads_address), ({"/mail/1"}, True))

    def test_long_address_is_decided_like_a_short_one(self) -> None:
        """Only short ones are remembered."""
        here = world({"path": "/user/{id}/**", "visible": "owner", "owner_segment": "id"})
        address = "/user/alice/" + "x" * 1000
        self.assertEqual([here.view(by, address) for by in ("alice", "bob")], [FULL, HIDDEN])


class LiteralTests(SynchronousTestCase):
    """Captures that must stand literally in the reader's pattern."""

    def test_pattern_must_name_it(self) -> None:
        """HELLO counts as no pattern."""
        here = world({"path": "/room/{id}/meta", "visible": True, "literal": ["id"]})
        self.assertTrue(here.policy.visibility_rule("/room/r/meta").depends_on_pattern)
        for pattern, view in (
            ("/room/r/meta", FULL),
            ("/room/r/*", FULL),
            ("/room/r/**", FULL),
            ("/*/r/meta", FULL),
            ("/ro*/r/meta", FULL),
            (None, FULL),
            ("/room/*/meta", HIDDEN),
            ("/room/r*/meta", HIDDEN),
            ("/room/**", HIDDEN),
            ("/room/**/meta", HIDDEN),
            ("/**/r/meta", HIDDEN),
            ("/**", HIDDEN),
            ("hello", HIDDEN),
        ):
            with self.subTest(pattern=pattern):
                self.assertEqual(here.view("alice", "/room/r/meta", pattern), view)

    def test_every_segment_of_a_long_capture_counts(self) -> None:
        """And the segments before it may be of any number."""
        here = world({"path": "/ns/{path**}/x/{last}", "visible": True, "literal": ["path", "last"]})
        address = "/ns/a/b/x/c"
        cases = [
            ("/ns/a/b/x/c", FULL),
            ("/ns/a/b/*/c", FULL),
            ("/ns/a/*/x/c", HIDDEN),
            ("/ns/a/b/x/*", HIDDEN),
            ("/ns/a/b/**", HIDDEN),
        ]
        for pattern, view in cases:
            with self.subTest(pattern=pattern):
                self.assertEqual(here.view("alice", address, pattern), view)

    def test_checks_may_waive_it(self) -> None:
        """All of ``unless``; then any pattern will do."""
        entry = {"path": "/room/{id}/meta", "visible": True, "literal": ["id"], "unless": [PUBLIC, CREATOR]}
        here = world(entry)
        here.put("/room/r/meta", {"by": "alice"})
        self.assertEqual([here.view(by, "/room/r/meta", "/room/**") for by in ("alice", "bob")], [FULL, HIDDEN])
        here.put("/room/r/meta", {"by": "alice", "public": False})
        self.assertEqual(here.view("alice", "/room/r/meta", "/room/**"), HIDDEN)
        self.assertEqual(here.view("alice", "/room/r/meta", "/room/r/**"), FULL)

    def test_what_is_hidden_stays_hidden(self) -> None:
        """A literal pattern opens nothing."""
        here = world({"path": "/room/{id}/**", "visible": "checks", "checks": [CREATOR], "literal": ["id"]})
        self.assertEqual(here.view("alice", "/room/r/x"), HIDDEN)


class TransformTests(SynchronousTestCase):
    """Fields that are removed."""

    def test_all_that_match_remove_their_fields(self) -> None:
        """Not only the first."""
        here = world(
            snapshot_transforms=[
                {"path": "/a/*", "redact_fields": ["x"]},
                {"path": "/a/**", "redact_fields": ["y", "x"]},
                {"path": "/b", "redact_fields": ["z"]},
            ]
        )
        self.assertEqual(here.view("alice", "/a/b"), frozenset("xy"))
        self.assertEqual(here.view("alice", "/a/b/c"), frozenset("xy"))
        self.assertEqual(here.view("alice", "/c"), FULL)
        self.assertIsNotNone(here.policy.visibility_rule("/a/b").fixed)

    def test_checks_may_show_them(self) -> None:
        """To whom all of ``unless`` hold for; the lookups are reported."""
        here = world(
            {"path": "/room/{id}/**", "visible": True},
            snapshot_transforms=[
                {"path": "/room/{id}/meta", "redact_fields": ["hash"], "unless": [CREATOR]},
                {
                    "path": "/room/**",
                    "redact_fields": ["hash", "salt"],
                    "unless": [{"type": "state_not_null", "lookup": "/admin/{session}"}],
                },
            ],
        )
        here.put("/room/r/meta", {"by": "alice"})
        here.put("/admin/alice", 1)
        self.assertEqual(here.view("alice", "/room/r/meta"), FULL)
        hidden, reads = here.verdict("bob", "/room/r/meta")
        self.assertEqual(hidden, frozenset(("hash", "salt")))
        self.assertEqual((by_value(reads), by_existence(reads)), ({"/room/r/meta"}, {"/admin/bob"}))

    def test_field_that_is_hidden_already_asks_nothing_more(self) -> None:
        """Whoever else would show it."""
        here = world(
            snapshot_transforms=[
                {"path": "/room/**", "redact_fields": ["hash"]},
                {"path": META, "redact_fields": ["hash"], "unless": [CREATOR]},
            ]
        )
        hidden, reads = here.verdict("alice", "/room/r/meta")
        self.assertEqual((hidden, reads.lookups), (frozenset(("hash",)), {}))

    def test_hidden_value_is_not_redacted_besides(self) -> None:
        """Hidden is hidden, and nothing more is looked up."""
        here = world(
            {"path": "/room/{id}/**", "visible": "checks", "checks": [PRESENT]},
            snapshot_transforms=[{"path": META, "redact_fields": ["hash"], "unless": [CREATOR]}],
        )
        hidden, reads = here.verdict("bob", "/room/r/meta")
        self.assertEqual((hidden, set(reads.lookups)), (HIDDEN, {"/room/r/here/bob"}))


class AppliesToTests(SynchronousTestCase):
    """Entries that hold for one way out only."""

    def test_policy_without_such_entries_does_not_tell_them_apart(self) -> None:
        """So that one verdict serves both."""
        here = world({"path": "/a", "visible": False, "applies_to": ["live", "snapshot"]})
        self.assertFalse(here.policy.tells_live_apart)
        self.assertEqual([here.view("alice", "/a", is_live=live) for live in (False, True)], [HIDDEN, HIDDEN])

    def test_entry_and_transform_for_snapshots_are_passed_over_live(self) -> None:
        """The next one that matches decides there."""
        here = world(
            {"path": "/a/*", "visible": False, "applies_to": ["snapshot"]},
            {"path": "/a/b", "visible": False, "applies_to": ["live"]},
            snapshot_transforms=[{"path": "/c", "redact_fields": ["x"], "applies_to": ["snapshot"]}],
        )
        self.assertTrue(here.policy.tells_live_apart)
        for address, views in (("/a/x", [HIDDEN, FULL]), ("/a/b", [HIDDEN, HIDDEN]), ("/c", [frozenset("x"), FULL])):
            with self.subTest(address=address):
                self.assertEqual([here.view("alice", address, is_live=live) for live in (False, True)], views)


PATHS = [
    "/a/{x}/**",
    "/a/*/meta",
    "/a/b/{y**}",
    "/a/b/**",
    "/**/auth",
    "/a/**/b/*",
    "/{x**}/c",
    "/a/{x}/{y}",
    "/a/b*",
    "/**",
]
"""Paths that look at the last segment of an address, and some that do not."""
ADDRESSES = st.lists(st.sampled_from(["a", "b", "bc", "c", "meta", "auth", "n1", "n2"]), min_size=1, max_size=5).map(
    lambda names: "/" + "/".join(names)
)
ENTRIES = st.builds(
    lambda path, rest: {"path": path, **rest},
    st.sampled_from(PATHS),
    st.sampled_from(
        [
            {"visible": False},
            {"visible": "checks", "checks": [{"type": "state_not_null", "lookup": "/x"}]},
            {"visible": "checks", "checks": [{"type": "value_is_map"}]},
        ]
    ),
)
TRANSFORMS = st.builds(lambda path: {"path": path, "redact_fields": ["f"]}, st.sampled_from(PATHS))


class SiblingTests(SynchronousTestCase):
    """What is found for one address is used for others with the same parent."""

    @given(st.lists(ENTRIES, max_size=4), st.lists(TRANSFORMS, max_size=2), st.lists(ADDRESSES, min_size=1, max_size=8))
    def test_address_is_decided_about_as_if_it_were_the_only_one(
        self, entries: list[PyValue], transforms: list[PyValue], addresses: list[str]
    ) -> None:
        """Whatever was asked before."""
        here = world(*entries, snapshot_transforms=transforms)
        for address in addresses:
            alone = world(*entries, snapshot_transforms=transforms).policy.visibility._snapshot._bind(address)
            found = here.policy.visibility_rule(address)
            self.assertEqual((found.key, found.fixed, found.redactions), (alone.key, alone.fixed, alone.redactions))

    def test_siblings_share_what_is_found(self) -> None:
        """So that a hundred thousand of them are found as fast as a few."""
        here = world({"path": "/room/{id}/**", "visible": "checks", "checks": [PRESENT]})
        self.assertIs(here.policy.visibility_rule("/room/r/x/1"), here.policy.visibility_rule("/room/r/x/2"))
        self.assertIsNot(here.policy.visibility_rule("/room/r/x/1"), here.policy.visibility_rule("/room/s/x/1"))

    def test_part_of_a_name_may_count(self) -> None:
        """Then each address is looked at."""
        for entry in ({"path": "/room/*/x*", "visible": False}, {"path_contains": "/x", "visible": False}):
            with self.subTest(entry=entry):
                here = world(entry)
                self.assertEqual([here.view("alice", f"/room/r/{name}") for name in ("y1", "x1")], [FULL, HIDDEN])


USERS = ["ann", "bob"]
CHANGES = st.tuples(
    st.sampled_from(
        [
            *(
                f"/chat/room/r/{rest}/{user}"
                for rest in ("presence", "bans", "admin", "crypto/proof")
                for user in USERS
            ),
            *["/chat/room/r/meta"] * 4,
            "/chat/room/r/video/presence/s1",
            "/chat/room/r/video/presence/s2",
            "/chat/room/other/meta",
        ]
    ),
    st.sampled_from(
        [
            None,
            {"hash": "h"},
            {"hash": "g"},
            {"creatorId": "ann", "isPublic": False},
            {"creatorId": "bob", "passwordHash": "h"},
            {"dmUsers": {"ann": "A"}, "isPublic": False},
            {"passwordHash": "g", "isPublic": True},
        ]
    ),
    st.sampled_from(USERS),
    st.sampled_from([0, 1, 20, 40]),
)
PLACES = [
    f"/chat/room/r/{rest}"
    for rest in (
        "meta",
        "messages",
        "presence/bob",
        "bans/bob",
        "video/signal/s1",
        "crypto/proof/bob",
        "crypto/pubkey/ann",
    )
]


class InvalidationTests(SynchronousTestCase):
    """A verdict holds until something that it names changes."""

    @given(st.lists(CHANGES, max_size=8), st.sampled_from(PLACES), st.sampled_from([None, "/chat/room/**", "hello"]))
    def test_verdict_changes_only_with_what_it_names(
        self, changes: list[tuple[str, PyValue, str, int]], address: str, pattern: str | None
    ) -> None:
        """A change elsewhere, a beat where only existence counts, and time before its end change nothing."""
        here = World(CHAT)
        verdict = here.verdict("ann", address, pattern)
        for changed, value, by, seconds in changes:
            here.later(seconds)
            existed = changed in here.params
            here.put(changed, value, by)
            is_named = (
                changed in by_value(verdict.reads)
                or (changed in by_existence(verdict.reads) and existed != (value is not None))
                or any(looked.matches(changed) for looked in verdict.reads.patterns)
                or (verdict.reads.until_us is not None and here.now_us >= verdict.reads.until_us)
            )
            now = here.verdict("ann", address, pattern)
            if not is_named:
                self.assertEqual(now.hidden_keys, verdict.hidden_keys)
            verdict = now
