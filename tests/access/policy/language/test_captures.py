"""Paths with captures, tables of paths, and templates."""

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.policy.language.captures import Path, PathTable, Template
from clasp_relay.wire.address import Pattern

NAMES = st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=6).map(lambda words: "/" + "/".join(words))
WILD = st.lists(st.sampled_from(["a", "b", "ab", "*", "**", "a*", "*b", "a*b*", "b**"]), min_size=1, max_size=5).map(
    lambda words: "/" + "/".join(words)
)
CAPTURING = st.lists(st.sampled_from(["a", "b", "*", "**", "{1}", "{**}", "a*"]), min_size=1, max_size=5)


def named(segments: list[str]) -> str:
    """Gives the captures of a path names of their own."""
    words = (segment.replace("{1}", f"{{n{n}}}").replace("{**}", f"{{n{n}**}}") for n, segment in enumerate(segments))
    return "/" + "/".join(words)


def captures(path: str, address: str) -> tuple[str, ...] | None:
    """Returns what a path captures, None when it does not match."""
    found = Path.parse(path).bind(address)
    return None if found is None else found.groups()


class PathTests(SynchronousTestCase):
    """What a path matches and captures."""

    def test_path_captures_segments(self) -> None:
        """One, several, and literals after several."""
        cases = [
            ("/room/{id}/meta", "/room/r1/meta", ("r1",)),
            ("/room/{id}/meta", "/room/r1/x/meta", None),
            ("/room/{id}", "/room", None),
            ("/ns/{path**}/{room}", "/ns/a/b/r", ("a/b", "r")),
            ("/ns/{path**}/{room}", "/ns/r", None),
            ("/ns/{path**}", "/ns/a/b/c", ("a/b/c",)),
            ("/ns/{path**}", "/ns", None),
            ("/ns/{path**}/__auth", "/ns/a/b/__auth", ("a/b",)),
            ("/ns/{path**}/__auth", "/ns/__auth", None),
            ("/ns/{path**}/__auth", "/ns/__auth/__auth", ("__auth",)),
            ("/{a**}/x/{b**}", "/1/x/2/x/3", ("1", "2/x/3")),
            ("/u/{u}/**", "/u/al", ("al",)),
            ("/u/{u}/**", "/u/al/b/c", ("al",)),
            ("/**/{last}", "/a/b/c", ("c",)),
            ("/{id}/z*", "/r.1/zone5", ("r.1",)),
            ("/{id}/x", "/{id}/x", ("{id}",)),
            ("/{id}/x", "/a\nb/x", ("a\nb",)),
        ]
        for path, address, captured in cases:
            with self.subTest(path=path, address=address):
                self.assertEqual(captures(path, address), captured)

    @given(WILD, NAMES)
    def test_path_without_captures_matches_as_a_pattern(self, text: str, address: str) -> None:
        """Wildcards mean what they mean everywhere."""
        self.assertIs(captures(text, address) is not None, Pattern.parse(text).matches(address))

    @given(CAPTURING, NAMES)
    def test_captures_put_back_give_the_address(self, segments: list[str], address: str) -> None:
        """What was captured, put into the path, matches the address; where it matches nothing, no capture could."""
        text = named(segments)
        path = Path.parse(text)
        found = path.bind(address)
        assert path.pattern is not None
        self.assertIs(found is not None, path.pattern.matches(address))
        if found is not None:
            filled = text
            for name, words in zip(path.names, found.groups(), strict=True):
                filled = re.sub(rf"\{{{name}(\*\*)?\}}", words, filled)
            self.assertTrue(Pattern.parse(filled).matches(address))

    def test_malformed_path_is_refused(self) -> None:
        """What is no pattern, no capture, or ambiguous."""
        for text in (
            "", "a/b", "/a//b", "/a/", "/a/{}", "/a/{b", "/a/b}", "/a/x{b}", "/a/{b}{c}", "/a/{b***}", "/a/{b*}",
            "/a/{1b}", "/a/{b-c}", "/{a}/{a}", "/{a}/{a**}", "/{session}/x", "/a/{{b}}",
        ):  # fmt: skip
            with self.subTest(text=text):
                self.assertRaises(ValueError, Path.parse, text)

    def test_long_address_is_decided_soon(self) -> None:
        """No path makes a matcher try combination after combination, which would take hours here."""
        paths = ["/{a**}/x/{b**}/y/{c**}/z", "/**/x/**/y/**/z", "/a*b*c*d*e", "/{a**}/x", "/**/x"]
        addresses = ["/x/y" * 16_000, "/" + "abcd" * 16_000, "/a" * 30_000]
        for path in paths:
            for address in addresses:
                self.assertIsNone(captures(path, address))


class PathTableTests(SynchronousTestCase):
    """The first of several."""

    @given(st.lists(CAPTURING.map(named), max_size=6), st.lists(NAMES, min_size=1, max_size=4))
    def test_table_finds_what_asking_one_by_one_finds(self, texts: list[str], addresses: list[str]) -> None:
        """The first match and its captures, and all matches, also with a path that is not written as one."""
        paths = [Path.parse(text) for text in texts]
        paths.insert(len(paths) // 2, Path.containing("a"))
        table = PathTable(paths)
        for address in addresses:
            matches = [(n, found.groups()) for n, path in enumerate(paths) if (found := path.bind(address))]
            self.assertEqual(table.find(address), matches[0] if matches else None)
            self.assertEqual(table.find_all(address), matches)

    def test_paths_by_content(self) -> None:
        """What contains something, and what is everything, stand in order with the rest."""
        table = PathTable([Path.containing("/__auth"), Path.parse("/a/{b}"), Path.everything()])
        self.assertEqual(table.find("/a/__auth/x"), (0, ()))
        self.assertEqual(table.find("/a/x"), (1, ("x",)))
        self.assertEqual(table.find("/a.b/__aut"), (2, ()))

    def test_empty_table_finds_nothing(self) -> None:
        """A policy need not have rules."""
        self.assertIsNone(PathTable([]).find("/a"))


class TemplateTests(SynchronousTestCase):
    """Text with captures to be filled in."""

    def test_template_is_filled_in_once(self) -> None:
        """Captured text may look like anything."""
        template = Template.parse("/x/{a}/{session}/{a}%s%%", ["a", "b"])
        self.assertEqual(template.expand(("{session}", "{a}", "%d{b}")), "/x/{session}/%d{b}/{session}%s%%")

    def test_unknown_name_is_refused(self) -> None:
        """Only what the path captures, and session."""
        for text in ("/{b}", "/{a**}", "/{a", "/a}", "/{}", "/{{a}}"):
            with self.subTest(text=text):
                self.assertRaises(ValueError, Template.parse, text, ["a"])

    def test_template_read_backwards_captures_what_was_filled_in(self) -> None:
        """The path of all addresses that a lookup can make."""
        path = Path.parse("/ns/{path**}/{room}")
        for text, reverse in (
            ("/room/{room}/presence/{session}", "/room/{room}/presence/{_session}"),
            ("/ns/{path}/{room}", "/ns/{path**}/{room}"),
            ("/{room}/{room}/{path}/x/{path}", "/{room}/*/{path**}/x/*/**"),
            ("/x-{room}/y", "/x-*/y"),
            ("/fixed", "/fixed"),
            ("/v/{room}/*", "/v/{room}/*"),
        ):
            with self.subTest(text=text):
                self.assertEqual(Template.parse(text, path.names).reversed(path).text, reverse)
