"""Kinds of settings: what each accepts, how it reads text, and how it says what it expects."""

from ipaddress import ip_network
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.setting_kinds import (
    Choice,
    Contact,
    FilePath,
    Flag,
    HostPorts,
    Kind,
    Levels,
    Namespace,
    Networks,
    Number,
    OriginList,
    OrNone,
    Targets,
    Text,
    TurnUrls,
    Whole,
)

NO_ORIGINS = (
    "",
    "*",
    "a.example",
    "//a.example",
    "https://",
    "https://*.example",
    "https://a.example/",
    "https://a.example/x",
    "https://a.example?x",
    "https://a.example#x",
    "https://u@a.example",
    "https://a.example:0",
    "https://a.example:99999",
    "https://a.example:x",
    "https://[::1",
    "https://a b",
)


class KindTests(SynchronousTestCase):
    """What each kind accepts and reads."""

    def test_kinds_accept_what_is_within_their_limits(self) -> None:
        """Limits are part of what is accepted, unless the kind says above."""
        cases: list[tuple[Kind, object]] = [
            (Whole(1, 3), 1),
            (Whole(1, 3), 3),
            (Whole(1), 10**30),
            (Number(0), 0),
            (Number(0, above=True), 0.001),
            (Number(0, high=9), 9.0),
            (Text(4), "é  é"[:3]),
            (Text(4), "abcd"),
            (FilePath(), Path("a b")),
            (OrNone(FilePath()), None),
            (OrNone(Whole(1)), 1),
            (OriginList(), ("https://a.example",)),
            (OriginList(), ("null", "file://", "https://bücher.example")),
            (OriginList(), ("http://localhost:5173", "capacitor://localhost", "http://[::1]:80")),
            (Contact(), "mailto:op@relay.example"),
            (Contact(), "https://relay.example/about"),
            (HostPorts(), ()),
            (HostPorts(), ("push.example.org:8443", "localhost:1")),
            (TurnUrls(), ()),
            (
                TurnUrls(),
                ("turn:t.example", "turns:t.example:5349", "turn:[::1]:3478?transport=tcp", "stun:192.0.2.1:3478"),
            ),
            (Networks(), ()),
            (Networks(), (ip_network("10.0.0.0/8"), ip_network("::1"))),
            (Flag(), True),
            (Namespace(), "/"),
            (Namespace(), "/studio/osc"),
            (Targets(), ()),
            (Targets(), ("192.0.2.7:9000", "[::1]:1=/a/**")),
            (Choice(("a", "b")), "b"),
            (Levels(), "info"),
            (Levels(), "warn,net=debug,core=trace"),
        ]
        for kind, value in cases:
            with self.subTest(kind=kind, value=value):
                self.assertTrue(kind.accepts(value))

    def test_kinds_refuse_what_is_outside_their_limits(self) -> None:
        """Neither values beyond a limit nor those of another type are accepted."""
        cases: list[tuple[Kind, object]] = [
            *((Namespace(), text) for text in ("", "osc", "/a/*", "/a//b", "/a\tb", "/clasp/p2p", None)),
            *((Targets(), (text,)) for text in ("desk:9000", "192.0.2.7", "192.0.2.7:0", "192.0.2.7:x", "::1:9=a")),
            (Targets(), "192.0.2.7:9000"),
            (Flag(), 1),
            (Whole(1, 3), 0),
            (Whole(1, 3), 4),
            (Whole(0), True),
            (Whole(0), 1.0),
            (Whole(0), "1"),
            (Whole(0), None),
            (Number(0), -0.5),
            (Number(0, above=True), 0),
            (Number(0, high=9), 9.5),
            (Number(0), float("nan")),
            (Number(0), float("inf")),
            (Number(0), False),
            (Number(0), "1"),
            (Text(4), ""),
            (Text(4), "ééé"),
            (Text(4), "a\nb"),
            (Text(4), "\udcff"),
            (Text(4), b"a"),
            (Levels(), None),
            (Levels(), "loud"),
            (Levels(), "info,nothing=debug"),
            (FilePath(), None),
            (FilePath(), "a"),
            (FilePath(), Path("a\0b")),
            (OrNone(Whole(1)), 0),
            (OriginList(), ()),
            (OriginList(), None),
            (OriginList(), "https://a.example"),
            (OriginList(), ("https://a.example", 7)),
            *((OriginList(), (text,)) for text in NO_ORIGINS),
            *((Contact(), text) for text in ("op@relay.example", "mailto:op", "http://a", "mailto:a b@c", "", None)),
            *((HostPorts(), (text,)) for text in ("a", "a:", ":1", "a:x", "a b:1", "[::1]:1", "https://a:1")),
            (HostPorts(), "a:1"),
            *(
                (TurnUrls(), (text,))
                for text in ("t.example", "turn:", "turn:a?transport=sctp", "turn:a b", "http://a")
            ),
            (TurnUrls(), "turn:a"),
            (Networks(), None),
            (Networks(), ("10.0.0.0/8",)),
            (Choice(("a", "b")), "c"),
            (Choice(("a", "b")), None),
        ]
        for kind, value in cases:
            with self.subTest(kind=kind, value=value):
                self.assertFalse(kind.accepts(value))

    def test_kinds_read_their_texts(self) -> None:
        """Plain spellings are read."""
        cases: list[tuple[Kind, str, object]] = [
            (Whole(0), "7330", 7330),
            (Whole(0), "-1", -1),
            (Number(0), "60", 60.0),
            (Number(0), "0.25", 0.25),
            (Text(9), " x ", " x "),
            (FilePath(), "a/b", Path("a/b")),
            (Choice(("warn",)), "WARN", "warn"),
            (Levels(), "Info,NET=debug", "info,net=debug"),
            (OrNone(Whole(1)), "7", 7),
            (OriginList(), " https://a.example , http://b:1,", ("https://a.example", "http://b:1")),
            (Flag(), "true", True),
            (Namespace(), "/osc/", "/osc"),
            (Namespace(), "/", "/"),
            (Targets(), "192.0.2.7:1, [::1]:2=/a", ("192.0.2.7:1", "[::1]:2=/a")),
            (Contact(), "mailto:op@relay.example", "mailto:op@relay.example"),
            (HostPorts(), "a:1, b:2", ("a:1", "b:2")),
            (TurnUrls(), "turn:a, turns:b:1", ("turn:a", "turns:b:1")),
            (Networks(), "10.1.2.3/8, ::1", (ip_network("10.0.0.0/8"), ip_network("::1/128"))),
        ]
        for kind, text, value in cases:
            with self.subTest(kind=kind, text=text):
                self.assertEqual(kind.parse(text), value)

    def test_kinds_refuse_to_read_other_spellings(self) -> None:
        """What only Python reads as a number, and an empty path, are refused."""
        cases: list[tuple[Kind, str]] = [
            (Whole(0), text) for text in ("", "1_000", " 1", "1.0", "0x10", "٣", "+1", "one")
        ]
        cases += [(Number(0), text) for text in ("", "1_0", "nan", "inf", "1e3", ".5", "5.", " 5", "٣")]
        cases += [(FilePath(), ""), (OrNone(FilePath()), ""), (Networks(), ","), (Networks(), "proxy.example")]
        cases += [(Targets(), ","), (HostPorts(), ","), (TurnUrls(), " "), (Flag(), "yes")]
        for kind, text in cases:
            with self.subTest(kind=kind, text=text), self.assertRaises(ValueError):
                kind.parse(text)

    @given(st.integers())
    def test_whole_reads_every_number_that_str_writes(self, number: int) -> None:
        """``parse`` undoes ``str``."""
        self.assertEqual(Whole(0).parse(str(number)), number)

    def test_kinds_say_what_they_expect(self) -> None:
        """The words name the limits."""
        cases: list[tuple[Kind, str]] = [
            (Whole(1), "a whole number from 1"),
            (Whole(0, 9), "a whole number from 0 to 9"),
            (Number(0), "a number of at least 0 and at most 1000000000"),
            (Number(0, above=True), "a number greater than 0 and at most 1000000000"),
            (Text(9), "a text of 1 to 9 bytes without control characters"),
            (FilePath(), "a path"),
            (Choice(("a", "b")), "one of a, b"),
            (
                Levels(),
                "one of error, warn, info, debug, trace, optionally followed by levels for parts (info,net=debug)",
            ),
            (OrNone(FilePath()), "a path"),
            (
                OriginList(),
                "origins as scheme://host or scheme://host:port, null or file:// for local pages, comma-separated "
                "(to allow every origin, leave the option out)",
            ),
            (Flag(), "true or false"),
            (Namespace(), "an address without wildcards, such as /studio, or / for the whole tree"),
            (
                Targets(),
                "IP addresses with a port and optionally a pattern (192.0.2.7:9000=/mixer/**), comma-separated",
            ),
            (Contact(), "mailto:NAME@HOST or https://HOST/…"),
            (HostPorts(), "hosts with a port (push.example.org:8443), comma-separated"),
            (
                TurnUrls(),
                "URLs as turn:HOST:PORT, turns:HOST:PORT or turn:HOST:PORT?transport=tcp, comma-separated",
            ),
            (Networks(), "IP addresses or networks (10.0.0.0/8), comma-separated"),
        ]
        for kind, words in cases:
            with self.subTest(kind=kind):
                self.assertEqual(kind.expected, words)
