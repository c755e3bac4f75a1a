"""Tests of ``clasp_relay.net.admission``."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.net.admission import Admission, NetLimits, is_loopback


class AdmissionTests(SynchronousTestCase):
    def test_admission_counts_each_session_once(self) -> None:
        """However often its end is told."""
        admission = Admission(NetLimits(max_sessions=2, max_sessions_per_address=1))
        self.assertIsNone(admission.admit("a", "192.0.2.1"))
        self.assertEqual(admission.admit("b", "192.0.2.1"), "too many sessions from your address (1)")
        self.assertIsNone(admission.admit("c", "192.0.2.2"))
        self.assertEqual(admission.admit("d", "192.0.2.3"), "the server is full (2 sessions)")
        for who in ("a", "a", "b", "d"):
            admission.leave(who)
        self.assertEqual(len(admission), 1)
        self.assertIsNone(admission.admit("b", "192.0.2.1"))

    def test_admission_forgets_addresses(self) -> None:
        """No table grows with the addresses that were there once."""
        admission = Admission(NetLimits())
        for number in range(3):
            admission.admit(number, "192.0.2.1")
        for number in range(3):
            admission.leave(number)
        self.assertEqual((admission._from_address, admission._address_of), ({}, {}))

    def test_loopback_is_recognised(self) -> None:
        """In all its forms; what has no IP address is local too."""
        for address, expected in (
            ("127.0.0.1", True),
            ("127.8.8.8", True),
            ("::1", True),
            ("::ffff:127.0.0.1", True),
            ("", True),
            ("::ffff:192.0.2.1", False),
            ("192.0.2.1", False),
            ("fe80::1%eth0", False),
            ("2001:db8::1", False),
        ):
            with self.subTest(address=address):
                self.assertEqual(is_loopback(address), expected)
