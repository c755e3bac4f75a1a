"""Tests of ``clasp_relay.net.outbox``."""

from __future__ import annotations

import tracemalloc

from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.ports import Audience, Frame
from clasp_relay.errors import CloseCode, ErrorCode
from clasp_relay.net.frames import CODEC, wire_bytes
from clasp_relay.net.observer import Counters
from clasp_relay.net.outbox import CLOSED, MAX_SNAPSHOTS, Outbox, Sink
from clasp_relay.net.turn import TurnWriter
from tests.core.world import one_turn
from tests.net.helpers import (
    ENDLESS,
    FakeConnection,
    Pipe,
    datas,
    drop,
    error_payload,
    keep,
    packed,
    param,
    payload,
    server_frames,
)

BOUND = 200_000
TOO_SLOW = error_payload(ErrorCode.OVERLOADED, "too slow")


class Bench:
    """One session over a pipe, bounded to 200 kB."""

    def __init__(self, room_bytes: int = ENDLESS) -> None:
        self.reactor = MemoryReactorClock()
        self.writer = TurnWriter(self.reactor)
        self.pipe = Pipe(self.reactor, room_bytes)
        self.connection = FakeConnection(self.pipe)
        self.outbox = Outbox(self.connection, self.writer, BOUND)
        self.pipe.registerProducer(self.outbox, True)

    def send(self, *frames: Frame) -> None:
        """Sends frames in one turn."""
        for frame in frames:
            self.outbox.send(frame)
        one_turn(self.reactor)

    def drain(self) -> list[bytes]:
        """Lets the peer read all, and returns the messages that it got."""
        for _ in range(50):
            self.pipe.drain()
            one_turn(self.reactor)
        return datas(server_frames(bytes(self.pipe.taken)))

    def block(self) -> None:
        """Has the transport ask for a pause, with 70 kB in its buffer."""
        self.send(keep(bytes(70_000)))
        self.pipe.taken.clear()


def numbered(count: int, size: int) -> list[Frame]:
    """Returns frames that are never dropped."""
    return [keep(b"%d " % number + bytes(size)) for number in range(count)]


