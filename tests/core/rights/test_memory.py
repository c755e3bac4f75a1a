"""Which decisions rest on what."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.rights.memory import Dependents
from clasp_relay.wire.address import Pattern


class DependentsTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Four decisions."""
        self.table: Dependents[str] = Dependents()
        self.table.add("value", ["/a"], [])
        self.table.add("existence", [], ["/a"])
        self.table.add("pattern", [], [], [Pattern.parse("/a/**")])
        self.table.add("elsewhere", ["/b"], ["/c"], [Pattern.parse("/d/*")])

    def test_a_change_ends_exactly_those_that_looked(self) -> None:
        """Values, and patterns that match; existence only when something came or went."""
        self.assertEqual(self.table.changed("/a", exists=True, existed=True), {"value", "pattern"})

    def test_existence_counts_when_something_comes_or_goes(self) -> None:
        """Either way."""
        for exists in (True, False):
            with self.subTest(exists):
                self.setUp()
                found = self.table.changed("/a", exists=exists, existed=not exists)
                self.assertEqual(found, {"value", "existence", "pattern"})

    def test_what_was_told_is_noted_anew_or_not(self) -> None:
        """A decision is told once."""
        self.table.changed("/a", exists=True, existed=False)
        self.assertEqual(self.table.changed("/a", exists=False, existed=True), set())
        self.table.add("value", ["/a"], [])
        self.assertEqual(self.table.changed("/a", exists=True, existed=True), {"value"})

    def test_clear_forgets_everything(self) -> None:
        """Nothing is told afterwards."""
        self.table.clear()
        for address in ("/a", "/b", "/c", "/d/x"):
            self.assertEqual(self.table.changed(address, exists=True, existed=False), set())
