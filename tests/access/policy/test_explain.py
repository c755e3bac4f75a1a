"""What people are told."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.policy import Explanation, Policy, explain_read, explain_write
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.values import PyValue, encode_value
from tests.access.policy.world import World

DOCUMENT: dict[str, PyValue] = {
    "scopes": ["read:/room/**", "write:/room/**", "write:/free", "admin:/root/{userId}/**", "read:/own/{userId}/**"],
    "ttl": {"/room/*/here/*": 60},
    "clear_on_disconnect": ["/room/*/cursor/{session}"],
    "write_rules": [
        {
            "path": "/room/{id}/meta",
            "stamp": {"field": "by", "value": "{session}", "outlives_null": True},
            "allow_null_write": True,
            "checks": [
                {
                    "type": "any_of",
                    "checks": [
                        {"type": "state_null", "lookup": "/room/{id}/meta"},
                        {"type": "state_field_equals_session", "lookup": "/room/{id}/meta", "field": "by"},
                    ],
                }
            ],
        },
        {
            "path": "/room/{id}/proof",
            "pre_checks": [{"type": "value_is_map"}],
            "failures": {"max": 1, "window_secs": 60},
        },
    ],
    "snapshot_visibility": [
        {"path": "/own/{user}/**", "visible": "owner", "owner_segment": "user"},
        {"path": "/room/{id}/gone", "visible": False},
        {
            "path": "/room/{id}/meta",
            "visible": True,
            "literal": ["id"],
            "unless": [{"type": "state_not_null", "lookup": "/room/{id}/here/{session}"}],
        },
        {
            "path": "/room/{id}/**",
            "visible": "checks",
            "checks": [{"type": "state_not_null", "lookup": "/room/{id}/here/{session}"}],
        },
    ],
    "snapshot_transforms": [
        {
            "path": "/room/{id}/meta",
            "redact_fields": ["hash"],
            "unless": [{"type": "state_field_equals_session", "lookup": "/room/{id}/meta", "field": "by"}],
        },
    ],
}


class ExplainTests(SynchronousTestCase):
    """Answers with reasons."""

    def setUp(self) -> None:
        """Makes a room of alice."""
        self.world = World(Policy.from_document(DOCUMENT))
        self.world.put("/room/r/meta", {"by": "alice", "hash": "h"}, "alice")

    def write(self, by: str, address: str, value: PyValue, *, is_publish: bool = False) -> Explanation:
        """Explains a write."""
        world = self.world
        return explain_write(world.policy, by, address, encode_value(value), world, world.now_us, is_publish=is_publish)

    def read(self, by: str, address: str, pattern: str | None = None) -> Explanation:
        """Explains a read."""
        seen_by = None if pattern is None else Pattern.parse(pattern)
        return explain_read(self.world.policy, by, address, self.world, self.world.now_us, pattern=seen_by)

    def test_write_that_is_allowed(self) -> None:
        """Scope, rule, checks, and what is stored."""
        explanation = self.write("alice", "/room/r/meta", {"n": 1})
        self.assertTrue(explanation.allowed)
        self.assertEqual(
            str(explanation),
            "alice may write /room/r/meta\n"
            "scope: write:/room/**\n"
            "rule: write_rules[0] /room/{id}/meta\n"
            "  stamps 'by'\n"
            "  checks, all:\n"
            "    yes any_of:\n"
            "        no  state_null(lookup=/room/r/meta)\n"
            "        yes state_field_equals_session(lookup=/room/r/meta, field=by)\n"
            "  a null skips checks\n"
            "stored as: {'n': 1, 'by': 'alice'}",
        )

    def test_write_that_is_refused(self) -> None:
        """By a rule or by the scopes, with the ERROR that its writer would read."""
        explanation = self.write("bob", "/room/r/meta", {"n": 1})
        self.assertFalse(explanation.allowed)
        self.assertIn("bob may not write /room/r/meta: /room/r/meta is set, or only the user in", explanation.lines[0])
        self.assertIn("(ERROR 403)", explanation.lines[0])
        self.assertFalse(self.write("alice", "/room/r/meta", {}, is_publish=True).allowed)
        explanation = self.write("bob", "/elsewhere", 1)
        self.assertEqual(
            explanation.lines,
            (
                "bob may not write /elsewhere: no write scope holds this address (ERROR 301)",
                "scope: none of write, admin holds /elsewhere",
                "rule: none matches, so the scope alone decides",
            ),
        )

    def test_write_without_a_rule(self) -> None:
        """The scope alone, and a life time when there is one."""
        self.assertEqual(self.write("bob", "/free", 1).lines[-1], "rule: none matches, so the scope alone decides")
        self.assertEqual(self.write("bob", "/room/r/here/bob", 1).lines[-1], "expires 60 s after it")
        cleared = "cleared when the last session of bob ends (clear_on_disconnect /room/*/cursor/{session})"
        self.assertEqual(self.write("bob", "/room/r/cursor/bob", 1).lines[-1], cleared)
        self.assertNotIn(cleared, self.write("bob", "/room/r/cursor/ann", 1).lines)

    def test_explaining_counts_no_failure(self) -> None:
        """However often it is asked; failures of before are told."""
        for _ in range(3):
            self.assertFalse(self.write("bob", "/room/r/proof", 1).allowed)
        self.assertTrue(self.write("bob", "/room/r/proof", {}).allowed)
        self.assertEqual(self.world.code("bob", "/room/r/proof", 1), 403)
        self.assertIn("429", self.write("bob", "/room/r/proof", {}).lines[-1])

    def test_admin_skips_everything(self) -> None:
        """And is told so."""
        self.assertIn(
            "rules: skipped, an admin scope holds this address", self.write("alice", "/root/alice/x", 1).lines
        )
        explanation = self.read("alice", "/root/alice/x")
        self.assertEqual(explanation.lines[0], "alice sees all of /root/alice/x")

    def test_read_that_is_shown(self) -> None:
        """Whole or redacted, by which entry."""
        self.assertEqual(self.read("alice", "/room/r/meta").lines[0], "alice, /room/r/meta: shown")
        explanation = self.read("bob", "/room/r/meta")
        self.assertTrue(explanation.allowed)
        self.assertEqual(
            explanation.lines,
            (
                "bob, /room/r/meta: shown without hash",
                "scope: read:/room/**",
                "visibility: snapshot_visibility[2] /room/{id}/meta",
                "  shown to everybody",
                "  yes {id} stands literally in /room/r/meta, unless:",
                "    no  state_not_null(lookup=/room/r/here/bob)",
                "redaction: snapshot_transforms[0] /room/{id}/meta removes hash, unless:",
                "    no  state_field_equals_session(lookup=/room/r/meta, field=by)",
            ),
        )
        self.assertIn("visibility: no entry matches, so it is shown", self.read("bob", "/free").lines)
        self.assertIn("  only bob, its owner", self.read("bob", "/own/bob/x").lines)

    def test_read_that_is_hidden(self) -> None:
        """By an entry, a pattern, or the scopes."""
        explanation = self.read("bob", "/room/r/gone")
        self.assertFalse(explanation.allowed)
        self.assertEqual(
            (explanation.lines[0], explanation.lines[-1]), ("bob, /room/r/gone: hidden", "  hidden from everybody")
        )
        self.assertEqual(self.read("bob", "/room/r/meta", "/room/**").lines[0], "bob, /room/r/meta: hidden")
        explanation = self.read("bob", "/room/r/x")
        self.assertEqual(explanation.lines[-2:], ("  checks, all:", "    no  state_not_null(lookup=/room/r/here/bob)"))
        explanation = self.read("bob", "/own/alice/x", "/own/**")
        self.assertIn("bob may not read /own/**: no scope allows it (ERROR 301)", explanation.lines[0])
        self.assertIn("none of read, admin holds /own/**", explanation.lines[1])

    def test_ways_out_are_told_apart_where_they_differ(self) -> None:
        """Snapshots and live messages."""
        document = {
            "scopes": ["read:/a"],
            "snapshot_visibility": [{"path": "/a", "visible": False, "applies_to": ["snapshot"]}],
        }
        self.world = World(Policy.from_document(document))
        explanation = self.read("bob", "/a")
        self.assertTrue(explanation.allowed)
        self.assertEqual(explanation.lines[0], "bob, /a: hidden in snapshots; shown live")
        self.assertIn("live:", explanation.lines)

    def test_reads_of_any_mode_are_explained(self) -> None:
        """And transforms without exceptions."""
        yes = {"type": "segment_equals_session", "segment": "b"}
        document = {
            "scopes": ["read:/a/*"],
            "snapshot_visibility": [{"path": "/a/{b}", "visible": "checks", "mode": "any", "checks": [yes]}],
            "snapshot_transforms": [{"path": "/a/*", "redact_fields": ["x"]}],
        }
        self.world = World(Policy.from_document(document))
        self.assertEqual(
            self.read("bob", "/a/bob").lines[-3:],
            (
                "  checks, any:",
                "    yes segment_equals_session(segment=b)",
                "redaction: snapshot_transforms[0] /a/* removes x",
            ),
        )

    def test_locks_and_authors_are_told(self) -> None:
        """Who gets past a lock, whether there are any, what is stored, and why another's name is refused."""
        document = {
            "scopes": ["write:/**"],
            "lock": False,
            "write_rules": [
                {"path": "/plan/{user}", "owner": "{user}", "lock": True},
                {"path": "/say", "stamp": {"field": "by", "publish": True}},
                {"path": "/note", "within": {"bytes": 20, "characters": {"text": 3}}},
            ],
        }
        self.world = World(Policy.from_document(document))
        self.assertIn("  gets past a lock: ann", self.write("bob", "/plan/ann", 1).lines)
        self.assertNotIn("lock: refused (ERROR 403)", self.write("bob", "/plan/ann", 1).lines)
        said = self.write("bob", "/note", {"text": "long"})
        self.assertIn("  at most 20 bytes, 3 characters in 'text'", said.lines)
        self.assertEqual((said.allowed, said.lines[0][-14:]), (False, "4 (ERROR 402)".rjust(14)))
        lines = self.write("bob", "/say", {}).lines
        self.assertEqual(lines[-2:], ("lock: refused (ERROR 403)", "stored as: {'by': 'bob'}"))
        self.assertEqual(
            self.write("bob", "/say", {"by": "ann"}).lines[0],
            "bob may not write /say: 'by' in the value must be 'bob', or be left out (ERROR 403)",
        )
