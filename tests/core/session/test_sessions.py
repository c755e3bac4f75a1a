"""Tests of clasp_relay.core.sessions."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.rights.port import ANYBODY
from clasp_relay.core.session.sessions import SessionState
from tests.core.world import World


class SessionTests(SynchronousTestCase):
    def test_session_is_live_between_hello_and_its_end(self) -> None:
        """And speaks for anybody before."""
        world = World()
        client = world.connect()
        self.assertEqual((client.session.state, client.session.is_live), (SessionState.NEW, False))
        self.assertIs(client.session.identity, ANYBODY)
        client = world.join()
        self.assertEqual((client.session.state, client.session.is_live), (SessionState.LIVE, True))
        self.assertEqual((client.session.name, client.session.features), ("test", 0xE0))
        client.leave()
        self.assertEqual((client.session.state, client.session.is_live), (SessionState.CLOSED, False))
