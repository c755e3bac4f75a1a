"""An outbox of a door gets its deliveries one by one, in order, beside sessions that share one write."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.ports import Audience, Frame
from clasp_relay.core.session.sessions import Session
from clasp_relay.doors.handed_outbox import HandedOutbox
from clasp_relay.net.frames import CODEC
from clasp_relay.net.turn import TurnWriter
from tests.doors.site import Site


class Notes(HandedOutbox):
    """Notes what it gets."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.aborted = False

    def deliver(self, frame: Frame) -> None:
        """Notes it."""
        self.frames.append(frame.wire)

    def abort(self) -> None:
        """Notes it."""
        self.aborted = True

    def send(self, frame: Frame) -> None:
        """Notes it."""
        self.frames.append(frame.wire)

    def send_snapshot(self, key: object, frames: object) -> None:
        """Is not called here."""

    def close(self, close_code: object, reason: str) -> None:
        """Is not called here."""

    def discard(self) -> None:
        """Is not called here."""


class HandedTests(SynchronousTestCase):
    def test_frames_of_a_turn_are_handed_over_in_order(self) -> None:
        """Of one run, of several, and without those that it is excluded from."""
        site = Site()
        writer: TurnWriter = site.writer
        ours, other = Notes(), Notes()
        both, one = Audience(CODEC, (ours, other)), Audience(CODEC, (ours,))
        writer.fan_out(both, Frame(b"1"))
        writer.fan_out(both, Frame(b"2"), ours)
        writer.fan_out(one, Frame(b"3"))
        writer.fan_out(both, Frame(b"4"))
        self.assertEqual(ours.frames, [])
        site.turn()
        self.assertEqual((ours.frames, other.frames), ([b"1", b"3", b"4"], [b"1", b"2", b"4"]))

    def test_fault_ends_that_session_only(self) -> None:
        """The others get theirs."""
        site = Site()
        broken, other = Notes(), Notes()
        self.patch(broken, "deliver", lambda _frame: 1 / 0)
        site.writer.fan_out(Audience(CODEC, (broken, other)), Frame(b"1"))
        site.turn()
        self.assertEqual((broken.aborted, other.frames), (True, [b"1"]))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_session_ends_in_the_middle_of_a_turn(self) -> None:
        """What the turn writer still has goes nowhere else."""
        site = Site()
        session: Session = site.relay.connect(Notes(), "192.0.2.1", CODEC)
        site.relay.disconnect(session)
        site.turn()
        self.assertEqual(site.faults, [])
