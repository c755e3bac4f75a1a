"""Tests of clasp_relay.core.session.hooks: what the relay calls at the beginning and the end of a session, in order."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.session.hooks import SessionHooks
from clasp_relay.core.session.sessions import Session
from tests.core.guard import Guard
from tests.core.world import World


class HooksTests(SynchronousTestCase):
    """Hooks that note their calls."""

    def test_session_is_told_from_its_beginning_to_its_end(self) -> None:
        """``when_gone`` is called with the last session of a subject only."""
        told: list[tuple[str, str]] = []
        world = World(permissions=Guard())
        hooks = world.relay.hooks
        hooks.origin_of = lambda peer: f"origin of {peer}"
        hooks.when_began = lambda session: told.append(("began", session.identity.subject))
        hooks.when_ended = lambda session: told.append(("ended", session.identity.subject))
        hooks.when_gone = lambda subject: told.append(("gone", subject))
        one, other = world.join("alice"), world.join("alice")
        self.assertTrue(one.session.origin.startswith("origin of "))
        self.assertEqual(one.session.lane, one.session.origin)
        one.leave()
        self.assertEqual(told, [("began", "alice"), ("began", "alice"), ("ended", "alice")])
        other.leave()
        self.assertEqual(told[3:], [("ended", "alice"), ("gone", "alice")])

    def test_without_hooks_each_address_has_its_own_lane(self) -> None:
        """No address is counted, and nothing is told."""
        hooks = SessionHooks()
        self.assertEqual((hooks.origin_of("192.0.2.1"), hooks.group_of("192.0.2.1")), ("", "192.0.2.1"))
        client = World().join()
        session: Session = client.session
        self.assertEqual((session.origin, session.lane), ("", session.peer))
        hooks.when_began(session)
        hooks.when_ended(session)
        hooks.when_gone("alice")
        self.assertTrue(session.is_live)