class SlowConsumerTests(SynchronousTestCase):
    def test_outbox_keeps_everything_below_the_bound(self) -> None:
        """A pause alone costs a session nothing: old values of a param arrive too."""
        bench = Bench(room_bytes=0)
        bench.block()
        frames = [param("/a", b"%d" % number + bytes(1000)) for number in range(100)]
        bench.send(*frames)
        self.assertEqual(bench.drain()[1:], [payload(frame) for frame in frames])
        self.assertEqual(bench.writer.counters.coalesced, 0)

    def test_outbox_coalesces_params_above_the_bound(self) -> None:
        """Of a param that changes without end, a slow session gets the newest value, and lives."""
        bench = Bench(room_bytes=0)
        bench.block()
        for number in range(1000):
            bench.send(param("/a", b"%d" % number + bytes(1000)), *([keep(b"event")] if number == 500 else []))
        got = bench.drain()[1:]
        self.assertTrue(got[-1].startswith(b"999"))
        self.assertIn(b"event", got)
        self.assertLess(len(got), 200)
        self.assertEqual(bench.writer.counters.coalesced, 1001 - len(got))
        self.assertEqual(bench.connection.events, [])

    def test_outbox_counts_what_the_transport_buffers(self) -> None:
        """The bound is about all that the peer has not taken: behind 70 kB in the transport, 70 kB less may wait."""
        bench = Bench(room_bytes=0)
        bench.block()
        bench.send(*(param("/a", bytes(1000)) for _ in range(128)))
        self.assertEqual(bench.writer.counters.coalesced, 0)
        bench.send(*(param("/a", bytes(1000)) for _ in range(4)))
        self.assertGreater(bench.writer.counters.coalesced, 0)

    def test_outbox_has_room_again_when_the_transport_passed_some_on(self) -> None:
        """What has left the transport's buffer no longer counts, even before it asks for more."""
        bench = Bench(room_bytes=0)
        bench.block()
        bench.pipe.room_bytes = 60_000
        bench.pipe.doWrite()
        bench.send(*(param("/a", bytes(1000)) for _ in range(170)))
        self.assertEqual(bench.writer.counters.coalesced, 0)

    def test_outbox_drops_streams_oldest_first(self) -> None:
        """A stream that is too fast loses its oldest values."""
        bench = Bench(room_bytes=0)
        bench.block()
        bench.send(*(drop(b"%d" % number + bytes(1000)) for number in range(300)))
        got = [int(data.rstrip(b"\0")) for data in bench.drain()[1:]]
        self.assertEqual(got, list(range(300 - len(got), 300)))
        self.assertEqual(bench.writer.counters.dropped, 300 - len(got))

    def test_outbox_ends_a_session_that_is_too_slow(self) -> None:
        """Events over the bound: what waits is thrown away, ERROR 503 and Close 1013 follow, and an end is set."""
        bench = Bench(room_bytes=0)
        bench.block()
        bench.send(*numbered(300, 1000))
        self.assertEqual(bench.connection.events, ["expect_end", (CloseCode.TRY_AGAIN_LATER, "too slow")])
        bench.send(keep(b"later"))
        bench.outbox.send_snapshot("k", packed(b"later"))
        bench.outbox.close(CloseCode.NORMAL, "later")
        self.assertEqual(bench.drain()[1:], [TOO_SLOW])
        self.assertEqual(len(bench.connection.events), 2)
        self.assertEqual(bench.writer.counters.slow_closes, 1)

    def test_outbox_does_not_call_a_session_slow_that_takes_everything(self) -> None:
        """However much one turn brings: what the socket takes does not wait."""
        bench = Bench()
        frames = numbered(1000, 1000)
        bench.outbox.send_snapshot("k", packed(b"snapshot"))
        bench.send(*frames)
        self.assertEqual(bench.drain(), [b"snapshot", *(payload(frame) for frame in frames)])
        self.assertEqual(bench.connection.events, [])

    def test_session_that_keeps_up_is_not_ended_for_what_piles_up_behind_a_snapshot(self) -> None:
        """The snapshot is encoded in our pace, a piece in each turn; what comes meanwhile waits for us."""
        bench = Bench()
        pieces = [b"p" + bytes(60_000) for _ in range(20)]
        frames = numbered(600, 1000)
        bench.outbox.send_snapshot("k", packed(*pieces))
        for start in range(0, 600, 100):
            bench.send(*frames[start : start + 100])
        got = bench.drain()
        self.assertEqual([data[:10] for data in got], [data[:10] for data in (*pieces, *map(payload, frames))])
        self.assertEqual((bench.connection.events, bench.connection.slow_bytes), ([], []))

    def test_pause_does_not_count_what_piled_up_while_the_session_kept_up(self) -> None:
        """Only what comes while the peer takes nothing is bounded."""
        bench = Bench(room_bytes=400_000)
        bench.outbox.send_snapshot("k", packed(*(bytes(60_000) for _ in range(10))))
        frames = numbered(400, 1000)
        bench.send(*frames)
        for _ in range(10):
            one_turn(bench.reactor)
        bench.send(*frames[:20])
        self.assertEqual(bench.connection.events, [])
        bench.send(*frames[:200])
        self.assertEqual(bench.connection.events[-1], (CloseCode.TRY_AGAIN_LATER, "too slow"))

    def test_outbox_bounds_the_memory_of_many_small_frames(self) -> None:
        """A frame of 13 bytes takes many times that while it waits: it counts for what it costs."""
        for make in (keep, drop, lambda data: param(data.decode(), data)):
            with self.subTest(make):
                bench = Bench(room_bytes=0)
                bench.block()
                bench.outbox.send(make(b"%09d" % 0))
                tracemalloc.start()
                try:
                    for number in range(BOUND // 13):
                        bench.outbox.send(make(b"%09d" % number))
                    _, peak_bytes = tracemalloc.get_traced_memory()
                finally:
                    tracemalloc.stop()
                self.assertLess(peak_bytes, 5 * BOUND)

    def test_outbox_bounds_a_run_of_a_fan_out_too(self) -> None:
        """A slow session in an audience is coalesced; a quick one gets everything."""
        bench = Bench(room_bytes=0)
        bench.block()
        pipe = Pipe(bench.reactor)
        quick = Outbox(FakeConnection(pipe), bench.writer, BOUND)
        audience = Audience(CODEC, (bench.outbox, quick))
        for number in range(600):
            bench.writer.fan_out(audience, param(f"/{number % 2}", b"%d" % number + bytes(1000)))
        one_turn(bench.reactor)
        self.assertEqual(len(datas(server_frames(bytes(pipe.taken)))), 600)
        got = bench.drain()[1:]
        self.assertTrue(got[-2].startswith(b"598"))
        self.assertTrue(got[-1].startswith(b"599"))
        self.assertLess(len(got), 250)

    def test_outbox_does_not_count_snapshots(self) -> None:
        """A newcomer's snapshot may be larger than the bound; updates stand behind it."""
        bench = Bench(room_bytes=0)
        bench.block()
        pieces = [bytes(60_000) for _ in range(20)]
        bench.outbox.send_snapshot("k", packed(*pieces))
        bench.send(keep(b"update"))
        self.assertEqual(bench.drain()[1:], [*pieces, b"update"])

    def test_outbox_encodes_nothing_of_a_snapshot_while_paused(self) -> None:
        """What a peer does not read is not made."""
        bench = Bench(room_bytes=0)
        bench.block()
        encoded: list[int] = []
        bench.outbox.send_snapshot("k", (encoded.append(number) or wire_bytes(b"p") for number in range(3)))  # type: ignore[func-returns-value]
        one_turn(bench.reactor)
        self.assertEqual(encoded, [])
        bench.drain()
        self.assertEqual(encoded, [0, 1, 2])

    def test_outbox_ends_a_session_that_asks_for_snapshots_without_reading(self) -> None:
        """Snapshots are not counted in bytes, but in number they have a limit."""
        bench = Bench(room_bytes=0)
        bench.block()
        for number in range(MAX_SNAPSHOTS + 1):
            bench.outbox.send_snapshot(number, packed(b"p"))
        self.assertEqual(bench.connection.events[-1], (CloseCode.TRY_AGAIN_LATER, "too slow"))


class DiscardTests(SynchronousTestCase):
    """What was sent and is not on its way yet is dropped."""

    def revoke(self, bench: Bench) -> None:
        """Does what the core does when a session's token ends."""
        bench.outbox.discard()
        bench.outbox.send_error(ErrorCode.TOKEN_EXPIRED, "revoked")
        bench.outbox.close(CloseCode.POLICY_VIOLATION, "revoked")
        one_turn(bench.reactor)

    def test_revoked_session_gets_nothing_more_of_a_snapshot(self) -> None:
        """The ERROR and the close do not stand behind megabytes that wait for a peer that reads slowly."""
        bench = Bench(room_bytes=0)
        bench.block()
        bench.outbox.send_snapshot("k", packed(*(bytes(60_000) for _ in range(500))))
        bench.send(keep(b"event"), param("/a", b"value"))
        self.revoke(bench)
        self.assertEqual(bench.drain()[1:], [error_payload(ErrorCode.TOKEN_EXPIRED, "revoked")])
        self.assertEqual(bench.connection.events, ["expect_end", (CloseCode.POLICY_VIOLATION, "revoked")])

    def test_revoked_session_that_keeps_up_gets_nothing_more_of_this_turn(self) -> None:
        """Neither its own frames nor its part of the runs, in which the others get everything."""
        bench = Bench()
        pipe = Pipe(bench.reactor)
        other = Outbox(FakeConnection(pipe), bench.writer, BOUND)
        both, first, second = (
            Audience(CODEC, outboxes) for outboxes in ((bench.outbox, other), (bench.outbox,), (other,))
        )
        bench.outbox.send(keep(b"own"))
        bench.writer.fan_out(first, keep(b"a"))
        bench.writer.fan_out(second, keep(b"b"))
        bench.writer.fan_out(both, keep(b"c"))
        bench.outbox.send(keep(b"own too"))
        bench.outbox.send_snapshot("k", packed(b"snapshot"))
        bench.outbox.discard()
        bench.writer.fan_out(both, keep(b"d"), exclude=bench.outbox)
        bench.outbox.send_error(ErrorCode.TOKEN_EXPIRED, "revoked")
        bench.outbox.close(CloseCode.POLICY_VIOLATION, "revoked")
        bench.writer.fan_out(both, keep(b"e"))
        self.assertEqual(bench.drain(), [error_payload(ErrorCode.TOKEN_EXPIRED, "revoked")])
        self.assertEqual(datas(server_frames(bytes(pipe.taken))), [b"b", b"c", b"d", b"e"])
        self.assertEqual(bench.connection.events[-1], (CloseCode.POLICY_VIOLATION, "revoked"))

    def test_what_is_sent_after_a_discard_follows_as_usual(self) -> None:
        """In its order, snapshots included."""
        bench = Bench()
        bench.outbox.send_snapshot("k", packed(b"old"))
        bench.outbox.discard()
        bench.outbox.send_snapshot("k", packed(b"new"))
        bench.send(keep(b"event"))
        self.assertEqual(bench.drain(), [b"new", b"event"])
        self.assertTrue(bench.outbox.is_drained)

    def test_discard_keeps_a_close_that_was_decided(self) -> None:
        """It comes sooner, in whatever it stood."""
        for in_a_run in (False, True):
            with self.subTest(in_a_run=in_a_run):
                bench = Bench()
                if in_a_run:
                    bench.writer.fan_out(Audience(CODEC, (bench.outbox,)), keep(b"event"))
                bench.outbox.send_snapshot("k", packed(b"snapshot"))
                bench.outbox.close(CloseCode.NORMAL, "bye")
                bench.outbox.discard()
                self.assertEqual(bench.drain(), [])
                self.assertEqual(bench.connection.events, ["expect_end", (CloseCode.NORMAL, "bye")])
                bench.outbox.discard()


class Capture:
    """Frames whose maker keeps an account of what it holds for them.

    Args:
        messages: what they are.
    """

    def __init__(self, *messages: bytes) -> None:
        self.frames = packed(*messages)
        self.closes = 0

    def __iter__(self) -> Capture:
        return self

    def __next__(self) -> bytes:
        return next(self.frames)

    def close(self) -> None:
        """Is told that nobody wants the rest."""
        self.closes += 1


class GivenUpTests(SynchronousTestCase):
    """Whoever made the frames of a snapshot is told when the rest of them is not wanted any more."""

    def setUp(self) -> None:
        """A peer that reads nothing."""
        self.bench = Bench(room_bytes=0)
        self.bench.block()
        self.capture = Capture(b"a", b"b")

    def test_snapshot_that_a_newer_one_replaces_is_closed(self) -> None:
        """The newer one is not, and neither is one that was sent to its end."""
        newer, other = Capture(b"c"), Capture(b"d")
        for key, capture in (("k", self.capture), ("other", other), ("k", newer)):
            self.bench.outbox.send_snapshot(key, capture)
        self.assertEqual(self.bench.drain()[1:], [b"d", b"c"])
        self.assertEqual((self.capture.closes, newer.closes, other.closes), (1, 0, 0))

    def test_snapshots_of_a_session_that_ends_are_closed(self) -> None:
        """Whatever ends it, each once."""
        for end in (
            lambda bench: bench.outbox.discard(),
            lambda bench: bench.outbox.abort(),
            lambda bench: bench.pipe.lose(),
            lambda bench: bench.send(*numbered(300, 1000)),
        ):
            self.setUp()
            self.bench.outbox.send_snapshot("k", self.capture)
            end(self.bench)
            self.assertEqual(self.capture.closes, 1)
            self.bench.outbox.close_now()
            self.assertEqual(self.capture.closes, 1)

    def test_snapshot_that_stands_in_a_run_is_closed(self) -> None:
        """When it is discarded before the end of the turn."""
        bench = Bench()
        bench.writer.fan_out(Audience(CODEC, (bench.outbox,)), keep(b"event"))
        bench.outbox.send_snapshot("k", self.capture)
        bench.outbox.discard()
        self.assertEqual((bench.drain(), self.capture.closes), ([], 1))

    def test_snapshot_for_a_session_that_is_closed_is_closed(self) -> None:
        """Nothing is held for it."""
        self.bench.outbox.close(CloseCode.NORMAL, "bye")
        self.bench.outbox.send_snapshot("k", self.capture)
        self.assertEqual(self.capture.closes, 1)

    def test_snapshot_that_fails_to_close_harms_nobody(self) -> None:
        """It is logged."""
        self.patch(self.capture, "close", lambda: 1 // 0)
        self.bench.outbox.send_snapshot("k", self.capture)
        self.bench.outbox.discard()
        self.assertEqual(self.bench.drain()[1:], [])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class CloseTests(SynchronousTestCase):
    def test_outbox_closes_behind_all_that_was_sent(self) -> None:
        """The Close comes when everything before was handed over, and nothing comes after it."""
        bench = Bench(room_bytes=0)
        bench.block()
        frames = numbered(100, 1000)
        for frame in frames:
            bench.outbox.send(frame)
        bench.outbox.close(CloseCode.POLICY_VIOLATION, "bye")
        bench.outbox.close(CloseCode.NORMAL, "again")
        bench.send(keep(b"later"))
        self.assertEqual(bench.connection.events, ["expect_end"])
        self.assertFalse(bench.outbox.is_drained)
        self.assertEqual(bench.drain()[1:], [payload(frame) for frame in frames])
        self.assertEqual(bench.connection.events, ["expect_end", (CloseCode.POLICY_VIOLATION, "bye")])
        self.assertTrue(bench.outbox.is_drained)

    def test_outbox_takes_nothing_behind_a_close_that_waits(self) -> None:
        """Traffic of an audience that the session is still in neither piles up nor makes it too slow."""
        bench = Bench(room_bytes=0)
        bench.block()
        bench.outbox.close(CloseCode.NORMAL, "bye")
        audience = Audience(CODEC, (bench.outbox,))
        for frame in numbered(300, 1000):
            bench.writer.fan_out(audience, frame)
        one_turn(bench.reactor)
        self.assertEqual(bench.writer.counters.slow_closes, 0)
        bench.drain()
        self.assertEqual(bench.connection.events, ["expect_end", (CloseCode.NORMAL, "bye")])

    def test_outbox_sends_an_error_in_the_codec_of_its_connection(self) -> None:
        """The literal bytes of an ERROR without an address, in a WebSocket message."""
        bench = Bench()
        bench.outbox.send_error(ErrorCode.OVERLOADED, "slow")
        bench.drain()
        self.assertEqual(bytes(bench.pipe.taken), b"\x82\x0e\x53\x01\x00\x0a\x51\x01\xf7\x00\x04slow\x00")
        bench.pipe.lose()
        bench.outbox.send_error(ErrorCode.OVERLOADED, "slow")

    def test_outbox_hands_over_this_turns_frames_before_a_close_of_the_protocol(self) -> None:
        """An ACK that is due is not lost when the peer closes in the same turn."""
        bench = Bench()
        bench.outbox.send(keep(b"ack"))
        bench.writer.fan_out(Audience(CODEC, (bench.outbox,)), keep(b"event"))
        bench.outbox.flush_and_close()
        bench.send(keep(b"later"))
        self.assertEqual(bench.drain(), [b"ack", b"event"])
        bench.outbox.flush_and_close()
        self.assertTrue(bench.outbox.is_closing)

    def test_outbox_does_nothing_once_the_session_is_gone(self) -> None:
        """After the connection's end every call is harmless, and the transport is not touched."""
        bench = Bench(room_bytes=0)
        bench.block()
        bench.send(keep(b"waits"))
        bench.pipe.lose()
        writes = bench.pipe.writes
        bench.outbox.close(CloseCode.NORMAL, "bye")
        bench.outbox.resumeProducing()
        bench.writer.fan_out(Audience(CODEC, (bench.outbox,)), keep(b"event"))
        bench.send(keep(b"later"))
        bench.outbox.abort()
        self.assertEqual((bench.pipe.writes, bench.connection.events), (writes, []))

    def test_outbox_ends_its_session_when_it_cannot_be_written_to(self) -> None:
        """A fault while putting something in the queue is logged and ends this session; the caller goes on."""
        bench = Bench(room_bytes=0)
        bench.block()

        def raise_error(*_: object) -> bytes:
            raise ZeroDivisionError

        self.patch(bench.pipe, "write", raise_error)
        bench.send(*numbered(300, 1000))
        self.assertEqual(len(self.flushLoggedErrors(TypeError, ZeroDivisionError)), 1)
        self.assertTrue(bench.outbox.is_closing)


class TransportTests(SynchronousTestCase):
    def test_outbox_hands_over_in_pieces_and_stops_when_asked(self) -> None:
        """A turn of 1 MB reaches a transport that asks for a pause in small pieces; the rest can still be coalesced."""
        bench = Bench(room_bytes=100_000)
        bench.send(*(param("/a", bytes(1000)) for _ in range(1000)))
        self.assertLess(len(bench.pipe.dataBuffer) + bench.pipe._tempDataLen, 200_000)
        self.assertGreater(bench.writer.counters.coalesced, 600)

    def test_outbox_keeps_a_snapshot_behind_a_turn_that_is_cut_short(self) -> None:
        """What was sent before a snapshot in the same turn stands before it, even when a pause comes in between."""
        bench = Bench(room_bytes=10_000)
        frames = numbered(4, 40_000)
        for frame in frames:
            bench.outbox.send(frame)
        bench.outbox.send_snapshot("k", packed(b"snapshot"))
        bench.send(keep(b"last"))
        self.assertEqual(bench.drain(), [*(payload(frame) for frame in frames), b"snapshot", b"last"])

    def test_outbox_loses_nothing_between_two_pieces(self) -> None:
        """A pause in the middle of a turn leaves every frame in its place."""
        bench = Bench(room_bytes=10_000)
        frames = numbered(150, 1000)
        bench.send(*frames)
        self.assertIsNotNone(bench.outbox.backlog)
        self.assertEqual(bench.drain(), [payload(frame) for frame in frames])

    def test_outbox_writes_to_any_transport(self) -> None:
        """TLS and others get the same bytes through write, and are estimated by the piece that they hold."""
        reactor = MemoryReactorClock()
        transport = StringTransport()
        writer = TurnWriter(reactor)
        outbox = Outbox(FakeConnection(transport), writer, BOUND)
        outbox.send(keep(b"a"))
        one_turn(reactor)
        outbox.pauseProducing()
        for _ in range(1000):
            outbox.send(param("/a", bytes(1000)))
        self.assertEqual(transport.value(), b"\x82\x01a")
        self.assertGreater(writer.counters.coalesced, 700)
        outbox.resumeProducing()
        one_turn(reactor)
        self.assertGreater(len(transport.value()), 1000)


class PongTests(SynchronousTestCase):
    def test_outbox_answers_the_last_ping_of_a_peer_that_did_not_read(self) -> None:
        """Pongs do not pile up; the last one is sent once the peer reads."""
        bench = Bench(room_bytes=0)
        self.assertTrue(bench.outbox.may_pong(b"0"))
        bench.block()
        self.assertFalse(bench.outbox.may_pong(b"1"))
        self.assertFalse(bench.outbox.may_pong(b"2"))
        bench.drain()
        self.assertEqual(bench.connection.events, [b"2"])
        self.assertTrue(bench.outbox.may_pong(b"3"))


class SinkTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Makes a sink over TCP."""
        self.pipe = Pipe(MemoryReactorClock())
        self.sink = Sink(self.pipe, Counters())

    def test_sink_writes_to_the_socket_at_once(self) -> None:
        """Over plain TCP nothing waits for the reactor's next turn."""
        self.sink.write(b"abc")
        self.assertEqual((bytes(self.pipe.taken), self.pipe._tempDataLen), (b"abc", 0))

    def test_sink_leaves_to_the_transport_what_the_socket_does_not_take(self) -> None:
        """No byte is lost or sent twice, and what comes later stands behind."""
        self.pipe.room_bytes = 2
        self.sink.write(b"abc")
        self.sink.write(b"def")
        self.assertEqual((bytes(self.pipe.taken), self.sink.buffered_bytes), (b"ab", 4))
        self.pipe.drain(1)
        self.assertEqual((bytes(self.pipe.taken), self.sink.buffered_bytes), (b"abc", 3))
        self.pipe.drain()
        self.assertEqual((bytes(self.pipe.taken), self.sink.buffered_bytes), (b"abcdef", 0))

    def test_sink_leaves_a_broken_socket_to_the_reactor(self) -> None:
        """An error of the socket ends the connection as the reactor does it."""
        self.pipe.is_broken = True
        self.sink.write(b"a")
        self.assertTrue(self.pipe.connected)
        self.pipe.drain()
        self.assertFalse(self.pipe.connected)

    def test_sink_does_not_overtake_a_connection_that_is_closing(self) -> None:
        """The transport decides what becomes of bytes after ``loseConnection``."""
        self.pipe.loseConnection()
        self.sink.write(b"a")
        self.assertEqual(self.pipe.writes, 0)

    def test_sink_writes_to_any_transport(self) -> None:
        """Of those that do not tell, the last piece is taken as what they hold."""
        transport = StringTransport()
        sink = Sink(transport, Counters())
        sink.write(b"abc")
        sink.write(b"de")
        self.assertEqual((transport.value(), sink.buffered_bytes), (b"abcde", 2))

    def test_sink_that_is_closed_takes_nothing(self) -> None:
        """Writing to it is harmless."""
        CLOSED.write(b"a")
        self.assertEqual(CLOSED.buffered_bytes, 0)
