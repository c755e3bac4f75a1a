"""Tests of clasp_relay.core.history.reading: which entries are asked for."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.history.reading import Asked, is_emptied, signal_of
from clasp_relay.core.records import Change, ChangeKind, Param, no_param
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import NULL, Publish


class AskedTests(SynchronousTestCase):
    def test_entry_is_wanted_by_time_and_signal(self) -> None:
        """Both times are included."""
        param = Change(Param("/a/b", NULL, 1, "w", 10))
        stream = Change(no_param("/a/b", "w", "", 10), ChangeKind.EVENT, message=Publish("/a/b", Signal.STREAM))
        asked = Asked(Pattern.parse("/a/*"))
        self.assertEqual((asked.wants(param), asked.wants(stream)), (True, True))
        for narrower, wanted in (
            (asked._replace(from_us=10, to_us=10), (True, True)),
            (asked._replace(from_us=11), (False, False)),
            (asked._replace(to_us=9), (False, False)),
            (asked._replace(types=1 << Signal.STREAM), (False, True)),
        ):
            with self.subTest(asked=narrower):
                self.assertEqual((narrower.wants(param), narrower.wants(stream)), wanted)
        self.assertEqual((signal_of(param), signal_of(stream)), (Signal.PARAM, Signal.STREAM))

    def test_emptied_entry_is_told(self) -> None:
        """An event without a message; a null is not one."""
        about = no_param("/a", "", "", 1)
        self.assertTrue(is_emptied(Change(about, ChangeKind.EVENT)))
        self.assertFalse(is_emptied(Change(about, ChangeKind.EVENT, message=Publish("/a"))))
        self.assertFalse(is_emptied(Change(about)))
