"""What a change may open for sessions that subscribed before."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.policy import Policy
from clasp_relay.core.rights.port import CatchUp
from clasp_relay.wire.values import PyValue

PRESENT = {"type": "present", "lookup": "/room/{id}/here/{session}"}
META = {"type": "state_field_missing", "lookup": "/room/{id}/meta", "field": "secret"}


def opened(address: str, *entries: PyValue) -> list[tuple[str | None, str]]:
    """Returns who may newly see what after a change."""
    return [(found.subject, found.pattern.text) for found in catch_ups(address, *entries)]


def catch_ups(address: str, *entries: PyValue) -> tuple[CatchUp, ...]:
    """Returns what may open after a change."""
    return Policy.from_document({"snapshot_visibility": list(entries)}).catch_ups(address)


class CatchUpTests(SynchronousTestCase):
    """Lookups, read backwards."""

    def test_change_of_a_lookup_opens_what_it_decides(self) -> None:
        """For the one subject whose lookup it is, or for everybody."""
        entry = {"path": "/room/{id}/**", "visible": "checks", "checks": [META, PRESENT], "catch_up": True}
        self.assertEqual(opened("/room/r1/here/alice", entry), [("alice", "/room/r1/**")])
        self.assertEqual(opened("/room/r1/meta", entry), [(None, "/room/r1/**")])
        self.assertEqual(opened("/room/r1/messages", entry), [])
        self.assertEqual(opened("/elsewhere", entry), [])

    def test_what_only_coming_to_be_opens_is_told(self) -> None:
        """So that a beat costs nothing; one check that looks at the value is enough to look at every change."""
        bare = {"path": "/room/{id}/**", "visible": "checks", "checks": [PRESENT], "catch_up": True}
        self.assertEqual([found.existence_only for found in catch_ups("/room/r1/here/alice", bare)], [True])
        field = {"type": "state_field_has_session", "lookup": "/room/{id}/here/{session}", "field": "f"}
        for checks in ([PRESENT, field], [field, PRESENT]):
            both = {**bare, "checks": checks}
            self.assertEqual([found.existence_only for found in catch_ups("/room/r1/here/alice", both)], [False])
        narrow = {**bare, "path": "/room/{id}/x", "checks": [field]}
        found = [(each.pattern.text, each.existence_only) for each in catch_ups("/room/r1/here/alice", narrow, bare)]
        self.assertEqual(found, [("/room/r1/x", False), ("/room/r1/**", True)])

    def test_entry_without_catch_up_opens_nothing(self) -> None:
        """It is asked for."""
        entry = {"path": "/room/{id}/**", "visible": "checks", "checks": [PRESENT]}
        self.assertEqual(opened("/room/r1/here/alice", entry), [])

    def test_waiving_checks_open_too(self) -> None:
        """What ``unless`` looks up may open by wildcards."""
        entry = {"path": "/room/{id}/meta", "visible": True, "literal": ["id"], "unless": [PRESENT], "catch_up": True}
        self.assertEqual(opened("/room/r1/here/alice", entry), [("alice", "/room/r1/meta")])

    def test_what_the_lookup_does_not_capture_stays_open(self) -> None:
        """As a wildcard; so do entries by content or for everything."""
        friend = {"type": "state_not_null", "lookup": "/friend/{session}"}
        for keys, pattern in (
            ({"path": "/a/{b}/{c**}/d"}, "/a/*/*/**/d"),
            ({"path_contains": "/x"}, "/**"),
            ({}, "/**"),
        ):
            with self.subTest(keys=keys):
                entry = {**keys, "visible": "checks", "checks": [friend], "catch_up": True}
                self.assertEqual(opened("/friend/al", entry), [("al", pattern)])

    def test_what_another_entry_opens_anyway_is_left_out(self) -> None:
        """One walk through the subscriptions is enough."""
        entries: list[PyValue] = [
            {"path": f"/room/{{id}}/{rest}", "visible": "checks", "checks": [PRESENT], "catch_up": True}
            for rest in ("meta", "here/*", "**", "**")
        ]
        self.assertEqual(opened("/room/r1/here/alice", *entries), [("alice", "/room/r1/**")])

    def test_several_captured_segments_are_put_back(self) -> None:
        """As they were."""
        check = {"type": "state_not_null", "lookup": "/member/{path}/{session}"}
        entry = {"path": "/ns/{path**}/{leaf}", "visible": "checks", "checks": [check], "catch_up": True}
        self.assertEqual(opened("/member/a/b/alice", entry), [("alice", "/ns/a/b/*")])

    def test_pattern_that_cannot_be_is_left_out(self) -> None:
        """A freak of an address hurts nobody."""
        entry = {
            "path": "/very/long/prefix/{id}/**",
            "visible": "checks",
            "checks": [{"type": "state_not_null", "lookup": "/a/{id}"}],
            "catch_up": True,
        }
        self.assertEqual(opened("/a/" + "x" * 65_530, entry), [])


class KeysReadTests(SynchronousTestCase):
    """Which keys of a map are looked at."""

    def test_keys_of_checks_stamps_and_redactions_are_known_where_their_map_is(self) -> None:
        """However deep the check is, in a rule, an entry or a transform."""
        inner = {"type": "any_of", "checks": [{"type": "not", "check": {"type": "require_value_field", "field": "v"}}]}
        stored = {"type": "state_field_equals_session", "lookup": "/room/{id}/meta", "field": "by"}
        equal = {
            "type": "state_fields_equal",
            "lookup_a": "/proof/{session}", "field_a": "a",
            "lookup_b": "/room/{id}/meta", "field_b": "b",
        }  # fmt: skip
        both = {"type": "value_field_equals_state_field", "field": "h", "lookup": "/room/{id}/hash", "state_field": "s"}
        keys = Policy.from_document(
            {
                "write_rules": [
                    {"path": "/room/{id}/say", "stamp": {"field": "author"}, "checks": [inner, stored, both]}
                ],
                "snapshot_visibility": [{"path": "/room/{id}/**", "visible": "checks", "checks": [equal]}],
                "snapshot_transforms": [{"path": "/**", "redact_fields": ["secret"]}],
            }
        ).keys_read
        for address, expected in (
            ("/room/r/say", {"author", "v", "h", "secret"}),
            ("/room/r/meta", {"by", "b", "secret"}),
            ("/room/r/hash", {"s", "secret"}),
            ("/proof/alice", {"a", "secret"}),
            ("/" + "x" * 1000, {"secret"}),
        ):
            with self.subTest(address=address[:20]):
                self.assertEqual(keys(address), {key.encode() for key in expected})
        self.assertEqual(Policy.from_document({}).keys_read("/a"), frozenset())
