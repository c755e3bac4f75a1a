"""Documents, right and wrong."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.limits import RateLimits
from clasp_relay.access.policy.document import (
    Anonymous,
    Bounds,
    FailureLimit,
    GuestIds,
    MessageRate,
)
from clasp_relay.access.policy.parsing import parse_document
from clasp_relay.errors import StartError
from clasp_relay.wire.values import PyValue

NULL = {"type": "value_null"}
CLASSIC: dict[str, PyValue] = {
    "scopes": ["read:/forum/**", "write:/forum/post/*", "write:/forum/user/{userId}/**"],
    "write_rules": [
        {
            "path": "/forum/post/{post}",
            "mode": "any",
            "allow_null_write": True,
            "pre_checks": [{"type": "require_value_field", "field": "title"}],
            "checks": [
                {
                    "type": "state_field_equals_session",
                    "lookup": "/forum/post/{post}",
                    "field": "by",
                    "allow_if_missing": True,
                },
                {
                    "type": "either_state_not_null",
                    "lookup_a": "/forum/admin/{session}",
                    "lookup_b": "/forum/mod/{session}",
                },
                {"type": "state_not_null", "lookup": "/forum/admin/{session}"},
                {"type": "value_field_equals_session", "field": "by"},
                {"type": "segment_equals_session", "segment": "post"},
            ],
        },
        {
            "path": "/forum/**",
            "checks": [
                {"type": "reject_unless_path_matches", "pattern": "/forum/user/{id}/**", "message": "Not here."}
            ],
        },
    ],
    "snapshot_visibility": [
        {"path_contains": "/secret", "visible": False},
        {"path": "/forum/user/{id}/**", "visible": "owner", "owner_segment": "id", "public_sub": "profile"},
        {"path": "/forum/post/{post}/**", "visible": "require_state_not_null", "lookup": "/forum/member/{session}"},
        {"visible": True},
    ],
    "snapshot_transforms": [{"path": "/forum/post/{post}", "redact_fields": ["ip"]}],
    "rate_limits": {"login_max_attempts": 3, "login_window_secs": 60},
}


MARK = {"field": "role", "value": "x", "publish": True, "when": [{"type": "value_is_map"}]}

COPIED = {"field": "name", "publish": True, "when": [{"type": "value_is_map"}]}

WRITER = {"type": "writer_is_account"}


class ReadingTests(SynchronousTestCase):
    """What a document becomes."""

    def test_document_of_the_rust_relay_is_read(self) -> None:
        """Every key that it knows, and a line about what is new for it."""
        document = parse_document(CLASSIC, "forum.json")
        self.assertEqual(len(document.write_rules), 2)
        self.assertEqual(len(document.visibility), 4)
        self.assertEqual(document.rate_limits, RateLimits(3, 60, 10, 900))
        (notice,) = document.notices
        self.assertIn("live messages", notice)

    def test_document_that_knows_of_live_messages_gets_no_line_about_them(self) -> None:
        """One key or check of ours is enough."""
        for key, value in (("hello_snapshot", True), ("ttl", {}), ("message_rate", {"per_second": 1})):
            self.assertEqual(parse_document({**CLASSIC, key: value}, "x").notices, ())
        entry = {"path": "/a", "visible": True, "applies_to": ["snapshot"]}
        self.assertEqual(parse_document({**CLASSIC, "snapshot_visibility": [entry]}, "x").notices, ())
        rule = {"path": "/a", "checks": [NULL]}
        self.assertEqual(parse_document({**CLASSIC, "write_rules": [rule]}, "x").notices, ())

    def test_document_without_scopes_says_so(self) -> None:
        """Nobody could do anything."""
        self.assertIn("no scopes", parse_document({}, "x").notices[0])

    def test_keys_beyond_are_read(self) -> None:
        """With their defaults."""
        rule = {
            "path": "/a/{b}",
            "stamp": {"field": "by"},
            "keep_hidden": True,
            "failures": {"max": 5, "window_secs": 60},
            "message": "No.",
            "within": {"bytes": 99, "characters": {"text": 5}},
        }
        document = parse_document(
            {
                "message_rate": {"per_second": 2.5},
                "ttl": {"/a/*": 60, "/b/{c**}": 5},
                "guest_ttl_days": {"/a/{who}/*": 36_500, "/{who}/**": 1},
                "clear_on_disconnect": ["/here/{session}", "/cursor/*"],
                "hello_snapshot": False,
                "guest_ids": "open",
                "write_rules": [rule],
            },
            "x",
        )
        self.assertEqual(document.message_rate, MessageRate(2.5, 10.0))
        self.assertEqual([(path.text, seconds) for path, seconds in document.ttl], [("/a/*", 60), ("/b/{c**}", 5)])
        days = [(path.text, days) for path, days in document.guest_ttl_days]
        self.assertEqual(days, [("/a/{who}/*", 36_500), ("/{who}/**", 1)])
        self.assertEqual(document.clear_on_disconnect, ("/here/{session}", "/cursor/*"))
        self.assertEqual((document.hello_snapshot, document.guest_ids), (False, GuestIds.OPEN))
        read = document.write_rules[0]
        assert read.stamp is not None
        self.assertEqual(
            (read.stamp.field, read.stamp.value.text, read.stamp.outlives_null), (b"by", "{session}", False)
        )
        self.assertEqual(read.within, Bounds(99, ((b"text", 5),)))
        self.assertEqual(read.failures, FailureLimit(5, 60_000_000))
        self.assertEqual((read.message, read.keep_hidden, read.is_any), ("No.", True, False))

    def test_what_is_let_in_without_a_token_is_said(self) -> None:
        """In a line for the operator, with the scopes."""
        anonymous = {"scopes": ["read:/a/**", "read:/b"], "message_rate": {"per_second": 5}}
        document = parse_document({"scopes": ["read:/**"], "anonymous": anonymous}, "x")
        self.assertEqual(document.anonymous, Anonymous(("read:/a/**", "read:/b"), MessageRate(5, 20)))
        said = "sessions without a token are let in; their scopes: read:/a/**, read:/b"
        self.assertEqual(document.notices, (said,))
        said = "sessions without a token are let in; their scopes: nothing"
        self.assertIn(said, parse_document({"anonymous": {}}, "x").notices)

    def test_mistake_is_named_with_its_path(self) -> None:
        """Unknown keys, malformed patterns, unknown check types, wrong types, at every place."""
        cases: list[tuple[PyValue, str]] = [
            ([], "must be an object"),
            ({"scope": []}, "scope: is not known here; did you mean 'scopes'?"),
            ({"scopes": "read:/a"}, "scopes: must be a list"),
            ({"scopes": ["read:/a", "reed:/a"]}, "scopes[1]: 'reed:/a': a scope is action:pattern"),
            ({"scopes": ["read:/a//b"]}, "scopes[0]: 'read:/a//b': the pattern has an empty segment"),
            ({"scopes": ["read:/{user}"]}, "scopes[0]"),
            ({"rate_limits": []}, "rate_limits: must be an object"),
            ({"rate_limits": {"login_max_attempts": "5"}}, "rate_limits.login_max_attempts: must be a whole number"),
            ({"rate_limits": {"login_max": 5}}, "rate_limits.login_max: is not known here"),
            ({"message_rate": {"burst": 5}}, "message_rate.per_second: is missing"),
            ({"message_rate": {"per_second": 0}}, "message_rate.per_second: must be more than 0"),
            ({"message_rate": {"per_second": 1, "burts": 1}}, "message_rate.burts"),
            ({"ttl": {"a/b": 5}}, "ttl.a/b: the pattern does not start with '/'"),
            ({"ttl": {"/a": 0}}, "ttl./a: must be from 1"),
            ({"ttl": {"/a": 1.5}}, "ttl./a: must be a whole number"),
            ({"guest_ttl_days": 90}, "guest_ttl_days: must be an object"),
            ({"guest_ttl_days": {"/a/{b": 90}}, "guest_ttl_days./a/{b: "),
            ({"guest_ttl_days": {"/a/{b}": 0}}, "guest_ttl_days./a/{b}: must be from 1 to 36500"),
            ({"guest_ttl_days": {"/a/{b}": "90"}}, "guest_ttl_days./a/{b}: must be a whole number"),
            ({"guest_ttl_days": {"/a/**": 90}}, "guest_ttl_days./a/**: must capture one segment, the guest's id"),
            ({"guest_ttl_days": {"/a/{b**}": 90}}, "guest_ttl_days./a/{b**}: must capture one segment"),
            ({"guest_ttl_days": {"/a/{b}/{c}": 90}}, "guest_ttl_days./a/{b}/{c}: must capture one segment"),
            ({"calls": "/a"}, "calls: must be a list"),
            ({"calls": ["/a/*", "a"]}, "calls[1]: 'a': "),
            ({"clear_on_disconnect": "/a"}, "clear_on_disconnect: must be a list"),
            ({"clear_on_disconnect": ["/a/{b}"]}, "clear_on_disconnect[0]: '/a/{b}': captures nothing"),
            ({"clear_on_disconnect": ["/a", "a"]}, "clear_on_disconnect[1]: 'a': "),
            ({"hello_snapshot": 1}, "hello_snapshot: must be true or false"),
            ({"guest_ids": "closed"}, "guest_ids: must be one of bearer, open"),
            ({"anonymous": {"scopes": ["read:a"]}}, "anonymous.scopes[0]: 'read:a': the pattern does not start"),
            ({"anonymous": {"scopes": ["admin:/a"]}}, "anonymous.scopes[0]: 'admin:/a': a session without a token"),
            ({"anonymous": {"message_rate": {}}}, "anonymous.message_rate.per_second: is missing"),
            ({"anonymous": {"rate": 1}}, "anonymous.rate: is not known here"),
            ({"anonymous": None}, "anonymous: must be an object"),
            ({"write_rules": {}}, "write_rules: must be a list"),
            ({"write_rules": [1]}, "write_rules[0]: must be an object"),
            ({"write_rules": [{"checks": []}]}, "write_rules[0].path: is missing"),
            ({"write_rules": [{"path": "/a/{b"}]}, "write_rules[0].path"),
            ({"write_rules": [{"path": "/a"}, {"path": "/a", "check": []}]}, "write_rules[1].check: is not known here"),
            ({"write_rules": [{"path": "/a", "mode": "none"}]}, "write_rules[0].mode: must be one of all, any"),
            ({"write_rules": [{"path": "/a", "allow_null_write": "yes"}]}, "write_rules[0].allow_null_write"),
            ({"write_rules": [{"path": "/a", "within": {}}]}, "write_rules[0].within: needs bytes or characters"),
            ({"write_rules": [{"path": "/a", "within": {"bytes": 0}}]}, "write_rules[0].within.bytes: must be from 1"),
            ({"write_rules": [{"path": "/a", "within": {"byte": 1}}]}, "write_rules[0].within.byte: is not known here"),
            (
                {"write_rules": [{"path": "/a", "within": {"characters": {"x": "5"}}}]},
                "write_rules[0].within.characters.x: must be a whole number",
            ),
            ({"write_rules": [{"path": "/a", "checks": [{"type": "nope"}]}]}, "write_rules[0].checks[0].type"),
            ({"write_rules": [{"path": "/a", "pre_checks": [{}]}]}, "write_rules[0].pre_checks[0].type: is missing"),
            (
                {
                    "write_rules": [
                        {"path": "/a", "checks": [NULL, {"type": "not", "check": {"type": "any_of", "checks": []}}]}
                    ]
                },
                "write_rules[0].checks[1].check.checks: must hold a check",
            ),
            *(
                ({"write_rules": [{"path": "/a", "stamp": stamp}]}, error)
                for stamp, error in (
                    ([{"field": "f"}, {"field": "g"}], "write_rules[0].stamp: may have one entry without when"),
                    ([{**MARK, "value_of": {}}], "write_rules[0].stamp[0].value: is given besides value_of"),
                    ([{**COPIED, "value_of": {"field": "n"}}], "write_rules[0].stamp[0].value_of.lookup: is missing"),
                    ([{**COPIED, "value_of": {"lookup": "/a"}}], "write_rules[0].stamp[0].value_of.field: is missing"),
                    (
                        [{**COPIED, "value_of": {"lookup": "/{x}", "field": "n"}}],
                        "write_rules[0].stamp[0].value_of.lookup: {x} is not captured",
                    ),
                    (
                        [{**COPIED, "value_of": {"lookup": "/a", "field": "n", "by": 1}}],
                        "write_rules[0].stamp[0].value_of.by: is not known here",
                    ),
                    ([{"field": "role", "publish": True}, MARK], "write_rules[0].stamp: an entry with when must have"),
                    ([{**MARK, "publish": False}], "write_rules[0].stamp[0].publish: must be true"),
                    ([{**MARK, "value": 1}], "write_rules[0].stamp[0].value: must be a string, true or false"),
                    ([{**MARK, "value": "{x}"}], "write_rules[0].stamp[0].value: {x} is not captured"),
                    ([{**MARK, "when": []}], "write_rules[0].stamp[0].when: must hold a check"),
                )
            ),
            ({"write_rules": [{"path": "/a", "stamp": {}}]}, "write_rules[0].stamp.field: is missing"),
            ({"write_rules": [{"path": "/a", "stamp": {"field": "f", "value": "{b}"}}]}, "write_rules[0].stamp.value"),
            (
                {"write_rules": [{"path": "/{a}", "stamp": {"field": "f", "value": "{a}", "outlives_null": True}}]},
                "write_rules[0].stamp.outlives_null",
            ),
            ({"write_rules": [{"path": "/a", "stamp": {"field": "f", "x": 1}}]}, "write_rules[0].stamp.x"),
            (
                {"write_rules": [{"path": "/a", "failures": {"max": 5}}]},
                "write_rules[0].failures.window_secs: is missing",
            ),
            ({"write_rules": [{"path": "/a", "message": 1}]}, "write_rules[0].message: must be a string"),
            ({"snapshot_visibility": [{"path": "/a"}]}, "snapshot_visibility[0].visible: is missing"),
            (
                {"snapshot_visibility": [{"visible": "checks", "checks": [{"type": "not", "check": WRITER}]}]},
                "snapshot_visibility[0].checks: writer_is_account is for write rules",
            ),
            (
                {"snapshot_visibility": [{"path": "/{a}", "visible": True, "literal": ["a"], "unless": [WRITER]}]},
                "snapshot_visibility[0].unless: writer_is_account is for write rules",
            ),
            (
                {"snapshot_transforms": [{"path": "/a", "unless": [WRITER]}]},
                "snapshot_transforms[0].unless: writer_is_account is for write rules",
            ),
            ({"snapshot_visibility": [{"visible": "all"}]}, "snapshot_visibility[0].visible: must be one of owner"),
            ({"snapshot_visibility": [{"visible": "owner"}]}, "snapshot_visibility[0].owner_segment: is missing"),
            (
                {"snapshot_visibility": [{"path": "/{a}", "visible": "owner", "owner_segment": "b"}]},
                "snapshot_visibility[0].owner_segment: 'b' is not captured by the path (it captures a)",
            ),
            (
                {"snapshot_visibility": [{"visible": "require_state_not_null"}]},
                "snapshot_visibility[0].lookup: is missing",
            ),
            ({"snapshot_visibility": [{"visible": "checks"}]}, "snapshot_visibility[0].checks: is missing"),
            (
                {"snapshot_visibility": [{"visible": True, "checks": [NULL]}]},
                "snapshot_visibility[0].checks: is not known",
            ),
            (
                {"snapshot_visibility": [{"visible": True, "path": "/a", "path_contains": "a"}]},
                "path_contains: is given besides",
            ),
            (
                {"snapshot_visibility": [{"visible": True, "path": "/{a}", "literal": ["b"]}]},
                "[0].literal[0]: 'b' is not",
            ),
            (
                {"snapshot_visibility": [{"visible": True, "unless": [NULL]}]},
                "snapshot_visibility[0].unless: is not known",
            ),
            (
                {"snapshot_visibility": [{"visible": True, "applies_to": ["all"]}]},
                "applies_to: must be a list of snapshot and",
            ),
            (
                {"snapshot_visibility": [{"visible": True, "applies_to": []}]},
                "applies_to: must be a list of snapshot and",
            ),
            ({"snapshot_visibility": [{"visible": True, "catch_up": 1}]}, "snapshot_visibility[0].catch_up"),
            ({"snapshot_transforms": [{"redact_fields": []}]}, "snapshot_transforms[0].path: is missing"),
            (
                {"snapshot_transforms": [{"path": "/a", "redact": []}]},
                "snapshot_transforms[0].redact: is not known here",
            ),
            (
                {"snapshot_transforms": [{"path": "/a", "unless": []}]},
                "snapshot_transforms[0].unless: must hold a check",
            ),
        ]
        for document, message in cases:
            with self.subTest(message=message):
                error = str(self.assertRaises(StartError, parse_document, document, "app.json"))
                self.assertTrue(error.startswith("app.json: "), error)
                self.assertIn(message, error)
