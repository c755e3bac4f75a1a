"""CLASP over plain TCP: frames behind their length, in pieces and several at once; the rest is as over WebSocket."""

from __future__ import annotations

import struct

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.doors.door import DoorCounts
from clasp_relay.doors.stream import StreamFactory
from clasp_relay.doors.tcp import CODEC, TcpConnection
from clasp_relay.errors import ErrorCode
from clasp_relay.net.admission import NetLimits
from clasp_relay.wire.codec import decode, encode
from clasp_relay.wire.constants import MAX_FRAME_BYTES
from clasp_relay.wire.frame import decode_frame, encode_frame
from clasp_relay.wire.messages import (
    Ack,
    Error,
    Hello,
    Message,
    Ping,
    Pong,
    Set,
    Snapshot,
    Subscribe,
    Welcome,
)
from clasp_relay.wire.values import encode_value
from tests.doors.site import DoorClient, Site


def framed(message: Message, qos: int = 0) -> bytes:
    """Returns a message as a board sends it."""
    frame = encode_frame(encode(message), qos)
    return struct.pack(">I", len(frame)) + frame


def messages(data: bytes) -> list[Message]:
    """Takes what a board gets apart."""
    found = []
    while data:
        (length,) = struct.unpack_from(">I", data)
        found.append(decode(decode_frame(data[4 : 4 + length]).payload))
        data = data[4 + length :]
    return found


class TcpTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A relay with this door."""
        self.site = Site(NetLimits(max_sessions=3))
        self.counts = DoorCounts("tcp")
        self.factory = StreamFactory(self.site.gate, self.counts, lambda: TcpConnection(self.site.gate, self.counts))

    def join(self) -> DoorClient:
        """Returns a board past HELLO."""
        board = self.site.connect(self.factory)
        board.send(framed(Hello(1, 0, "board")))
        board.heard()
        return board

    def test_board_says_hello_and_is_welcome(self) -> None:
        """WELCOME and the first SNAPSHOT, each behind its length."""
        board = self.site.connect(self.factory)
        board.send(framed(Hello(1, 0, "board")))
        welcome, snapshot = messages(board.heard())
        self.assertIsInstance(welcome, Welcome)
        self.assertEqual(snapshot, Snapshot(()))
        self.assertEqual((self.counts.clients, self.counts.messages), (1, 1))

    def test_length_is_four_bytes_big_endian(self) -> None:
        """The literal bytes of a PING, and of the PONG that answers it."""
        board = self.join()
        board.send(bytes.fromhex("00000005 53010001 41"))
        self.assertEqual(board.heard().hex(" "), "00 00 00 05 " + encode_frame(encode(Pong())).hex(" "))
        self.assertEqual(encode_frame(encode(Ping())).hex(" "), "53 01 00 01 41")

    def test_frames_may_come_in_pieces_and_together(self) -> None:
        """TCP keeps no boundaries."""
        data = framed(Set("/a", encode_value(1)), 1) + framed(Set("/b", encode_value(2)), 1)
        for size in (1, 3, len(data)):
            with self.subTest(size=size):
                board = self.join()
                board.send(*(data[at : at + size] for at in range(0, len(data), size)))
                acked = messages(board.heard())
                self.assertEqual([each.address for each in acked if isinstance(each, Ack)], ["/a", "/b"])
                board.pipe.lose()

    def test_boards_and_browsers_hear_each_other(self) -> None:
        """One state, whatever the transport."""
        board, browser = self.join(), self.site.clasp()
        board.send(framed(Subscribe(1, "/a/**")))
        self.site.say(browser, Set("/a/b", encode_value("from the browser")))
        self.assertEqual(messages(board.heard())[-1], Set("/a/b", encode_value("from the browser"), 1))
        self.site.say(browser, Subscribe(1, "/c"))
        browser.clear()
        board.send(framed(Set("/c", encode_value(7))))
        self.assertEqual(decode(decode_frame(browser.frames[-1][1]).payload), Set("/c", encode_value(7), 1))

    def test_all_boards_get_the_same_bytes(self) -> None:
        """Their codec is one object, so a message to many is encoded once."""
        boards = [self.join(), self.join()]
        for board in boards:
            board.send(framed(Subscribe(1, "/a")))
            board.heard()
        self.assertIs(boards[0].protocol.codec, CODEC)
        self.site.relay.accept(
            self.site.relay.sessions.get(boards[0].protocol.session_id) or self.fail(), Set("/a", encode_value(1)), 0
        )
        self.assertEqual(boards[0].heard(), boards[1].heard())

    def test_frame_that_is_too_long_ends_the_session(self) -> None:
        """Before it has come: an ERROR that says the limit, then the end."""
        board = self.join()
        board.send(struct.pack(">I", MAX_FRAME_BYTES + 1))
        (error,) = messages(board.heard())
        assert isinstance(error, Error)
        self.assertEqual(error.error, ErrorCode.FRAME)
        self.assertIn(str(MAX_FRAME_BYTES), error.message)
        self.assertTrue(board.is_closed)
        self.assertEqual(self.counts.refused, 1)
        board.send(framed(Ping()))
        self.assertEqual(board.heard(), b"")

    def test_bad_frame_is_refused_and_the_session_lives(self) -> None:
        """The next frame is found by the length of the bad one, also behind an empty one."""
        board = self.join()
        board.send(struct.pack(">I", 3) + b"abc" + struct.pack(">I", 0) + framed(Ping()))
        first, second, pong = messages(board.heard())
        for error in (first, second):
            assert isinstance(error, Error)
            self.assertEqual(error.error, ErrorCode.FRAME)
        self.assertEqual(pong, Pong())

    def test_what_follows_the_end_is_not_read(self) -> None:
        """A first message that is no HELLO ends the session."""
        board = self.site.connect(self.factory)
        board.send(framed(Ping()) + framed(Hello(1, 0, "late")))
        (error,) = messages(board.heard())
        assert isinstance(error, Error)
        self.assertEqual((error.error, self.counts.messages), (ErrorCode.MESSAGE, 1))
        self.assertTrue(board.is_closed)

    def test_silent_board_is_pinged_and_ended(self) -> None:
        """With a CLASP PING; whoever answers stays."""
        quiet, awake = self.join(), self.join()
        for _ in range(12):
            self.site.turn(30)
            awake.send(framed(Pong()))
        self.assertIn(Ping(), messages(quiet.heard()))
        self.assertTrue(quiet.is_closed)
        self.assertFalse(awake.is_closed)

    def test_board_that_hangs_up_ends_its_session(self) -> None:
        """At once."""
        board = self.join()
        self.assertEqual(len(self.site.relay.sessions), 1)
        board.pipe.lose(clean=True)
        self.site.turn()
        self.assertEqual((len(self.site.relay.sessions), self.counts.clients), (0, 0))
