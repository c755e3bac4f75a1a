"""Scopes against a definition that is too slow to be wrong."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.policy.scopes import UNRESTRICTED, Scopes, ScopeTemplates, check_template, expand
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import MAX_ADDRESS_BYTES

LETTERS = "abc"
ADDRESSES = ["/" + "/".join(word) for length in range(1, 5) for word in product(LETTERS, repeat=length)]
SEGMENTS = st.sampled_from([*LETTERS, "*", "**"])
PATTERNS = st.lists(SEGMENTS, min_size=1, max_size=4).map(lambda segments: "/" + "/".join(segments))
ACTION = st.sampled_from(["read", "write", "admin"])
SCOPES = st.lists(st.tuples(ACTION, PATTERNS), max_size=4)
TEMPLATES = st.lists(st.sampled_from([*LETTERS, "*", "**", "{userId}"]), max_size=3).map(
    lambda segments: "/" + "/".join([*segments, "{userId}"])
)


def matches(pattern: list[str], address: list[str]) -> bool:
    """Matches by the definition: ``*`` one segment, ``**`` any number of them."""
    if not pattern:
        return not address
    if pattern[0] == "**":
        return any(matches(pattern[1:], address[n:]) for n in range(len(address) + 1))
    return bool(address) and pattern[0] in ("*", address[0]) and matches(pattern[1:], address[1:])


def held(pattern: str) -> set[str]:
    """Returns every address that a pattern matches."""
    return {address for address in ADDRESSES if matches(pattern[1:].split("/"), address[1:].split("/"))}


class ScopesTests(SynchronousTestCase):
    """What a token may do."""

    @given(SCOPES)
    def test_scopes_allow_exactly_what_their_patterns_hold(self, scopes: list[tuple[str, str]]) -> None:
        """Write takes a write or admin scope; GET a read scope too; the first SNAPSHOT a read or admin one."""
        parsed = Scopes.parse(f"{action}:{pattern}" for action, pattern in scopes)
        may = {
            actions: set().union(*(held(pattern) for action, pattern in scopes if action in actions))
            for actions in (("write", "admin"), ("read", "write", "admin"), ("read", "admin"), ("admin",))
        }
        for address in ADDRESSES:
            self.assertEqual(parsed.can_write(address), address in may["write", "admin"])
            self.assertEqual(parsed.can_get(address), address in may["read", "write", "admin"])
            self.assertEqual(parsed.can_read(address), address in may["read", "admin"])
            self.assertEqual(parsed.is_admin(address), address in may["admin",])

    @given(SCOPES, PATTERNS)
    def test_subscription_is_never_wider_than_one_read_scope(self, scopes: list[tuple[str, str]], pattern: str) -> None:
        """What is allowed is held by one read or admin scope; addresses up to four segments decide."""
        parsed = Scopes.parse(f"{action}:{text}" for action, text in scopes)
        wide = any(action != "write" and held(pattern) <= held(text) for action, text in scopes)
        if parsed.can_subscribe(Pattern.parse(pattern)):
            self.assertTrue(wide)

    def test_subscription_is_decided_by_segments(self) -> None:
        """A scope with one wildcard does not admit a deeper pattern, as comparing text would."""
        cases = [
            ("read:/chat/room/**", "/chat/room/*/meta", True),
            ("read:/chat/room/**", "/chat/room/**", True),
            ("read:/chat/room/**", "/chat/**", False),
            ("read:/a/*", "/a/**", False),
            ("read:/a/*", "/a/*", True),
            ("read:/a/*", "/a/b*", True),
            ("read:/chat/user/*/profile", "/chat/user/**", False),
            ("read:/chat/user/*/profile", "/chat/user/u1/profile", True),
            ("write:/a/**", "/a/b", False),
            ("admin:/a/**", "/a/**", True),
            ("read:/**", "/**", True),
        ]
        for scope, pattern, allowed in cases:
            with self.subTest(scope=scope, pattern=pattern):
                self.assertIs(Scopes.parse([scope]).can_subscribe(Pattern.parse(pattern)), allowed)

    def test_two_scopes_do_not_cover_together(self) -> None:
        """One scope has to cover the whole pattern."""
        scopes = Scopes.parse(["read:/a/b", "read:/a/c"])
        self.assertFalse(scopes.can_subscribe(Pattern.parse("/a/*")))

    def test_write_scope_admits_get_but_no_subscription(self) -> None:
        """Who may write one address may read it back."""
        scopes = Scopes.parse(["write:/a/b"])
        self.assertTrue(scopes.can_get("/a/b"))
        self.assertFalse(scopes.can_subscribe(Pattern.parse("/a/b")))

    def test_answers_stay_right_when_many_addresses_are_asked(self) -> None:
        """What is remembered is bounded and never mixed up."""
        scopes = Scopes.parse(["write:/a/*"])
        addresses = [f"/{letter}/{n}" for n in range(200) for letter in "ab"] + ["/a/" + "x" * 300, "/b/" + "x" * 300]
        for _ in range(2):
            for address in addresses:
                self.assertIs(scopes.can_write(address), address.startswith("/a/"))

    def test_unrestricted_scopes_allow_everything_but_admin(self) -> None:
        """Without a policy a token reads and writes everywhere."""
        scopes = Scopes.parse(UNRESTRICTED)
        self.assertTrue(scopes.can_write("/a/b") and scopes.can_subscribe(Pattern.parse("/**")))
        self.assertFalse(scopes.is_admin("/a/b"))


class TemplateTests(SynchronousTestCase):
    """Scopes as a policy gives them."""

    def test_user_id_takes_its_place(self) -> None:
        """Every placeholder becomes the id, and only one user's scopes come out."""
        templates = ["read:/u/{userId}/**", "write:/u/x-{userId}", "read:/all"]
        self.assertEqual(expand(templates, "al-1"), ("read:/u/al-1/**", "write:/u/x-al-1", "read:/all"))

    def test_id_that_is_no_segment_is_refused(self) -> None:
        """An id never widens a scope."""
        for user_id in ("", "*", "a/b", "**", "{userId}"):
            with self.subTest(user_id=user_id):
                self.assertRaises(ValueError, expand, ["read:/u/{userId}"], user_id)

    @given(SCOPES, st.lists(st.tuples(ACTION, TEMPLATES), max_size=4), st.sampled_from([*LETTERS, "ä", "x" * 5_000]))
    def test_one_user_gets_what_the_expanded_scopes_allow(
        self, scopes: list[tuple[str, str]], own: list[tuple[str, str]], user_id: str
    ) -> None:
        """Scopes that name their user are parsed later than the others, and allow the same."""
        templates = [f"{action}:{pattern}" for action, pattern in (*scopes, *own)]
        try:
            expected = Scopes.parse(expand(templates, user_id))
        except ValueError:
            self.assertRaises(ValueError, ScopeTemplates(templates).of, user_id)
            return
        found = ScopeTemplates(templates).of(user_id)
        self.assertEqual(sorted(found.texts), sorted(expected.texts))
        self.assertIs(found.is_admin_somewhere, expected.is_admin_somewhere)
        self.assertIs(found.is_admin_everywhere, expected.is_admin_everywhere)
        patterns = [Pattern.parse(pattern.replace("{userId}", user_id)) for _, pattern in (*scopes, *own)]
        for pattern in (*patterns, Pattern.parse("/**")):
            self.assertIs(found.can_subscribe(pattern), expected.can_subscribe(pattern))
            self.assertIs(found.can_write_all(pattern), expected.can_write_all(pattern))
        for address in ADDRESSES[:12]:
            self.assertIs(found.can_write(address), expected.can_write(address))
            self.assertIs(found.can_get(address), expected.can_get(address))
            self.assertIs(found.can_read(address), expected.can_read(address))
            self.assertIs(found.is_admin(address), expected.is_admin(address))

    def test_id_that_is_no_segment_or_too_long_has_no_scopes(self) -> None:
        """At once, also where the scopes that name the user are parsed later."""
        templates = ScopeTemplates(["read:/all", "write:/u/{userId}/{userId}"])
        for user_id in ("", "*", "a/b", "{userId}", "x" * (MAX_ADDRESS_BYTES // 2), "ä" * 1_100, "\ud800"):
            with self.subTest(user_id=user_id[:9]):
                self.assertRaises(ValueError, templates.of, user_id)
        longest = "x" * ((MAX_ADDRESS_BYTES - len("/u//")) // 2)
        self.assertTrue(templates.of(longest).can_write(f"/u/{longest}/{longest}"))

    def test_malformed_scope_is_refused(self) -> None:
        """Unknown actions, no pattern, foreign placeholders."""
        for template in ("", "read", "/a/b", "delete:/a", "read:a/b", "read:/a//b", "read:/{session}", "read:/{userId"):
            with self.subTest(template=template):
                self.assertRaises(ValueError, check_template, template)
        for template in ("read:/a/**", "admin:/{userId}/x", "write:/a-{userId}"):
            with self.subTest(template=template):
                check_template(template)

    def test_token_with_a_malformed_scope_is_refused(self) -> None:
        """Scopes that a database holds are read as strictly."""
        self.assertRaises(ValueError, Scopes.parse, ["read:/a", "nonsense"])
