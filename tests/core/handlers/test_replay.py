"""Tests of clasp_relay.core.handlers.replay."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import ErrorCode
from clasp_relay.wire.messages import Error, Replay
from tests.core.world import World


class ReplayTests(SynchronousTestCase):
    def test_replay_without_a_journal_is_refused(self) -> None:
        """ERROR 501 names the pattern."""
        (error,) = World().join().ask(Replay("/a/**"))
        assert isinstance(error, Error)
        self.assertEqual((error.error, error.address), (ErrorCode.NOT_CONFIGURED, "/a/**"))
