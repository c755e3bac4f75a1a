"""Tests of clasp_relay.net.reading: whose messages are handled in a turn, and for how long."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import CloseCode
from clasp_relay.net.reading import FRESH_S, MAX_BUSY_STEP_S, REST_S, SLICE_S, TURN_S, Reading
from tests.core.world import one_turn
from tests.net.helpers import MemorySession, Site, client_frame, datas, keep


class TellingClock(Clock):
    """The clock of a reactor that tells its turns apart."""

    turn_end_s = 0.0
    """See ``RelayReactor``."""


class SlowReader:
    """A connection with so many messages, of which each takes some time."""

    def __init__(
        self, clock: Clock, reading: Reading, name: str, messages: int, each_s: float, told: list[str], lane: str = ""
    ) -> None:
        self.lane = lane
        """See ``Reader``."""
        self._clock, self._reading, self._name = clock, reading, name
        self._left, self._each_s, self._told = messages, each_s, told
        self._is_busy = False
        self.looks = 0
        """How often it was asked whether it is busy."""

    @property
    def is_busy(self) -> bool:
        """See ``Reader``."""
        self.looks += 1
        return self._is_busy

    def work(self, is_busy: bool) -> None:
        """A message of it is at work, or is so no longer."""
        self._is_busy = is_busy

    def go_on(self) -> None:
        """Handles what the slice allows."""
        end_s = self._reading.slice_end_s()
        while self._left:
            if self._reading.now_s() >= end_s:
                self._reading.wait(self)
                return
            self._left -= 1
            self._told.append(self._name)
            # Time passes, and no timer is due while it does.
            self._clock.rightNow += self._each_s


class ReadingTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Makes one reading."""
        self.clock = Clock()
        self.reading = Reading(self.clock)
        self.told: list[str] = []

    def reader(self, name: str, messages: int, each_s: float, lane: str = "") -> SlowReader:
        """Returns a connection."""
        return SlowReader(self.clock, self.reading, name, messages, each_s, self.told, lane)

    def test_slice_ends_and_the_rest_waits(self) -> None:
        """Until a later turn."""
        self.reader("a", 7, SLICE_S / 2).go_on()
        self.assertEqual(self.told, ["a", "a"])
        one_turn(self.clock)
        self.assertEqual(self.told, ["a"] * 4)
        one_turn(self.clock)
        self.assertEqual(self.told, ["a"] * 6)
        one_turn(self.clock)
        self.assertEqual(self.told, ["a"] * 7)
        one_turn(self.clock)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_all_slices_of_a_turn_share_its_time(self) -> None:
        """However many connections send much at the same moment."""
        for _ in range(20):
            self.reader("a", 8, FRESH_S / 8).go_on()
        self.assertEqual(len(self.told), 8)
        for _ in range(5):
            began_s = self.clock.seconds()
            one_turn(self.clock)
            self.assertLessEqual(self.clock.seconds() - began_s, 1.01 * REST_S)
        one_turn(self.clock)
        self.reader("b", 1, FRESH_S / 8).go_on()
        self.assertEqual(self.told[-1], "b")

    def test_turns_that_the_reactor_tells_apart_need_no_call(self) -> None:
        """Each has its share all the same, and no more."""
        clock = TellingClock()
        self.clock, self.reading = clock, Reading(clock)
        for turn in range(3):
            clock.turn_end_s = clock.seconds() + TURN_S
            self.reader("a", 4, FRESH_S / 4).go_on()
            self.assertEqual((len(self.told), clock.getDelayedCalls()), (4 * (turn + 1), []))
        self.reader("b", 1, FRESH_S / 4).go_on()
        self.assertNotIn("b", self.told)
        one_turn(clock)
        self.assertEqual(self.told[-1], "b")
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_who_waits_for_a_message_is_not_looked_at_in_every_turn(self) -> None:
        """But soon after that is done, and others have their time meanwhile."""
        busy = self.reader("busy", 1, 0)
        busy.work(True)
        self.reading.wait(busy)
        for _ in range(2_000):
            self.clock.advance(0.001)
        self.assertLess(busy.looks, 2 / MAX_BUSY_STEP_S + 20)
        self.reading.wait(self.reader("other", 1, 0))
        one_turn(self.clock)
        self.assertEqual(self.told, ["other"])
        busy.work(False)
        self.clock.advance(MAX_BUSY_STEP_S)
        self.assertEqual(self.told, ["other", "busy"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_who_is_busy_for_a_moment_waits_no_longer(self) -> None:
        """The first looks follow each other at once; one that has ended is looked at no more."""
        first, second = self.reader("first", 1, 0), self.reader("second", 1, 0)
        for reader in (first, second):
            reader.work(True)
            self.reading.wait(reader)
        one_turn(self.clock)
        first.work(False)
        one_turn(self.clock)
        self.assertEqual(self.told, ["first"])
        self.reading.forget(second)
        self.clock.advance(MAX_BUSY_STEP_S)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_who_has_had_no_slice_yet_comes_first(self) -> None:
        """Between two slices of those that have much to say."""
        for name in "abc":
            self.reader(name, 99, SLICE_S).go_on()
        for _ in range(4):
            one_turn(self.clock)
        self.told.clear()
        self.reader("a", 1, FRESH_S).go_on()
        for name in "xyz":
            self.reader(name, 1, SLICE_S / 4).go_on()
        for _ in range(6):
            one_turn(self.clock)
        self.assertEqual([name for name in self.told if name in "xyz"], ["x", "y", "z"])
        self.assertLess(self.told.index("x"), 3)

    def test_fault_of_one_connection_keeps_no_other_waiting(self) -> None:
        """It is logged."""
        faulty = self.reader("a", 9, SLICE_S)
        self.reader("b", 2, SLICE_S).go_on()
        self.reading.wait(faulty)
        self.reader("c", 2, SLICE_S).go_on()
        self.patch(faulty, "go_on", lambda: int("broken"))
        for _ in range(3):
            one_turn(self.clock)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(sorted(self.told), ["b", "b", "c", "c"])

    def test_connections_have_their_slices_one_after_the_other(self) -> None:
        """However much one of them has sent."""
        self.reader("a", 4, SLICE_S).go_on()
        self.reader("b", 2, SLICE_S).go_on()
        for _ in range(5):
            one_turn(self.clock)
        self.assertEqual(self.told, ["a", "a", "b", "a", "b", "a"])

    def test_those_that_wait_have_a_part_of_each_turn_only(self) -> None:
        """The first ones; the others wait for the turns after it."""
        for name in "abcd":
            self.reader(name, 1, REST_S).go_on()
        self.assertEqual(self.told, ["a"])
        for number in range(1, 4):
            one_turn(self.clock)
            self.assertEqual(self.told, list("abcd"[: number + 1]))

    def test_client_addresses_have_their_slices_in_turn(self) -> None:
        """However many connections one of them has, whether these have just come or go on all the time."""
        crowd = 250
        for _ in range(crowd):
            self.reader("crowd", 99, SLICE_S, "192.0.2.66").go_on()
        for _ in range(3):
            one_turn(self.clock)
        for name in "xyz":
            self.told.clear()
            for _ in range(2):
                self.reader(name, 3, SLICE_S, f"address of {name}").go_on()
            turns = 0
            while self.told.count(name) < 6:
                one_turn(self.clock)
                turns += 1
            # One slice of those that have just come and one of those that go on, for each of its own.
            self.assertLessEqual(self.told.count("crowd"), 3 * 6)
            self.assertLessEqual(turns, 4 * 6)

    def test_connection_that_has_ended_waits_no_longer(self) -> None:
        """It may be one that does not wait."""
        one = self.reader("a", 2, SLICE_S)
        self.reading.forget(one)
        one.go_on()
        self.reading.forget(one)
        one_turn(self.clock)
        self.assertEqual(self.told, ["a"])


class ConnectionTests(SynchronousTestCase):
    """What a connection does with what it has read too much of."""

    def setUp(self) -> None:
        """Makes a site whose messages take half a slice each."""
        self.site = Site()

        def receive(session: MemorySession, data: bytes) -> None:
            self.site.reactor.rightNow += SLICE_S / 2
            session.outbox.send(keep(data))

        self.client = self.site.open()
        self.site.relay.on_receive = receive
        self.received = self.site.relay.sessions[0].received
        self.received.clear()

    def test_messages_are_handled_for_a_slice_and_the_rest_in_later_turns(self) -> None:
        """In their order, whatever form they have; meanwhile nothing is read from the connection.

        The time of usual frames counts from the second one on.
        """
        fragments = client_frame(b"4a", fin=False) + client_frame(b"4b", 0)
        messages = [client_frame(b"%d" % number) for number in range(4)]
        self.client.send(b"".join((*messages, fragments, client_frame(b"5"), client_frame(b"6"))))
        self.assertEqual(self.received, [b"0", b"1", b"2"])
        self.assertNotIn(self.client.pipe, self.site.reactor.readers)
        # Under TLS more may come although nothing is to be read.
        self.client.send(client_frame(b"7"))
        self.assertEqual(self.received, [b"0", b"1", b"2"])
        for _ in range(6):
            one_turn(self.site.reactor)
        self.assertEqual(self.received, [b"0", b"1", b"2", b"3", b"4a4b", b"5", b"6", b"7"])
        self.assertIn(self.client.pipe, self.site.reactor.readers)
        one_turn(self.site.reactor)
        self.client.pipe.drain(0)
        self.assertEqual(datas(self.client.frames), self.received)

    def test_nothing_is_handled_while_a_message_is_at_work(self) -> None:
        """Whatever form it has; what comes meanwhile waits, and then comes in its order."""
        session = self.site.relay.sessions[0]

        def receive(session: MemorySession, data: bytes) -> None:
            session.is_busy = data.startswith(b"long")

        self.site.relay.on_receive = receive
        for first in (client_frame(b"long"), client_frame(b"lo", fin=False) + client_frame(b"ng", 0)):
            self.received.clear()
            self.client.send(first + client_frame(b"1") + client_frame(b"2", fin=False))
            self.client.send(client_frame(b"2", 0))
            for _ in range(3):
                one_turn(self.site.reactor)
            self.assertEqual(self.received, [b"long"])
            session.is_busy = False
            self.site.reactor.advance(MAX_BUSY_STEP_S)
            for _ in range(3):
                one_turn(self.site.reactor)
            self.assertEqual(self.received, [b"long", b"1", b"22"])
            self.assertIn(self.client.pipe, self.site.reactor.readers)

    def test_beginning_of_a_frame_that_waits_is_joined_with_its_end(self) -> None:
        """Though the end comes in a later turn."""
        whole = client_frame(b"three")
        self.client.send(client_frame(b"one") + client_frame(b"two") + whole[:7])
        self.client.send(whole[7:])
        for _ in range(3):
            one_turn(self.site.reactor)
        self.assertEqual(self.received, [b"one", b"two", b"three"])

    def test_nothing_that_waits_is_handled_once_the_session_has_ended(self) -> None:
        """Neither where the connection was lost, nor where the relay closed it."""
        other = self.site.open()
        heard = self.site.relay.sessions[1].received
        for client in (self.client, other):
            client.send(client_frame(b"x") * 5)
            self.site.reactor.rightNow += 1
            one_turn(self.site.reactor)
        self.received.clear()
        heard.clear()
        self.client.pipe.lose()
        self.site.relay.sessions[1].outbox.close(CloseCode.POLICY_VIOLATION, "enough")
        for _ in range(5):
            one_turn(self.site.reactor)
        self.assertEqual((self.received, heard), ([], []))
