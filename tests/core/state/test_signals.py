"""Tests of clasp_relay.core.state.signals: what clients announced."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.state import signals
from clasp_relay.core.state.signals import SIGNAL_TTL_US, Signals
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import SignalDefinition


def definition(address: str, datatype: str | None = None) -> SignalDefinition:
    """Returns the definition of a param."""
    return SignalDefinition(address, Signal.PARAM, datatype)


class SignalsTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Nothing is announced."""
        self.signals = Signals()

    def found(self, pattern: str, now_us: int = 0) -> list[SignalDefinition]:
        """Returns what matches."""
        matches = self.signals.match(Pattern.parse(pattern), now_us)
        return sorted((one for one in matches if one is not None), key=lambda one: one.address)

    def test_announced_signal_is_found(self) -> None:
        """By literal patterns and others."""
        self.signals.announce((definition("/a/x"), definition("/b")), 0)
        for pattern, expected in (("/a/x", ["/a/x"]), ("/**", ["/a/x", "/b"]), ("/a/*", ["/a/x"]), ("/c", [])):
            with self.subTest(pattern=pattern):
                self.assertEqual([one.address for one in self.found(pattern)], expected)

    def test_last_definition_of_an_address_counts(self) -> None:
        """Within one ANNOUNCE and after it."""
        self.signals.announce((definition("/a", "f32"), definition("/a", "f64")), 0)
        self.assertEqual(self.found("/a"), [definition("/a", "f64")])
        self.signals.announce((definition("/a", "i32"),), 0)
        self.assertEqual(self.found("/*"), [definition("/a", "i32")])
        self.assertEqual(len(self.signals), 1)

    def test_definition_is_forgotten_after_an_hour(self) -> None:
        """Unless it is announced again meanwhile."""
        self.signals.announce((definition("/a"), definition("/b")), 0)
        self.signals.announce((definition("/a"),), 1000)
        self.assertEqual(len(self.found("/*", SIGNAL_TTL_US - 1)), 2)
        self.assertEqual([one.address for one in self.found("/*", SIGNAL_TTL_US)], ["/a"])
        self.assertEqual(self.found("/*", SIGNAL_TTL_US + 1000), [])
        self.assertEqual((len(self.signals), self.signals._bytes, self.signals._tree._root), (0, 0, {}))

    def test_too_many_signals_are_refused_all(self) -> None:
        """What is known stays, and can be announced again."""
        self.patch(signals, "MAX_SIGNALS", 3)
        self.signals.announce((definition("/a"), definition("/b")), 0)
        new = (definition("/c"), definition("/d"))
        error = self.assertRaises(RequestError, self.signals.announce, new, 0)
        self.assertEqual((error.code, error.address), (ErrorCode.OVERLOADED, "/c"))
        self.assertEqual(len(self.signals), 2)
        self.signals.announce((definition("/a"), definition("/b"), definition("/c")), 0)
        self.signals.announce(new, SIGNAL_TTL_US)
        self.assertEqual([one.address for one in self.found("/*", SIGNAL_TTL_US)], ["/c", "/d"])

    def test_texts_are_bounded_in_bytes(self) -> None:
        """All of them, in UTF-8; a definition that replaces one gives its bytes back."""
        self.patch(signals, "MAX_SIGNAL_BYTES", 20)
        full = SignalDefinition("/é", Signal.PARAM, "é" * 2, "rw", "m", (0.0, 1.0), b"\x01\x01", "12345")
        for _ in range(3):
            self.signals.announce((full,), 0)
        self.assertEqual(self.signals._bytes, 3 + 4 + 2 + 1 + 2 + 5)
        self.signals.announce((definition("/a"),), 0)
        error = self.assertRaises(RequestError, self.signals.announce, (definition("/b"),), 0)
        self.assertEqual(error.code, ErrorCode.OVERLOADED)
