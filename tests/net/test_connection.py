"""Tests of ``clasp_relay.net.connection``."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import ErrorCode
from clasp_relay.net.connection import close_reason, error_frame
from clasp_relay.net.framing import CODEC


class ConnectionTests(SynchronousTestCase):
    def test_error_is_a_frame(self) -> None:
        """The literal bytes of an ERROR without an address, in a WebSocket message."""
        expected = b"\x82\x0e\x53\x01\x00\x0a\x51\x01\xf7\x00\x04slow\x00"
        self.assertEqual(error_frame(CODEC, ErrorCode.OVERLOADED, "slow").wire, expected)

    def test_close_reason_fits_a_close_frame(self) -> None:
        """At most 123 bytes, cut between characters."""
        for reason, expected in (("bye", b"bye"), ("x" * 200, b"x" * 123), ("é" * 100, "é".encode() * 61), ("", b"")):
            with self.subTest(reason=reason):
                self.assertEqual(close_reason(reason), expected)
