"""Tests of clasp_relay.core.history.rules."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.history.rules import NOWHERE, rule_of


class RuleTests(SynchronousTestCase):
    def test_key_names_its_rule(self) -> None:
        """Whatever follows the colon."""
        self.assertEqual([rule_of(key) for key in ("0:", "7:general", "12:/a/b:c")], [0, 7, 12])

    def test_nothing_is_kept_nowhere(self) -> None:
        """And nothing is erased."""
        self.assertEqual((NOWHERE.signals, NOWHERE.erases), (0, False))
