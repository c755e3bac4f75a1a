"""Options of the Rust relay: what is ignored, and why others are refused."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.command_line.option_table import NOT_SUPPORTED, OPTIONS
from clasp_relay.command_line.upstream_options import (
    ABOUT_ACCOUNTS,
    IGNORED,
    SPELLINGS,
    UpstreamOptions,
    reason_against,
    reason_against_value,
)
from clasp_relay.settings import Settings


class UpstreamOptionsTests(SynchronousTestCase):
    """What a command line has of that relay's."""

    def test_options_without_effect_are_told_once_for_each_reason(self) -> None:
        """A rendezvous port of 0 turns it off there, too, so nothing is missing."""
        upstream = UpstreamOptions()
        for name, text in (
            ("rendezvous-port", "7340"),
            ("rendezvous-ttl", "300"),
            ("rendezvous-ttl", "301"),
            ("trust-anchor", "/data/root.pub"),
        ):
            upstream.ignore(name, text)
        first, second = upstream.notices
        self.assertEqual(first, "--rendezvous-port, --rendezvous-ttl are ignored: rendezvous is not offered")
        self.assertTrue(second.startswith("--trust-anchor is ignored: capability and entity tokens"), second)
        upstream = UpstreamOptions()
        upstream.ignore("rendezvous-port", "0")
        self.assertEqual((upstream.notices, upstream.spelling), ([], "--rendezvous-port"))

    def test_bad_value_of_an_option_without_effect_is_refused(self) -> None:
        """It is a mistake there, too."""
        for name, text in (("rendezvous-port", "x"), ("rendezvous-port", "70000"), ("trust-anchor", "")):
            with self.subTest(name):
                self.assertRaises(ValueError, UpstreamOptions().ignore, name, text)

    def test_first_spelling_of_that_relay_is_noted(self) -> None:
        """Names that both relays have, and short ones, are none."""
        upstream = UpstreamOptions()
        for shown in ("--port", "-p", "--name", "-n", "--persist", "--ws-port", "--cert"):
            upstream.note(shown)
        self.assertEqual(upstream.spelling, "--ws-port")

    def test_names_are_those_of_options_and_fields(self) -> None:
        """None is forgotten here when it is renamed there."""
        own = {name for option in OPTIONS for name in (option.name, *option.aliases)}
        self.assertEqual((SPELLINGS - own, SPELLINGS & NOT_SUPPORTED, own & set(IGNORED)), (set(IGNORED), set(), set()))
        self.assertEqual(ABOUT_ACCOUNTS - set(Settings.__dataclass_fields__), set())

    def test_refusals_have_reasons(self) -> None:
        """By name, or for a family of options."""
        self.assertEqual(reason_against("quic-port"), ": QUIC is not offered; clients connect with WebSocket (--port)")
        self.assertEqual(reason_against("federation-hub"), ": relays cannot be joined to a federation")
        self.assertEqual(reason_against("something"), "")
        reason = reason_against_value("journal-backend", "Defra")
        self.assertEqual(reason, "DefraDB is not offered; the journal is an SQLite file (--journal)")
        self.assertIsNone(reason_against_value("journal-backend", "sqlite"))
        self.assertIsNone(reason_against_value("name", "defra"))
