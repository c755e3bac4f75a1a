"""Tests of ``clasp_relay.core.fanout.audiences``."""

from weakref import ref

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.fanout.audiences import Audiences
from tests.core.world import MemoryOutbox


class AudiencesTests(SynchronousTestCase):
    """One for each set of sessions."""

    def test_same_sessions_are_one_audience(self) -> None:
        """In whatever order they subscribed."""
        audiences = Audiences()
        one, two, three = MemoryOutbox(), MemoryOutbox(), MemoryOutbox()
        first = audiences.of([one, two])
        self.assertEqual(first.outboxes, (one, two))
        self.assertIs(audiences.of(iter([two, one])), first)
        self.assertIsNot(audiences.of([one]), first)
        self.assertIsNot(audiences.of([one, three]), first)

    def test_nobody_is_kept_by_an_audience_that_is_gone(self) -> None:
        """Its sessions may be made anew at any time."""
        audiences = Audiences()
        self.assertIsNone(ref(audiences.of([MemoryOutbox()]))())
