"""Tests of ``clasp_relay.net.turn``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.ports import NOT_YET, Audience
from clasp_relay.errors import CloseCode
from clasp_relay.net import turn as turn_module
from clasp_relay.net.backlog import NOT_YET_BYTES, Batch, Close, Snapshot
from clasp_relay.net.frames import CODEC, wire_bytes
from clasp_relay.net.outbox import Outbox
from clasp_relay.net.turn import (
    DELAY_PER_SESSION_S,
    MAX_DELAY_S,
    PUMP_S,
    RUN_BYTES,
    SNAPSHOT_BYTES,
    SNAPSHOT_SHARE_BYTES,
    Run,
    TurnWriter,
)
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import Result, SignalDefinition
from tests.core.world import one_turn
from tests.net.helpers import ENDLESS, FakeConnection, Pipe, datas, keep, packed, payload, server_frames

BIG = 1 << 30


def raise_error() -> None:
    """Fails as nobody expects."""
    raise ZeroDivisionError


class Bench:
    """A writer and some sessions over pipes."""

    def __init__(self, sessions: int, room_bytes: int = ENDLESS, bound_bytes: int = BIG) -> None:
        self.reactor = MemoryReactorClock()
        self.writer = TurnWriter(self.reactor)
        self.pipes = [Pipe(self.reactor, room_bytes) for _ in range(sessions)]
        self.connections = [FakeConnection(pipe) for pipe in self.pipes]
        self.outboxes = [Outbox(connection, self.writer, bound_bytes) for connection in self.connections]
        for pipe, outbox in zip(self.pipes, self.outboxes, strict=True):
            pipe.registerProducer(outbox, True)

    def turn(self) -> None:
        """Ends this turn of the event loop."""
        one_turn(self.reactor)

    def settle(self) -> None:
        """Lets everything through."""
        for _ in range(200):
            for pipe in self.pipes:
                if pipe.connected:
                    pipe.drain()
            if not self.reactor.getDelayedCalls():
                return
            self.turn()
        raise AssertionError("the writer never comes to rest")

    def got(self, session: int) -> list[bytes]:
        """Returns the messages that a session got."""
        return datas(server_frames(bytes(self.pipes[session].taken)))


class TurnWriterTests(SynchronousTestCase):
    def test_writer_writes_once_per_turn_for_all_messages_of_the_turn(self) -> None:
        """Each session is written to with one call at the end of the turn."""
        bench = Bench(3)
        audience = Audience(CODEC, tuple(bench.outboxes))
        for number in range(5):
            bench.writer.fan_out(audience, keep(b"%d" % number))
            bench.outboxes[0].send(keep(b"own"))
        self.assertEqual([pipe.writes for pipe in bench.pipes], [0, 0, 0])
        bench.turn()
        self.assertEqual([pipe.writes for pipe in bench.pipes], [1, 1, 1])
        self.assertEqual(bench.got(1), [b"0", b"1", b"2", b"3", b"4"])
        self.assertEqual(bench.got(0), [b"0", b"own", b"1", b"own", b"2", b"own", b"3", b"own", b"4", b"own"])

    def test_writer_leaves_out_the_excluded(self) -> None:
        """The sender of a PUBLISH does not get it, wherever it stands in the run."""
        bench = Bench(2)
        audience = Audience(CODEC, tuple(bench.outboxes))
        for number, exclude in enumerate((bench.outboxes[0], None, bench.outboxes[1], bench.outboxes[0])):
            bench.writer.fan_out(audience, keep(b"%d" % number), exclude)
        bench.turn()
        self.assertEqual(bench.got(0), [b"1", b"2"])
        self.assertEqual(bench.got(1), [b"0", b"1", b"3"])

    def test_writer_ignores_an_excluded_session_outside_the_audience(self) -> None:
        """Excluding somebody who would not get it anyway changes nothing for that session."""
        bench = Bench(2)
        bench.writer.fan_out(Audience(CODEC, (bench.outboxes[0],)), keep(b"a"), bench.outboxes[1])
        bench.outboxes[1].send(keep(b"b"))
        bench.turn()
        self.assertEqual([bench.got(0), bench.got(1)], [[b"a"], [b"b"]])

    def test_writer_waits_while_there_is_more_to_read(self) -> None:
        """But not for long: what others say meanwhile goes out with it, in one write to each of many sessions."""
        thread_s = 0.0
        self.patch(turn_module, "thread_time", lambda: thread_s)
        for sessions in (1, 100, 2 * round(MAX_DELAY_S / DELAY_PER_SESSION_S)):
            bench = Bench(sessions)
            audience = Audience(CODEC, tuple(bench.outboxes))
            delay_s = min(sessions * DELAY_PER_SESSION_S, MAX_DELAY_S)
            for is_behind_for_s in (0.5 * delay_s, 2 * delay_s):
                with self.subTest(sessions=sessions, is_behind_for_s=is_behind_for_s):
                    began, had, waited_s = bench.pipes[0].writes, len(bench.got(0)), 0.0
                    vars(bench.reactor)["is_behind"] = True
                    for number in range(100):
                        bench.writer.fan_out(audience, keep(b"%d" % number))
                        bench.turn()
                        if bench.pipes[0].writes != began:
                            break
                        # Other processes have the machine for most of the time.
                        bench.reactor.rightNow += delay_s
                        thread_s += delay_s / 8
                        waited_s += delay_s / 8
                        vars(bench.reactor)["is_behind"] = waited_s < is_behind_for_s
                    self.assertEqual(bench.pipes[0].writes, began + 1)
                    self.assertGreaterEqual(waited_s, 0.99 * min(is_behind_for_s, delay_s))
                    self.assertLessEqual(waited_s, 1.2 * delay_s)
                    self.assertEqual(len(bench.got(0)) - had, number + 1)

    def test_writer_waits_while_read_messages_are_unhandled(self) -> None:
        """What one connection's slice of a turn leaves goes out with what was handled, in one write to each."""
        bench = Bench(10)
        audience = Audience(CODEC, tuple(bench.outboxes))
        self.patch(turn_module, "thread_time", lambda: 0.0)
        bench.writer.unhandled = unhandled = [object()]
        for data in (b"first", b"second"):
            bench.writer.fan_out(audience, keep(data))
            bench.turn()
            self.assertEqual(bench.pipes[0].writes, 0)
        unhandled.clear()
        bench.turn()
        self.assertEqual([pipe.writes for pipe in bench.pipes], [1] * 10)
        self.assertEqual(bench.got(0), [b"first", b"second"])

    def test_writer_waits_for_answers_to_many_sessions_alike(self) -> None:
        """What goes to one session each counts as what goes to many."""
        bench = Bench(10)
        thread_s = 0.0
        self.patch(turn_module, "thread_time", lambda: thread_s)
        vars(bench.reactor)["is_behind"] = True
        for count in range(10):
            bench.outboxes[count].send(keep(b"answer"))
            bench.turn()
            thread_s += 0.9 * DELAY_PER_SESSION_S
        self.assertEqual([pipe.writes for pipe in bench.pipes], [0] * 10)
        thread_s += DELAY_PER_SESSION_S
        bench.turn()
        self.assertEqual([pipe.writes for pipe in bench.pipes], [1] * 10)

    def test_writer_schedules_nothing_for_nobody(self) -> None:
        """A message without an audience costs no turn."""
        bench = Bench(0)
        bench.writer.fan_out(Audience(CODEC, ()), keep(b"a"))
        self.assertEqual(bench.reactor.getDelayedCalls(), [])

    def test_writer_shares_the_bytes_of_a_run(self) -> None:
        """What a run costs does not depend on the number of its sessions: all get the same object."""
        bench = Bench(2)
        audience = Audience(CODEC, tuple(bench.outboxes))
        bench.writer.fan_out(audience, keep(b"a"))
        bench.writer.fan_out(audience, keep(b"b"))
        bench.writer.flush_runs()
        first, second = (outbox.pending for outbox in bench.outboxes)
        self.assertEqual(len(first), 1)
        self.assertIs(first[0], second[0])

    def test_writer_joins_what_goes_to_the_same_audience_around_what_goes_to_others(self) -> None:
        """Two rooms that talk at the same time make two runs and not one for each message."""
        bench = Bench(4)
        one, two = Audience(CODEC, tuple(bench.outboxes[:2])), Audience(CODEC, tuple(bench.outboxes[2:]))
        for number in range(20):
            bench.writer.fan_out(one if number % 2 else two, keep(b"%d" % number), bench.outboxes[number % 4])
        self.assertEqual(len(bench.writer.runs), 2)
        bench.turn()
        self.assertEqual([pipe.writes for pipe in bench.pipes], [1, 1, 1, 1])
        self.assertEqual(bench.got(1), [b"%d" % number for number in range(3, 20, 4)])

    def test_writer_ends_a_run_where_one_of_its_sessions_gets_something_else(self) -> None:
        """The session that both audiences have reads all in order."""
        bench = Bench(3)
        one, two, both = (
            Audience(CODEC, tuple(bench.outboxes[at : at + length])) for at, length in ((0, 1), (2, 1), (0, 2))
        )
        for number, audience in enumerate((one, two, both, one, two)):
            bench.writer.fan_out(audience, keep(b"%d" % number))
        self.assertEqual([run.audience for run in bench.writer.runs], [one, two, both, one])
        bench.turn()
        self.assertEqual([bench.got(number) for number in range(3)], [[b"0", b"2", b"3"], [b"2"], [b"1", b"4"]])

    def test_writer_bounds_the_length_of_runs(self) -> None:
        """Long ones would make indivisible pieces."""
        bench = Bench(1)
        one = Audience(CODEC, tuple(bench.outboxes))
        for _ in range(4):
            bench.writer.fan_out(one, keep(bytes(RUN_BYTES // 2)))
        self.assertEqual(len(bench.writer.runs), 2)

    def test_writer_keeps_one_sessions_error_from_the_others(self) -> None:
        """A transport that raises ends its own session only."""
        bench = Bench(3)

        bench.pipes[1].on_send = raise_error
        bench.writer.fan_out(Audience(CODEC, tuple(bench.outboxes)), keep(b"a"))
        bench.turn()
        self.assertEqual([bench.got(0), bench.got(2)], [[b"a"], [b"a"]])
        self.assertEqual(bench.connections[1].events, ["abort"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_writer_tells_the_others_of_a_session_that_ended_by_an_error(self) -> None:
        """What its end makes goes out, though it came while the turn was written."""
        bench = Bench(2)
        both = Audience(CODEC, tuple(bench.outboxes))
        bench.pipes[0].on_send = raise_error
        self.patch(bench.connections[0], "abort", lambda: bench.writer.fan_out(both, keep(b"gone")))
        bench.writer.fan_out(both, keep(b"a"))
        bench.settle()
        self.assertEqual(bench.got(1), [b"a", b"gone"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_writer_answers_who_sent_before_it_writes_to_many(self) -> None:
        """So that the next message is made meanwhile."""
        bench = Bench(3)
        order: list[int] = []
        for number, pipe in enumerate(bench.pipes):
            pipe.on_send = partial(order.append, number)
        bench.writer.fan_out(Audience(CODEC, tuple(bench.outboxes[:2])), keep(b"a"))
        bench.outboxes[2].send(keep(b"ack"))
        bench.turn()
        self.assertEqual(order, [2, 0, 1])

    def test_writer_goes_on_when_a_snapshot_has_nothing_yet(self) -> None:
        """In the next turn, and with what else is there in this one."""
        bench = Bench(2)
        worked: list[int] = []
        pieces = SNAPSHOT_SHARE_BYTES // NOT_YET_BYTES

        def frames() -> Iterator[bytes]:
            for number in range(3 * pieces):
                worked.append(number)
                yield NOT_YET
            yield wire_bytes(b"at last")

        bench.outboxes[0].send_snapshot("k", frames())
        bench.outboxes[1].send(keep(b"other"))
        for turn in range(1, 4):
            bench.turn()
            self.assertEqual((len(worked), bench.got(0), bench.got(1)), (turn * pieces, [], [b"other"]))
        bench.settle()
        self.assertEqual(bench.got(0), [b"at last"])

    def test_writer_shares_a_turn_among_snapshots_that_have_nothing_yet(self) -> None:
        """A few work in one turn, and all of them in turn."""
        bench = Bench(12)
        worked: list[int] = []

        def frames(session: int) -> Iterator[bytes]:
            for _ in range(16):
                worked.append(session)
                yield NOT_YET

        for session, outbox in enumerate(bench.outboxes):
            outbox.send_snapshot("k", frames(session))
        bench.turn()
        self.assertEqual(len(worked), SNAPSHOT_BYTES // NOT_YET_BYTES)
        bench.turn()
        bench.turn()
        self.assertEqual(set(worked), set(range(12)))

    def test_writer_works_for_snapshots_for_a_time_only(self) -> None:
        """However long a piece takes; the sessions go on in turn."""
        bench = Bench(6)
        worked: list[int] = []

        def frames(session: int) -> Iterator[bytes]:
            for _ in range(4):
                worked.append(session)
                bench.reactor.rightNow += PUMP_S * 0.6
                yield wire_bytes(b"x")

        for session, outbox in enumerate(bench.outboxes):
            outbox.send_snapshot("k", frames(session))
        bench.turn()
        self.assertEqual(worked, [0, 0])
        bench.turn()
        bench.turn()
        self.assertEqual(worked, [0, 0, 1, 1, 2, 2])
        bench.settle()
        self.assertEqual([len(bench.got(session)) for session in range(6)], [4] * 6)

    def test_writer_writes_once_in_a_turn_to_a_session_of_two_runs(self) -> None:
        """And to one that got something of its own between them."""
        bench = Bench(3)
        first, second = Audience(CODEC, tuple(bench.outboxes[:2])), Audience(CODEC, tuple(bench.outboxes))
        bench.writer.fan_out(first, keep(b"a"))
        bench.outboxes[2].send(keep(b"own"))
        bench.writer.fan_out(second, keep(b"b"))
        bench.turn()
        self.assertEqual([pipe.writes for pipe in bench.pipes], [1, 1, 1])
        self.assertEqual([bench.got(number) for number in range(3)], [[b"a", b"b"], [b"a", b"b"], [b"own", b"b"]])
        self.assertEqual(bench.writer.counters.sent_bytes, sum(len(pipe.taken) for pipe in bench.pipes))

    def test_writer_keeps_an_error_while_draining_from_the_others(self) -> None:
        """A transport that raises while a snapshot is written ends its own session only."""
        bench = Bench(2)

        bench.pipes[0].on_send = raise_error
        for outbox in bench.outboxes:
            outbox.send_snapshot("k", packed(b"snapshot"))
        bench.settle()
        self.assertEqual(bench.got(1), [b"snapshot"])
        self.assertEqual(bench.connections[0].events, ["abort"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_writer_encodes_snapshots_in_bounded_pieces_and_in_turn(self) -> None:
        """However many snapshots wait, one turn encodes a bounded amount, and every session gets its share."""
        bench = Bench(12)
        encoded: list[int] = []

        def frames(session: int) -> Iterator[bytes]:
            for _ in range(16):
                encoded.append(session)
                yield wire_bytes(bytes(16 * 1024))

        for session, outbox in enumerate(bench.outboxes):
            outbox.send_snapshot("k", frames(session))
        bench.turn()
        self.assertLessEqual(len(encoded) * 16 * 1024, SNAPSHOT_BYTES + SNAPSHOT_SHARE_BYTES)
        bench.turn()
        bench.turn()
        self.assertEqual(set(encoded), set(range(12)))
        bench.settle()
        self.assertEqual([len(bench.got(session)) for session in range(12)], [16] * 12)

    def test_snapshots_of_client_addresses_are_encoded_in_turn(self) -> None:
        """Though one of them has so many sessions that each turn has time for a share of one of them only."""
        bench = Bench(100)
        encoded: list[int] = []

        def frames(session: int, pieces: int) -> Iterator[bytes]:
            for _ in range(pieces):
                encoded.append(session)
                bench.reactor.rightNow += PUMP_S
                yield wire_bytes(bytes(1024))

        *crowd, newcomer = range(100)
        for session in crowd:
            bench.connections[session].lane = "192.0.2.66"
            bench.outboxes[session].send_snapshot("k", frames(session, 50))
        for _ in range(5):
            bench.turn()
        encoded.clear()
        bench.outboxes[newcomer].send_snapshot("k", frames(newcomer, 5))
        for _ in range(12):
            bench.turn()
        self.assertEqual((len(encoded), encoded.count(newcomer)), (12, 5))
        # And of the crowd all in turn.
        self.assertEqual(len(set(encoded)), 12 - 5 + 1)
        self.assertEqual(len(bench.got(newcomer)), 5)


class ResultTests(SynchronousTestCase):
    """Long answers to QUERYs take the way of snapshots."""

    def signals(self, session: int, query: int) -> Iterator[SignalDefinition]:
        """Yields what one QUERY finds."""
        for number in range(8_000):
            yield SignalDefinition(f"/session/{session}/query/{query}/signal/{number:05d}", Signal.PARAM)

    def test_queries_of_several_sessions_are_answered_in_turn(self) -> None:
        """However much each of them asked for: all of it arrives, and nobody waits for another one's end."""
        bench = Bench(4, room_bytes=50_000, bound_bytes=100_000)
        for session, outbox in enumerate(bench.outboxes):
            for query in range(3):
                outbox.send_snapshot(query, CODEC.result(self.signals(session, query)))
            outbox.send(keep(b"\0last"))
        for _ in range(3):
            bench.turn()
        begun = [len(pipe.taken) for pipe in bench.pipes]
        self.assertEqual(begun, [50_000] * 4)
        bench.settle()
        for session, connection in enumerate(bench.connections):
            *answers, last = bench.got(session)
            self.assertEqual(last, b"\0last")
            results = [cast("Result", CODEC.decode(data)[0]) for data in answers]
            found = [definition for result in results for definition in result.signals]
            expected = [definition for query in range(3) for definition in self.signals(session, query)]
            self.assertEqual([each.address for each in found], [each.address for each in expected])
            self.assertEqual(connection.events, [])


class Naive:
    """Does each step to a bench, and appends what it sends to a list per session, as the simplest relay would."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.audiences = [
            Audience(CODEC, tuple(bench.outboxes[index] for index in members))
            for members in ((0, 1, 2), (1, 2, 3), (4,), (0, 4))
        ]
        self.expected: list[list[bytes]] = [[] for _ in bench.outboxes]
        self.closed: set[int] = set()

    def expect(self, session: int, *messages: bytes) -> None:
        """Expects messages, unless the session was closed."""
        if session not in self.closed:
            self.expected[session] += messages

    def fan_out(self, number: int, which: int, session: int, size: int) -> None:
        """Sends to an audience; every third time one is excluded."""
        audience, data = self.audiences[which], b"%d " % number + bytes(size)
        exclude = self.bench.outboxes[session] if number % 3 == 0 else None
        self.bench.writer.fan_out(audience, keep(data), exclude)
        for index, outbox in enumerate(self.bench.outboxes):
            if outbox in audience.members and outbox is not exclude:
                self.expect(index, data)

    def send(self, number: int, _: int, session: int, size: int) -> None:
        """Sends to one session."""
        data = b"%d " % number + bytes(size)
        self.bench.outboxes[session].send(keep(data))
        self.expect(session, data)

    def snapshot(self, number: int, which: int, session: int, size: int) -> None:
        """Sends a snapshot of none to three pieces."""
        pieces = [b"%d.%d " % (number, piece) + bytes(size) for piece in range(which)]
        self.bench.outboxes[session].send_snapshot(number, packed(*pieces))
        self.expect(session, *pieces)

    def close(self, _number: int, _which: int, session: int, _size: int) -> None:
        """Closes a session."""
        self.bench.outboxes[session].close(CloseCode.NORMAL, "bye")
        self.closed.add(session)

    def discard(self, _number: int, _which: int, session: int, _size: int) -> None:
        """Drops all that the transport does not have yet."""
        pipe, left = self.bench.pipes[session], self.expected[session]
        on_its_way = len(pipe.taken) + len(pipe.dataBuffer) - pipe.offset + pipe._tempDataLen
        self.bench.outboxes[session].discard()
        while sum(len(wire_bytes(message)) for message in left) > on_its_way:
            left.pop()

    def turn(self, *_: int) -> None:
        """Ends the turn."""
        self.bench.turn()

    def block(self, _number: int, _which: int, session: int, size: int) -> None:
        """Has a peer read no more than a little."""
        self.bench.pipes[session].room_bytes = size * 4

    def drain(self, _number: int, _which: int, session: int, size: int) -> None:
        """Has a peer read some."""
        self.bench.pipes[session].drain(size * 10)


Step = tuple[str, int, int, int]


class OrderTests(SynchronousTestCase):
    @settings(max_examples=300)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(
                    [
                        "fan_out",
                        "fan_out",
                        "fan_out",
                        "send",
                        "send",
                        "snapshot",
                        "turn",
                        "block",
                        "drain",
                        "close",
                        "discard",
                    ]
                ),
                st.integers(0, 3),
                st.integers(0, 4),
                st.sampled_from([1, 10, 200, 30_000]),
            ),
            max_size=60,
        )
    )
    def test_session_gets_everything_in_the_order_of_the_calls(self, steps: list[Step]) -> None:
        """Whatever is sent by whichever way, and whoever is slow: each session reads the order of the calls."""
        naive = Naive(Bench(5))
        for number, (what, which, session, size) in enumerate(steps):
            getattr(naive, what)(number, which, session, size)
        naive.bench.settle()
        for session, messages in enumerate(naive.expected):
            self.assertEqual(bytes(naive.bench.pipes[session].taken), b"".join(map(wire_bytes, messages)))
            closes = [event for event in naive.bench.connections[session].events if event != "expect_end"]
            self.assertEqual(closes, [(CloseCode.NORMAL, "bye")] if session in naive.closed else [])


class RunTests(SynchronousTestCase):
    """What each session gets of it."""

    def setUp(self) -> None:
        """Three sessions, none of which gets anything by itself."""
        reactor = MemoryReactorClock()
        writer = TurnWriter(reactor)
        self.outboxes = [Outbox(FakeConnection(Pipe(reactor)), writer, BIG) for _ in range(3)]
        self.run_ = Run(Audience(CODEC, tuple(self.outboxes)))

    def add(self, *messages: bytes) -> None:
        """Adds messages for everybody."""
        for message in messages:
            frame = keep(message)
            self.run_.frames.append(frame)
            self.run_.wires.append(frame.wire)

    def read(self, item: object) -> list[bytes]:
        """Returns the messages of a piece, which are the same as frames and on the wire."""
        assert isinstance(item, Batch)
        self.assertEqual(datas(server_frames(item.wire)), [payload(frame) for frame in item.frames])
        return datas(server_frames(item.wire))

    def test_whole_run_is_one_piece_for_those_without_edits(self) -> None:
        """All of them, when there is none."""
        self.add(b"a", b"b")
        self.assertEqual(self.read(self.run_.whole()), [b"a", b"b"])
        self.assertEqual(self.run_.others(), tuple(self.outboxes))
        self.run_.edit(self.outboxes[1], None)
        self.assertEqual(self.run_.others(), [self.outboxes[0], self.outboxes[2]])

    def test_own_frames_and_missing_ones_make_no_more_pieces(self) -> None:
        """The sender of the second message has an answer to it in its place."""
        sender = self.outboxes[0]
        self.add(b"a")
        self.run_.edit(sender, None)
        self.add(b"b")
        self.run_.edit(sender, keep(b"own"))
        self.add(b"c", b"d")
        self.run_.edit(sender, None)
        self.add(b"e")
        (item,) = self.run_.edited(sender)
        self.assertEqual(self.read(item), [b"a", b"own", b"c", b"d"])
        own = self.run_.own_bytes(sender)
        self.assertEqual(datas(server_frames(own or b"")), [b"a", b"own", b"c", b"d"])

    def test_snapshot_and_close_stand_between_pieces(self) -> None:
        """Each at its place; there is no piece without a message."""
        session = self.outboxes[0]
        snapshot, close = Snapshot("key", iter(())), Close(CloseCode.NORMAL, "bye")
        self.run_.edit(session, snapshot)
        self.add(b"a", b"b")
        self.run_.edit(session, close)
        first, second, third = self.run_.edited(session)
        self.assertIs(first, snapshot)
        self.assertEqual(self.read(second), [b"a", b"b"])
        self.assertIs(third, close)
        self.assertIsNone(self.run_.own_bytes(session))
        self.run_.discard(session)
        self.add(b"c")
        self.assertEqual(datas(server_frames(self.run_.own_bytes(session) or b"")), [b"c"])

    def test_who_gets_nothing_gets_no_piece(self) -> None:
        """As the only one who spoke."""
        self.run_.edit(self.outboxes[0], None)
        self.add(b"a")
        self.assertEqual(self.run_.edited(self.outboxes[0]), [])
        self.assertEqual(self.run_.own_bytes(self.outboxes[0]), b"")
