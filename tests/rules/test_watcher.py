"""What the relay itself hears of its params and signals."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.permissions import Bearer
from clasp_relay.access.policy.scopes import Scopes
from clasp_relay.rules.watcher import Watcher
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import NULL, Publish, Set, Value
from tests.access.test_permissions import AuthWorld
from tests.core.world import value

POLICY = {
    "scopes": ["read:/**", "write:/**"],
    "snapshot_visibility": [{"path": "/**", "visible": False}],
}

SEES_ALL = Bearer(scopes=Scopes.parse(("admin:/**",)))


class WatcherTests(SynchronousTestCase):
    """A relay that hides everything from its users."""

    def setUp(self) -> None:
        """A watcher of each kind."""
        self.world = AuthWorld(POLICY)
        self.heard: list[tuple[str, Value | None]] = []

    def watch(self, pattern: str, signal: Signal) -> Watcher:
        """Begins to watch."""
        take = lambda address, said: self.heard.append((address, said))  # noqa: E731 - a list of pairs
        watcher = Watcher(self.world.relay, SEES_ALL, "test", [Pattern.parse(pattern)], signal, take)
        watcher.open()
        return watcher

    def test_watcher_hears_what_matches_whoever_may_see_it(self) -> None:
        """Params or events, as it was told, and what ends."""
        self.watch("/a/*", Signal.PARAM)
        self.watch("/e/*", Signal.EVENT)
        ann = self.world.join("owner")
        for message in (
            Set("/a/1", value(1)),
            Set("/b/1", value(1)),
            Publish("/a/1", Signal.EVENT, value=value(2)),
            Publish("/e/1", Signal.EVENT, value=value(3)),
            Publish("/e/1", Signal.EVENT),
            Set("/a/1", NULL),
        ):
            ann.send(message)
        self.assertEqual(self.heard, [("/a/1", value(1)), ("/e/1", value(3)), ("/e/1", None), ("/a/1", NULL)])

    def test_watcher_counts_as_nobody(self) -> None:
        """No session, no user; and after its end it leaves nothing."""
        watcher = self.watch("/a/*", Signal.PARAM)
        self.assertEqual((len(self.world.relay.sessions), self.world.relay.counts.began), (0, 0))
        watcher.open()
        watcher.close()
        watcher.close()
        self.world.join("owner").send(Set("/a/1", value(1)))
        self.assertEqual((self.heard, len(self.world.relay.subscriptions)), ([], 0))

    def test_fault_of_who_is_told_stops_nothing(self) -> None:
        """It is logged."""

        def fail(_address: str, _value: Value | None) -> None:
            raise RuntimeError("told")

        Watcher(self.world.relay, SEES_ALL, "test", [Pattern.parse("/a/*")], Signal.PARAM, fail).open()
        ann = self.world.join("owner")
        ann.send(Set("/a/1", value(1)))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(len(self.world.relay.params), 1)
