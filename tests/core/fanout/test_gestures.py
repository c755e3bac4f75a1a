"""Tests of clasp_relay.core.fanout.gestures: moves are coalesced, no other message is lost."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.fanout import gestures
from clasp_relay.wire.constants import Phase, Signal
from clasp_relay.wire.messages import Bundle, Publish, Subscribe
from tests.core.world import World, heard, value


def gesture(phase: Phase, number: int, *, address: str = "/g", gesture_id: int | None = 1) -> Publish:
    """Returns one message of a gesture."""
    return Publish(address, Signal.GESTURE, phase, value(number), id=gesture_id)


class GestureTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A sender («hand») and a subscriber («eye»)."""
        self.world = World()
        self.hand = self.world.join()
        self.eye = self.world.join()
        self.eye.send(Subscribe(1, "/**"))
        self.hand.send(Subscribe(1, "/**"))

    def do(self, *steps: tuple[Phase, int]) -> None:
        """Sends messages of one gesture."""
        for phase, number in steps:
            self.hand.send(gesture(phase, number))

    def seen(self, seconds: float = 0.0) -> list[tuple[Phase, object]]:
        """Returns what the subscriber gets in that time."""
        self.world.clock.clock.advance(seconds)
        messages = self.eye.hear()
        phases = [message.phase for message in messages if isinstance(message, Publish)]
        return list(zip(phases, (found for _, found in heard(messages)), strict=True))

    def pending(self) -> int:
        """Returns the number of delayed calls."""
        return len(self.world.clock.clock.getDelayedCalls())

    def test_moves_within_a_frame_are_the_latest_one(self) -> None:
        """The first one is sent at once, then one every 16 ms."""
        self.do((Phase.START, 0), *((Phase.MOVE, number) for number in range(1, 6)))
        self.assertEqual(self.seen(), [(Phase.START, 0), (Phase.MOVE, 1)])
        self.assertEqual(self.seen(0.0159), [])
        self.assertEqual(self.seen(0.0001), [(Phase.MOVE, 5)])
        self.do((Phase.MOVE, 6))
        self.assertEqual(self.seen(), [])
        self.assertEqual(self.seen(0.016), [(Phase.MOVE, 6)])
        self.assertEqual(self.seen(5), [])

    def test_slow_moves_pass_at_once(self) -> None:
        """A move waits only if another one was sent shortly before."""
        for number in range(3):
            self.do((Phase.MOVE, number))
            self.assertEqual(self.seen(), [(Phase.MOVE, number)])
            self.seen(0.016)

    def test_nothing_is_kept_for_a_session_that_has_ended(self) -> None:
        """Moves of its scheduled bundle are sent, each at once."""
        moves = tuple(gesture(Phase.MOVE, number) for number in range(3))
        self.hand.send(Bundle(moves, self.world.clock.now_us() + 1_000_000))
        self.hand.leave()
        self.assertEqual(self.seen(1), [(Phase.MOVE, number) for number in range(3)])
        self.eye.leave()
        self.assertEqual((len(self.world.relay.gestures), sum(self.world.relay.accounts.bytes)), (0, 0))

    def test_pending_move_comes_before_what_ends_the_gesture(self) -> None:
        """Starts, ends and cancels are never lost, and never come before an earlier move."""
        for phase in (Phase.END, Phase.CANCEL):
            with self.subTest(phase=phase):
                self.setUp()
                self.do((Phase.START, 0), (Phase.MOVE, 1), (Phase.MOVE, 2), (Phase.MOVE, 3), (phase, 4))
                self.assertEqual(self.seen(), [(Phase.START, 0), (Phase.MOVE, 1), (Phase.MOVE, 3), (phase, 4)])
                self.assertEqual(self.pending(), 0)
                self.assertEqual(len(self.world.relay.gestures), 0)

    def test_start_again_flushes_the_pending_move(self) -> None:
        """If a gesture starts again without an end, no move is lost."""
        self.do((Phase.MOVE, 1), (Phase.MOVE, 2), (Phase.START, 3), (Phase.MOVE, 4))
        self.assertEqual(self.seen(), [(Phase.MOVE, 1), (Phase.MOVE, 2), (Phase.START, 3)])
        self.assertEqual(self.seen(0.016), [(Phase.MOVE, 4)])

    def test_end_without_a_move_passes(self) -> None:
        """A tap is a start and an end."""
        self.do((Phase.START, 0), (Phase.END, 1), (Phase.END, 2))
        self.assertEqual(self.seen(), [(Phase.START, 0), (Phase.END, 1), (Phase.END, 2)])

    def test_gestures_are_apart_by_address_id_and_session(self) -> None:
        """Gestures with another id, address or session are not coalesced with each other."""
        other = self.world.join()
        for number in range(2):
            self.hand.send(gesture(Phase.MOVE, number))
            self.hand.send(gesture(Phase.MOVE, 10 + number, gesture_id=2))
            self.hand.send(gesture(Phase.MOVE, 20 + number, gesture_id=None))
            self.hand.send(gesture(Phase.MOVE, 30 + number, address="/h"))
            other.send(gesture(Phase.MOVE, 40 + number))
        self.assertEqual([found for _, found in self.seen()], [0, 10, 20, 30, 40])
        self.assertEqual([found for _, found in self.seen(0.016)], [1, 11, 21, 31, 41])

    def test_gesture_never_comes_back_to_its_sender(self) -> None:
        """Nor does a coalesced move."""
        self.do((Phase.START, 0), (Phase.MOVE, 1), (Phase.MOVE, 2))
        self.seen(1)
        self.assertEqual(self.hand.hear(), [])

    def test_gesture_without_an_end_is_forgotten(self) -> None:
        """After 5 minutes without a move, and not before."""
        self.do((Phase.MOVE, 1))
        self.world.advance(200)
        self.hand.send(gesture(Phase.MOVE, 2, gesture_id=2))
        self.world.advance(99)
        self.assertEqual(len(self.world.relay.gestures), 2)
        self.world.advance(2)
        self.assertEqual(len(self.world.relay.gestures), 1)
        self.world.advance(200)
        self.assertEqual(len(self.world.relay.gestures), 0)
        self.assertFalse(self.world.relay.gestures._sessions)

    def test_few_gestures_are_forgotten_in_one_sweep(self) -> None:
        """Many may have begun at the same moment; later sweeps forget the others."""
        self.patch(gestures, "FORGOTTEN_AT_ONCE", 2)
        for number in range(5):
            self.hand.send(gesture(Phase.START, 1, gesture_id=number))
        for number in range(5):
            self.hand.send(gesture(Phase.MOVE, 1, gesture_id=number))
        self.world.clock.clock.advance(400)
        left = []
        for _ in range(4):
            self.world.relay.sweep()
            left.append(len(self.world.relay.gestures))
        self.assertEqual(left, [3, 1, 0, 0])

    def test_disconnect_drops_what_is_pending(self) -> None:
        """No delayed call is left for an ended session."""
        self.do((Phase.MOVE, 1), (Phase.MOVE, 2))
        self.hand.send(gesture(Phase.MOVE, 3, gesture_id=2))
        self.hand.leave()
        self.world.clock.clock.advance(0)
        self.assertEqual(self.pending(), 0)
        self.assertEqual(len(self.world.relay.gestures), 0)
        self.assertEqual(self.seen(1), [(Phase.MOVE, 1), (Phase.MOVE, 3)])

    def test_session_has_a_limit_of_open_gestures(self) -> None:
        """The one that moved longest ago is forgotten, after its pending move was sent."""
        self.patch(gestures, "MAX_OPEN", 2)
        self.do((Phase.MOVE, 1), (Phase.MOVE, 2))
        self.hand.send(gesture(Phase.MOVE, 3, gesture_id=2))
        self.assertEqual([found for _, found in self.seen()], [1, 3])
        self.hand.send(gesture(Phase.MOVE, 4, gesture_id=3))
        self.assertEqual([found for _, found in self.seen()], [4, 2])
        self.assertEqual(len(self.world.relay.gestures), 2)
        self.assertEqual(self.pending(), 0)

    def test_move_that_waits_takes_its_later_place(self) -> None:
        """The sender's other messages are sent at once."""
        self.do((Phase.MOVE, 1), (Phase.MOVE, 2))
        self.hand.send(Publish("/e", value=value("event")))
        self.assertEqual([found for _, found in self.seen()], [1, "event"])
        self.assertEqual([found for _, found in self.seen(0.016)], [2])
