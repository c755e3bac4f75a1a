"""The reactor reads as Twisted's own does."""

import os
import select
import socket
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.clock import steady_timers
from clasp_relay.net import reactor
from clasp_relay.net.reactor import ENDS_AT_ONCE, LATE_AT_ONCE, LOOK_INTERVAL_S, READY_S, RelayReactor
from clasp_relay.net.reading import LEAST_S, TURN_S, share_end_s


class Reader:
    """The reading end of a pipe with a byte in it."""

    def __init__(self) -> None:
        self._end, self._other_end = os.pipe()
        os.set_blocking(self._end, False)
        self.fill()
        self.got: list[bytes] = []
        self.lost: list[Failure] = []
        self.result: Any = None
        self.protocol: Any = None
        """What a connection's bytes go to, which knows its lane."""

    def fill(self) -> None:
        """Puts a byte into the pipe."""
        os.write(self._other_end, b"x")

    def fileno(self) -> int:
        """Returns its descriptor."""
        return self._end

    def logPrefix(self) -> str:  # noqa: N802
        """Twisted asks for it where it logs."""
        return "reader"

    def doRead(self) -> Any:  # noqa: N802
        """Reads, and does what the test wants."""
        try:
            self.got.append(os.read(self._end, 10))
        except BlockingIOError:
            return None
        return self.result() if callable(self.result) else self.result

    def connectionLost(self, reason: Failure) -> None:
        """Notes why it ended."""
        self.lost.append(reason)

    def hang_up(self) -> None:
        """Closes the writing end."""
        if self._other_end >= 0:
            os.close(self._other_end)
            self._other_end = -1

    def close(self) -> None:
        """Closes both ends."""
        self.hang_up()
        os.close(self._end)


