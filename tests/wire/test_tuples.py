"""Tests of clasp_relay.wire.tuples."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.wire.frame import ClaspFrame
from clasp_relay.wire.messages import Publish, Set, SnapshotParam
from clasp_relay.wire.tuples import new_tuple


class NewTupleTests(SynchronousTestCase):
    """Tuples made by ``new_tuple``."""

    def test_tuple_is_that_of_the_constructor(self) -> None:
        """It has the same class, fields and order."""
        for made in (
            ClaspFrame(1, None, b"\x41"),
            Set("/a", b"\x05\x01", ttl=60),
            Publish("/a", value=b"\x00"),
            SnapshotParam("/a", b"\x00", 3, "w", 17),
        ):
            with self.subTest(type(made).__name__):
                again = new_tuple(type(made), tuple(made))
                self.assertEqual(again, made)
                self.assertIs(type(again), type(made))
                self.assertEqual(again._asdict(), made._asdict())
