"""Tests of ``clasp_relay.net.admission``."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.addresses import address_group
from clasp_relay.net.admission import SPARE_CONNECTIONS, Admission, NetLimits, is_loopback


class AdmissionTests(SynchronousTestCase):
    def test_admission_counts_sessions(self) -> None:
        """In all, each once, however often its end is told."""
        admission = Admission(NetLimits(max_sessions=2))
        for who in "abc":
            admission.connected(who, "192.0.2.1")
        self.assertEqual([admission.admit(who) for who in "ab"], [None, None])
        self.assertEqual(admission.admit("c"), "the server is full (2 sessions)")
        for who in "aac":
            admission.leave(who)
        self.assertEqual(len(admission), 1)
        self.assertIsNone(admission.admit("d"))

    def test_admission_counts_connections_by_address(self) -> None:
        """Those that are no sessions take places, too; of one address only."""
        admission = Admission(NetLimits(max_sessions_per_address=2))
        for number in range(3):
            admission.connected(number, "192.0.2.1")
        self.assertEqual(admission.admit(2), "too many connections from your address (2)")
        admission.leave(0)
        self.assertIsNone(admission.admit(2))
        admission.connected("other", "192.0.2.2")
        self.assertIsNone(admission.admit("other"))

    def test_admission_accepts_a_few_that_are_told_why_they_are_too_many(self) -> None:
        """But no more."""
        admission = Admission(NetLimits(max_sessions_per_address=2))
        for number in range(2 + SPARE_CONNECTIONS):
            self.assertTrue(admission.may_connect("192.0.2.1"))
            admission.connected(number, "192.0.2.1")
        self.assertFalse(admission.may_connect("192.0.2.1"))
        self.assertTrue(admission.may_connect("192.0.2.2"))

    def test_admission_counts_what_belongs_together_as_one_address(self) -> None:
        """A client has a whole network of IPv6 addresses."""
        admission = Admission(NetLimits(max_sessions_per_address=1), address_group)
        admission.connected(1, "2001:db8::1")
        admission.connected(2, "2001:db8::ffff")
        admission.connected(3, "2001:db8:0:1::1")
        self.assertIsNotNone(admission.admit(2))
        self.assertIsNone(admission.admit(3))

    def test_admission_counts_for_the_client_once_it_is_known(self) -> None:
        """Before its request a connection counts for the socket's peer, or for nobody if that is a proxy."""
        admission = Admission(NetLimits(max_sessions_per_address=1))
        for number, first in enumerate(("", "192.0.2.9", "192.0.2.9")):
            admission.connected(number, first)
        admission.connected(0, "192.0.2.1")
        admission.connected(1, "192.0.2.1")
        self.assertIsNotNone(admission.admit(1))
        self.assertIsNone(admission.admit(2))

    def test_admission_exempts_this_machine_where_it_is_told_to(self) -> None:
        """What has no address, as on a Unix socket, is always exempt; and 0 exempts everybody."""
        for limits, exempt in (
            (NetLimits(max_sessions_per_address=1), ("127.0.0.1", "::1", "")),
            (NetLimits(max_sessions_per_address=1, exempts_loopback=False), ("",)),
            (NetLimits(max_sessions_per_address=0, exempts_loopback=False), ("127.0.0.1", "192.0.2.1", "")),
        ):
            for address in ("127.0.0.1", "::1", "", "192.0.2.1"):
                if address == "::1" and not limits.max_sessions_per_address:
                    continue
                with self.subTest(limits=limits, address=address):
                    admission = Admission(limits)
                    for number in range(1 + SPARE_CONNECTIONS):
                        admission.connected(number, address)
                    self.assertEqual(admission.may_connect(address), address in exempt)
                    self.assertEqual(admission.admit(0) is None, address in exempt)

    def test_admission_forgets_addresses(self) -> None:
        """No table grows with the addresses that were there once."""
        admission = Admission(NetLimits())
        for number in range(3):
            admission.connected(number, "192.0.2.1")
            admission.admit(number)
        for number in range(3):
            admission.leave(number)
        self.assertEqual((admission._group_of, admission._connections, admission._sessions), ({}, {}, set()))

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