class Both:
    """A socket that is read and written, and notes which."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self.done: list[str] = []

    def fileno(self) -> int:
        """Returns its descriptor."""
        return self._end.fileno()

    def logPrefix(self) -> str:  # noqa: N802
        """Twisted asks for it where it logs."""
        return "both"

    def doRead(self) -> None:  # noqa: N802
        """It can be read."""
        self.done.append("read")

    def doWrite(self) -> None:  # noqa: N802
        """It can be written."""
        self.done.append("write")

    def connectionLost(self, reason: Failure) -> None:
        """Is not expected."""
        raise AssertionError(reason)


class ReactorTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Makes a reactor beside the one that there is."""
        self.reactor = RelayReactor()
        self.addCleanup(self.reactor._poller.close)
        for internal in list(self.reactor._internalReaders):
            self.addCleanup(internal.connectionLost, None)
            self.reactor.removeReader(internal)

    def reader(self) -> Reader:
        """Makes a reader that the reactor knows."""
        reader = Reader()
        self.addCleanup(reader.close)
        self.reactor.addReader(reader)
        return reader

    def test_reactor_has_everything_read_that_can_be(self) -> None:
        """In one iteration, and nothing twice."""
        readers = [self.reader() for _ in range(3)]
        self.reactor.doIteration(1)
        self.reactor.doIteration(0)
        self.assertEqual([reader.got for reader in readers], [[b"x"]] * 3)

    def test_reactor_ends_few_connections_in_a_turn(self) -> None:
        """Whichever way they end; what else is ready then is not forgotten."""
        count = ENDS_AT_ONCE * 3 // 2
        self.reader()
        for begin in (lambda reader: setattr(reader, "result", CONNECTION_DONE), Reader.hang_up):
            with self.subTest(begin=begin):
                readers = [self.reader() for _ in range(count)]
                for reader in readers:
                    begin(reader)
                lost = []
                for _ in range(4):
                    self.reactor.doIteration(0)
                    lost.append(sum(bool(reader.lost) for reader in readers))
                self.assertLessEqual(lost[0], ENDS_AT_ONCE)
                self.assertEqual(lost[-1], count)

    def test_reactor_leaves_to_the_next_turn_what_has_no_time(self) -> None:
        """Those whose turn did not come are first then, so that nobody waits for ever behind the same others."""
        now_s = 0.0
        order: list[int] = []
        self.reactor.seconds = lambda: now_s
        self.patch(reactor, "thread_time", lambda: now_s)
        readers = [self.reader() for _ in range(5)]

        def read(number: int) -> Callable[[], None]:
            def take() -> None:
                nonlocal now_s
                now_s += 0.6 * READY_S
                order.append(number)
                readers[number].fill()

            return take

        for number, reader in enumerate(readers):
            reader.result = read(number)
        for _ in range(20):
            began = len(order)
            self.reactor.doIteration(0)
            self.assertEqual(len(order) - began, 2)
            self.assertTrue(self.reactor.is_behind)
        self.assertEqual(sorted(order[:5]), [0, 1, 2, 3, 4])
        self.assertGreaterEqual(min(map(order.count, range(5))), 5)

    def test_reactor_lets_client_addresses_take_turns_once_there_is_no_time_for_all(self) -> None:
        """One socket waits for one of each other address, not for all that an address has; under TLS, too."""
        now_s = 0.0
        order: list[str] = []
        self.reactor.seconds = lambda: now_s
        self.patch(reactor, "thread_time", lambda: now_s)

        def connect(lane: str, is_tls: bool = False) -> Reader:
            def take() -> None:
                nonlocal now_s
                now_s += 0.3 * READY_S
                order.append(lane)
                reader.fill()

            reader = self.reader()
            reader.result = take
            protocol = SimpleNamespace(lane=lane)
            reader.protocol = SimpleNamespace(wrappedProtocol=protocol) if is_tls else protocol
            return reader

        crowd = 250
        for _ in range(crowd):
            connect("crowd")
        self.reactor.doIteration(0)
        self.assertEqual(order, ["crowd"] * 4)
        connect("one")
        connect("two", is_tls=True)
        # Whatever is no client's is alone.
        own = self.reader()
        own.result = lambda: order.append("own")
        order.clear()
        for _ in range(20):
            self.reactor.doIteration(0)
        self.assertEqual(set(order[:4]), {"crowd", "one", "two", "own"})
        # They are found each time that the reactor looks for others than those that wait; the crowd has the rest.
        looks = now_s // (LOOK_INTERVAL_S + 2 * READY_S)
        self.assertGreaterEqual(min(order.count("one"), order.count("two")), looks)
        self.assertGreater(order.count("crowd"), 20)

    def test_reactor_serves_all_of_a_crowd(self) -> None:
        """Also while others come again and again."""
        now_s = 0.0
        self.reactor.seconds = lambda: now_s
        self.patch(reactor, "thread_time", lambda: now_s)

        def take() -> None:
            nonlocal now_s
            now_s += 0.4 * READY_S

        readers = [self.reader() for _ in range(90)]
        for number, reader in enumerate(readers):
            reader.protocol = SimpleNamespace(lane=f"address {number % 3 if number < 6 else 0}")
            reader.result = take
        for _ in range(150):
            self.reactor.doIteration(0)
            for reader in readers[:6]:
                reader.fill()
        self.assertEqual([bool(reader.got) for reader in readers], [True] * len(readers))

    def leave(self, readers: list[Reader]) -> None:
        """Leaves some ready sockets to the next turn."""
        self.reactor._leave([(reader.fileno(), select.EPOLLIN) for reader in readers])

    def test_socket_that_has_ended_takes_no_place_of_its_lane(self) -> None:
        """Another ready one of its client's address is found at the next look, among those of a crowd."""
        crowd, ended = [self.reader() for _ in range(3 * LATE_AT_ONCE)], self.reader()
        for reader in crowd:
            reader.protocol = SimpleNamespace(lane="crowd")
        ended.protocol = SimpleNamespace(lane="one")
        self.leave([*crowd, ended])
        self.reactor.removeReader(ended)
        other = self.reader()
        other.protocol = SimpleNamespace(lane="one")
        first = [descriptor for descriptor, _ in self.reactor._left(time.monotonic())]
        self.assertIn(other.fileno(), first)

    def test_turn_that_an_exception_ends_leaves_nothing_behind(self) -> None:
        """Epoll returns the other sockets again, and none is read twice."""
        readers = [self.reader() for _ in range(2 * LATE_AT_ONCE)]
        self.leave(readers)
        readers[0].result = CONNECTION_DONE
        self.patch(readers[0], "connectionLost", lambda _reason: 1 / 0)
        self.assertRaises(ZeroDivisionError, self.reactor.doIteration, 0)
        self.reactor.doIteration(0)
        self.assertEqual((list(self.reactor._late), self.reactor.is_behind), ([], False))
        self.assertEqual([reader.got for reader in readers], [[b"x"]] * len(readers))

    def test_turn_looks_at_no_more_sockets_than_it_handles(self) -> None:
        """However many the last one left: or each turn would look at all of them, and handle a few."""
        now_s, looked_at = 0.0, 0
        self.reactor.seconds = lambda: now_s
        self.patch(reactor, "thread_time", lambda: now_s)
        self.patch(reactor, "LOOK_INTERVAL_S", 1_000)

        class Counting(dict[int, Any]):
            """Counts the questions."""

            def get(self, descriptor: int, default: Any = None) -> Any:
                nonlocal looked_at
                looked_at += 1
                return super().get(descriptor, default)

        def take() -> None:
            nonlocal now_s
            now_s += 0.6 * READY_S

        readers = [self.reader() for _ in range(10 * LATE_AT_ONCE)]
        for reader in readers:
            reader.result = take
        for _ in range(2):
            self.reactor.doIteration(0)
        self.reactor._selectables = Counting(self.reactor._selectables)
        turns = 4 * LATE_AT_ONCE
        for _ in range(turns):
            self.reactor.doIteration(0)
        self.assertTrue(self.reactor.is_behind)
        self.assertLess(looked_at / turns, 3 * LATE_AT_ONCE)
        for _ in range(2 * LATE_AT_ONCE):
            self.reactor.doIteration(0)
        self.assertEqual([reader.got for reader in readers], [[b"x"]] * len(readers))

    def test_reactor_asks_for_few_sockets_at_a_time(self) -> None:
        """Each that is ready is read in the turn all the same, and none twice, though it is ready again at once."""
        self.patch(reactor, "READY_AT_ONCE", 2)
        for count in (2, 5, 6):
            with self.subTest(count=count):
                readers = [self.reader() for _ in range(count)]
                for reader in readers:
                    reader.result = reader.fill
                self.reactor.doIteration(1)
                self.assertEqual([reader.got for reader in readers], [[b"x"]] * count)
                self.assertFalse(self.reactor.is_behind)
                for reader in readers:
                    self.reactor.removeReader(reader)

    def test_reactor_does_not_read_later_what_was_paused_meanwhile(self) -> None:
        """Though it still writes."""
        now_s = 0.0
        self.reactor.seconds = lambda: now_s
        self.patch(reactor, "thread_time", lambda: now_s)
        slow = self.reader()

        def take() -> None:
            nonlocal now_s
            now_s += READY_S

        slow.result = take
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
            self.addCleanup(end.close)
        both = Both(ours)
        self.reactor.addReader(both)
        self.reactor.addWriter(both)
        theirs.send(b"x")
        self.reactor.doIteration(1)
        self.assertEqual((slow.got, both.done, self.reactor.is_behind), ([b"x"], [], True))
        self.reactor.removeReader(both)
        self.reactor.doIteration(0)
        self.assertEqual(both.done, ["write"])

    def test_reactor_keeps_a_time_that_nobody_sets(self) -> None:
        """Without a function of ours around the system's."""
        self.assertIs(self.reactor.seconds, time.monotonic)
        steady_timers(self.reactor)
        self.assertIs(self.reactor.seconds, time.monotonic)

    def test_reactor_forgets_what_is_ready_no_longer(self) -> None:
        """Its descriptor may be another one's by then."""
        now_s = 0.0
        self.reactor.seconds = lambda: now_s
        self.patch(reactor, "thread_time", lambda: now_s)
        readers = [self.reader() for _ in range(3)]

        def take() -> None:
            nonlocal now_s
            now_s += READY_S

        for reader in readers:
            reader.result = take
        self.reactor.doIteration(0)
        (first,) = (reader for reader in readers if reader.got)
        left = [reader for reader in readers if reader is not first]
        os.read(left[0].fileno(), 10)
        self.reactor.removeReader(left[1])
        first.fill()
        self.reactor.doIteration(0)
        self.assertEqual([reader.got for reader in (first, *left)], [[b"x", b"x"], [], []])
        self.assertFalse(self.reactor.is_behind)

    def test_shares_of_a_turn_end_where_the_turn_should_end(self) -> None:
        """However many there are; but each is long enough for a piece of work."""
        now_s = 50.0
        self.reactor.seconds = lambda: now_s
        self.reader()
        self.reactor.doIteration(0)
        for used_s, share_s, expected_s in (
            (0.0, 0.001, 0.001),
            (0.0, 1.0, TURN_S),
            (TURN_S / 2, 1.0, TURN_S / 2),
            (TURN_S, 1.0, LEAST_S),
            (1.0, 1.0, LEAST_S),
            (1.0, LEAST_S / 2, LEAST_S / 2),
        ):
            with self.subTest(used_s=used_s, share_s=share_s):
                now_s = 50.0 + used_s
                self.assertLessEqual(abs(share_end_s(self.reactor, share_s) - now_s - expected_s), 1e-9)
        self.assertEqual(share_end_s(Clock(), 1.0), 1.0, "another reactor does not tell")

    def test_reactor_ends_what_says_that_it_has_ended(self) -> None:
        """With the reason that it gave; it is read no more."""
        reader = self.reader()
        reader.result = CONNECTION_DONE
        self.reactor.doIteration(1)
        self.assertTrue(reader.lost[0].check(ConnectionDone))
        self.assertEqual(self.reactor.getReaders(), [])

    def test_reactor_keeps_an_error_from_the_others(self) -> None:
        """What raises is logged and ends alone."""
        readers = [self.reader() for _ in range(3)]

        def fail() -> None:
            raise ZeroDivisionError

        readers[1].result = fail
        self.reactor.doIteration(1)
        self.assertEqual([len(reader.lost) for reader in readers], [0, 1, 0])
        self.assertTrue(readers[1].lost[0].check(ZeroDivisionError))
        self.assertEqual([reader.got for reader in readers], [[b"x"]] * 3)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_reactor_does_not_read_what_another_one_removed(self) -> None:
        """Though both were ready at the same time."""
        readers = [self.reader() for _ in range(2)]
        readers[0].result = lambda: self.reactor.removeReader(readers[1])
        readers[1].result = lambda: self.reactor.removeReader(readers[0])
        self.reactor.doIteration(1)
        self.assertEqual(sorted(reader.got for reader in readers), [[], [b"x"]])

    def test_reactor_tells_a_reader_that_its_peer_hung_up(self) -> None:
        """After what came before."""
        reader = self.reader()
        reader.hang_up()
        self.reactor.doIteration(1)
        self.reactor.doIteration(1)
        self.assertEqual(reader.got, [b"x"])
        self.assertTrue(reader.lost[0].check(ConnectionDone))

    def test_reactor_waits_for_as_long_as_it_takes_when_it_is_not_told(self) -> None:
        """Here something is there."""
        reader = self.reader()
        self.reactor.doIteration(None)
        self.assertEqual(reader.got, [b"x"])
