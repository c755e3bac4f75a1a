"""Tests of clasp_relay.core.handlers.publish."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import ErrorCode
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import Publish, Subscribe
from tests.core.world import World, codes, heard, value


class PublishTests(SynchronousTestCase):
    def test_signal_is_checked_and_passed_on(self) -> None:
        """There is never an answer but an ERROR."""
        world = World()
        sender, listener = world.join(), world.join()
        listener.send(Subscribe(1, "/a"))
        self.assertEqual(sender.ask(Publish("/a", Signal.EVENT, value=value(1)), 2), [])
        self.assertEqual(codes(sender.ask(Publish("/a/", Signal.EVENT))), [ErrorCode.ADDRESS])
        self.assertEqual(heard(listener.hear()), [("/a", 1)])
