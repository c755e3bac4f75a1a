"""Tests of ``clasp_relay.net.limits``."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.net.limits import NetLimits


class NetLimitsTests(SynchronousTestCase):
    def test_limits_have_the_documented_defaults(self) -> None:
        """1,000 sessions, 250 from one address, 300 s of silence, 1 MiB, 10 s to HELLO."""
        self.assertEqual(NetLimits(), NetLimits(1000, 250, 300, 1024 * 1024, 10))

    def test_limits_do_not_change(self) -> None:
        """They are set once."""
        with self.assertRaises(FrozenInstanceError):
            NetLimits().max_sessions = 1  # type: ignore[misc]
